"""Loads the configuration as it would be after a change, to tell its mistakes before the change is made."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from keyturn.errors import ConfigError

from .load import load
from .model import Options

READ = (".yaml", ".yml", ".toml", ".json")


def mistakes_with(
    environ: Mapping[str, str], env_file: Path | None, cwd: Path, file: Path, content: bytes
) -> list[str]:
    """What would be wrong with *content* in *file*: all of it in that file, elsewhere what is not wrong already."""
    shown = file.parent.relative_to(cwd) if file.parent.is_relative_to(cwd) else file.parent
    now = set(_mistakes(environ, env_file, cwd, file.parent)) if file.parent.is_dir() else set()
    with tempfile.TemporaryDirectory(prefix="keyturn-") as name:
        folder = Path(name)
        for each in file.parent.iterdir() if file.parent.is_dir() else ():
            if each.suffix in READ and each.is_file():
                shutil.copyfile(each, folder / each.name)
        (folder / file.name).write_bytes(content)
        rehearsed = folder.relative_to(cwd) if folder.is_relative_to(cwd) else folder
        found = [said.replace(str(rehearsed), str(shown)) for said in _mistakes(environ, env_file, cwd, folder)]
    return [said for said in found if said not in now or said.startswith(f"{shown / file.name}:")]


def _mistakes(environ: Mapping[str, str], env_file: Path | None, cwd: Path, folder: Path) -> list[str]:
    try:
        load(environ, env_file=env_file, cwd=cwd, options=Options(config=folder))
    except ConfigError as error:
        return error.problems
    return []
