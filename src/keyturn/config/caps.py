"""Custom caps: an owner's own bounds below those of a provider, as they are written, read and printed.

    CUSTOM_CAP_GEMINI="model=gemini-2.5-flash* priority=2 requests=100/day cooldown=1h; tokens=80%/minute"

Entries are separated by `;`, the words of one by blanks. Each word says what it is: `model=` (a name or shell
wildcards, several by commas; all models unless said), `priority=` (key priorities; all keys unless said), `requests=`
and `tokens=` (an amount, `/`, a window), `cooldown=` (how long a key rests for the model once the cap is reached).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

from keyturn.providers import nearest

from .settings import as_integer

CapMetric = Literal["requests", "tokens"]
CapWindow = Literal["second", "minute", "hour", "day", "month"]
METRICS: tuple[CapMetric, ...] = get_args(CapMetric)
WINDOWS: tuple[CapWindow, ...] = get_args(CapWindow)
WORDS = ("model", "priority", *METRICS, "cooldown")
MOST_PRIORITY = 99
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_AMOUNT = re.compile(r"(?P<sign>[+-]?)(?P<number>[0-9][0-9_]{0,14})(?P<share>%?)\Z")
_LENGTH = re.compile(r"(?P<number>[0-9]{1,9})(?P<unit>[smhd]?)\Z")


class BadCap(ValueError):
    """A word of a cap that says nothing: the word, and what is wrong with it."""

    def __init__(self, word: str, said: str) -> None:
        super().__init__(f"'{word}' {said}")
        self.word = word
        self.said = said


class Amount(NamedTuple):
    """How much: `100`; `80%` of the limit that is known; that limit and `+10` or `-10`."""

    kind: Literal["exact", "share", "shift"]
    number: int

    def of(self, known: int | None) -> int | None:
        """The capacity where the limit is *known*, at least 1; None when it depends on one that is not."""
        if self.kind == "exact":
            return self.number
        if known is None:
            return None
        return max(1, known * self.number // 100 if self.kind == "share" else known + self.number)

    def __str__(self) -> str:
        return {"exact": f"{self.number}", "share": f"{self.number}%", "shift": f"{self.number:+}"}[self.kind]


class CapBound(NamedTuple):
    """One amount over one window."""

    metric: CapMetric
    window: CapWindow
    amount: Amount

    def __str__(self) -> str:
        return f"{self.metric}={self.amount}/{self.window}"


class Rest(NamedTuple):
    """How long a key rests for a model once a cap is reached: *seconds* from then on or, *after_reset*, from when the
    window has begun anew. Without either it is asked again as soon as there is room."""

    after_reset: bool = True
    seconds: int = 0

    @property
    def plain(self) -> bool:
        """Until there is room, no longer."""
        return self.after_reset and not self.seconds

    def __str__(self) -> str:
        length = f"{self.seconds}s"
        for unit, size in SECONDS.items():
            if self.seconds and not self.seconds % size:
                length = f"{self.seconds // size}{unit}"
        if not self.after_reset:
            return length
        return f"reset+{length}" if self.seconds else "reset"


class Cap(NamedTuple):
    """One entry. Every cap that fits a key and a model holds, each with counters of its own."""

    models: tuple[str, ...] = ("*",)
    priorities: tuple[int, ...] = ()
    """Of the keys that it holds for; empty: all."""
    bounds: tuple[CapBound, ...] = ()
    rest: Rest = Rest()

    def __str__(self) -> str:
        words = [] if self.models == ("*",) else [f"model={','.join(self.models)}"]
        if self.priorities:
            words.append(f"priority={','.join(map(str, self.priorities))}")
        words += map(str, self.bounds)
        if not self.rest.plain:
            words.append(f"cooldown={self.rest}")
        return " ".join(words)


def parse_caps(text: str) -> tuple[Cap, ...]:
    """The caps in *text*. Raises BadCap for the first word that is wrong."""
    return tuple(_cap(entry.split()) for entry in text.split(";") if entry.split())


def seconds_of(text: str) -> int | None:
    """`90`, `90s`, `5m`, `1h`, `7d` in seconds; None for anything else, and for 0."""
    match = _LENGTH.match(text.strip().lower())
    return (int(match["number"]) * SECONDS[match["unit"] or "s"] or None) if match else None


def _cap(words: list[str]) -> Cap:
    said: dict[str, str] = {}
    bounds: dict[tuple[str, str], CapBound] = {}
    models: tuple[str, ...] = ("*",)
    priorities: tuple[int, ...] = ()
    rest = Rest()
    for word in words:
        name, equals, value = word.partition("=")
        name = name.lower()
        if not equals or name not in WORDS:
            near = nearest(name, WORDS)
            meant = f" (did you mean {near}=?)" if near and name not in WORDS else ""
            raise BadCap(word, f"is not one of {', '.join(f'{each}=' for each in WORDS)}{meant}")
        if name in METRICS:
            bound = _bound(name, value, word)
            if (bound.metric, bound.window) in bounds:
                raise BadCap(word, f"bounds the {name} of one {bound.window} a second time; keep one")
            bounds[bound.metric, bound.window] = bound
            continue
        if name in said:
            raise BadCap(word, f"is a second {name}=; separate the values by commas, or begin another entry with ;")
        said[name] = word
        if name == "model":
            models = tuple(_models(value, word))
        elif name == "priority":
            priorities = tuple(_priorities(value, word))
        else:
            rest = _rest(value, word)
    if not bounds:
        raise BadCap(" ".join(words), "bounds nothing; add requests=100/day or tokens=80%/minute to the entry")
    return Cap(models, priorities, tuple(bounds.values()), rest)


def _models(value: str, word: str) -> Iterator[str]:
    for model in value.split(","):
        if not model:
            raise BadCap(word, "names no model; write model=gemini-2.5-flash, with * and ? for many")
        yield model


def _priorities(value: str, word: str) -> Iterator[int]:
    for text in value.split(","):
        number = as_integer(text)
        if number is None or not 1 <= number <= MOST_PRIORITY:
            raise BadCap(word, f"needs key priorities from 1 to {MOST_PRIORITY}, separated by commas: priority=1,2")
        yield number


def _bound(metric: CapMetric, value: str, word: str) -> CapBound:
    text, slash, window = value.partition("/")
    match = _AMOUNT.match(text)
    window = window.lower()
    if not slash or window not in WINDOWS:
        raise BadCap(word, f"needs a window of {', '.join(WINDOWS)}: {metric}=100/day")
    number = int(match["number"].replace("_", "")) if match else 0
    if match is None or not number or (match["sign"] and match["share"]):
        raise BadCap(word, f"has no amount like 100, 80%, -10 or +10: {metric}=100/{window}")
    if match["share"]:
        if number > 100:
            raise BadCap(word, "asks for more than 100% of a limit, which the provider would refuse")
        return CapBound(metric, window, Amount("share", number))
    kind: Literal["exact", "shift"] = "shift" if match["sign"] else "exact"
    return CapBound(metric, window, Amount(kind, -number if match["sign"] == "-" else number))


def _rest(value: str, word: str) -> Rest:
    head, plus, length = value.lower().partition("+")
    if head == "reset" and not plus:
        return Rest()
    seconds = seconds_of(length if plus else head)
    if seconds is None or (plus and head != "reset"):
        raise BadCap(word, "is no length like cooldown=reset, cooldown=30m, cooldown=1h or cooldown=reset+5m")
    return Rest(bool(plus), seconds)
