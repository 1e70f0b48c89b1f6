"""Makes the changes of a tool's settings in the text of its file, and proves that nothing else changed."""

from __future__ import annotations

import io
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from .connect_json import edit_json, read_json
from .connect_parts import Form, Unfit, merged
from .connect_yaml import edit_yaml, read_yaml

_HEAD = re.compile(r"\s*\[{1,2}\s*([^\[\]]+?)\s*\]{1,2}\s*(?:#.*)?$")
_VALUE = r"""("(?:[^"\\]|\\.)*"|'[^']*'|[^\s#"']+)"""
_LINE_OF = re.compile(r"at line (\d+)")


def edited(form: Form, content: bytes, changes: Any) -> bytes:
    """*content* with *changes*; line ends and a byte order mark stay. Raises Unfit."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise Unfit(content.count(b"\n", 0, error.start) + 1, "is not UTF-8 text; save it as UTF-8") from error
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    windows = "\r\n" in text and text.count("\r\n") == text.count("\n")
    plain = text.removeprefix(mark)
    plain = plain.replace("\r\n", "\n") if windows else plain
    after = _edit(form, plain, changes)
    if not _is_right(form, after, merged(_read(form, plain), changes)):
        raise Unfit(1, "is written in a way that cannot be edited safely; change it by hand")
    return (mark + (after.replace("\n", "\r\n") if windows else after)).encode()


def _is_right(form: Form, text: str, expected: Any) -> bool:
    try:
        return bool(_read(form, text) == expected)
    except Unfit:
        return False


def _edit(form: Form, text: str, changes: Any) -> str:
    if form == "json":
        return edit_json(text if text.strip() else "{}\n", changes)
    if form == "yaml":
        return edit_yaml(text, changes)
    return edit_toml(text, changes) if form == "toml" else edit_env(text, changes)


def _read(form: Form, text: str) -> Any:
    if form == "json":
        return read_json(text) if text.strip() else {}
    if form == "yaml":
        return read_yaml(text)
    return _read_toml(text) if form == "toml" else _read_env(text)


def edit_env(text: str, changes: Mapping[str, str]) -> str:
    """*text* of an env file with these variables; of two lines for one the last counts."""
    for name, value in changes.items():
        shown = value if re.fullmatch(r"[\w.:/+=@~-]*", value) else f"'{value}'"
        lines = [*re.finditer(rf"(?m)^([ \t]*(?:export[ \t]+)?{re.escape(name)}[ \t]*=[ \t]*).*$", text)]
        if lines:
            last = lines[-1]
            text = f"{text[: last.start()]}{last[1]}{shown}{text[last.end() :]}"
        else:
            text += ("" if not text or text.endswith("\n") else "\n") + f"{name}={shown}\n"
    return text


def _read_env(text: str) -> dict[str, str | None]:
    from dotenv import dotenv_values

    return dict(dotenv_values(stream=io.StringIO(text), interpolate=False))


def edit_toml(text: str, changes: Mapping[str, Any]) -> str:
    """*text* with *changes*: texts and switches of the root and of tables. Raises Unfit."""
    _read_toml(text)
    tables = [((), {name: value for name, value in changes.items() if not isinstance(value, Mapping)})]
    for table, values in (*tables, *_tables((), changes)):
        if values:
            text = _set_in_table(text, table, values)
    return text


def _tables(path: tuple[str, ...], changes: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    for name, value in changes.items():
        if isinstance(value, Mapping):
            yield (*path, name), {key: each for key, each in value.items() if not isinstance(each, Mapping)}
            yield from _tables((*path, name), value)


def _read_toml(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        line = _LINE_OF.search(str(error))
        raise Unfit(int(line[1]) if line else max(text.count("\n"), 1), f"is not TOML: {error}") from error


def _set_in_table(text: str, table: tuple[str, ...], values: Mapping[str, Any]) -> str:
    lines = text.split("\n")
    heads = [(index, names) for index, names in _heads(lines)]
    if table and table not in [names for _, names in heads]:
        gap = "" if not text.strip() else "\n" if text.endswith("\n") else "\n\n"
        body = "".join(f"{name} = {_toml(value)}\n" for name, value in values.items())
        return f"{text}{gap}[{'.'.join(table)}]\n{body}"
    start = next(index + 1 for index, names in heads if names == table) if table else 0
    end = next((index for index, _ in heads if index >= start), len(lines))
    added = []
    for name, value in values.items():
        line = re.compile(rf"(\s*[\"']?{re.escape(name)}[\"']?\s*=\s*){_VALUE}(\s*(?:#.*)?)$")
        found = next(((index, hit) for index in range(start, end) if (hit := line.match(lines[index]))), None)
        if found is not None:
            index, hit = found
            lines[index] = f"{hit[1]}{_toml(value)}{hit[3]}"
        else:
            added.append(f"{name} = {_toml(value)}")
    while end > start and (not lines[end - 1].strip() or lines[end - 1].lstrip().startswith("#")):
        end -= 1
    if added and end == start == 0 and any(line.strip() for line in lines):
        added.append("")
    lines[end:end] = added
    return "\n".join(lines) + ("" if lines[-1] == "" or text.endswith("\n") else "\n")


def _heads(lines: list[str]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The lines that begin a table: what stands above each of them is complete."""
    for index, line in enumerate(lines):
        head = _HEAD.match(line)
        if head is None:
            continue
        try:
            tomllib.loads("\n".join(lines[:index]))
        except tomllib.TOMLDecodeError:  # inside a long text or a list
            continue
        yield index, tuple(part.strip().strip("\"'") for part in head[1].split("."))


def _toml(value: str | bool) -> str:
    return json.dumps(value, ensure_ascii=False)
