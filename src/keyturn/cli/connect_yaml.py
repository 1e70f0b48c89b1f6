"""Edits YAML text in place: texts are set, members and entries added, every other character stays."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

from .connect_parts import Unfit

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*\Z")
_NOT_TEXT = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}


def read_yaml(text: str) -> Any:
    """The value of *text*. Raises Unfit with the place of what is no YAML."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise Unfit(mark.line + 1 if mark else 1, f"is not YAML: {getattr(error, 'problem', None) or error}") from error
    except RecursionError as error:
        raise Unfit(1, "is nested too deeply") from error


def edit_yaml(text: str, changes: Mapping[str, Any] | list[dict[str, str]]) -> str:
    """*text* with *changes* merged in. Raises Unfit."""
    read_yaml(text)
    if isinstance(changes, list):
        for entry in changes:
            text = _set_entry(text, (), entry)
        return text
    for name, value in changes.items():
        if isinstance(value, list):
            for entry in value:
                text = _set_entry(text, (name,), entry)
        else:
            text = _set_text(text, (), name, value)
    return text


def _root(text: str) -> yaml.Node | None:
    root: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
    return None if isinstance(root, yaml.ScalarNode) and root.value in ("", "null", "~") else root


def _pairs(node: yaml.Node | None) -> dict[str, tuple[yaml.Node, yaml.Node]]:
    if node is None:
        return {}
    if not isinstance(node, yaml.MappingNode) or (node.flow_style and node.value):
        raise Unfit(node.start_mark.line + 1, "is not a block of `name: value` lines")
    return {key.value: (key, value) for key, value in node.value}


def _set_text(text: str, path: tuple[Any, ...], name: str, value: str) -> str:
    """*text* with the member *name* of the mapping at *path*."""
    node = _at(_root(text), path)
    pairs = _pairs(node)
    if name not in pairs:
        return _insert(text, node, [f"{name}: {_shown(value)}"], node.start_mark.column if node is not None else 0)
    key, old = pairs[name]
    if isinstance(old, yaml.ScalarNode) and old.value == value and old.tag == "tag:yaml.org,2002:str":
        return text
    if not isinstance(old, yaml.ScalarNode):
        raise Unfit(key.start_mark.line + 1, f"{name} is not a text")
    if old.start_mark.index == old.end_mark.index:
        colon = text.index(":", key.end_mark.index) + 1
        return f"{text[:colon]} {_shown(value)}{text[colon:]}"
    behind = text[old.end_mark.index :]
    line = "\n" if text[: old.end_mark.index].endswith("\n") else ""
    return text[: old.start_mark.index] + _shown(value) + line + behind


def _set_entry(text: str, path: tuple[str, ...], entry: Mapping[str, str]) -> str:
    """*text* with *entry* in the list at *path*: the root, or a member of it."""
    root = _root(text)
    pair = _pairs(root).get(path[0]) if path else None
    node = root if not path else pair[1] if pair else None
    lines = [
        f"{'- ' if index == 0 else '  '}{name}: {_shown(value)}" for index, (name, value) in enumerate(entry.items())
    ]
    if path and pair is None:
        return _insert(
            text, root, [f"{path[0]}:", *(f"  {line}" for line in lines)], root.start_mark.column if root else 0
        )
    if pair and node is not None and not node.value:  # `models:` or `models: []`
        colon = text.index(":", pair[0].end_mark.index) + 1
        end = max(node.end_mark.index, colon) if node.start_mark.line == pair[0].start_mark.line else colon
        return text[:colon] + "".join(f"\n  {line}" for line in lines) + text[end:]
    if node is None:
        return _insert(text, None, lines, 0)
    if not isinstance(node, yaml.SequenceNode) or (node.flow_style and node.value):
        raise Unfit(node.start_mark.line + 1, "is not a block of `- …` lines")
    if not node.value:
        return text[: node.start_mark.index] + "\n".join(lines) + text[node.end_mark.index :]
    first, wanted = next(iter(entry.items()))
    for index, item in enumerate(node.value):
        pairs = _pairs(item) if isinstance(item, yaml.MappingNode) else {}
        if first in pairs and pairs[first][1].value == wanted:
            for name, value in entry.items():
                text = _set_text(text, (*path, index), name, value)
            return text
    return _insert(text, node, lines, node.start_mark.column)


def _at(node: yaml.Node | None, path: tuple[Any, ...]) -> yaml.Node | None:
    for step in path:
        assert node is not None, "the path was walked before"
        node = node.value[step] if isinstance(step, int) else _pairs(node)[step][1]
    return node


def _insert(text: str, node: yaml.Node | None, lines: list[str], column: int) -> str:
    """*text* with *lines* behind *node*; at the end of a file that holds nothing."""
    block = "".join(f"{' ' * column}{line}\n" for line in lines)
    if node is None:
        bare = re.sub(r"(?m)^(\{\s*\}|\[\s*\]|~|null)[ \t]*$\n?", "", text)
        return bare + ("" if not bare or bare.endswith("\n") else "\n") + block
    if isinstance(node, yaml.MappingNode) and not node.value:  # `{}`
        return text[: node.start_mark.index] + block.rstrip("\n") + text[node.end_mark.index :]
    end = _end(node)
    if not text[:end].endswith("\n"):
        newline = text.find("\n", end)
        if newline < 0:
            return f"{text}\n{block}"
        end = newline + 1
    return text[:end] + block + text[end:]


def _end(node: yaml.Node) -> int:
    """Behind the last character of *node*, without the comments that follow it."""
    while isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        node = last[1] if isinstance(last, tuple) else last
        if isinstance(last, tuple) and node.start_mark.index == node.end_mark.index:
            node = last[0]
    end: int = node.end_mark.index
    return end


def _shown(value: str) -> str:
    return value if _PLAIN.match(value) and value.lower() not in _NOT_TEXT else json.dumps(value, ensure_ascii=False)
