"""Where the parts of a YAML text stand, to the character, comments between them included: what editing in place needs.

A parser that builds data forgets that; one that writes the file anew changes what nobody asked it to change.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from .variables_in_text import hide
from .yamltext import LOADER

FLOW_SAFE = re.compile(r"\$\{[^{}\n]*\}\Z|<<\Z|[+-]?[A-Za-z0-9_./$(][^,\[\]{}#:\n]*\Z")
"""Plain texts that mean the same between brackets."""


@dataclass(slots=True)
class Node:
    """A part of the text. Lines and columns count from 0; *end* is the index after its last character."""

    kind: str
    """scalar, mapping or sequence."""
    start: int
    line: int
    column: int
    end: int = 0
    last_line: int = 0
    """The line after the last one that it stands in."""
    flow: bool = False
    plain: bool = False
    """A scalar without quotes."""
    text: str = ""
    """A scalar's text."""
    children: list[Node] = field(default_factory=list)
    """A mapping's keys and values in turn, or a sequence's items."""
    shared: bool = False
    """It, or something in it, is an alias, or has a name for aliases."""
    target: Node | None = None
    """What an alias stands for."""

    def pairs(self) -> Iterator[tuple[Node, Node]]:
        """Keys and values of a mapping."""
        return zip(self.children[::2], self.children[1::2], strict=True)

    def get(self, name: str) -> Node | None:
        """The value of a key, None when it is not there or this is no mapping."""
        found = self.target or self
        if found.kind != "mapping":
            return None
        return next((value for key, value in found.pairs() if key.kind == "scalar" and key.text == name), None)

    @property
    def empty(self) -> bool:
        """Nothing, `null`, `[]` or `{}`."""
        if self.kind == "scalar":
            return self.plain and self.text in ("", "~", "null", "Null", "NULL")
        return not self.children and self.target is None


class Tree:
    """A YAML text of one document. *root* is None when it holds nothing but comments."""

    def __init__(self, text: str) -> None:
        """*text* has been read as data before: here it is known to be sound."""
        self.text = text
        hidden, self._table = hide(text)
        self._anchors: dict[str, Node] = {}
        self.root: Node | None = None
        events = iter(yaml.parse(hidden, Loader=LOADER))
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                root = self._node(next(events), events)
                self.root = None if root.kind == "scalar" and root.empty else root

    def _node(self, event: Any, events: Iterator[Any]) -> Node:
        start, end, anchor = event.start_mark, event.end_mark, event.anchor
        node = Node("scalar", start.index, start.line, start.column, end.index, end.line + 1, shared=bool(anchor))
        if isinstance(event, yaml.AliasEvent):
            node.target = self._anchors[anchor]
            node.kind, node.text, node.plain = node.target.kind, node.target.text, node.target.plain
            return node
        if isinstance(event, yaml.ScalarEvent):
            node.text, node.plain = event.value.translate(self._table), event.style in (None, "")
            if event.style in ("|", ">") and end.column == 0:
                node.last_line = end.line
        else:
            node.kind = "mapping" if isinstance(event, yaml.MappingStartEvent) else "sequence"
            node.flow = bool(event.flow_style)
            last = self._children(node, events)
            if node.flow:
                node.end, node.last_line = last.index, last.line + 1
            else:  # the parser sees its end only behind the comments that follow it
                node.end = max(child.end for child in node.children)
                node.last_line = max(child.last_line for child in node.children)
        if anchor:
            self._anchors[anchor] = node
        return node

    def _children(self, node: Node, events: Iterator[Any]) -> Any:
        """Reads the children of a collection; returns the mark of its end."""
        for event in events:
            if isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
                return event.end_mark
            child = self._node(event, events)
            node.children.append(child)
            node.shared |= child.shared
        raise AssertionError("a collection that begins also ends")

    def raw(self, node: Node) -> str:
        """The text of *node* as it stands."""
        return self.text[node.start : node.end]

    def in_line(self, node: Node) -> str:
        """*node* as it may stand between brackets, aliases written out."""
        node = node.target or node
        if node.kind == "mapping":
            members = (f"{self.in_line(key)}: {self.in_line(value)}" for key, value in node.pairs())
            return "{ " + ", ".join(members) + " }" if node.children else "{}"
        if node.kind == "sequence":
            return "[" + ", ".join(map(self.in_line, node.children)) + "]"
        if node.empty:
            return "null"
        if node.plain and FLOW_SAFE.match(node.text):
            return node.text
        return json.dumps(node.text, ensure_ascii=False)
