"""`${NAME}` and `${NAME:-default}`: hidden from a parser so that they are never syntax, and expanded after it."""

from __future__ import annotations

import re
from collections.abc import Mapping

VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}\n]*))?\}")
_STOPS = re.compile(r"""[$"'#|>]""")
"""Where it may be decided whether a `${` stands outside quotes, comments and block text."""
_COMMENT = re.compile(r"#[^\n]*")
_BLOCK = re.compile(r"[|>][-+0-9]{0,2}[ \t]*(?:#[^\n]*)?\r?\n")
_QUOTED = {'"': re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL), "'": re.compile(r"'(?:[^']|'')*'")}
_BEFORE_BLOCK = (": ", "- ", "? ")
_BLOCKS = range(0xE000, 0xF880, 0x80)
"""Where private-use characters may stand for the 128 plain ones."""


def hide(text: str) -> tuple[str, dict[int, int]]:
    """*text* with the signs of every bare `${…}` as private-use characters, and the table that `str.translate` needs
    to bring them back. No character is added or taken away, so lines and columns stay."""
    if "${" not in text:
        return text, {}
    taken = {ord(sign) & ~0x7F for sign in set(text) if "\ue000" <= sign <= "\uf8ff"}
    base = next((base for base in _BLOCKS if base not in taken), None)
    if base is None:
        return text, {}
    signs = {code: base + code for code in range(128) if not chr(code).isalnum() and chr(code) != "_"}
    pieces: list[str] = []
    done = position = 0
    while stop := _STOPS.search(text, position):
        start, sign = stop.start(), stop[0]
        position = start + 1
        if sign == "$":
            if variable := VARIABLE.match(text, start):
                pieces += text[done:start], variable[0].translate(signs)
                done = position = variable.end()
        elif sign == "#":
            if start == 0 or text[start - 1] in " \t\n":
                position = _end(_COMMENT.match(text, start), position)
        elif sign in _QUOTED:
            if _opens(text, start):
                position = _end(_QUOTED[sign].match(text, start), len(text))
        elif text[start - 2 : start] in _BEFORE_BLOCK and (header := _BLOCK.match(text, start)):
            position = _end_of_block(text, start, header.end())
    return "".join(pieces) + text[done:], {hidden: code for code, hidden in signs.items()}


def _end(found: re.Match[str] | None, otherwise: int) -> int:
    return found.end() if found else otherwise


def expand(text: str, values: Mapping[str, str]) -> str:
    """*text* with variables replaced: by their value, else by their default, else left as they stand.

    As in a shell, the default is also taken for a variable that is set to nothing.
    """

    def value(found: re.Match[str]) -> str:
        name, default = found.groups()
        said = values.get(name)
        if default is not None:
            return said or default
        return found[0] if said is None else said

    return VARIABLE.sub(value, text) if "${" in text else text


def unset_in(text: str) -> str:
    """The first variable that is still in an expanded text; empty when there is none."""
    left = VARIABLE.search(text)
    return left[1] if left else ""


def only_variable(text: str) -> str:
    """NAME when *text* is nothing but `${NAME}` or `${NAME:-default}`, else empty."""
    found = VARIABLE.fullmatch(text)
    return found[1] if found else ""


def _opens(text: str, quote: int) -> bool:
    """Whether a quoted text begins at *quote*: inside of a plain text a quote is a letter like any other."""
    line = text[text.rfind("\n", 0, quote) + 1 : quote].rstrip(" \t")
    return not line or line[-1] in "[{,:-?!" or line.rsplit(None, 1)[-1][0] in "!&"


def _end_of_block(text: str, header: int, position: int) -> int:
    """Where the block text ends that the line of *header* begins: at a line that is not indented deeper than it."""
    start = text.rfind("\n", 0, header) + 1
    indent = len(text[start:header]) - len(text[start:header].lstrip(" "))
    while position < len(text):
        end = text.find("\n", position) + 1 or len(text)
        line = text[position:end]
        if line.strip() and len(line) - len(line.lstrip(" ")) <= indent:
            break
        position = end
    return position
