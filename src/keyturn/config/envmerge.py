"""Merges a new env file into the one in use: no value that is set is lost, what is missing is added.

Comments, order and the text of every value stay as they were; only line ends are mended. The new file is removed once
the backup and the result are on the disk.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dotenv.parser import Binding, parse_stream

from keyturn.core import Redactor
from keyturn.errors import ConfigError

from .backups import reason, remove_source, rewrite, sole_writer
from .environment import NAME, env_file_asked_for, line_of

EXPECTED = (
    "OPENROUTER_API_KEY",
    "GROQ_API_KEY",
    "TOGETHER_API_KEY",
    "DEEPSEEK_API_KEY",
    *(f"GOOGLE_API_KEY_{number}" for number in range(1, 6)),
    "DISCORD_BOT_TOKEN",
    "USE_PAID_MODELS",
)
"""Names that an env file has after a merge, blank if nothing is known."""

EXPECTED_COMMENT = "# Not set yet. Blank means unset.\n"
BEFORE_VALUE = re.compile(r"\s*(?:export[^\S\r\n]+)?(?:'[^']+'|[^=#\s]+)[^\S\r\n]*=")
QUOTED = re.compile(r"[^\S\r\n]*('(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\")", re.DOTALL)
BREAK = re.compile(r"\r+\n|\r")
OPEN_QUOTE = re.compile(r"=[^\S\r\n]*['\"]")


class EnvMerge(NamedTuple):
    """What a merge did, in names only."""

    file: Path
    backup: Path | None
    """The file as it was, None when there was none."""
    added: tuple[str, ...]
    filled: tuple[str, ...]
    """Were there, but blank."""
    kept: tuple[str, ...]
    """Were set already, to another value than the new file's."""
    blank: tuple[str, ...]
    """Of those that are expected, what has no value."""
    source_left: str | None
    """Why the new file is still there, None when it is gone."""


@dataclass(slots=True)
class Piece:
    """One assignment with the blank lines before it, or a comment, or a line that is neither."""

    text: str
    name: str | None
    value: str
    line: int
    unreadable: bool

    @property
    def blank(self) -> bool:
        return not self.value.strip()


def merge_env(
    environ: Mapping[str, str],
    env_file: Path | None,
    cwd: Path,
    source: Path,
    *,
    stamp: str,
    keep_source: bool = False,
) -> EnvMerge:
    """Merges *source* into the env file in use (*env_file*, `PROXY_ENV`, else `.env`). *stamp* names the backup.

    Raises ConfigError when either file is broken or cannot be written; both are then as they were.
    """
    file = (env_file_asked_for(environ, env_file, cwd) or cwd / ".env").resolve()
    source = cwd / source
    try:
        if file.exists() and source.exists() and file.samefile(source):
            raise ConfigError([f"{source}: is the env file itself; name the file to merge into it"])
        content = source.read_bytes()
        new = pieces_of(_text(content, source))
        _refuse_broken(new, source)
        with sole_writer(file.parent):
            before = file.read_bytes() if file.exists() else None
            old = pieces_of(_text(before or b"", file))
            merged = Merged(old, new)
            after = merged.text()
            _verify(file, old, new, after)
            backup = rewrite(file, before, after.encode(), stamp)
    except OSError as error:
        raise ConfigError([f"{error.filename or file}: {reason(error)}; nothing was changed"]) from error
    return EnvMerge(
        file=file,
        backup=backup,
        added=tuple(merged.added),
        filled=tuple(merged.filled),
        kept=tuple(merged.kept),
        blank=tuple(name for name, piece in effective(pieces_of(after)).items() if piece.blank and name in EXPECTED),
        source_left="as you asked" if keep_source else remove_source(source, content),
    )


def with_expected_names(text: str) -> str:
    """*text* of an env file, with the expected names that it lacks."""
    return Merged(pieces_of(text), []).text()


class Merged:
    """The old file's pieces with what the new ones have more."""

    def __init__(self, old: list[Piece], new: list[Piece]) -> None:
        self.added: list[str] = []
        self.filled: list[str] = []
        self.kept: list[str] = []
        self._texts = [piece.text for piece in old]
        present = effective(old)
        place = {id(piece): index for index, piece in enumerate(old)}
        blocks = dict(_with_comments(new))
        for name, piece in best(new).items():
            if name not in present:
                self.added.append(name)
                self._append(blocks[id(piece)])
            elif piece.blank:
                continue
            elif present[name].blank:
                self.filled.append(name)
                self._texts[place[id(present[name])]] = _filled(present[name].text, piece.text)
            elif present[name].value != piece.value:
                self.kept.append(name)
        missing = [name for name in EXPECTED if name not in present and name not in self.added]
        if missing:
            self._append(("\n" if self._texts else "") + EXPECTED_COMMENT)
            for name in missing:
                self._append(f"{name}=\n")

    def _append(self, text: str) -> None:
        if self._texts and not self._texts[-1].endswith("\n"):
            self._texts[-1] += "\n"
        self._texts.append(text if self._texts else text.lstrip("\n"))

    def text(self) -> str:
        return "".join(self._texts)


def pieces_of(text: str) -> list[Piece]:
    """All of *text*, cut at its assignments and comments, with its line ends mended."""
    crlf = "\r\n" in text and not re.search(r"(?<!\r)\n|\r(?!\n)", text)
    return [
        Piece(
            text=_mended(binding, crlf),
            name=binding.key if binding.value is not None else None,
            value=(binding.value or "").replace("\r\n", "\n"),
            line=line_of(binding),
            unreadable=binding.error or (binding.key is not None and binding.value is None),
        )
        for binding in parse_stream(io.StringIO(text, newline=""))
    ]


def _mended(binding: Binding, crlf: bool) -> str:
    """The piece with plain line ends. Inside quotes they are part of the value, so there they change only where the
    assignment, or the whole file, has been given the line ends of Windows."""
    text = binding.original.string
    head = BEFORE_VALUE.match(text) if binding.key is not None else None
    quoted = QUOTED.match(text, head.end()) if head else None
    if quoted is None or crlf or text.endswith("\r\n"):
        return BREAK.sub("\n", text)
    return BREAK.sub("\n", text[: quoted.start(1)]) + quoted[1] + BREAK.sub("\n", text[quoted.end(1) :])


def effective(pieces: list[Piece]) -> dict[str, Piece]:
    """The assignment that counts for each name: the last."""
    return {piece.name: piece for piece in pieces if piece.name is not None}


def best(pieces: list[Piece]) -> dict[str, Piece]:
    """For each name the last assignment that says anything, in the order of the file."""
    found: dict[str, Piece] = {}
    for piece in pieces:
        if piece.name is not None and (piece.name not in found or not piece.blank):
            found[piece.name] = piece
    return found


def _with_comments(pieces: list[Piece]) -> Iterator[tuple[int, str]]:
    """Each assignment's id, and its text with all that stands between it and the one before: its comments."""
    pending = ""
    for piece in pieces:
        pending += piece.text
        if piece.name is not None:
            bare = pending.lstrip("\n")
            start = "\n" if len(bare) < len(pending) else ""
            yield id(piece), start + bare + ("" if bare.endswith("\n") else "\n")
            pending = ""


def _filled(blank: str, given: str) -> str:
    """The blank assignment with the value of the given one, as that was written; its own comment stays."""
    value = given[_end_of_name(given) :].strip()
    end = _end_of_name(blank)
    comment = re.search(r"#[^\n]*", blank[end:])
    if comment and not re.search(r"\s#", QUOTED.sub("", value, count=1)):
        value += f"  {comment[0].rstrip()}"
    return blank[:end] + value + ("\n" if blank.endswith("\n") else "")


def _end_of_name(text: str) -> int:
    head = BEFORE_VALUE.match(text)
    assert head is not None, "an assignment has a name"
    return head.end()


def _text(content: bytes, file: Path) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError([f"{file}: is not UTF-8 text; save it as UTF-8. Nothing was changed"]) from error
    if "\0" in text:
        raise ConfigError([f"{file}: is not UTF-8 text (perhaps UTF-16); save it as UTF-8. Nothing was changed"])
    return text


def _refuse_broken(new: list[Piece], source: Path) -> None:
    """A merge takes everything of the new file, or nothing. The text of a broken line may be a key: it is not shown."""
    redactor = Redactor()
    problems = []
    for piece in new:
        if piece.unreadable or (piece.name is not None and not NAME.match(piece.name)):
            said = "is not NAME=value (perhaps a quote that is never closed)"
        elif piece.name is not None and redactor.text(piece.name) != piece.name:
            said = "has what looks like a key where its name should stand"
        else:
            continue
        problems.append(f"{source}:{piece.line}: {said}; mend the line, nothing was changed")
    if problems:
        raise ConfigError(problems)


def _verify(file: Path, old: list[Piece], new: list[Piece], after: str) -> None:
    """Reads the result back: a quote that the old file never closes may swallow what stands below it."""
    present = effective(old)
    given = {name: piece.value for name, piece in best(new).items() if name not in present or not piece.blank}
    kept = {name: piece.value for name, piece in present.items() if name not in given or not piece.blank}
    expected = dict.fromkeys(EXPECTED, "") | given | kept
    pieces = pieces_of(after)
    found = {name: piece.value for name, piece in effective(pieces).items()}
    open_quote = next((piece for piece in pieces if piece.unreadable and OPEN_QUOTE.search(piece.text)), None)
    if found != expected or open_quote is not None:
        place = f"{file}:{open_quote.line}" if open_quote is not None else f"{file}"
        raise ConfigError([f"{place}: a quote in it is never closed; close it first, nothing was changed"])
