"""How long answers usually take, and how long one is worth waiting for: remembered per deployment and kind of call.

An answer is compared with its like alone: the same deployment, streamed or not, asked to think or not, a prompt and
(for an answer that comes as a whole) a permitted length of the same order. Of each kind the last 64 are remembered;
the next may take twice as long as the slowest of them. A slow answer so widens the bound at once, and quick ones
narrow it when 64 in a row have been quick. An attempt that was given up counts as what it was given: the next gets
more.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import NamedTuple

from .model import Call, Deployment

WINDOW = 64
ENOUGH = 20
"""Answers that must have been seen before anything is made of them."""
FACTOR = 2.0
OPEN_ENDED = 3.0
"""A whole answer whose length the request does not bound may be as long as it likes: it gets three times the floor."""
MOST_KINDS = 4096
"""Kinds that are remembered: models come from clients. The one unused for longest is forgotten."""


class Like(NamedTuple):
    """What must be equal for two answers to be compared."""

    deployment: Deployment
    kind: str
    stream: bool
    thinks: bool
    media: bool
    prompt: int
    """The size of the prompt: powers of 8."""
    output: int
    """The permitted length of a whole answer: powers of 4; 0 when it is open-ended or the answer is streamed."""

    @property
    def open_ended(self) -> bool:
        """Nobody can say how long the answer will get."""
        return not self.stream and not self.output and self.kind in ("chat", "completions")


def like(call: Call, deployment: Deployment, *, thinks: bool) -> Like:
    """What *call* to *deployment* is compared with; *thinks*: the model may think before it speaks."""
    output = 0 if call.stream or call.max_output is None else (max(call.max_output, 1).bit_length() + 1) // 2
    prompt = (call.text_bytes.bit_length() + 2) // 3
    return Like(deployment, call.kind, call.stream, thinks, call.media > 0, prompt, output)


class _Recent:
    """The last answers of one kind and the slowest of them."""

    __slots__ = ("seconds", "slowest")

    def __init__(self) -> None:
        self.seconds: deque[float] = deque()
        self.slowest = 0.0

    def add(self, seconds: float) -> None:
        gone = self.seconds.popleft() if len(self.seconds) == WINDOW else 0.0
        self.seconds.append(seconds)
        if seconds >= self.slowest:
            self.slowest = seconds
        elif gone == self.slowest:
            self.slowest = max(self.seconds)


class Latencies:
    """All kinds of one process. Times in seconds."""

    __slots__ = ("_kinds",)

    def __init__(self) -> None:
        self._kinds: OrderedDict[Like, _Recent] = OrderedDict()

    def observe(self, kind: Like, seconds: float) -> None:
        """An answer began (of a stream) or was complete after *seconds*, or was given up then."""
        recent = self._kinds.get(kind)
        if recent is None:
            recent = self._kinds[kind] = _Recent()
            if len(self._kinds) > MOST_KINDS:
                self._kinds.popitem(last=False)
        recent.add(seconds)
        self._kinds.move_to_end(kind)

    def usual(self, kind: Like) -> float | None:
        """What the slowest of the last answers took; None while too few were seen."""
        recent = self._kinds.get(kind)
        return None if recent is None or len(recent.seconds) < ENOUGH else recent.slowest

    def bound(self, kind: Like, ceiling: float, floor: float) -> float:
        """How long the next answer is worth waiting for: at least *floor*, never more than *ceiling*."""
        usual = self.usual(kind)
        if usual is None:
            return ceiling
        least = floor * OPEN_ENDED if kind.open_ended else floor
        return min(max(usual * FACTOR, least), ceiling)
