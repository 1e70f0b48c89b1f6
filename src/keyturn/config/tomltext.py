"""Reads TOML into plain data with the line of every key."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import Any

from .document import Mark, Mistake, Path
from .variables_in_text import expand

_LINE = re.compile(r"\(at line (\d+), column \d+\)|\(at end of document\)")
_TABLE = re.compile(r"\s*\[{1,2}\s*([^\]]+?)\s*\]{1,2}\s*(?:#.*)?$")
_KEY = re.compile(r"\s*([A-Za-z0-9_\-.\"' ]+?)\s*=")
_LONG = ('"""', "'''")


class TomlDocument:
    """A parsed TOML file. Variables are expanded in its texts."""

    def __init__(self, shown: str, text: str, values: Mapping[str, str]) -> None:
        """Raises Mistake when *text* is no TOML."""
        self.shown = shown
        self.mistakes: list[Mistake] = []
        try:
            found = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise _explained(str(error), text) from error
        self.data = _expanded(found, values)
        self._lines = _lines(text)

    def mark(self, path: Path) -> Mark:
        parts = tuple(str(step) for step in path)
        while parts and parts not in self._lines:
            parts = parts[:-1]
        return Mark(self._lines.get(parts, 1), 1)

    def raw(self, path: Path) -> str:
        return ""


def _explained(said: str, text: str) -> Mistake:
    where = _LINE.search(said)
    line = int(where[1]) if where and where[1] else max(text.count("\n"), 1)
    what = _LINE.sub("", said).strip()
    if "overwrite" in what or "declare" in what or "redefine" in what:
        return Mistake(line, "this key or section is here twice; keep one of them")
    if what == "Invalid value" or what.startswith("Expected newline or end of document"):
        return Mistake(line, "not a value of TOML: texts stand in quotes, switches are true or false")
    return Mistake(line, f"is not TOML: {what[:1].lower()}{what[1:]}")


def _lines(text: str) -> dict[tuple[str, ...], int]:
    """Path -> line, for tables and for keys that begin a line; what stands in long texts is passed over."""
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    closing = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if closing:
            if closing in line:
                closing = ""
            continue
        if head := _TABLE.match(line):
            table = _names(head[1])
            lines.setdefault(table, number)
        elif key := _KEY.match(line):
            names = _names(key[1])
            for depth in range(1, len(names) + 1):
                lines.setdefault(table + names[:depth], number)
            closing = next((mark for mark in _LONG if line.count(mark) == 1), "")
    return lines


def _names(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))


def _expanded(value: Any, values: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return expand(value, values)
    if isinstance(value, dict):
        return {name: _expanded(member, values) for name, member in value.items()}
    return [_expanded(member, values) for member in value] if isinstance(value, list) else value
