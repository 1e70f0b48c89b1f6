"""Puts a new models.yaml in the place of the one in use, and keeps the entries that only the old one has.

The new file's text is taken as it stands; preserved entries follow at the end of their sections, with the comments
above them. The new file is removed once the backup and the result are on the disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from keyturn.errors import ConfigError

from .backups import reason, remove_source, rewrite, sole_writer
from .initial import shipped
from .names import Names
from .rehearsal import mistakes_with

if TYPE_CHECKING:
    from .yamledit import Entry, YamlFile
    from .yamltree import Node

FILE = "models.yaml"
SECTIONS = {"providers": "mapping", "provider_routes": "sequence", "aliases": "mapping", "models": "mapping"}
"""What is merged entry by entry, and how it is written; any other section is the new file's."""

EXPECTED = b"""\
providers:
  groq:
    kind: http
    base_url: https://api.groq.com/openai/v1
    env_key: GROQ_API_KEY
  together:
    kind: http
    base_url: https://api.together.ai/v1
    env_key: TOGETHER_API_KEY
  openrouter:
    kind: http
    base_url: https://openrouter.ai/api/v1
    env_key: OPENROUTER_API_KEY
  google_ai_studio:
    kind: http
    base_url: https://generativelanguage.googleapis.com
    api_keys: [${GOOGLE_API_KEY_1}, ${GOOGLE_API_KEY_2}, ${GOOGLE_API_KEY_3}, ${GOOGLE_API_KEY_4}, ${GOOGLE_API_KEY_5}]
    rotation: { strategy: round_robin, cooldown_seconds: 60 }
"""
"""Providers that models.yaml has after a merge. Plain: the plan of somebody's keys is not ours to guess."""

EXPECTED_TOOLS = ("codex_cli", "claude_code")
"""The same, as the shipped models.yaml has them."""


class ModelsMerge(NamedTuple):
    """What a merge did."""

    file: Path
    backup: Path | None
    """The file as it was, None when there was none."""
    kept: dict[str, tuple[str, ...]]
    """Section -> entries of the old file that the new one lacks."""
    added: tuple[str, ...]
    """Expected providers that neither had."""
    dropped: tuple[str, ...]
    """Sections of the old file that are gone."""
    source_left: str | None
    """Why the new file is still there, None when it is gone."""


def merge_models(
    environ: Mapping[str, str],
    env_file: Path | None,
    cwd: Path,
    folder: Path,
    source: Path,
    *,
    stamp: str,
    keep_source: bool = False,
) -> ModelsMerge:
    """Puts *source* in the place of models.yaml in *folder*. *stamp* names the backup.

    Raises ConfigError when either file is broken, when the result would not load or cannot be written; both files are
    then as they were.
    """
    from .yamledit import YamlFile

    file = (cwd / folder / FILE).resolve()
    source = cwd / source
    try:
        if file.exists() and source.exists() and file.samefile(source):
            raise ConfigError([f"{source}: is {FILE} itself; name the file to merge into it"])
        content = source.read_bytes()
        file.parent.mkdir(parents=True, exist_ok=True)
        with sole_writer(file.parent):
            before = file.read_bytes() if file.exists() else None
            merged = Merged(YamlFile(content, str(source)), YamlFile(before or b"", str(file)))
            after = merged.new.encoded()
            if mistakes := mistakes_with(environ, env_file, cwd, file, after):
                raise ConfigError([*mistakes, f"So would it be with {source} merged; nothing was changed."])
            backup = rewrite(file, before, after, stamp, mode=source.stat().st_mode & 0o666)
    except OSError as error:
        raise ConfigError([f"{error.filename or file}: {reason(error)}; nothing was changed"]) from error
    return ModelsMerge(
        file=file,
        backup=backup,
        kept={section: tuple(names) for section, names in merged.kept.items() if names},
        added=tuple(merged.added),
        dropped=tuple(name for name in merged.old.data if name not in merged.new.data),
        source_left="as you asked" if keep_source else remove_source(source, content),
    )


class Merged:
    """The new file with what it lacks; what was kept and added, by name."""

    def __init__(self, new: YamlFile, old: YamlFile) -> None:
        if not new.data:
            raise ConfigError([f"{new.shown}: is empty; nothing was changed"])
        self.new = new
        self.old = old
        self.kept: dict[str, list[str]] = {}
        self.added: list[str] = []
        self._names = Names()
        self._expected = dict(new.data)
        present = {section: set(self._present(section)) for section in SECTIONS}
        for section, form in SECTIONS.items():
            entries = self._kept(section, form, present[section])
            if section == "providers":
                entries += self._missing(present[section])
            new.append(section, entries, () if new.kind(section) else old.comments_of(section))
        new.apply()
        if new.data != self._expected:
            raise ConfigError(
                [f"{new.shown}: cannot be merged: what is kept of {old.shown} would read differently in it. Write "
                 "anchors and text blocks out in both; nothing was changed"]
            )  # fmt: skip

    def _present(self, section: str) -> Iterable[object]:
        """What the new file has of a section, under any of its spellings, or says elsewhere."""
        for key, value, _ in self.new.entries(section):
            yield from self._identities(section, key, value)
        if section in ("models", "provider_routes"):
            other = "models" if section == "provider_routes" else "provider_routes"
            for key, value, _ in self.new.entries(other):
                yield from (each for each in self._identities(other, key, value) if isinstance(each, tuple))
        if section == "aliases":
            for _, value, _ in self.new.entries("provider_routes"):
                names = value.get("aliases")
                yield from (each.text for each in names.children) if names is not None else ()

    def _identities(self, section: str, key: str, value: Node) -> list[object]:
        if section == "providers":
            return [self._canonical(key)]
        if section == "aliases":
            return [key]
        if section == "models":
            return [key, (key, self._canonical(_text(value, "provider_name")))]
        several = value.get("providers")
        providers = [each.text for each in several.children] if several is not None else [_text(value, "provider")]
        name = _text(value, "id")
        return [(name, self._canonical(provider)) for provider in providers] if name else [repr(value.text)]

    def _canonical(self, provider: str) -> str:
        capitals = provider.upper().replace("-", "_")
        return self._names.find(capitals) or capitals.lower()

    def _kept(self, section: str, form: str, present: set[object]) -> list[Entry]:
        kinds = {self.new.kind(section), self.old.kind(section)} - {None, form}
        if kinds:
            raise ConfigError([f"{self.new.shown}: {section} must be a {form} in both files; nothing was changed"])
        entries = []
        for index, (key, value, entry) in enumerate(self.old.entries(section)):
            identities = self._identities(section, key, value)
            if key == "<<" or present.intersection(identities):
                continue
            if section == "providers":
                present.update(identities)
            entries.append(entry)
            self._note(section, key or _text(value, "id") or "an entry", key or index, self.old)
        return entries

    def _missing(self, present: set[object]) -> list[Entry]:
        """Expected providers that neither file has."""
        from .yamledit import YamlFile

        entries = []
        for expected in (YamlFile(EXPECTED, "expected"), YamlFile(shipped(FILE), "shipped")):
            for key, _, entry in expected.entries("providers"):
                wanted = expected.shown == "expected" or key in EXPECTED_TOOLS
                if wanted and self._canonical(key) not in present:
                    entries.append(entry)
                    self.added.append(key)
                    self._expect("providers", key, expected)
        return entries

    def _note(self, section: str, name: str, place: str | int, of: YamlFile) -> None:
        self.kept.setdefault(section, []).append(name)
        self._expect(section, place, of)

    def _expect(self, section: str, place: str | int, of: YamlFile) -> None:
        """The result, read as data, has this entry of *of*."""
        if isinstance(place, str):
            self._expected[section] = {**(self._expected.get(section) or {}), place: of.data[section][place]}
        else:
            self._expected[section] = [*(self._expected.get(section) or []), of.data[section][place]]


def _text(node: Node, name: str) -> str:
    found = node.get(name)
    return found.text if found is not None else ""
