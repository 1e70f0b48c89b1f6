"""A hundred secrets of the shapes that keys have, the forms in which one may turn up, and a search for them all."""

from __future__ import annotations

import base64
import json
import random
import re
import string
import uuid
from collections.abc import Callable, Iterable
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

BEGINNING, END = 16, 12
"""So many characters of a secret, from either end, are already too many to show; some begin with 13 that all know."""

_draw = random.Random(20260302)
_ALNUM = string.ascii_letters + string.digits
_WORD = _ALNUM + "-_"


def _some(length: int, letters: str = _ALNUM) -> str:
    return "".join(_draw.choice(letters) for _ in range(length))


_HEX = "0123456789abcdef"

SHAPES: dict[str, Callable[[], str]] = {
    "openai project": lambda: "sk-proj-" + _some(74, _WORD) + "T3BlbkFJ" + _some(74, _WORD),
    "openai of old": lambda: "sk-" + _some(48),
    "anthropic": lambda: "sk-ant-api03-" + _some(93, _WORD) + "AA",
    "openrouter": lambda: "sk-or-v1-" + _some(64, _HEX),
    "groq": lambda: "gsk_" + _some(52),
    "google": lambda: "AIza" + _some(35, _WORD),
    "nvidia": lambda: "nvapi-" + _some(64, _WORD),
    "xai": lambda: "xai-" + _some(80),
    "huggingface": lambda: "hf_" + _some(34),
    "github": lambda: "ghp_" + _some(36),
    "github, fine-grained": lambda: "github_pat_" + _some(22) + "_" + _some(59),
    "perplexity": lambda: "pplx-" + _some(48),
    "cerebras": lambda: "csk-" + _some(48),
    "hex, short": lambda: _some(32, _HEX),
    "hex, long": lambda: _some(64, _HEX).upper(),
    "letters and digits": lambda: _some(40),
    "base64": lambda: _some(6) + "+" + _some(20) + "/" + _some(12) + "+" + _some(2) + "==",
    "uuid": lambda: str(uuid.UUID(int=_draw.getrandbits(128), version=4)),
    "web token": lambda: f"eyJ{_some(30, _WORD)}.eyJ{_some(60, _WORD)}.{_some(43, _WORD)}",
    "shell": lambda: f"{_some(8)}$HOME${{PATH}}$(id)`{_some(8)}$$",
    "quotes": lambda: f"{_some(5)}'{_some(5)}\"{_some(5)}''\"\"{_some(5)}",
    "backslashes": lambda: f"{_some(5)}\\{_some(5)}\\n\\u0041\\\\{_some(5)}\\x",
    "addresses": lambda: f"{_some(6)}/{_some(4)}%2F%25{_some(4)}?a={_some(3)}&b#{_some(3)};c@d:e",
    "markup": lambda: f'{_some(6)}{{"{_some(4)}":[<b>&amp;,{_some(6)}]}}',
    "very long": lambda: _some(300),
}

_SHAPE_OF: dict[str, int] = {}
"""Which shape each secret that was made has, by its place in SHAPES."""


def more_secrets(count: int) -> tuple[str, ...]:
    """*count* new ones, all shapes in turn. All are accepted as keys."""
    made = []
    for number in range(count):
        secret = list(SHAPES.values())[number % len(SHAPES)]()
        _SHAPE_OF[secret] = number % len(SHAPES)
        made.append(secret)
    return tuple(made)


SECRETS: tuple[str, ...] = more_secrets(100)
"""The hundred: four of each shape."""

_FLAWS = (" ", "\t", "\n", "\r\n", "é", "密", "\u200b", "\x00", "\x1b[31m")
REFUSED = tuple(_some(BEGINNING) + flaw + _some(BEGINNING) for flaw in _FLAWS) + tuple(
    mark + _some(24) + mark for mark in "\"'"
)
"""What is no key: the configuration must say so without showing it."""


def _inside_base64(raw: bytes) -> Iterable[str]:
    """What *raw* looks like in the middle of a longer base64 text, at each of the three places it may have in it."""
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + raw).decode()
        yield encoded[-(-offset * 8 // 6) : (offset + len(raw)) * 8 // 6]


def _as_codes(text: str, letters: str, case: str) -> str:
    return "".join(f"\\u{ord(char):04{case}}" if char in letters else char for char in text)


ECHOES: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "JSON": lambda secret: json.dumps(secret)[1:-1],
    "JSON with escaped slashes": lambda secret: json.dumps(secret)[1:-1].replace("/", "\\/"),
    "JSON as Go writes it": lambda secret: _as_codes(json.dumps(secret)[1:-1], "<>&", "x"),
    "JSON as .NET writes it": lambda secret: _as_codes(json.dumps(secret)[1:-1].replace('\\"', '"'), "\"'<>&+`", "X"),
    "JSON within JSON": lambda secret: json.dumps(json.dumps(secret))[3:-3],
    "Python": lambda secret: repr(secret)[1:-1],
    "URL path": quote,
    "URL query": lambda secret: quote(secret, safe=""),
    "URL in lower case": lambda secret: re.sub(r"%..", lambda found: found[0].lower(), quote(secret, safe="")),
    "hex": lambda secret: secret.encode().hex(),
    "HEX": lambda secret: secret.encode().hex().upper(),
    "base64": lambda secret: base64.b64encode(secret.encode()).decode(),
    "base64 of Bearer": lambda secret: base64.b64encode(f"Bearer {secret}".encode()).decode(),
    "base64 of a user and it": lambda secret: base64.b64encode(f"user:{secret}:x".encode()).decode(),
    "base64 for URLs": lambda secret: base64.urlsafe_b64encode(f"a{secret}".encode()).decode(),
}
"""How an upstream, a library or we ourselves may write a secret into a text."""


TELLING = 13
"""So many of the shapes show by their beginning that they are keys."""


def is_telling(secret: str) -> bool:
    """Whether anyone who sees a part of it knows it for a key."""
    return _SHAPE_OF.get(secret, TELLING) < TELLING


def half_masked(secret: str) -> str:
    """As providers quote a key back: by its beginning and its last four characters."""
    shown = BEGINNING if is_telling(secret) else 4
    return f"{secret[:shown]}{'*' * 24}{secret[-4:]}"


class Hit(NamedTuple):
    """A secret that was found: where, in which form, and which."""

    place: str
    form: str
    secret: str


_ESCAPE = re.compile(rb"\\(?:u00([0-9A-Fa-f]{2})|([^u]))")
_PLAIN = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"b": b"\b", b"f": b"\f"}


def _unescaped(data: bytes) -> bytes:
    """*data* with the backslash escapes of JSON and Python undone."""
    return _ESCAPE.sub(
        lambda found: bytes.fromhex(found[1].decode()) if found[1] else _PLAIN.get(found[2], found[2]), data
    )


class Scanner:
    """Looks for *secrets* in bytes: whole, their ends, half masked; behind layers of escapes; and encoded."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._plain: list[tuple[bytes, str, str]] = []
        self._encoded: list[tuple[bytes, str, str]] = []
        for secret in secrets:
            raw = secret.encode()
            self._plain += [(raw, "whole", secret), (raw[:BEGINNING], "beginning", secret)]
            self._plain.append((raw[-END:], "end", secret))
            if is_telling(secret):
                self._plain.append((half_masked(secret).encode(), "half masked", secret))
            self._encoded += [(raw.hex().encode(), "hex", secret), (raw.hex().upper().encode(), "hex", secret)]
            for text in _inside_base64(raw):
                for form in {text, text.replace("+", "-").replace("/", "_")}:
                    self._encoded.append((form.encode(), "base64", secret))

    def search(self, place: str, data: bytes) -> list[Hit]:
        """Every secret in *data*, with the form in which it stands there."""
        once = _unescaped(data)
        views = {unquote_to_bytes(data): "quoted ", _unescaped(once): "twice escaped ", once: "escaped ", data: ""}
        found = [
            Hit(place, view + form, secret)
            for text, view in views.items()
            for needle, form, secret in self._plain
            if needle in text
        ]
        return found + [Hit(place, form, secret) for needle, form, secret in self._encoded if needle in data]


class Collected:
    """All that came out of a story, each text under the place where it was found; the same text is kept once."""

    def __init__(self) -> None:
        self._texts: dict[bytes, str] = {}

    def add(self, place: str, text: bytes | str) -> None:
        self._texts.setdefault(text.encode(errors="surrogateescape") if isinstance(text, str) else text, place)

    @property
    def size(self) -> int:
        """Bytes to search."""
        return sum(map(len, self._texts))

    def hits(self, secrets: Iterable[str] = SECRETS) -> list[Hit]:
        scanner = Scanner(secrets)
        # A few large texts are searched much faster than many small ones; only what has a hit is looked at one by one.
        rows = list(self._texts.items())
        found: list[Hit] = []
        for start in range(0, len(rows), 500):
            part = rows[start : start + 500]
            if scanner.search("", b"\n".join(text for text, _ in part)):
                found += [hit for text, place in part for hit in scanner.search(place, text)]
        return found

    def assert_clean(self, secrets: Iterable[str] = SECRETS) -> None:
        """Fails naming each place and form, with the beginning of what stands there."""
        found = self.hits(secrets)
        lines = dict.fromkeys(f"{hit.place}: {hit.form} of {hit.secret[:40]!r}" for hit in found)
        assert not found, f"{len(found)} hits\n" + "\n".join(list(lines)[:40])


def env_line(name: str, secret: str) -> str:
    """A line of an env file that any reader takes as NAME with exactly this value."""
    escaped = secret.replace("\\", "\\\\").replace("'", "\\'")
    return f"{name}='{escaped}'\n"
