"""Reads YAML into plain data with marks: bare `${NAME}` anywhere, one document, no bombs, errors that teach."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from .document import Mark, Mistake, Path
from .variables_in_text import expand, hide

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
DEEPEST = 100
"""Brackets in brackets; the C parser's stack ends somewhere above."""
WIDEST = 200
"""Columns of indentation, for the same reason."""
MOST_COPIES = 20_000
"""Parts that aliases may repeat: far more than anybody writes, far less than a bomb."""
KEPT = {"cmd": frozenset({"MODEL"})}
"""Key -> variables below it that are not ours to expand."""
_SCALAR = "tag:yaml.org,2002:"
_TEXTS = {_SCALAR + kind for kind in ("str", "timestamp", "value")}
_BRACKETS = re.compile(r"[\[{\]}]")
_INDENTED = re.compile(rf"^[ \-?:]{{{WIDEST},}}", re.MULTILINE)


class YamlDocument:
    """A parsed YAML file. Positions are looked up when asked for, so that good files pay nothing for them."""

    def __init__(self, shown: str, text: str, values: Mapping[str, str]) -> None:
        """Raises Mistake when *text* is no YAML document of plain data."""
        self.shown = shown
        hidden, self._table = hide(text)
        self._dollar = next((chr(code) for code, sign in self._table.items() if sign == ord("$")), "")
        self._root = _compose(hidden, text)
        self._values = values
        self._members: dict[int, tuple[dict[str, tuple[yaml.Node, yaml.Node]], list[yaml.MappingNode]]] = {}
        self._open: set[int] = set()
        self._seen: set[int] = set()
        self._copies = MOST_COPIES
        self.mistakes: list[Mistake] = []
        self.data = {} if self._root is None else self._plain(self._root, values)

    def mark(self, path: Path) -> Mark:
        found = self._find(path)
        return Mark(1, 1) if found is None else Mark(found[0].line + 1, found[0].column + 1)

    def raw(self, path: Path) -> str:
        found = self._find(path)
        return self._text(found[1]) if found is not None and isinstance(found[1], yaml.ScalarNode) else ""

    def _text(self, node: yaml.ScalarNode) -> str:
        text: str = node.value
        return text.translate(self._table) if self._dollar and self._dollar in text else text

    def _find(self, path: Path) -> tuple[Any, yaml.Node] | None:
        """The mark and node of the deepest part of *path* that is there. A key's mark stands for its value."""
        if self._root is None:
            return None
        node, mark = self._root, self._root.start_mark
        for step in path:
            if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                mark = node.start_mark
            elif isinstance(node, yaml.MappingNode):
                found = self._member(node, step)
                if found is None:
                    break
                mark, node = found[0].start_mark, found[1]
            else:
                break
        return mark, node

    def _member(self, node: yaml.MappingNode, name: str | int) -> tuple[yaml.Node, yaml.Node] | None:
        if id(node) not in self._members:
            own: dict[str, tuple[yaml.Node, yaml.Node]] = {}
            merged: list[yaml.MappingNode] = []
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode):
                    own.setdefault(self._text(key), (key, value))
                if key.tag == _SCALAR + "merge":
                    sources = value.value if isinstance(value, yaml.SequenceNode) else [value]
                    merged += [source for source in sources if isinstance(source, yaml.MappingNode)]
            self._members[id(node)] = own, merged
        own, merged = self._members[id(node)]
        if str(name) in own:
            return own[str(name)]
        return next((found for source in merged if (found := self._member(source, name)) is not None), None)

    def _plain(self, node: yaml.Node, values: Mapping[str, str]) -> Any:
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, values)
        known = id(node)
        if known in self._open:
            raise Mistake(node.start_mark.line + 1, "an alias (*name) stands inside of what it repeats; write it out")
        if known in self._seen:
            self._copies -= len(node.value) + 1
            if self._copies < 0:
                raise Mistake(node.start_mark.line + 1, "aliases (*name) repeat too much of the file; write it out")
        self._seen.add(known)
        self._open.add(known)
        plain: Any
        if isinstance(node, yaml.MappingNode):
            plain = self._mapping(node, values)
        else:
            plain = [self._plain(member, values) for member in node.value]
        self._open.discard(known)
        return plain

    def _scalar(self, node: yaml.ScalarNode, values: Mapping[str, str]) -> Any:
        tag = node.tag
        text: str = node.value
        if tag in _TEXTS:
            if self._dollar and self._dollar in text:
                text = text.translate(self._table)
            return expand(text, values) if "${" in text else text
        kind = tag.removeprefix(_SCALAR)
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() in ("yes", "true", "on")
        try:
            if kind == "int":
                return _integer(text)
            if kind == "float":
                return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
        except ValueError:
            return text  # 12:30 is a number to YAML 1.1, and to nobody else
        raise Mistake(node.start_mark.line + 1, f"the tag {tag.replace(_SCALAR, '!!')} is not read; leave it out")

    def _mapping(self, node: yaml.MappingNode, values: Mapping[str, str]) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        lines: dict[str, int] = {}
        merged: dict[str, Any] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.tag == _SCALAR + "merge":
                for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    members = self._plain(source, values)
                    if not isinstance(members, dict):
                        raise Mistake(line, "<< takes a mapping, or a list of mappings; write its members out")
                    merged = members | merged
                continue
            if not isinstance(key, yaml.ScalarNode):
                raise Mistake(line, "a key must be a plain name; put it in quotes if it holds brackets")
            name = key.value if not self._dollar else self._text(key)
            if name in plain:
                said = f"{name} is here twice (first in line {lines[name]}); keep one of them"
                self.mistakes.append(Mistake(line, said))
            lines[name] = line
            kept = KEPT.get(name)
            inner = {each: text for each, text in values.items() if each not in kept} if kept else values
            plain[name] = self._plain(value, inner)
        return merged | plain if merged else plain


def _integer(text: str) -> int:
    """As YAML 1.1 writes whole numbers, but for its base 60. Raises ValueError."""
    digits = text.replace("_", "").lower()
    if digits.lstrip("+-").startswith("0x"):
        return int(digits, 16)
    if digits.lstrip("+-").startswith("0b"):
        return int(digits, 2)
    return int(digits, 8) if len(digits.lstrip("+-")) > 1 and digits.lstrip("+-")[0] == "0" else int(digits)


def _compose(text: str, original: str) -> yaml.Node | None:
    _refuse_depth(text)
    try:
        node: yaml.Node | None = yaml.compose(text, Loader=LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _explained(error, original, 0 if mark is None else mark.line + 1) from error
    except yaml.reader.ReaderError as error:
        line = original.count("\n", 0, error.position) + 1
        raise Mistake(line, "holds a control character that no text has; take it out") from error
    except yaml.YAMLError as error:
        raise Mistake(0, "is not YAML") from error
    return node


def _refuse_depth(text: str) -> None:
    depth = 0
    for bracket in _BRACKETS.finditer(text):
        depth = depth + 1 if bracket[0] in "[{" else max(depth - 1, 0)
        if depth > DEEPEST:
            raise Mistake(text.count("\n", 0, bracket.start()) + 1, "brackets are nested too deeply")
    if wide := _INDENTED.search(text):
        raise Mistake(text.count("\n", 0, wide.start()) + 1, f"is indented by {WIDEST} columns or more")


def _explained(error: yaml.MarkedYAMLError, text: str, line: int) -> Mistake:
    """The parser's complaint, in the words of somebody who has to mend it."""
    problem = str(error.problem or "")
    lines = text.splitlines()
    here = lines[line - 1] if 0 < line <= len(lines) else ""
    began = error.context_mark.line + 1 if error.context_mark is not None else line
    opened = f"; the bracket is opened in line {began}" if began != line else ""
    block = f" the block that begins in line {began}" if began != line else ""
    if "cannot start any token" in problem and here[: len(here) - len(here.lstrip())].count("\t"):
        return Mistake(line, "a tab indents this line; use spaces")
    if "cannot start any token" in problem:
        sign = next((sign for sign in "@`%\t" if sign in here), "")
        named = "a tab" if sign == "\t" else sign or "this character"
        return Mistake(line, f"a text cannot begin with {named}; put it in quotes")
    if "mapping values are not allowed" in problem:
        return Mistake(line, "a second ': ' in one line; put the text in quotes, or check the indentation")
    if "quoted scalar" in str(error.context):
        return Mistake(began, "a quote is opened here and never closed")
    if "flow" in str(error.context):
        return Mistake(line, f"a comma or a closing bracket is missing{opened}")
    if "duplicate anchor" in problem or "undefined alias" in problem:
        return Mistake(line, "an alias (*name) without its anchor (&name); a text that begins with * needs quotes")
    if "another document" in problem:
        return Mistake(line, "a second document begins here; keep one per file")
    if "block sequence entries" in problem or "block" in str(error.context) or "simple key" in str(error.context):
        return Mistake(line, f"the indentation does not fit{block}, or a ':' is missing")
    return Mistake(line, f"is not YAML: {problem}")
