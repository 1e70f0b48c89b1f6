"""JSON Schemas made to fit what Anthropic enforces: the rest moves into descriptions, where the model reads it."""

from __future__ import annotations

from typing import Any

from .anthropic_blocks import encode

_KEPT = frozenset({"type", "enum", "const", "title", "default", "required"})
_INSIDE = {"properties": "properties", "$defs": "$defs", "definitions": "definitions"}
"""Members that hold schemas by name."""
_ANY_OF = {"anyOf": "anyOf", "oneOf": "anyOf", "allOf": "allOf"}
"""Members that hold a list of schemas, and what they become."""
_FORMATS = frozenset("date-time time date duration email hostname uri ipv4 ipv6 uuid".split())
_SILENT = frozenset({"description", "$schema", "$id", "$comment", "additionalProperties"})


def tighten(schema: dict[str, Any], moved: set[str]) -> dict[str, Any]:
    """*schema* with `additionalProperties: false` on every object. Names of moved keywords are added to *moved*.

    Which keywords are enforced is that of Anthropic's structured outputs: as its SDK sorts them.
    """
    fit: dict[str, Any] = {}
    told: dict[str, object] = {}
    reference = "$ref" in schema
    for name, value in schema.items():
        if name in ("$defs", "definitions") or (name in _INSIDE and not reference):
            fit[name] = _each(value, moved)
        elif name == "$ref":
            fit[name] = value
        elif reference or name in _SILENT:
            continue
        elif name in _ANY_OF and isinstance(value, list):
            fit[_ANY_OF[name]] = [_one(each, moved) for each in value]
        elif name == "items" and not isinstance(value, list):
            fit[name] = _one(value, moved)
        elif name in _KEPT or _is_enforced(name, value):
            fit[name] = value
        else:
            told[name] = value
    if not reference and _is_object(schema):
        fit["additionalProperties"] = False
        if isinstance(more := schema.get("additionalProperties"), dict):
            told["additionalProperties"] = more
    moved.update(told)
    if not reference and (description := _description(schema.get("description"), told)):
        fit["description"] = description
    return fit


def _each(schemas: Any, moved: set[str]) -> Any:
    if not isinstance(schemas, dict):
        return schemas
    return {name: _one(schema, moved) for name, schema in schemas.items()}


def _one(schema: Any, moved: set[str]) -> Any:
    return tighten(schema, moved) if isinstance(schema, dict) else schema


def _is_enforced(name: str, value: object) -> bool:
    return (
        (name == "format" and value in _FORMATS) if isinstance(value, str) else name == "minItems" and value in (0, 1)
    )


def _is_object(schema: dict[str, Any]) -> bool:
    kind = schema.get("type")
    return kind == "object" or (isinstance(kind, list) and "object" in kind) or "properties" in schema


def _description(given: object, told: dict[str, object]) -> str:
    words = [given] if isinstance(given, str) and given else []
    if told:
        words.append("{" + ", ".join(f"{name}: {_shown(value)}" for name, value in told.items()) + "}")
    return "\n\n".join(words)


def _shown(value: object) -> str:
    return value if isinstance(value, str) else encode(value).decode()
