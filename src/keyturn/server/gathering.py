"""Passes a worker's question on to all others and gives it their answers together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from keyturn.core import Clock, TimerHandle

from .channel import Channel, Frame
from .siblings import Answers

PATIENCE = 1.0
"""Seconds that each worker has to answer."""
MOST_OPEN = 256
"""Questions that may be under way; one more is answered as if all were silent."""


@dataclass(slots=True)
class _Question:
    asker: Channel
    number: int
    """Which the asker gave it."""
    waiting: set[int]
    answers: Answers
    timer: TimerHandle | None = None


class Gathering:
    """The questions that are under way between workers."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._open: dict[int, _Question] = {}
        self._count = 0

    def ask(self, asker: Channel, asked: Frame, others: Iterable[tuple[int, Channel | None]]) -> None:
        """Put what *asker* asked to *others*; None where a worker is only being started."""
        self._count += 1
        question = _Question(asker, asked.number, set(), Answers())
        full = len(self._open) >= MOST_OPEN
        for number, channel in others:
            frame = Frame("question", self._count, asked.what, asked.content)
            if channel is not None and not full and channel.send(frame):
                question.waiting.add(number)
            else:
                question.answers.silent.append(number)
        if not question.waiting:
            self._reply(question)
            return
        count = self._count
        self._open[count] = question
        question.timer = self._clock.call_at(self._clock.mono() + PATIENCE, lambda: self._end(count))

    def answered(self, number: int, frame: Frame) -> None:
        """Worker *number* answered; too late, or twice, counts for nothing."""
        question = self._open.get(frame.number)
        if question is None or number not in question.waiting:
            return
        question.waiting.discard(number)
        question.answers.said[number] = frame.content
        if not question.waiting:
            self._end(frame.number)

    def close(self) -> None:
        for question in self._open.values():
            if question.timer is not None:
                question.timer.cancel()
        self._open.clear()

    def _end(self, count: int) -> None:
        question = self._open.pop(count)
        if question.timer is not None:
            question.timer.cancel()
        question.answers.silent.extend(sorted(question.waiting))
        self._reply(question)

    def _reply(self, question: _Question) -> None:
        question.answers.silent.sort()
        content = msgspec.msgpack.encode(question.answers)
        question.asker.send(Frame("answers", question.number, content=content))
