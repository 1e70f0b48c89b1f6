"""Says what is wrong with the shape of a file: where, what was meant, how to mend it. Never a secret."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from keyturn.core import Redactor
from keyturn.providers import nearest

from .document import Document, Path
from .report import Report, listed

SECRETS = frozenset({"api_key", "api_keys", "bot_token", "webhooks"})
"""Members whose values are keys."""
UNQUOTED = SECRETS | {"env_key", "key_env", "key_hash"}
"""Members where somebody may put a key by mistake: their values are not quoted either."""
TYPES = {
    "bool": "neither true nor false",
    "int": "not a whole number",
    "float": "not a number",
    "string": "not a text",
    "tuple": "not a list",
    "list": "not a list",
    "dict": "not a mapping of names to values",
    "model": "not a mapping of names to values",
}
KINDS = ["http", "cli"]
_WORD = re.compile(r"'([^']*)'")


class Wrong(NamedTuple):
    """One mistake. *path* is the part of the file that cannot be used for it."""

    path: tuple[str | int, ...]
    line: int
    text: str


def mistakes_in(error: ValidationError, document: Document, shape: type[BaseModel], report: Report) -> Iterator[Wrong]:
    """Everything that *error* found in *document*."""
    for found in error.errors(include_url=False):
        path = _path(document.data, found["loc"])
        name = shown(document.data, path)
        text = _text(found, shape, report, secret=not UNQUOTED.isdisjoint(path))
        yield Wrong(path, document.mark(path).line, f"{name}: {text}" if name else text)


def shown(data: Any, path: Path) -> str:
    """*path* for people: dotted, entries of a list by their id or their place from 1."""
    words: list[str] = []
    for step in path:
        inner = data[step] if _has(data, step) else None
        if isinstance(step, int):
            name = inner.get("id") if isinstance(inner, dict) else None
            words.append(name if isinstance(name, str) and name.isprintable() and len(name) <= 60 else str(step + 1))
        else:
            words.append(step if step.isprintable() and len(step) <= 60 and Redactor().text(step) == step else "…")
        data = inner
    return ".".join(words)


def _path(data: Any, loc: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """*loc* without what stands in no file (which form was taken); a member that is missing is kept as the last."""
    path: list[str | int] = []
    for step in loc:
        if isinstance(step, str) and (step.startswith("<") or step == "[key]"):
            continue
        path.append(step)
    return tuple(path)


def _has(data: Any, step: str | int) -> bool:
    if isinstance(data, Mapping):
        return step in data
    return isinstance(data, list) and isinstance(step, int) and step < len(data)


def _text(found: ErrorDetails, shape: type[BaseModel], report: Report, *, secret: bool) -> str:
    kind, loc, given = found["type"], found["loc"], found["input"]
    context: dict[str, Any] = found.get("ctx", {})
    example = _example(shape, loc)
    if not loc:
        return f"the file must hold names and what they stand for, like {_first(shape)}:"
    if kind == "extra_forbidden":
        return _unknown(shape, loc)
    if kind == "missing":
        return f"is missing{example.replace('example ', f'example {loc[-1]}: ')}"
    quoted = "its value" if secret else _quoted(given, report)
    if kind == "literal_error":
        words = KINDS if loc[-1] == "kind" else _WORD.findall(str(context["expected"]))
        near = nearest(given, words) if isinstance(given, str) else None
        return f"{quoted} is not {_one_of(words)}" + (f" (did you mean {near}?)" if near else "")
    if given is None:
        return f"nothing is written here{example}, or leave it out"
    if kind == "string_type" and isinstance(given, (bool, int, float)):
        return "must be a text; put it in quotes"
    if kind in ("too_short", "string_too_short"):
        return f"is empty{example}"
    if kind in ("greater_than", "greater_than_equal"):
        word, bound = ("above", context["gt"]) if kind == "greater_than" else ("at least", context["ge"])
        return f"{quoted} is too small; it must be {word} {bound:g}"
    if kind == "less_than_equal":
        return f"{quoted} is too large; it must be at most {context['le']:g}"
    if kind == "string_pattern_mismatch":
        if loc[-1] == "[key]":
            return "is no name: letters, digits, '_', '-' and '.', no more than 64"
        return f"{quoted} is not of the right form{example}"
    if kind == "string_too_long":
        return f"is too long: at most {context['max_length']} characters"
    if kind == "finite_number":
        return f"must be a finite number{example}"
    wanted = next((words for start, words in TYPES.items() if kind.startswith(f"{start}_")), None)
    return f"{quoted} is {wanted}{example}" if wanted else f"{found['msg']}{example}"


def _one_of(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"one of {listed(words)}"


def _quoted(given: Any, report: Report) -> str:
    if isinstance(given, bool):
        return str(given).lower()
    if isinstance(given, (int, float)):
        return str(given)
    if isinstance(given, str):
        return report.quote(given) if given else "an empty text"
    return "a list" if isinstance(given, (list, tuple)) else "a mapping"


def _first(shape: type[BaseModel]) -> str:
    return "my-team" if "root" in shape.model_fields else next(iter(spelled(shape)))


def _example(shape: type[BaseModel], loc: tuple[str | int, ...]) -> str:
    """What to write at *loc*: the example of the member that it is, or the part of it that *loc* is."""
    for end in range(len(loc), 0, -1):
        holder = _inside(shape, loc[: end - 1])
        if not (isinstance(holder, type) and issubclass(holder, BaseModel)):
            continue
        field = spelled(holder).get(str(loc[end - 1]))
        example = field.examples[0] if field is not None and field.examples else None
        for step in _path(None, loc[end:]):
            if isinstance(example, Mapping):
                example = next(iter(example.values()), None) if step not in example else example[step]
            elif isinstance(example, list):
                example = example[0] if example else None
        return "" if example is None else f"; write for example {_written(example)}"
    return ""


def _written(value: Any) -> str:
    """*value* as YAML has it on one line."""
    if isinstance(value, Mapping):
        members = ", ".join(f"{key}: {_written(member)}" for key, member in value.items())
        return f"{{ {members} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _unknown(shape: type[BaseModel], loc: tuple[str | int, ...]) -> str:
    holder = _inside(shape, loc[:-1])
    names = sorted(spelled(holder)) if isinstance(holder, type) and issubclass(holder, BaseModel) else []
    near = nearest(str(loc[-1]), names)
    said = "is not a key that is known here"
    if near:
        return f"{said}; did you mean {near}?"
    return f"{said}; the keys are {listed(names)}" if names else said


def spelled(shape: type[BaseModel]) -> dict[str, FieldInfo]:
    """The members of *shape* as files write them."""
    return {field.alias or name: field for name, field in shape.model_fields.items()}


def _inside(kind: Any, loc: tuple[str | int, ...]) -> Any:
    """The type of the part of *kind* at *loc*; None when there is no such part."""
    for step in loc:
        kind = _part(kind, step)
    return forms(kind)[0] if kind is not None else None


def _part(kind: Any, step: str | int) -> Any:
    if isinstance(step, str) and step.startswith("<"):
        return next((form for form in _options(kind) if Tag(step) in _marks(form)), None)
    for form in forms(kind):
        if isinstance(form, type) and issubclass(form, BaseModel):
            if "root" in form.model_fields:
                return _part(form.model_fields["root"].annotation, step)
            field = spelled(form).get(str(step))
            return None if field is None else field.annotation
        if get_origin(form) is dict:
            return get_args(form)[1]
        if get_origin(form) in (tuple, list):
            return get_args(form)[0]
    return None


def forms(kind: Any) -> list[Any]:
    """What *kind* may be, without marks and without None."""
    bare = [get_args(form)[0] if get_origin(form) is Annotated else form for form in _options(kind)]
    found = [
        inner for form in bare for inner in (forms(form) if get_origin(form) in (Union, types.UnionType) else [form])
    ]
    return [form for form in found if form is not types.NoneType] or [None]


def _options(kind: Any) -> list[Any]:
    if get_origin(kind) is Annotated and get_origin(get_args(kind)[0]) in (Union, types.UnionType):
        kind = get_args(kind)[0]
    return list(get_args(kind)) if get_origin(kind) in (Union, types.UnionType) else [kind]


def _marks(form: Any) -> tuple[Any, ...]:
    return get_args(form)[1:] if get_origin(form) is Annotated else ()
