"""Writes the commented files to start from, which are part of the package, and never over anything that is there."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from keyturn.errors import ConfigError

from .backups import PRIVATE, create_whole, reason
from .environment import env_file_asked_for
from .envmerge import with_expected_names
from .schema import schema_text, shapes

SHIPPED = {
    "models.yaml": 0o644,
    "roles.yaml": 0o644,
    "limits.yaml": 0o644,
    "settings.toml": 0o644,
    "callers.yaml": PRIVATE,
}
"""File -> its mode."""

SCHEMAS = "schema"
"""The folder of the schemas that the first lines of the files refer to."""
ENV_TEMPLATE = "env.example"


class Written(NamedTuple):
    """One file, and whether it was made or had been there before and was left alone."""

    file: Path
    made: bool


def shipped(name: str) -> bytes:
    """The text of a file of the package."""
    return (files(__package__) / "shipped" / name).read_bytes()


def env_template() -> str:
    """A first `.env`: the template, with every name that a merge would add."""
    return with_expected_names(shipped(ENV_TEMPLATE).decode())


def write_initial(environ: Mapping[str, str], env_file: Path | None, cwd: Path, folder: Path) -> list[Written]:
    """Makes what is missing of the files in *folder* and the env file. Raises ConfigError when one cannot be made."""
    env = env_file_asked_for(environ, env_file, cwd) or cwd / ".env"
    wanted = [(cwd / folder / name, shipped(name), mode) for name, mode in SHIPPED.items()]
    wanted += [(cwd / folder / SCHEMAS / f"{name}.schema.json", schema_text(name).encode(), 0o644) for name in shapes()]
    wanted.append((env, env_template().encode(), PRIVATE))
    written = []
    for file, content, mode in wanted:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            written.append(Written(file, create_whole(file, content, mode)))
        except OSError as error:
            made = [each.file.name for each in written if each.made]
            so_far = f"; made before that: {', '.join(made)}" if made else ""
            raise ConfigError([f"{file}: {reason(error)}{so_far}"]) from error
    return written
