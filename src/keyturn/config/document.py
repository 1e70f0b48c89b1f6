"""A configuration file as plain data, and where in the file each part of it stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

Path = Sequence[str | int]
"""Keys and list positions from the root of a file to a part of it."""


class Mistake(Exception):
    """A file that cannot be read at all: *line* (from 1, 0 for none) and what to do about it."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line
        self.text = text


class Mark(NamedTuple):
    """A place in a file, counted from 1."""

    line: int
    column: int


class Document(Protocol):
    """What was read from one file."""

    @property
    def shown(self) -> str:
        """The file's name for messages, `config/models.yaml`."""
        ...

    @property
    def data(self) -> Any:
        """Its content, variables expanded: mappings, lists, texts, numbers, switches."""
        ...

    @property
    def mistakes(self) -> list[Mistake]:
        """What is wrong with it although it could be read."""
        ...

    def mark(self, path: Path) -> Mark:
        """Where *path* stands, or the nearest part of the file around it."""
        ...

    def raw(self, path: Path) -> str:
        """The text at *path* before variables were expanded; empty where there is none."""
        ...


def place(document: Document, path: Path = ()) -> str:
    """`config/models.yaml:12`."""
    return f"{document.shown}:{document.mark(path).line}"
