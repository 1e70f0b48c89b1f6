"""What the settings of a tool are made of: files with what changes in them, variables, steps by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Form = Literal["json", "toml", "yaml", "env"]
Changes = Mapping[str, Any] | list[dict[str, str]]
"""What a file holds afterwards. Mappings are merged; in a list an entry takes the place of the one whose first member
is the same, or is appended."""


class Unfit(Exception):
    """A file that cannot be edited: *line* (from 1) and why."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(why)
        self.line = line
        self.why = why


@dataclass(frozen=True, slots=True)
class FileEdit:
    """What changes in one file of a tool."""

    path: Path
    form: Form
    changes: Changes
    initial: str = ""
    """What a new file begins with."""
    secret: bool = False
    """Whether the caller key is written into it."""


@dataclass(frozen=True, slots=True)
class ToolSettings:
    """How one tool is set up."""

    tool: str
    title: str
    model: str
    """The name of the route as the tool wants it."""
    environment: Mapping[str, str] = field(default_factory=dict)
    edits: tuple[FileEdit, ...] = ()
    steps: tuple[str, ...] = ()
    """What is to be done by hand, or to be known."""
    start: str = ""
    """The command that then uses the gateway."""


def merged(data: Any, changes: Any) -> Any:
    """*data* with *changes*: what an edited file must hold."""
    if isinstance(changes, Mapping):
        base = data if isinstance(data, dict) else {}
        return {**base, **{name: merged(base.get(name), value) for name, value in changes.items()}}
    if isinstance(changes, list):
        entries = list(data) if isinstance(data, list) else []
        for change in changes:
            index = index_of(entries, change)
            if index is None:
                entries.append(dict(change))
            else:
                entries[index] = {**entries[index], **change}
        return entries
    return changes


def index_of(entries: list[Any], change: Mapping[str, str]) -> int | None:
    """Which of *entries* has the first member of *change*."""
    name, value = next(iter(change.items()))
    found = (index for index, each in enumerate(entries) if isinstance(each, dict) and each.get(name) == value)
    return next(found, None)
