"""Writes docs/configuration.md and config/schema/*.schema.json from the shapes of the configuration files.

.venv/bin/python -m tools.configdoc
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from keyturn.config import schema_text, shapes

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "configuration.md"
SCHEMAS = ROOT / "config" / "schema"
HEAD = """# Configuration files

Made from the program by `python -m tools.configdoc`; change the descriptions there.

Everything can be configured by variables alone. Where that is not enough, put any of these files into `config/`, or
into the folder that `--config` names: `models.yaml`, `roles.yaml`, `limits.yaml`, `callers.yaml`, `settings.toml`.
`keyturn init` writes them with comments. `keyturn config check` names every mistake in them at once, with file, line
and how to mend it; `keyturn config show` tells where each value came from; `keyturn config schema` prints their JSON
Schema, which editors find through the first line of each file.

Who wins: an option of the command line over a variable of the environment, that over one of `.env`, that over these
files, and those over the defaults. (One exception: `plan:` in `models.yaml` wins over `KEY_PLAN_<P>`.)

`${NAME}` in any value stands for a variable; `${NAME:-text}` has a default for when it is unset or empty. It needs no
quotes, and whatever the variable holds, it is never taken for YAML. A variable that is not set and has no default is
left as it stands; in `api_keys` it counts as blank. `${MODEL}` in `cmd` is no variable: the model's name goes there.
"""
SIMPLE = {str: "text", int: "whole number", float: "number", bool: "true or false"}


def page() -> str:
    """The text of docs/configuration.md."""
    parts = [HEAD]
    for name, shape in shapes().items():
        file = f"{name}.toml" if name == "settings" else f"{name}.yaml"
        parts += [f"\n## {file}\n", _told(shape), *_tables(shape, name)]
    return "\n".join(parts).rstrip() + "\n"


def schemas() -> dict[Path, str]:
    """The schema files and their content."""
    return {SCHEMAS / f"{name}.schema.json": schema_text(name) for name in shapes()}


def _told(shape: type[BaseModel]) -> str:
    """The first paragraph about a shape, without the name of the file."""
    text = " ".join((shape.__doc__ or "").split())
    _, named, rest = text.partition("yaml: " if "yaml: " in text else "toml: ")
    return f"{rest[:1].upper()}{rest[1:]}" if named else text


def _tables(shape: type[BaseModel], file: str) -> Iterator[str]:
    """A table for *shape* and for every shape inside of it, outermost first, each once."""
    waiting: list[tuple[str, type[BaseModel]]] = [("", shape)]
    seen: set[type[BaseModel]] = set()
    while waiting:
        path, current = waiting.pop(0)
        if current in seen:
            continue
        seen.add(current)
        if path:
            yield f"\n### {path}\n\n{_told(current)}"
        members = _members(current)
        if "root" in current.model_fields:
            waiting += [(step.lstrip("."), inner) for step, inner in _inner(current.model_fields["root"].annotation)]
            continue
        if members:
            yield "\n| key | type | default | meaning | example |\n|---|---|---|---|---|"
            yield "\n".join(_row(name, field) for name, field in members.items())
        start = f"{path.partition(' ')[0]}." if path else ""
        inside = [
            (f"{start}{name}{step}", each) for name, field in members.items() for step, each in _inner(field.annotation)
        ]
        waiting = inside + waiting


def _members(shape: type[BaseModel]) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in shape.model_fields.items()}


def _inner(kind: Any) -> Iterator[tuple[str, type[BaseModel]]]:
    """The shapes inside of a type, each with the way that leads to it."""
    origin, inside = get_origin(kind), get_args(kind)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        marked = kind.model_fields.get("kind")
        yield (f" (kind: {get_args(marked.annotation)[0]})" if marked is not None else ""), kind
    elif origin is Annotated:
        yield from _inner(inside[0])
    elif origin is dict:
        yield from ((f".NAME{step}", shape) for step, shape in _inner(inside[1]))
    elif origin is tuple:
        yield from ((f"[]{step}", shape) for step, shape in _inner(inside[0]))
    elif origin in (Union, types.UnionType):
        for each in inside:
            yield from _inner(each)


def _row(name: str, field: FieldInfo) -> str:
    default = "needed" if field.is_required() else _default(field)
    example = f"`{written(field.examples[0])}`" if field.examples else ""
    cells = (f"`{name}`", _type(field.annotation), default, field.description or "", example)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default(field: FieldInfo) -> str:
    value = field.get_default()
    if value is None or value in ((), {}, "") or isinstance(value, BaseModel):
        return "–"
    return f"`{written(value)}`"


def _type(kind: Any) -> str:
    """A type for people."""
    origin, inside = get_origin(kind), get_args(kind)
    if kind in SIMPLE:
        return SIMPLE[kind]
    if origin is Literal:
        return ", ".join(f"`{word}`" for word in inside)
    if origin is Annotated:
        return _type(inside[0])
    if origin in (Union, types.UnionType):
        said = [_type(each) for each in inside if each is not types.NoneType]
        return ", or ".join(dict.fromkeys(said))
    if origin is tuple:
        return f"list of {_type(inside[0])}"
    if origin is dict:
        return f"names to {_type(inside[1])}"
    return "mapping"


def written(value: Any) -> str:
    """*value* as YAML has it on one line."""
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{name}: {written(member)}' for name, member in value.items())} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(written, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def main() -> None:
    PAGE.write_text(page())
    SCHEMAS.mkdir(exist_ok=True)
    for path, text in schemas().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
