"""Adds callers to callers.yaml and takes them out; a caller's key is made here, shown once, and kept as a hash only."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from keyturn.core import Redactor, Secret
from keyturn.errors import ConfigError, KeyturnError
from keyturn.providers import nearest

from .backups import reason, rewrite, sole_writer
from .environment import NAME
from .folder import CALLER_KEY_PREFIX
from .rehearsal import mistakes_with

if TYPE_CHECKING:
    from .yamledit import Entry, YamlFile

FILE = "callers.yaml"
DEFAULT = "default"
CALLER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")
PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*\Z")
NOT_TEXT = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}
"""Words that YAML takes for something else when they stand without quotes."""

HEADER = """\
# Who may ask, for what, and how much. Only hashes of keys stand here: a lost key is replaced, not looked up.
# `keyturn callers add NAME` and `keyturn callers revoke NAME` change this file; so may you.
"""


class CallerRow(NamedTuple):
    """One caller as callers.yaml has it. *key* tells which key it is and never what it is."""

    name: str
    key: str
    routes: tuple[str, ...] = ()
    rank: str = "normal"
    weight: float = 1.0
    rpm: int | None = None
    tpm: int | None = None
    monthly_usd: float | None = None


class AddedCaller(NamedTuple):
    """A new caller's key, for its owner only, the file that holds its hash, and the copy of that as it was before."""

    key: Secret
    file: Path
    backup: Path | None


class CallerFile:
    """callers.yaml of a folder. *stamp* (`20261121_091500`) names backups.

    Whatever raises an error leaves the file as it was.
    """

    def __init__(self, environ: Mapping[str, str], env_file: Path | None, cwd: Path, folder: Path) -> None:
        self._environ = environ
        self._env_file = env_file
        self._cwd = cwd
        self.path = (cwd / folder / FILE).resolve()

    def rows(self) -> list[CallerRow]:
        """All callers, `default` first. Raises ConfigError when the file cannot be read."""
        data = self._parsed(self._content()).data
        rows = [_row(name, entry if isinstance(entry, dict) else {}) for name, entry in data.items()]
        if DEFAULT not in data:
            rows.append(_row(DEFAULT, {}))
        return sorted(rows, key=lambda row: row.name != DEFAULT)

    def add(self, name: str, settings: Mapping[str, Any], *, stamp: str) -> AddedCaller:
        """Makes a key for a new caller. *settings* are the members of its entry beside the key.

        Raises KeyturnError for a name that cannot be, and ConfigError for settings that would not load.
        """
        if name == DEFAULT:
            raise KeyturnError(
                f"{DEFAULT} is who presents PROXY_API_KEY and gets no other key; choose another name, or write its "
                f"limits into {self.path} by hand"
            )
        if not CALLER_NAME.match(name):
            raise KeyturnError(
                "a caller's name has letters, digits, dots, dashes and underscores, at most 64, and begins with a "
                "letter or digit"
            )
        if Redactor().text(name) != name or name.startswith(CALLER_KEY_PREFIX):
            raise KeyturnError("this looks like a key; give the name of the caller, its key is made here")
        key = CALLER_KEY_PREFIX + secrets.token_urlsafe(32)
        members = {"key_hash": f"sha256:{hashlib.sha256(key.encode()).hexdigest()}", **settings}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with sole_writer(self.path.parent):
                before = self._content()
                file = self._parsed(HEADER.encode() if before is None else before)
                if name in file.data:
                    raise KeyturnError(
                        f"there is a caller {name} already; `keyturn callers revoke {name}` takes it out"
                    )
                file.append(None, [_entry(name, members, first=not file.data)])
                backup = self._write(before, file, stamp)
        except OSError as error:
            raise ConfigError([f"{error.filename or self.path}: {reason(error)}; nothing was changed"]) from error
        return AddedCaller(Secret(key), self.path, backup)

    def revoke(self, name: str, *, stamp: str) -> Path:
        """Takes a caller out; returns the copy of the file as it was. Raises KeyturnError if it is not there."""
        try:
            with sole_writer(self.path.parent):
                before = self._content()
                file = self._parsed(before)
                if before is None or name not in file.data:
                    near = nearest(name, file.data)
                    hint = f"; did you mean {near}?" if near else f"; there are {', '.join(file.data) or 'none'}"
                    raise KeyturnError(f"{self.path} has no caller {Redactor().text(name)}{hint}")
                file.remove(name)
                backup = self._write(before, file, stamp)
        except FileNotFoundError as error:
            raise KeyturnError(f"there is no {self.path}, so there is no caller to revoke") from error
        except OSError as error:
            raise ConfigError([f"{error.filename or self.path}: {reason(error)}; nothing was changed"]) from error
        assert backup is not None, "a file that was there has a backup"
        return backup

    def _content(self) -> bytes | None:
        return self.path.read_bytes() if self.path.exists() else None

    def _parsed(self, content: bytes | None) -> YamlFile:
        from .yamledit import YamlFile

        return YamlFile(content or b"", str(self.path))

    def _write(self, before: bytes | None, file: YamlFile, stamp: str) -> Path | None:
        file.apply()
        after = file.encoded()
        if mistakes := mistakes_with(self._environ, self._env_file, self._cwd, self.path, after):
            raise ConfigError([*mistakes, "So would it be with this change; nothing was changed."])
        return rewrite(self.path, before, after, stamp)


def _row(name: str, entry: Mapping[str, Any]) -> CallerRow:
    routes = entry.get("routes")
    return CallerRow(
        name=name,
        key=_shown_key(name, entry),
        routes=tuple(map(str, routes)) if isinstance(routes, list) else (),
        rank=str(entry.get("class") or "normal"),
        weight=entry.get("weight") or 1.0,
        rpm=entry.get("rpm"),
        tpm=entry.get("tpm"),
        monthly_usd=entry.get("monthly_usd"),
    )


def _shown_key(name: str, entry: Mapping[str, Any]) -> str:
    """The first of the hash, or the variable."""
    hashed, variable = str(entry.get("key_hash") or ""), str(entry.get("key_env") or "")
    if hashed.startswith("sha256:"):
        return hashed[: len("sha256:") + 6]
    if variable:
        return variable if NAME.match(variable) and Redactor().text(variable) == variable else "(not a variable)"
    return "PROXY_API_KEY" if name == DEFAULT else "none"


def _entry(name: str, members: Mapping[str, Any], *, first: bool) -> Entry:
    from .yamledit import Entry

    written = [f"{member}: {_written(value)}" for member, value in members.items()]
    key = _written(name)
    gap = () if first else ("",)
    return Entry((*gap, f"{key}:", *(f"  {line}" for line in written)), f"{key}: {{ {', '.join(written)} }}")


def _written(value: Any) -> str:
    """*value* as YAML."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_written, value))}]"
    if not isinstance(value, str):
        return json.dumps(value)
    plain = (PLAIN.match(value) and value.lower() not in NOT_TEXT) or value.startswith("sha256:")
    return value if plain else json.dumps(value, ensure_ascii=False)
