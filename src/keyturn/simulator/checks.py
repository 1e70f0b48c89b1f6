"""What checks of requests have in common: base64, data URLs, schemas that are to be strict."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from .answers import Medium, Question, Unusable
from .personas import Persona


class Asking(NamedTuple):
    """Who asks, and how: what a check needs beside the body. *owner* is the key, or its project."""

    persona: Persona
    model: str
    owner: str
    headers: Mapping[str, str]
    action: str
    stream: bool


def check_types(question: Question) -> None:
    """Raises Unusable for numbers and texts that are none."""
    if not all(isinstance(stop, str) for stop in question.stop):
        raise Unusable("Invalid type for a stop sequence: expected a string.", "stop")
    stated: list[tuple[str, Any]] = [("max_tokens", question.bound), ("n", question.choices)]
    for name, number in stated:
        if number is not None and (not isinstance(number, int) or number < 0):
            raise Unusable(f"Invalid type for '{name}': expected an integer, but got {number!r} instead.", name)


def decoded(data: object) -> bytes | None:
    """The bytes of standard base64; None when it is none."""
    if not isinstance(data, str):
        return None
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return None


def linked(kind: str, url: str) -> Medium | None:
    """The medium at an address or in a data URL; None when the latter holds no base64."""
    if not url.startswith("data:"):
        return Medium(kind, "", where=url) if url.startswith(("http://", "https://", "gs://", "files/")) else None
    head, _, data = url[5:].partition(",")
    mime, _, encoding = head.partition(";")
    content = decoded(data)
    if encoding.rpartition(";")[2] != "base64" or not content or "/" not in mime:
        return None
    return Medium(kind, mime, len(content))


def objects(schema: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Every object schema within *schema*, with the way to it."""
    if not isinstance(schema, Mapping):
        return
    kind = schema.get("type")
    if kind == "object" or (isinstance(kind, list) and "object" in kind) or "properties" in schema:
        yield path, schema
    for name in ("properties", "$defs", "definitions"):
        for inner, part in (schema.get(name) or {}).items():
            yield from objects(part, (*path, name, inner))
    for name in ("anyOf", "oneOf", "allOf"):
        for number, part in enumerate(schema.get(name) or []):
            yield from objects(part, (*path, name, str(number)))
    yield from objects(schema.get("items"), (*path, "items"))


def laxity(schema: Any) -> str:
    """Why *schema* is none of OpenAI's strict ones, in its words; empty when it is one."""
    for path, part in objects(schema):
        where = "(" + ", ".join(f"'{step}'" for step in path) + ("," if len(path) == 1 else "") + ")"
        if part.get("additionalProperties") is not False:
            return f"In context={where}, 'additionalProperties' is required to be supplied and to be false."
        missing = [name for name in part.get("properties") or {} if name not in (part.get("required") or [])]
        if missing:
            return (
                f"In context={where}, 'required' is required to be supplied and to be an array including every key in "
                f"properties. Missing '{missing[0]}'."
            )
    return ""
