"""The process environment and the env file, merged: the only place that reads either."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping
from pathlib import Path

from dotenv.parser import Binding, parse_stream

from keyturn.errors import ConfigError

from .report import Value

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
FROM_ENVIRONMENT = "environment"


def environment() -> dict[str, str]:
    """A copy of the process environment."""
    return dict(os.environ)


def env_file_asked_for(environ: Mapping[str, str], env_file: Path | None, cwd: Path) -> Path | None:
    """*env_file*, else what `PROXY_ENV` names; None when neither says anything."""
    named = environ.get("PROXY_ENV", "").strip()
    if env_file is None and named:
        env_file = Path(named)
    return None if env_file is None else cwd / env_file


def choose_env_file(environ: Mapping[str, str], env_file: Path | None, cwd: Path) -> Path | None:
    """The env file to read: the one asked for, else `.env` in *cwd* if there is one.

    Raises ConfigError when one that was asked for is missing.
    """
    asked = env_file_asked_for(environ, env_file, cwd)
    if asked is None:
        usual = cwd / ".env"
        return usual if usual.is_file() else None
    if not asked.exists() or asked.is_dir():  # a pipe will do: --env-file <(decrypt .env)
        raise ConfigError([f"{'--env-file' if env_file is not None else 'PROXY_ENV'}: there is no file {asked}"])
    return asked


def value_of(environ: Mapping[str, str], env_file: Path | None, cwd: Path, name: str) -> str:
    """What one variable is set to, in *environ* or the env file; empty when it is not. Raises ConfigError."""
    values, _ = merge(environ, choose_env_file(environ, env_file, cwd), cwd)
    return values[name].text.strip() if name in values else ""


def merge(environ: Mapping[str, str], env_file: Path | None, cwd: Path) -> tuple[dict[str, Value], list[str]]:
    """All variables with their origin, and notes. What is set in *environ*, even to nothing, is never overridden."""
    values: dict[str, Value] = {}
    notes: list[str] = []
    if env_file is not None:
        values, notes = read_env_file(env_file, _shown(env_file, cwd))
    for name, text in environ.items():
        values[name] = Value(text, FROM_ENVIRONMENT)
    return values, notes


def read_env_file(path: Path, shown: str) -> tuple[dict[str, Value], list[str]]:
    """The variables of an env file; quotes, `export`, comments, CRLF and a BOM as usual, `$` as it stands.

    Raises ConfigError when the file cannot be read. A line that is no assignment is noted and skipped; its text is
    never quoted, for it may be a key.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError([f"{shown}: is not UTF-8 text; save it as UTF-8"]) from error
    except OSError as error:
        raise ConfigError([f"{shown}: {error.strerror}"]) from error
    return parse_env(text, shown)


def parse_env(text: str, shown: str) -> tuple[dict[str, Value], list[str]]:
    """The same for text that is at hand."""
    values: dict[str, Value] = {}
    notes: list[str] = []
    for binding in parse_stream(io.StringIO(text, newline="")):
        place = f"{shown}:{line_of(binding)}"
        if binding.key is None and not binding.error:
            continue
        if binding.error or binding.key is None or binding.value is None or not NAME.match(binding.key):
            notes.append(f"{place}: is not NAME=value (perhaps a quote that is never closed); the line was skipped")
            continue
        earlier = values.get(binding.key)
        if earlier is not None and earlier.text.strip() and earlier.text != binding.value:
            notes.append(f"{place}: {binding.key} was already set at {earlier.origin}; the later line counts")
        values[binding.key] = Value(binding.value, place)
    return values, notes


def line_of(binding: Binding) -> int:
    """The line of the name itself: the parser counts from the blank lines before it."""
    text = binding.original.string
    leading = text[: len(text) - len(text.lstrip())]
    return binding.original.line + len(re.findall(r"\r\n|\n|\r", leading))


def _shown(path: Path, cwd: Path) -> str:
    return str(path.relative_to(cwd)) if path.is_relative_to(cwd) else str(path)
