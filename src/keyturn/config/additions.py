"""Adds a key to the env file: the next number, quoted as needed, at the end."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from keyturn.errors import ConfigError, KeyturnError
from keyturn.providers import CATALOG

from .backups import rewrite, sole_writer
from .credentials import add_custom_names, key_flaw, key_variables
from .environment import env_file_asked_for, merge, parse_env
from .names import Names
from .report import Report
from .settings import Settings

PLAIN = re.compile(r"[A-Za-z0-9_.:/+@%=~-]+\Z")
"""Values that every reader of env files takes as they stand, without quotes."""


class UnknownProvider(KeyturnError):
    """No provider has the name that was given."""


class Added(NamedTuple):
    """What was done: the new variable, the file that holds it, and the copy of the file as it was before, if it was."""

    variable: str
    file: Path
    backup: Path | None


def add_key(
    environ: Mapping[str, str], env_file: Path | None, cwd: Path, *, provider: str, secret: str, stamp: str
) -> Added:
    """Appends `<P>_API_KEY_<next>` to the env file. *stamp* (`20261121_091500`) names the backup.

    Raises UnknownProvider, KeyturnError for a text that is no key or a key that is there already, and ConfigError for
    a file that cannot be written; the file is then as it was.
    """
    file = (env_file_asked_for(environ, env_file, cwd) or cwd / ".env").resolve()
    try:
        with sole_writer(file.parent):
            return _add(environ, file, cwd, provider=provider, secret=secret, stamp=stamp)
    except OSError as error:
        raise ConfigError([f"{file}: {error.strerror}; nothing was changed"]) from error


def _add(environ: Mapping[str, str], file: Path, cwd: Path, *, provider: str, secret: str, stamp: str) -> Added:
    values, _ = merge(environ, file if file.exists() else None, cwd)
    settings = Settings(values, Names(), Report(values))
    add_custom_names(settings)
    prefix = provider.upper().replace("-", "_")
    name = settings.names.find(prefix)
    if name is None:
        near = settings.names.nearest(prefix)
        wanted = f"did you mean {near.lower()}?" if near else f"set {prefix}_API_BASE to its URL first"
        raise UnknownProvider(f"no provider is called {provider}; {wanted}")
    if name in CATALOG and (tool := CATALOG[name].tool) is not None:
        raise KeyturnError(f"{name} takes no key here: {tool.argv[0]} is a program that logs in by itself")
    if flaw := key_flaw(secret):
        raise KeyturnError(flaw)
    present = [key for key in key_variables(settings) if key.provider == name]
    for key in present:
        if settings.text(key.name) == secret:
            raise KeyturnError(f"this key is already there, as {settings.report.place(key.name)}")
    number = max((key.number for key in present), default=0) + 1
    prefix = CATALOG[name].variables[0] if name in CATALOG else name.upper()
    variable = f"{prefix}_API_KEY_{number}"
    return Added(variable, file, _append(file, variable, secret, stamp))


def _append(file: Path, variable: str, secret: str, stamp: str) -> Path | None:
    before = file.read_bytes() if file.exists() else None
    present = before or b""
    ending = b"\r\n" if b"\r\n" in present else b"\n"
    start = ending if present and not present.endswith((b"\n", b"\r")) else b""
    after = present + start + f"{variable}={quoted(secret)}".encode() + ending
    values, _ = parse_env(after.decode(), file.name)
    if variable not in values or values[variable].text != secret:
        raise ConfigError([f"{file}: a quote in it is never closed, so the new line would be lost; close it first"])
    return rewrite(file, before, after, stamp)


def quoted(secret: str) -> str:
    """*secret* as the value of a line in an env file."""
    if PLAIN.match(secret):
        return secret
    escaped = secret.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
