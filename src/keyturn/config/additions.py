"""Adds a key to the env file: the next number, a backup that overwrites none, the file replaced whole."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from keyturn.errors import ConfigError, KeyturnError
from keyturn.providers import CATALOG

from .credentials import add_custom_names, key_flaw, key_variables
from .environment import env_file_asked_for, merge, read_env_file
from .folder import write_private
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
    values, _ = merge(environ, file if file.exists() else None, cwd)
    settings = Settings(values, Names(), Report(values))
    add_custom_names(settings)
    prefix = provider.upper().replace("-", "_")
    name = settings.names.find(prefix)
    if name is None:
        near = settings.names.nearest(prefix)
        wanted = f"did you mean {near.lower()}?" if near else f"set {prefix}_API_BASE to its URL first"
        raise UnknownProvider(f"no provider is called {provider}; {wanted}")
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
    try:
        before = file.read_bytes() if file.exists() else b""
        ending = b"\r\n" if b"\r\n" in before else b"\n"
        start = ending if before and not before.endswith((b"\n", b"\r")) else b""
        line = f"{variable}={_quoted(secret)}".encode()
        backup = _back_up(file, stamp) if file.exists() else None
        mode = file.stat().st_mode & 0o777 if file.exists() else 0o600
        write_private(file, before + start + line + ending)
        file.chmod(mode)
    except OSError as error:
        raise ConfigError([f"{file}: {error.strerror}; nothing was changed"]) from error
    values, _ = read_env_file(file, file.name)
    if variable not in values or values[variable].text != secret:
        write_private(file, before)
        file.chmod(mode)
        raise ConfigError([f"{file}: a quote in it is never closed, so the new line would be lost; close it first"])
    return backup


def _quoted(secret: str) -> str:
    if PLAIN.match(secret):
        return secret
    escaped = secret.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _back_up(file: Path, stamp: str) -> Path:
    """A private copy beside the file, under a name that was free."""
    content = file.read_bytes()
    for attempt in range(1000):
        backup = file.with_name(f"{file.name}.bak.{stamp}" + (f".{attempt}" if attempt else ""))
        try:
            descriptor = os.open(backup, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            continue
        with os.fdopen(descriptor, "wb") as copy:
            copy.write(content)
            copy.flush()
            os.fsync(copy.fileno())
        return backup
    raise FileExistsError(17, "too many backups of this second")
