"""Gemini's older schemas, a subset of OpenAPI with upper-case types, to and from JSON Schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import msgspec

from keyturn.errors import BadRequest, Untranslatable

from .fields import MAX_SCHEMA_DEPTH, refuse
from .gemini_fields import camel

_COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
"""64-bit integers, which protobuf's JSON writes as strings."""
_KEPT = ("title", "description", "required", "minimum", "maximum", "pattern", *_COUNTS)
_FORMATS = {
    "STRING": ("date-time", "enum"),
    "NUMBER": ("float", "double"),
    "INTEGER": ("int32", "int64"),
}
"""Formats that the API takes; it refuses others (docs: Schema)."""
_MOST_NODES = 5000
"""Schemas within one, once its references are written out. One that holds much counts as several."""
_NODE = 256


def to_json_schema(place: str, schema: Mapping[str, Any]) -> bytes:
    """The JSON Schema of *schema*, as JSON text. Raises BadRequest about *place*."""
    return msgspec.json.encode(_read(place, schema, 0))


def _read(place: str, schema: object, level: int) -> Any:
    if isinstance(schema, bool):
        return schema
    if not isinstance(schema, dict):
        refuse(place, 'must be a schema, such as {"type": "OBJECT", "properties": {…}}.')
    if level > MAX_SCHEMA_DEPTH:
        refuse(place, f"is a schema nested more than {MAX_SCHEMA_DEPTH} levels deep.")
    found: dict[str, Any] = {}
    nullable = False
    for given, value in schema.items():
        name = given if given[:1] == "$" else camel(given)
        at = f"{place}.{given}"
        if name == "nullable":
            nullable = value is True
        elif value is None or name == "propertyOrdering":
            continue
        elif name == "type":
            found |= _read_type(at, value)
        elif name in ("properties", "defs", "$defs", "definitions"):
            if not isinstance(value, dict):
                refuse(at, "must be an object of schemas.")
            inner = {key: _read(f"{at}.{key}", each, level + 1) for key, each in value.items()}
            found["$defs" if name == "defs" else name] = inner
        elif name in ("anyOf", "oneOf", "allOf", "prefixItems"):
            if not isinstance(value, list):
                refuse(at, "must be a list of schemas.")
            found[name] = [_read(f"{at}[{index}]", each, level + 1) for index, each in enumerate(value)]
        elif name in ("items", "additionalProperties"):
            found[name] = _read(at, value, level + 1)
        elif name in _COUNTS:
            found[name] = int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 19 else value
        elif name == "ref":
            found["$ref"] = value.replace("#/defs/", "#/$defs/") if isinstance(value, str) else value
        elif name == "example":
            found["examples"] = [value]
        elif not (name == "format" and value == "enum"):
            found[name] = value
    return _with_null(found) if nullable else found


def _read_type(place: str, given: object) -> dict[str, Any]:
    if isinstance(given, list) and all(isinstance(each, str) for each in given):
        return {"type": [each.lower() for each in given]}
    if not isinstance(given, str):
        refuse(place, 'must be the name of a type, such as "STRING".')
    return {} if given in ("", "TYPE_UNSPECIFIED") else {"type": given.lower()}


def _with_null(schema: dict[str, Any]) -> dict[str, Any]:
    kind = schema.get("type")
    if isinstance(kind, str) and kind != "null":
        schema["type"] = [kind, "null"]
        if isinstance(schema.get("enum"), list) and None not in schema["enum"]:
            schema["enum"] = [*schema["enum"], None]
    elif isinstance(schema.get("anyOf"), list):
        schema["anyOf"] = [*schema["anyOf"], {"type": "null"}]
    return schema


def to_openapi(schema: bytes, field: str) -> dict[str, Any]:
    """The JSON Schema *schema* in the subset that older models take; what it lacks is left out, as it only narrows.

    References are written out. Raises BadRequest for what is no schema, and Untranslatable for one that refers to
    itself; both name *field*.
    """
    try:
        root = msgspec.json.decode(schema)
    except ValueError:
        root = None
    if not isinstance(root, dict):
        raise BadRequest(f"`{field}` is no JSON Schema: it must be an object.", param=field)
    return _Writing(root, field).schema(root, ())


class _Writing:
    """Writes one schema. *root* is what its references point into."""

    def __init__(self, root: dict[str, Any], field: str) -> None:
        self._root = root
        self._field = field
        self._nodes = 0
        self._level = 0

    def schema(self, given: object, within: tuple[str, ...]) -> dict[str, Any]:
        """*given* converted; *within* are the references that lead to it."""
        self._nodes += 1 + (_bulk(given) if isinstance(given, dict) else 0) // _NODE
        if self._nodes > _MOST_NODES or self._level > 2 * MAX_SCHEMA_DEPTH:
            self._refuse("is too large once its references are written out")
        if not isinstance(given, dict):
            return {}
        self._level += 1
        found = self._converted(given, within)
        self._level -= 1
        return found

    def _converted(self, given: dict[str, Any], within: tuple[str, ...]) -> dict[str, Any]:
        reference = given.get("$ref")
        if isinstance(reference, str):
            if reference in within:
                self._refuse(f"refers to itself ({reference})")
            beside = {name: value for name, value in given.items() if name != "$ref"}
            return self.schema({**self._target(reference), **beside}, (*within, reference))
        if isinstance(parts := given.get("allOf"), list):
            return self.schema(_merged(given, [self._whole(each, within) for each in parts]), within)
        found = {name: given[name] for name in _KEPT if given.get(name) is not None}
        self._type(given, found, within)
        self._values(given, found)
        if isinstance(shown := given.get("format"), str) and shown in _FORMATS.get(found.get("type", ""), ()):
            found["format"] = shown
        if isinstance(inner := given.get("properties"), dict) and inner:
            found["properties"] = {name: self.schema(each, within) for name, each in inner.items()}
            if isinstance(names := found.get("required"), list):
                found["required"] = [name for name in names if isinstance(name, str) and name in inner]
        else:
            found.pop("required", None)
        if found.get("type") == "ARRAY":
            found["items"] = self.schema(given.get("items"), within) or {"type": "STRING"}
        return found

    def _type(self, given: dict[str, Any], found: dict[str, Any], within: tuple[str, ...]) -> None:
        kinds = given.get("type")
        kinds = [kinds] if isinstance(kinds, str) else kinds if isinstance(kinds, list) else []
        names = [kind.upper() for kind in kinds if isinstance(kind, str) and kind != "null"]
        choices = given.get("anyOf") or given.get("oneOf")
        choices = [each for each in choices if isinstance(each, dict)] if isinstance(choices, list) else []
        real = [each for each in choices if each.get("type") != "null"]
        if "null" in kinds or len(real) < len(choices):
            found["nullable"] = True
        if len(names) > 1:
            found["anyOf"] = [self.schema({**given, "type": kind}, within) for kind in kinds if kind != "null"]
        elif names:
            found["type"] = names[0]
        elif given.get("properties"):
            found["type"] = "OBJECT"
        if len(real) == 1:
            found.update(self.schema(real[0], within) | found)
        elif real:
            found["anyOf"] = [self.schema(each, within) for each in real]

    def _values(self, given: dict[str, Any], found: dict[str, Any]) -> None:
        """Fixed values: a list of strings is said as such, others in words, since the subset has string enums only."""
        values = [given["const"]] if "const" in given else given.get("enum")
        if not isinstance(values, list) or not values:
            return
        named = [value for value in values if value is not None]
        if named and all(isinstance(value, str) for value in named):
            found["enum"] = named
            found.setdefault("type", "STRING")
        else:
            words = "One of: " + ", ".join(msgspec.json.encode(value).decode() for value in values) + "."
            found["description"] = f"{found.get('description') or ''} {words}".strip()

    def _whole(self, given: object, within: tuple[str, ...]) -> dict[str, Any]:
        """*given*, or what it refers to, as it is written."""
        for _ in range(MAX_SCHEMA_DEPTH):
            if not isinstance(given, dict):
                return {}
            if not isinstance(reference := given.get("$ref"), str):
                return given
            if reference in within:
                self._refuse(f"refers to itself ({reference})")
            within = (*within, reference)
            given = self._target(reference)
        return {}

    def _target(self, reference: str) -> dict[str, Any]:
        found: Any = self._root
        if not reference.startswith("#"):
            self._refuse(f"refers to {reference[:80]!r}, which is outside of it")
        for step in reference[1:].split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            found = found.get(name) if isinstance(found, dict) else None
        if not isinstance(found, dict):
            raise BadRequest(
                f"`{self._field}` refers to {reference[:80]!r}, which it does not have.", param=self._field
            )
        return found

    def _refuse(self, problem: str) -> NoReturn:
        raise Untranslatable(
            f"`{self._field}` {problem}, which the schemas of this Gemini model cannot say. Write it out, or use a "
            "newer model.",
            param=self._field,
        )


def _bulk(given: dict[str, Any]) -> int:
    """How much stands directly in *given*: it counts each time that a reference writes it out."""
    return len(given) + sum(len(each) for each in given.values() if isinstance(each, (str, list)))


def _merged(given: dict[str, Any], parts: list[dict[str, Any]]) -> dict[str, Any]:
    """*given* with the parts of its `allOf` merged into it."""
    found: dict[str, Any] = {}
    for part in (*parts, {name: value for name, value in given.items() if name != "allOf"}):
        for name, value in part.items():
            old = found.get(name)
            if name == "properties" and isinstance(old, dict) and isinstance(value, dict):
                found[name] = {**old, **value}
            elif name == "required" and isinstance(old, list) and isinstance(value, list):
                found[name] = [*dict.fromkeys(each for each in (*old, *value) if isinstance(each, str))]
            else:
                found[name] = value
    return found
