"""Takes secrets out of text: every live secret in any of its spellings, and whatever has the shape of a key.

Linear in the length of the text, whatever the number of secrets: one pass of a trie over the first letters of all
spellings finds where one may stand, a set lookup per possible length decides.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote

from .model import Secret

MASK = "***"

SHORTEST = 8
"""Shorter values are no secrets that anybody could rely on, and would be found inside ordinary words."""

# Key shapes as the providers print them (their own pages on API keys), JSON web tokens, authorization headers. The
# asterisks are for upstreams that echo a key half masked: `sk-proj-****abcd`.
_SHAPES = (
    r"sk-[\w*-]{16,}",
    r"(?:gsk|fw|r8|tgp_v1|github_pat)_[\w*-]{20,}",
    r"(?:hf|gh[opsru])_[A-Za-z0-9*]{20,}",
    r"(?:nvapi|xai|pplx|csk)-[\w*-]{20,}",
    r"AIza[\w*-]{20,}",
    r"(?:ya29\.|GOCSPX-)[\w*-]{20,}",
    r"AKIA[A-Z0-9]{16}",
    r"eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}",
)
_IN_SHAPES = ("sk-", "_", "nvapi-", "xai-", "pplx-", "AIza", "ya29.", "GOCSPX-", "AKIA", "eyJ")
"""One of these is in whatever has one of the shapes, and in few other texts: it is found much faster than a shape."""
_PERCENT = re.compile(r"%..")
_SHAPE = re.compile(
    r"(?<![A-Za-z0-9])(?:" + "|".join(_SHAPES) + r")|(?i:(?<=\bbearer )[\w.~+/=*-]{8,})",
    re.ASCII,  # a key ends where Chinese begins, also where UTF-8 is read as Latin-1
)


class Redactor:
    """Knows the live secrets; `text` and `data` return what they are given without them."""

    def __init__(self, secrets: Iterable[Secret] = ()) -> None:
        self._by_start: dict[str, dict[int, set[str]]] = {}
        self._starts: re.Pattern[str] | None = None
        self.add(*secrets)

    def add(self, *secrets: Secret) -> None:
        """Look for these too."""
        for secret in secrets:
            for spelling in _spellings(secret.reveal()):
                lengths = self._by_start.setdefault(spelling[:SHORTEST], {})
                lengths.setdefault(len(spelling), set()).add(spelling)
        self._starts = None

    def forget(self, secret: Secret) -> None:
        """Look for *secret* no more: a token that ended long ago."""
        for spelling in set(_spellings(secret.reveal())):
            lengths = self._by_start.get(spelling[:SHORTEST], {})
            found = lengths.get(len(spelling), set())
            found.discard(spelling)
            if not found:
                lengths.pop(len(spelling), None)
            if not lengths:
                self._by_start.pop(spelling[:SHORTEST], None)
        self._starts = None

    def text(self, text: str) -> str:
        """*text* with `***` in place of each secret."""
        text = self._without_exact(text)
        return _SHAPE.sub(MASK, text) if _may_have_shape(text) else text

    def data(self, data: bytes) -> bytes:
        """The same for bytes of any encoding that holds ASCII as it is."""
        text = data.decode("latin-1")
        clean = self.text(text)
        return data if clean == text else clean.encode("latin-1")

    def _without_exact(self, text: str) -> str:
        if not self._by_start:
            return text
        if self._starts is None:
            self._starts = re.compile(_trie(self._by_start))
        pieces: list[str] = []
        done = position = 0
        while found := self._starts.search(text, position):
            start = found.start()
            length = self._length_at(text, start)
            if length:
                pieces += (text[done:start], MASK)
                done = position = start + length
            else:
                position = start + 1
        pieces.append(text[done:])
        return "".join(pieces)

    def _length_at(self, text: str, start: int) -> int:
        """How long the longest secret that begins at *start* is; 0 when none does."""
        lengths = self._by_start[text[start : start + SHORTEST]]
        return max((n for n, spellings in lengths.items() if text[start : start + n] in spellings), default=0)


def _may_have_shape(text: str) -> bool:
    for part in _IN_SHAPES:
        if part in text:
            return True
    return "bearer " in text.lower()


def _spellings(value: str) -> Iterator[str]:
    """The forms in which a secret may turn up: as it is, escaped, or inside something that was encoded."""
    raw = value.encode()
    as_json = json.dumps(value)[1:-1]
    forms = {value, as_json, repr(value)[1:-1], as_json.replace("/", "\\/")}  # PHP escapes slashes
    forms |= {_as_codes(as_json, "<>&", "x"), _as_codes(as_json.replace('\\"', '"'), "\"'<>&+`", "X")}  # Go; .NET
    forms |= {json.dumps(form)[1:-1] for form in forms}  # JSON inside a JSON string
    for safe in ("/", ""):
        quoted = quote(value, safe=safe)
        forms |= {quoted, _PERCENT.sub(lambda code: code[0].lower(), quoted)}
    forms |= {raw.decode("latin-1"), raw.hex(), raw.hex().upper(), *_inside_base64(raw)}
    return (form for form in forms if len(form) >= SHORTEST)


def _as_codes(text: str, letters: str, case: str) -> str:
    """*text* with each of *letters* as a `\\u` escape, its digits in lower (`x`) or upper (`X`) case."""
    return "".join(f"\\u{ord(letter):04{case}}" if letter in letters else letter for letter in text)


def _inside_base64(raw: bytes) -> Iterator[str]:
    """What *raw* looks like inside a longer base64 text, at each of the three offsets that it may have there."""
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + raw)
        # The outermost characters also hold bits of the neighbours, unless the bytes fall on a boundary.
        first = -(-offset * 8 // 6)
        last = (offset + len(raw)) * 8 // 6
        whole = encoded[first:last].decode()
        yield whole
        yield whole.replace("+", "-").replace("/", "_")


def _trie(words: Iterable[str]) -> str:
    """A pattern for any of *words*, all equally long: one branch per letter, so no word is tried twice."""
    tails: dict[str, list[str]] = {}
    for word in words:
        tails.setdefault(word[0], []).append(word[1:])
    branches = [re.escape(letter) + (_trie(rest) if rest[0] else "") for letter, rest in sorted(tails.items())]
    return branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})"
