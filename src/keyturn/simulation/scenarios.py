"""Scenario files: those of the user, and the examples that are part of the package."""

from __future__ import annotations

from contextlib import AbstractContextManager
from importlib.resources import as_file, files
from pathlib import Path

from keyturn.config import read_shape
from keyturn.errors import ConfigError
from keyturn.providers import nearest

from .shape import Scenario

EXAMPLES = ("day-of-100-keys", "bursts-on-ten-keys", "one-loud-caller")
"""What ships with Keyturn; each can be named instead of a file."""


def read_scenario(name: str, cwd: Path) -> tuple[Scenario, Path]:
    """The scenario in the file *name*, or the example of that name; and the folder that its own files are in.

    Raises ConfigError with every mistake at once.
    """
    path = cwd / name
    if not path.exists() and name in EXAMPLES:
        with example(name) as found:
            return read_shape(found, Scenario, found.parent), found.parent
    if not path.is_file():
        near = nearest(name, EXAMPLES)
        meant = f"; did you mean the example {near}?" if near else f"; the examples are {', '.join(EXAMPLES)}"
        raise ConfigError([f"{name}: there is no such file{meant}"])
    return read_shape(path, Scenario, cwd), path.parent


def example(name: str) -> AbstractContextManager[Path]:
    """The file of an example, for the time of a `with` block."""
    return as_file(files(__package__).joinpath("examples", f"{name}.yaml"))
