"""Marks that many gateways share: what is told of one's own, and what is learned of others'."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from math import inf
from typing import get_args

from keyturn.core import Mark, Marks, ScopeKey, State, Transition

from .redis_port import Argument

STATES: dict[str, State] = {name: name for name in get_args(State)}
NEAR = 0.05
"""Seconds by which the same mark may seem to differ, as clocks are read with a small error."""


@lru_cache(maxsize=4096)
def scope_text(scope: ScopeKey) -> str:
    """A scope as Redis knows it. Models in it come from clients and may hold anything."""
    return json.dumps(scope, separators=(",", ":"))


def scope_of(text: bytes | str) -> ScopeKey:
    """The scope that was written so."""
    return tuple(json.loads(text))


class SharedMarks:
    """The marks of this process beside those in Redis. Times in Redis are *shift* seconds later than ours."""

    __slots__ = ("marks", "version")

    def __init__(self, marks: Marks) -> None:
        self.marks = marks
        self.version = 0
        """Of the marks in Redis, so far as they are known here."""

    def told(self, change: Transition, shift: float) -> list[Argument] | None:
        """The arguments of `mark` for *change*; None for what only counts faults, which is each gateway's own."""
        if change.state == "counting":
            return None
        scope = scope_text(change.scope)
        if change.state is None:
            return [scope, "-", 0, _moment(change.started, shift), 0, "-", ""]
        until, since = _moment(change.until, shift), _moment(change.since, shift)
        short = "s" if change.shorten else ""
        return [scope, change.state, until, since, change.strikes, change.reason or "-", short]

    def mine(self, now: float, shift: float) -> list[list[Argument]]:
        """The arguments of `mark` for every restriction that is known here and not over."""
        found = (
            self.told(Transition(mark.scope, mark.state, mark.until, mark.reason, mark.strikes, mark.since), shift)
            for mark in self.marks.every()
            if mark.until > now
        )
        return [each for each in found if each is not None]

    def learn(self, scope: ScopeKey, text: bytes | str, shift: float, now: float) -> bool:
        """Take over how Redis knows *scope*, never shortening what is known here. True when something was freed."""
        _, until, since, strikes, state, reason, short = (text if isinstance(text, str) else text.decode()).split(" ")
        mark, began = self.marks.get(scope), float(since) - shift
        if state == "-":
            if mark is None or mark.state == "counting":
                return False
            owners = short == "s" and mark.since > now  # it counts from its end, so that a success does not clear it
            if mark.since > began + NEAR and not owners:
                return False
            return self.marks.apply(Transition(scope, None))
        ends = float(until) - shift
        if state not in STATES or (ends <= now and mark is None) or _same(mark, state, ends, short == "s"):
            return False
        count = max(int(strikes), mark.strikes if mark is not None else 0)
        change = Transition(scope, STATES[state], ends, reason, count, began, shorten=short == "s")
        return self.marks.apply(change)

    def take(self, changes: Sequence[bytes], shift: float, now: float) -> list[ScopeKey]:
        """Take over scope, mark, scope, mark …: the scopes that were freed."""
        rows = [(scope_of(scope), text) for scope, text in zip(changes[::2], changes[1::2], strict=True) if text]
        return [scope for scope, text in rows if self.learn(scope, text, shift, now)]


def _same(mark: Mark | None, state: str, ends: float, shortened: bool) -> bool:
    """Whether *mark* says as much already."""
    if mark is None or mark.state == "counting":
        return False
    if shortened:
        return abs(mark.until - ends) <= NEAR
    return mark.until >= ends or (mark.state == state and mark.until >= ends - NEAR)


def _moment(mono: float, shift: float) -> str:
    return "inf" if mono == inf else repr(mono + shift)
