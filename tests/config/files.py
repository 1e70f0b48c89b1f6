"""Configuration files for tests: written into a folder and loaded, with an environment of the test's own."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from keyturn.config import Config, load, notes_of
from keyturn.errors import ConfigError

NAMES = {"models": "models.yaml", "roles": "roles.yaml", "limits": "limits.yaml", "callers": "callers.yaml"}


def write(folder: Path, **files: str) -> Path:
    """Writes `config/models.yaml` and so on below *folder*, which it returns."""
    (folder / "config").mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / "config" / NAMES.get(name, "settings.toml")).write_text(dedent(text))
    return folder


def loaded(folder: Path, environ: dict[str, str] | None = None, **files: str) -> Config:
    """The configuration of *files* and *environ*; nothing of this process's environment."""
    return load({"PATH": ""} | (environ or {}), cwd=write(folder, **files))


def problems_of(folder: Path, environ: dict[str, str] | None = None, **files: str) -> list[str]:
    """What is wrong with them."""
    with pytest.raises(ConfigError) as caught:
        loaded(folder, environ, **files)
    return caught.value.problems


def notes_beside(folder: Path, environ: dict[str, str] | None = None, **files: str) -> tuple[str, ...]:
    """What is odd beside the mistakes."""
    with pytest.raises(ConfigError) as caught:
        loaded(folder, environ, **files)
    return notes_of(caught.value)
