"""Edits YAML text in place: entries are added at the end of a section or taken out, every other character stays."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from keyturn.errors import ConfigError

from .document import Mistake
from .yamltext import YamlDocument
from .yamltree import Node, Tree

INDENT = 2


class Entry(NamedTuple):
    """One entry of a section, ready to be put into another file."""

    lines: tuple[str, ...]
    """As lines of a block, not indented, with the comments above it."""
    in_line: str
    """As it may stand between brackets."""


class YamlFile:
    """The text of a YAML file whose root is a mapping, and its edits. Line ends are plain inside, kept outside."""

    def __init__(self, content: bytes, shown: str) -> None:
        """Raises ConfigError when *content* is no YAML mapping."""
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ConfigError([f"{shown}: is not UTF-8 text; save it as UTF-8. Nothing was changed"]) from error
        self.shown = shown
        self._windows = "\r\n" in text
        self.text = re.sub(r"\r\n?", "\n", text)
        self.data: dict[str, Any] = self._read()
        self._tree = Tree(self.text)
        self._edits: list[tuple[int, int, str]] = []
        self._behind: list[str] = []
        """Lines of new sections: they follow all that is added to sections that are there."""

    def _read(self) -> dict[str, Any]:
        try:
            document = YamlDocument(self.shown, self.text, {})
            if document.mistakes:
                raise document.mistakes[0]
        except Mistake as error:
            place = f"{self.shown}:{error.line}" if error.line else self.shown
            raise ConfigError([f"{place}: {error.text}. Nothing was changed"]) from error
        if document.data is not None and not isinstance(document.data, dict):
            raise ConfigError([f"{self.shown}: must be a mapping (`name: …`). Nothing was changed"])
        return document.data or {}

    def encoded(self) -> bytes:
        """The text for the disk."""
        return (self.text.replace("\n", "\r\n") if self._windows else self.text).encode()

    def section(self, name: str | None) -> Node | None:
        """The value of a key of the root, or the root; None when there is none or it is empty."""
        root = self._tree.root
        found = root if name is None or root is None else root.get(name)
        return None if found is None or found.empty else found

    def kind(self, name: str) -> str | None:
        """mapping, sequence or scalar; None when the section is absent or empty."""
        section = self.section(name)
        return None if section is None else section.kind

    def entries(self, name: str | None) -> Iterator[tuple[str, Node, Entry]]:
        """A section's entries in order: the key (empty for items of a sequence), the value, and the portable form."""
        section = self.section(name)
        if section is None or section.kind == "scalar":
            return
        owner = self._tree.root if name is not None else None
        lines = self.text.split("\n")
        keyed = section.kind == "mapping"
        members = list(section.pairs()) if keyed else [(item, item) for item in section.children]
        above = 0
        if owner is not None:
            above = next(key.last_line for key, _ in owner.pairs() if key.text == name)
        for key, value in members:
            text = self._tree.in_line(value)
            in_line = f"{self._tree.in_line(key)}: {text}" if keyed else text
            if section.flow or section.target is not None or key.shared or value.shared:
                block: Sequence[str] = [in_line if keyed else f"- {text}"]
            else:
                block = _block(lines, above, section, key, value)
            above = max(value.last_line, key.last_line)
            yield (key.text if keyed else ""), value, Entry(tuple(block), in_line)

    def comments_of(self, name: str) -> list[str]:
        """The comment lines right above a section's key."""
        root = self._tree.root
        key = next((key for key, _ in root.pairs() if key.text == name), None) if root is not None else None
        lines = self.text.split("\n")
        first = last = key.line if key is not None and root is not None and not root.flow else 0
        while first and lines[first - 1].lstrip().startswith("#"):
            first -= 1
        return lines[first:last]

    def append(self, name: str | None, entries: Sequence[Entry], comments: Sequence[str] = ()) -> None:
        """Adds entries at the end of a section, which is made, under *comments*, when it is not there."""
        if not entries:
            return
        root, section = self._tree.root, self.section(name)
        if section is not None and section.target is not None:
            raise ConfigError([f"{self.shown}:{section.line + 1}: write out what the alias stands for, to add to it"])
        if section is not None and section.flow:
            self._append_in_line(section, entries)
        elif section is not None:
            self._insert_lines(section.last_line, _indented(entries, section.column))
        elif name is None:
            self._replace_root(entries)
        else:
            self._open_section(root, name, entries, comments)

    def remove(self, name: str) -> None:
        """Takes an entry out of the root. Comments above it stay: they may be the file's."""
        root = self._tree.root
        assert root is not None, "an empty file has no entry"
        pairs = list(root.pairs())
        index = next(index for index, (key, _) in enumerate(pairs) if key.text == name)
        key, value = pairs[index]
        if not root.flow:
            start, end = self._line_start(key.line), self._line_start(max(value.last_line, key.last_line))
            if self.text[:start].endswith("\n\n") and (index or self.text[end : end + 1] in ("", "\n")):
                start -= 1  # the blank line that set the entry off
            self._edits.append((start, end, ""))
        elif index + 1 < len(pairs):
            self._edits.append((key.start, pairs[index + 1][0].start, ""))
        else:
            self._edits.append((pairs[index - 1][1].end if index else key.start, value.end, ""))

    def apply(self) -> None:
        """Makes the edits. Raises ConfigError when the file cannot be read with them."""
        for start, end, text in sorted(self._edits, key=lambda edit: edit[0], reverse=True):
            self.text = self.text[:start] + text + self.text[end:]
        if self._behind:
            text = "\n".join([self.text.removesuffix("\n"), *self._behind, ""])
            self.text = text if self.text.strip() else text.lstrip("\n")
        self._edits, self._behind = [], []
        self.data = self._read()
        self._tree = Tree(self.text)

    def _append_in_line(self, section: Node, entries: Sequence[Entry]) -> None:
        last = section.children[-1].end
        behind = re.sub(r"#[^\n]*", lambda comment: " " * len(comment[0]), self.text[last : section.end - 1])
        comma = behind.find(",")
        added = ", ".join(entry.in_line for entry in entries)
        place = last if comma < 0 else last + comma + 1
        self._edits.append((place, place, f", {added}" if comma < 0 else f" {added}"))

    def _open_section(self, root: Node | None, name: str, entries: Sequence[Entry], comments: Sequence[str]) -> None:
        if root is not None and root.flow:
            raise ConfigError(
                [f"{self.shown}:1: has its sections in brackets; write {name}: on a line of its own first"]
            )
        column = root.column if root is not None else 0
        key = next((key for key, _ in root.pairs() if key.text == name), None) if root is not None else None
        block = _indented(entries, column + INDENT)
        if root is None or key is None:
            head = [" " * column + line.strip() for line in comments]
            self._behind += ["", *head, f"{' ' * column}{name}:", *block]
            return
        value = root.get(name)
        assert value is not None, "a key has a value"
        self._edits.append((value.start, value.end, ""))
        self._insert_lines(max(value.last_line, key.last_line), block)

    def _replace_root(self, entries: Sequence[Entry]) -> None:
        """The first entries of a file that holds nothing but comments, or `{}`."""
        self.text = re.sub(r"(?m)^(\{\s*\}|~|null)[ \t]*$", "", self.text)
        self._behind += ["", *_indented(entries, 0)]

    def _insert_lines(self, line: int, lines: Sequence[str]) -> None:
        start = self._line_start(line)
        text = "".join(f"{each}\n" for each in lines)
        self._edits.append((start, start, text if self.text[:start].endswith("\n") else f"\n{text}"))

    def _line_start(self, line: int) -> int:
        position = 0
        for _ in range(line):
            position = self.text.find("\n", position) + 1
            if not position:
                return len(self.text)
        return position


def _block(lines: list[str], above: int, section: Node, key: Node, value: Node) -> list[str]:
    """The lines of an entry, from the comments behind the entry before it; their common indentation taken off."""
    first = key.line
    while section.kind == "sequence" and not re.match(rf" {{{section.column}}}-(\s|$)", lines[first]):
        first -= 1
    start = above
    while start < first and not lines[start].strip():
        start += 1
    gap = [""] if start > above and any(lines[start:first]) else []
    return gap + [_shifted(line, section.column) for line in lines[start : max(value.last_line, key.last_line)]]


def _shifted(line: str, column: int) -> str:
    return line[column:] if not line[:column].strip() else line.lstrip()


def _indented(entries: Sequence[Entry], column: int) -> list[str]:
    return [" " * column + line if line.strip() else "" for entry in entries for line in entry.lines]
