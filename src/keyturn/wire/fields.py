"""A client's JSON object, read field by field: each read checks the type, and a mistake names the field's place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import msgspec

from keyturn.core import Call
from keyturn.errors import BadRequest

from .jsontext import depth

MAX_SCHEMA_DEPTH = 50
"""Levels of braces in a JSON Schema that is translated; providers stop far earlier (OpenAI at ten objects)."""

_NAMES = {str: "a string", bool: "true or false", int: "a whole number", float: "a number", dict: "an object"}
_NAMES |= {list: "a list"}
_ANY = msgspec.json.Decoder().decode


def refuse(place: str, problem: str) -> NoReturn:
    """Raise BadRequest about the field at *place*."""
    raise BadRequest(f"`{place}` {problem}", param=place)


class Fields:
    """One object. *place* is where it stands, `messages[2].content[0]`; empty for the body itself.

    Names are looked up in the spellings that `spellings` gives; null counts as absent.
    """

    __slots__ = ("place", "value")

    def __init__(self, value: Mapping[str, Any], place: str = "") -> None:
        self.value = value
        self.place = place

    @classmethod
    def of(cls, value: object, place: str) -> Fields:
        """*value* as an object. Raises BadRequest."""
        if not isinstance(value, dict):
            refuse(place, "must be an object.")
        return cls(value, place)

    def spellings(self, name: str) -> tuple[str, ...]:
        """Under which names the field *name* may stand, the best first."""
        return (name,)

    def at(self, name: str) -> str:
        """The place of the field *name*."""
        return f"{self.place}.{name}" if self.place else name

    def get(self, name: str) -> Any:
        """The field as decoded, or None."""
        for spelling in self.spellings(name):
            found = self.value.get(spelling)
            if found is not None:
                return found
        return None

    def text(self, name: str, default: str = "") -> str:
        """A string."""
        return self._typed(name, str, default)  # type: ignore[no-any-return]

    def needed_text(self, name: str, hint: str = "") -> str:
        """A string that must be there and not be empty."""
        found: str = self._typed(name, str, "")
        if not found:
            refuse(self.at(name), f"is missing. {hint}".rstrip())
        return found

    def flag(self, name: str) -> bool | None:
        """A boolean."""
        return self._typed(name, bool, None)  # type: ignore[no-any-return]

    def whole(self, name: str) -> int | None:
        """A whole number; `1024.0` is one."""
        found = self.get(name)
        if isinstance(found, float) and found.is_integer():
            return int(found)
        return self._typed(name, int, None)  # type: ignore[no-any-return]

    def number(self, name: str) -> float | None:
        """A number."""
        found = self.get(name)
        if found is None:
            return None
        if isinstance(found, bool) or not isinstance(found, (int, float)):
            refuse(self.at(name), "must be a number.")
        try:
            return float(found)
        except OverflowError:  # hundreds of digits
            refuse(self.at(name), "is too large a number.")

    def object(self, name: str) -> Fields | None:
        """An object inside."""
        found = self._typed(name, dict, None)
        return None if found is None else type(self)(found, self.at(name))

    def items(self, name: str) -> list[Any]:
        """A list, as decoded; empty when absent."""
        return self._typed(name, list, None) or []

    def objects(self, name: str) -> Iterator[Fields]:
        """A list of objects."""
        for index, each in enumerate(self.items(name)):
            place = f"{self.at(name)}[{index}]"
            if not isinstance(each, dict):
                refuse(place, "must be an object.")
            yield type(self)(each, place)

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings, or one string."""
        found = self.get(name)
        if isinstance(found, str):
            return (found,)
        for index, each in enumerate(self.items(name)):
            if not isinstance(each, str):
                refuse(f"{self.at(name)}[{index}]", "must be a string.")
        return tuple(found or ())

    def one_of(self, name: str, known: Mapping[str, Any] | tuple[str, ...], default: str = "") -> str:
        """A string out of *known*."""
        found = self.text(name, default)
        if found and found != default and found not in known:
            refuse(self.at(name), f"cannot be {found[:80]!r}; known are {', '.join(known)}.")
        return found

    def raw(self, name: str) -> bytes:
        """The field as JSON text; empty when absent."""
        found = self.get(name)
        return b"" if found is None else msgspec.json.encode(found)

    def schema(self, name: str) -> bytes:
        """A JSON Schema as JSON text; empty when absent. Not deeper than `MAX_SCHEMA_DEPTH`."""
        if self._typed(name, dict, None) is None:
            return b""
        text = self.raw(name)
        if (levels := depth(text)) > MAX_SCHEMA_DEPTH:
            refuse(self.at(name), f"is a schema nested {levels} levels deep; at most {MAX_SCHEMA_DEPTH} are passed on.")
        return text

    def _typed(self, name: str, kind: type, default: Any) -> Any:
        found = self.get(name)
        if found is None:
            return default
        if not isinstance(found, kind) or (kind is int and isinstance(found, bool)):
            refuse(self.at(name), f"must be {_NAMES[kind]}, not {_shown(found)}.")
        return found


def body_of(call: Call) -> dict[str, Any]:
    """All members of the body of *call*, decoded. Raises BadRequest that names the member."""
    found = {}
    for name, text in call.members.items():
        try:
            found[name] = _ANY(text)
        except (ValueError, RecursionError) as error:
            refuse(name, f"is no valid JSON: {error}.")
    return found


def _shown(value: object) -> str:
    """What *value* is, in a few words and without its content."""
    for kind, name in _NAMES.items():
        if type(value) is kind:
            return name
    return "something else"
