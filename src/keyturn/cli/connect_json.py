"""Edits JSON text in place: members are set or added, every other character stays."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from .connect_parts import Unfit

_DECODER = json.JSONDecoder()
_BLANKS = " \t\r\n"


class _Member(NamedTuple):
    """Where a member of an object stands: its key, its value."""

    key_start: int
    start: int
    end: int


def read_json(text: str) -> Any:
    """The value of *text*. Raises Unfit with the place of what is no JSON."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        comment = text[error.pos : error.pos + 2] in ("//", "/*")
        why = "has a comment, which plain JSON does not know" if comment else f"is not JSON: {error.msg}"
        raise Unfit(error.lineno, why) from error
    except RecursionError as error:
        raise Unfit(1, "is nested too deeply") from error


def edit_json(text: str, changes: Mapping[str, Any]) -> str:
    """*text*, an object, with *changes* merged in. Raises Unfit."""
    if not isinstance(read_json(text), dict):
        raise Unfit(1, "must be an object: {…}")
    return _merge(text, (), changes)


def _merge(text: str, path: tuple[str, ...], changes: Mapping[str, Any]) -> str:
    for name, value in changes.items():
        start = _find(text, path)
        members = _members(text, start)
        found = members.get(name)
        if found is None:
            text = _add(text, start, members, name, value)
        elif isinstance(value, Mapping) and text[found.start] == "{":
            text = _merge(text, (*path, name), value)
        elif json.loads(text[found.start : found.end]) != value:
            text = text[: found.start] + _shown(value, *_style(text, start, members)) + text[found.end :]
    return text


def _find(text: str, path: tuple[str, ...]) -> int:
    """Where the object at *path* begins."""
    start = _past_blanks(text, 0)
    for name in path:
        start = _members(text, start)[name].start
    return start


def _members(text: str, start: int) -> dict[str, _Member]:
    """The members of the object that begins at *start*; of two with one name the last, as all readers do."""
    members: dict[str, _Member] = {}
    place = _past_blanks(text, start + 1)
    while text[place] != "}":
        name, behind = _DECODER.raw_decode(text, place)
        value = _past_blanks(text, _past_blanks(text, behind) + 1)
        _, end = _DECODER.raw_decode(text, value)
        members[name] = _Member(place, value, end)
        place = _past_blanks(text, end)
        if text[place] == ",":
            place = _past_blanks(text, place + 1)
    return members


def _past_blanks(text: str, place: int) -> int:
    while place < len(text) and text[place] in _BLANKS:
        place += 1
    return place


def _add(text: str, start: int, members: Mapping[str, _Member], name: str, value: Any) -> str:
    """*text* with one more member at the end of the object at *start*."""
    outer, step = _style(text, start, members)
    written = f"{json.dumps(name, ensure_ascii=False)}: {_shown(value, outer, step)}"
    if members:
        last = max(each.end for each in members.values())
        gap = " " if "\n" not in text[start:last] else f"\n{outer}{step}"
        return f"{text[:last]},{gap}{written}{text[last:]}"
    end = text.index("}", start)
    return f"{text[: start + 1]}\n{outer}{step}{written}\n{outer}{text[end:]}"


def _style(text: str, start: int, members: Mapping[str, _Member]) -> tuple[str, str]:
    """The indentation of the line that the object at *start* begins on, and what its members have more."""
    outer = _indentation(text, start)
    for each in members.values():
        inner = _indentation(text, each.key_start)
        if "\n" in text[start : each.key_start] and inner.startswith(outer) and inner != outer:
            return outer, inner[len(outer) :]
    first = next((line for line in text.split("\n") if line[:1] in (" ", "\t") and line.strip()), "  ")
    return outer, first[: len(first) - len(first.lstrip())]


def _indentation(text: str, place: int) -> str:
    line = text[text.rfind("\n", 0, place) + 1 : place]
    return line[: len(line) - len(line.lstrip(" \t"))]


def _shown(value: Any, outer: str, step: str) -> str:
    """*value* as it stands behind a key of that object."""
    return json.dumps(value, indent=step, ensure_ascii=False).replace("\n", f"\n{outer}{step}")
