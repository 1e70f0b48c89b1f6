"""Embeddings that are asked for at almost the same time, joined into one request upstream."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from keyturn.core import Clock, TimerHandle
from keyturn.errors import BadRequest, Draining, KeyturnError, RequestError

from .crossing import CLOSED
from .parameters import encode
from .values import Answer

MOST_INPUTS = 64
MOST_BYTES = 256 * 1024
"""Of text in one joint request: more takes upstreams long enough that joining saves nothing."""
ONE_INPUTS_FAULT = frozenset({400, 413, 422})
"""Statuses of a joint request that one text among others may have caused."""
Members = Mapping[str, Any]
Send = Callable[[Members], Awaitable[Answer]]


class Part(NamedTuple):
    """What one caller asked for."""

    texts: Sequence[str]
    weight: int
    """Bytes of its texts: its share of what the joint request uses."""
    answer: asyncio.Future[Answer]


class Group:
    """Requests that differ in their texts only, until they are sent together."""

    def __init__(self, members: Members) -> None:
        self.members = members
        self.parts: list[Part] = []
        self.inputs = 0
        self.bytes = 0
        self.timer: TimerHandle | None = None
        self.task: asyncio.Task[None] | None = None


class Batcher:
    """Joins requests that come within *window* seconds of the first, and hands each caller its own part."""

    def __init__(self, clock: Clock, window: float, send: Send) -> None:
        self._clock = clock
        self._window = window
        self._send = send
        self._groups: dict[bytes, Group] = {}
        self._tasks: set[tuple[asyncio.Task[None], Group]] = set()

    async def embed(self, members: Members) -> Answer:
        """The answer to a request with these *members*. Raises what sending it raises."""
        texts = _texts(members.get("input"))
        if texts is None or len(texts) >= MOST_INPUTS or not self._window:
            return await self._send(members)
        try:
            weight = sum(len(text.encode()) for text in texts)
        except UnicodeEncodeError:
            return await self._send(members)  # which says what is wrong
        part = Part(texts, weight, asyncio.get_running_loop().create_future())
        group = self._join(members, part)
        try:
            return await part.answer
        finally:
            if group.task is not None and all(each.answer.cancelled() for each in group.parts):
                group.task.cancel()

    async def close(self) -> None:
        """End what waits and what is under way: those who wait are told that the client is closed."""
        for group in self._groups.values():
            if group.timer is not None:
                group.timer.cancel()
            _fail(group.parts, Draining(CLOSED))
        self._groups.clear()
        tasks = list(self._tasks)
        for task, group in tasks:
            _fail(group.parts, Draining(CLOSED))
            task.cancel()
        await asyncio.gather(*(task for task, _ in tasks), return_exceptions=True)

    def _join(self, members: Members, part: Part) -> Group:
        others = {name: value for name, value in members.items() if name != "input"}
        key = encode(dict(sorted(others.items())))
        group = self._groups.get(key)
        most = MOST_INPUTS - len(part.texts), MOST_BYTES - part.weight
        if group is not None and (group.inputs > most[0] or group.bytes > most[1]):
            self._flush(key)
            group = None
        if group is None:
            group = self._groups[key] = Group(others)
            group.timer = self._clock.call_at(self._clock.mono() + self._window, lambda: self._flush(key))
        group.parts.append(part)
        group.inputs += len(part.texts)
        group.bytes += part.weight
        if group.inputs == MOST_INPUTS:
            self._flush(key)
        return group

    def _flush(self, key: bytes) -> None:
        """Send a group now."""
        group = self._groups.pop(key)
        if group.timer is not None:
            group.timer.cancel()
        group.parts = [part for part in group.parts if not part.answer.cancelled()]
        if group.parts:
            task = group.task = asyncio.get_running_loop().create_task(self._sent(group))
            self._tasks.add((task, group))
            task.add_done_callback(lambda _: self._over(task, group))

    def _over(self, task: asyncio.Task[None], group: Group) -> None:
        self._tasks.discard((task, group))
        error = None if task.cancelled() else task.exception()
        for part in group.parts:  # those that have no answer, whatever happened
            if error is not None and not part.answer.done():
                part.answer.set_exception(error)
            part.answer.cancel()

    async def _sent(self, group: Group) -> None:
        parts = group.parts
        try:
            if len(parts) == 1:
                await self._alone(group.members, parts[0])
                return
            try:
                texts = [text for part in parts for text in part.texts]
                answers = divided(await self._send({**group.members, "input": texts}), parts)
            except KeyturnError as error:
                if not _singly(error):
                    raise
                await asyncio.gather(*(self._alone(group.members, part) for part in parts))
                return
            for part, answer in zip(parts, answers, strict=True):
                if not part.answer.done():
                    part.answer.set_result(answer)
        except KeyturnError as error:
            _fail(parts, error)

    async def _alone(self, members: Members, part: Part) -> None:
        try:
            texts = part.texts
            answer = await self._send({**members, "input": texts[0] if len(texts) == 1 else texts})
        except KeyturnError as error:
            _fail([part], error)
        else:
            if not part.answer.done():
                part.answer.set_result(answer)


class Uneven(BadRequest):
    """A joint answer has another number of vectors than the request had texts."""


def divided(joint: Answer, parts: Sequence[Part]) -> list[Answer]:
    """The answer of each of *parts*: its vectors, counted from 0, and its share of the usage. Raises Uneven."""
    given = enumerate(joint.get("data") or ())
    data = [item for _, item in sorted(given, key=lambda row: index_of(row[1], row[0]))]
    if len(data) != sum(len(part.texts) for part in parts):
        raise Uneven("the joint answer has another number of vectors than the request had texts")
    shares = _shares(joint.get("usage") or {}, [part.weight for part in parts])
    answers, at = [], 0
    for part, usage in zip(parts, shares, strict=True):
        rows = [{**item, "index": index} for index, item in enumerate(data[at : at + len(part.texts)])]
        at += len(rows)
        answers.append(joint.with_members(data=rows, **({"usage": usage} if "usage" in joint else {})))
    return answers


def index_of(item: Mapping[str, Any], place: int) -> int:
    """Which text a vector belongs to: what it says itself, else its place."""
    index = item.get("index")
    return index if isinstance(index, int) else place


def _shares(usage: Mapping[str, Any], weights: Sequence[int]) -> list[dict[str, Any]]:
    """*usage* in parts as *weights*; the parts of a whole number are whole and add up to it."""
    total = sum(weights) or 1
    shares: list[dict[str, Any]] = [dict(usage) for _ in weights]
    for name, amount in usage.items():
        if isinstance(amount, bool) or not isinstance(amount, int | float):
            continue
        before, taken = 0, 0
        for share, weight in zip(shares, weights, strict=True):
            before += weight
            if isinstance(amount, int):
                upto = round(amount * before / total) if total else 0
                share[name], taken = upto - taken, upto
            else:
                share[name] = amount * weight / total
    return shares


def _texts(given: object) -> list[str] | None:
    """The texts of `input`; None for tokens, and for what is none of these."""
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        return None
    return texts


def _singly(error: KeyturnError) -> bool:
    """Whether one text alone may have caused *error*, so that the others are to be asked for again."""
    return isinstance(error, RequestError) and error.status in ONE_INPUTS_FAULT


def _fail(parts: Sequence[Part], error: KeyturnError) -> None:
    """Each caller gets an error of its own: exceptions carry where they were raised."""
    for part in parts:
        if not part.answer.done():
            part.answer.set_exception(copy.copy(error) if len(parts) > 1 else error)
