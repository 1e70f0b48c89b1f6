"""A Gemini client's JSON object, field by field: every name in camelCase or snake_case, as protobuf's JSON allows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from .fields import Fields

DIALECT = "gemini"

_HUMP = re.compile(r"(?<=[a-z0-9])([A-Z])")
_BAR = re.compile(r"_+([a-zA-Z0-9])")


@lru_cache(maxsize=1024)
def camel(name: str) -> str:
    """*name* in camelCase: `max_output_tokens` -> `maxOutputTokens`."""
    return name[:1] + _BAR.sub(lambda found: found[1].upper(), name[1:])


@lru_cache(maxsize=1024)
def _spellings(name: str) -> tuple[str, ...]:
    snake = _HUMP.sub(lambda found: "_" + found[1].lower(), name)
    return (name,) if snake == name else (name, snake)


class GeminiFields(Fields):
    """One object; names are asked for in camelCase."""

    __slots__ = ()

    def spellings(self, name: str) -> tuple[str, ...]:
        """The name itself, and in snake_case."""
        return _spellings(name)

    def inner(self, name: str) -> GeminiFields | None:
        """An object inside."""
        found = self.object(name)
        return None if found is None else GeminiFields(found.value, found.place)

    def inners(self, name: str) -> list[GeminiFields]:
        """A list of objects; one object alone counts as a list of one."""
        found = self.get(name)
        if isinstance(found, dict):
            return [GeminiFields(found, self.at(name))]
        return [GeminiFields(each.value, each.place) for each in self.objects(name)]


def camel_members(members: Mapping[str, Any]) -> dict[str, Any]:
    """*members* under their camelCase names; of two spellings the camelCase one counts."""
    return {camel(name): value for name, value in members.items()} | {
        name: value for name, value in members.items() if camel(name) == name
    }
