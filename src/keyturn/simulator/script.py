"""The script of faults: which requests meet one, and what then happens to them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, Literal

import msgspec

from keyturn.errors import ConfigError

from .personas import CASES

QUIRKS = {
    "html": "200 with an HTML page",
    "block_page": "200 with the page of a guard before the server: Just a moment…",
    "plain_text": "200 with a refusal in plain text",
    "advert": "an advertisement behind what the model says",
    "truncated_json": "a plain answer whose JSON stops half way, with a content-length that fits it",
    "empty": "a completion without any choice",
    "huge": "one piece of 10 MB",
    "bytewise": "every byte sent by itself",
    "crlf": "stream lines end with CR LF",
    "pings": "a comment before every event; an event `ping` where the format has one",
    "pings_only": "comments for ever, one per pace (1 s by default), never an event",
    "no_done": "a stream without its terminal mark: [DONE], message_stop, response.completed",
    "no_usage": "usage is never told",
    "gzip": "compressed, although identity was asked for",
    "redirect": "302 to another place",
    "blank_lines": "blank lines before the JSON of a plain answer",
    "echo_key": "the error text quotes the key",
}

CASE_OF_STATUS = {
    400: "bad_request",
    401: "invalid_key",
    402: "insufficient_credit",
    403: "forbidden",
    404: "not_found",
    408: "timeout",
    413: "too_large",
    429: "rate_limited",
    503: "overloaded",
    504: "timeout",
    529: "overloaded",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One entry of the script. The first entry that fits a request is the only one that it meets.

    Which requests: *provider*, *key* and *model* are names or patterns with `*`, empty for all; *kind* and *dialect*
    are those of an `Exchange`; *after* and *until* are seconds since the simulator began; of the requests that fit, the
    first *skip* are spared, then every *every*-th one is hit, at most *times* in all, with probability *share*.

    What happens: *error* is a case of `personas.CASES` in the provider's own words, or *status* alone stands for the
    usual case of that status; both together put that status on that body (`error="overloaded", status=200`); *body*
    replaces the body. *wait* is how long the error asks to wait (20 s by default, 3 h for a daily quota).
    *latency* (seconds before the status) and *pace* (between events) slow an answer down. *does* is `hang`, `reset` or
    `end` (a clean end of the response), or `ping` in the middle of a stream (comments for ever, one per pace, 1 s by
    default). These and *error* strike before the status; with *at_chunk* after so many events of a stream (0: after the
    headers; the first event carries only the role) and with *at_byte* after so many bytes of the body. *inside* moves
    an *at_chunk* into the middle of the next event or of its first multi-byte character. *quirks* are names of QUIRKS.
    """

    provider: str = ""
    key: str = ""
    model: str = ""
    kind: str = ""
    dialect: str = ""
    stream: bool | None = None
    after: float = 0.0
    until: float = math.inf
    skip: int = 0
    every: int = 1
    times: int | None = None
    share: float = 1.0

    error: str = ""
    status: int | None = None
    body: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    wait: float | None = None
    latency: float | None = None
    pace: float | None = None
    does: Literal["", "hang", "reset", "end", "ping"] = ""
    at_chunk: int | None = None
    at_byte: int | None = None
    inside: Literal["", "event", "character"] = ""
    quirks: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        problems = [f"unknown quirk {name!r}, one of {', '.join(QUIRKS)}" for name in self.quirks - set(QUIRKS)]
        if self.error and self.error not in CASES:
            problems.append(f"unknown error {self.error!r}, one of {', '.join(sorted(CASES))}")
        if self.does not in ("", "hang", "reset", "end", "ping"):
            problems.append(f"unknown does {self.does!r}, one of hang, reset, end, ping")
        if self.does == "ping" and not self.midway:
            problems.append("ping needs at_chunk or at_byte: before the status nothing can be sent")
        if self.inside and self.at_chunk is None:
            problems.append("inside needs at_chunk")
        if self.midway and not (self.does or self.case):
            problems.append("at_chunk and at_byte need does, error or status")
        if self.every < 1:
            problems.append("every must be at least 1")
        if problems:
            raise ConfigError(problems)

    @property
    def case(self) -> str:
        """The error case that it stands for; empty when it is none."""
        if self.error or self.status is None or (self.body is not None and self.status < 400):
            return self.error
        return CASE_OF_STATUS.get(self.status, "server_error")

    @property
    def midway(self) -> bool:
        """It strikes after the status has been sent."""
        return self.at_chunk is not None or self.at_byte is not None

    def fits(self, provider: str, key: str, model: str, kind: str, dialect: str, stream: bool) -> bool:
        return (
            (not self.provider or fnmatchcase(provider, self.provider))
            and (not self.key or fnmatchcase(key, self.key))
            and (not self.model or fnmatchcase(model, self.model))
            and (not self.kind or kind == self.kind)
            and (not self.dialect or dialect == self.dialect)
            and (self.stream is None or stream == self.stream)
        )


class Script:
    """The faults in order, with how often each was met."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._entries: list[_Entry] = []
        for fault in faults:
            self.add(fault)

    def add(self, fault: Fault) -> None:
        self._entries.append(_Entry(fault))

    def clear(self) -> None:
        self._entries.clear()

    @property
    def faults(self) -> list[Fault]:
        return [entry.fault for entry in self._entries]

    def hits(self, fault: Fault) -> int:
        """How many requests met *fault*."""
        return sum(entry.hits for entry in self._entries if entry.fault is fault)

    def meet(
        self,
        provider: str,
        key: str,
        model: str,
        kind: str,
        dialect: str,
        stream: bool,
        elapsed: float,
        draw: Callable[[], float],
    ) -> Fault | None:
        """The fault that this request meets, *elapsed* seconds after the simulator began."""
        for entry in self._entries:
            fault = entry.fault
            due = fault.after <= elapsed < fault.until and fault.fits(provider, key, model, kind, dialect, stream)
            if due and entry.strikes(draw):
                return fault
        return None


@dataclass(slots=True)
class _Entry:
    fault: Fault
    seen: int = 0
    hits: int = 0

    def strikes(self, draw: Callable[[], float]) -> bool:
        """Count one fitting request; whether it is hit."""
        fault = self.fault
        self.seen += 1
        position = self.seen - fault.skip
        if position < 1 or (position - 1) % fault.every:
            return False
        if fault.times is not None and self.hits >= fault.times:
            return False
        if fault.share < 1.0 and draw() >= fault.share:
            return False
        self.hits += 1
        return True


def unknown_members(members: Iterable[str], known: Iterable[str], where: str) -> list[str]:
    """A sentence for each of *members* that is none of *known*, with the nearest one and the list of them."""
    names = sorted(known)
    return [
        f"unknown member {name!r} {where}{_meant(name, names)}, known are {', '.join(names)}"
        for name in sorted(set(members) - set(names))
    ]


def _meant(name: str, names: list[str]) -> str:
    near = get_close_matches(name, names, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def fault_of(members: Mapping[str, Any]) -> Fault:
    """A Fault from JSON members of the same names. Raises ConfigError for unknown names and values."""
    known = {part.name for part in dataclasses.fields(Fault)}
    if unknown := unknown_members(members, known, "of a fault"):
        raise ConfigError(unknown)
    try:
        return msgspec.convert(dict(members), Fault)
    except msgspec.ValidationError as error:
        raise ConfigError([f"a fault: {error}"]) from error
