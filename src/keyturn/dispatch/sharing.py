"""Answers that identical calls share, where the owner asked for it: kept for a while, or while they are under way.

Calls are identical when every member of their bodies is, as it was written, at the same door and under the same name.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from fnmatch import translate
from hashlib import sha256
from typing import TYPE_CHECKING

from keyturn.config import Config, SharingScope
from keyturn.core import Call
from keyturn.errors import BudgetExhausted, CallerLimit, KeyturnError, RequestExceedsLimit

from .answering import request_ids
from .flight import NOTHING_SENT, Flight
from .kept import Kept, KeptAnswers
from .relay import RelayStream
from .reply import Reply
from .run import Run

if TYPE_CHECKING:
    from .gateway import Gateway

KINDS = frozenset({"chat", "completions", "embeddings", "moderations", "rerank"})
HEADERS = ("anthropic-version", "anthropic-beta")
"""Headers of a request that change its answer."""
LARGE = 512 * 1024
"""Bytes of a request above which its key is made in a thread."""
MISS = (b"x-keyturn-cache", b"miss")
HIT = (b"x-keyturn-cache", b"hit")
NOBODY_ELSES = (CallerLimit, BudgetExhausted, RequestExceedsLimit)
"""Refusals that may be the first caller's own."""


class Sharing:
    """What one configuration says of shared answers, and the answers. Made only where it says something."""

    def __init__(self, config: Config, gateway: Gateway) -> None:
        self._gateway = gateway
        self._cache = config.cache
        self._coalesce = config.coalesce
        self._kept_names = _names(config.cache.routes if config.cache is not None else ())
        self._joined_names = _names(config.coalesce.routes if config.coalesce is not None else ())
        cache = config.cache
        self.kept = KeptAnswers(cache.ttl, cache.max_entries, cache.max_bytes) if cache else KeptAnswers(0, 0, 0)
        self._flights: dict[bytes, Flight] = {}
        """Those that may be joined, or might have been."""
        self._under_way: set[Flight] = set()

    async def answer(self, run: Run) -> Reply | None:
        """The answer to *run*, which has been planned: a kept one, that of an identical call, or its own, which is then
        kept. None when its answer is not to be shared. Raises what `Gateway.ask` raises."""
        call, cache, coalesce = run.call, self._cache, self._coalesce
        if call.kind not in KINDS or call.raw:
            return None
        said = {word.strip().partition("=")[0] for word in call.cache_control.split(",")}
        joins = coalesce is not None and said.isdisjoint(("no-cache", "no-store")) and self._joined_names(call.model)
        if cache is None or not self._kept_names(call.model):
            if coalesce is None or not joins:
                return None
            return await self._together(run, await _key(run, coalesce.scope), None)
        key = await _key(run, cache.scope)
        if "no-cache" not in said:
            now = self._gateway.clock.mono()
            kept = self.kept.get(key, now)
            if kept is not None:
                return self._again(run, kept, now)
        run.trail.shared = "miss"
        if coalesce is not None and joins:
            flown = key if coalesce.scope == cache.scope else await _key(run, coalesce.scope)
            reply = await self._together(run, flown, key)
        else:
            reply = await self._gateway.ask(run)
            if "no-store" not in said and reply.status == 200:
                self._keep_whole(reply, key)
        if run.trail.shared == "miss":
            reply.headers.append(MISS)
        return reply

    async def close(self) -> None:
        """Close what is under way, and forget all answers."""
        for flight in self._under_way:
            flight.cancel()
        for flight in list(self._under_way):
            await flight.ended()
        self.kept.clear()

    def figures(self) -> tuple[int, int]:
        """How many answers are kept, and their bytes."""
        self.kept.expire(self._gateway.clock.mono())
        return len(self.kept), self.kept.bytes

    def _again(self, run: Run, kept: Kept, now: float) -> Reply:
        """A kept answer: nobody is asked, and nothing is charged."""
        age = max(0, int(now - kept.born))
        run.trail.shared = "hit"
        run.trail.notes.append(f"answered from the cache, {age} s old")
        headers = [*kept.headers, *request_ids(run.call.dialect, run.trail.call), NOTHING_SENT, HIT]
        headers.append((b"age", b"%d" % age))
        if kept.blocks is None:
            return Reply(200, headers, kept.body)
        run.trail.status = 200
        return Reply(200, headers, stream=Replay(self._gateway, run, kept.blocks))

    async def _together(self, run: Run, flown: bytes, kept: bytes | None) -> Reply:
        """The answer of the call under way that is identical to *run*, or which *run* begins; *kept*: where to keep."""
        while True:
            flight = self._flights.get(flown)
            leads = flight is None or not flight.open
            if flight is None or leads:
                flight = self._flights[flown] = self._begun(run, flown, kept)
            try:
                return await flight.join(run)
            except KeyturnError as error:
                if leads or not _own(error, flight.run, run):
                    raise
            run.trail.shared = "" if kept is None else "miss"
            run.trail.notes.pop()  # that it was answered together with the other

    def _begun(self, run: Run, flown: bytes, kept: bytes | None) -> Flight:
        assert self._coalesce is not None
        most = self._coalesce.max_buffer
        if kept is not None and self._cache is not None:
            most = max(most, self._cache.max_answer)

        def landed(flight: Flight) -> None:
            self._under_way.discard(flight)
            if self._flights.get(flown) is flight:
                del self._flights[flown]
            if kept is not None and flight.complete and not flight.first and flight.reply is not None:
                streamed = flight.reply.stream is not None
                self._keep(flight.reply, kept, flight.pieces if streamed else None)

        flight = Flight(self._gateway, run, most, landed)
        self._under_way.add(flight)
        return flight

    def _keep_whole(self, reply: Reply, key: bytes) -> None:
        """Keep what *reply* holds, or will have held once it was read to its proper end."""
        if isinstance(reply.stream, RelayStream) and self._cache is not None:
            reply.stream = Keeping(reply.stream, self._cache.max_answer, lambda pieces: self._keep(reply, key, pieces))
        elif reply.stream is None:
            self._keep(reply, key, None)

    def _keep(self, reply: Reply, key: bytes, pieces: Iterable[bytes] | None) -> None:
        assert self._cache is not None
        now = self._gateway.clock.mono()
        kept = Kept(reply, now, pieces)
        if kept.size <= self._cache.max_answer:
            self.kept.put(key, kept, now)


class Keeping:
    """A stream on its way to the client, of which a copy is made; *keep* gets the pieces of one that was complete."""

    __slots__ = ("_keep", "_most", "_pieces", "_size", "_stream")

    def __init__(self, stream: RelayStream, most: int, keep: Callable[[list[bytes]], None]) -> None:
        self._stream = stream
        self._most = most
        self._keep = keep
        self._pieces: list[bytes] = []
        self._size = 0

    def __aiter__(self) -> Keeping:
        return self

    async def __anext__(self) -> bytes:
        try:
            piece = await self._stream.__anext__()
        except StopAsyncIteration:
            if self._stream.complete and self._size <= self._most:
                self._keep(self._pieces)
            raise
        self._size += len(piece)
        if self._size <= self._most:
            self._pieces.append(piece)
        else:
            self._pieces.clear()
        return piece

    def close(self) -> None:
        self._stream.close()


class Replay:
    """A kept stream, given again."""

    __slots__ = ("_at", "_blocks", "_closed", "_gateway", "_kept", "_run")

    def __init__(self, gateway: Gateway, run: Run, blocks: tuple[bytes, ...]) -> None:
        self._gateway = gateway
        self._run = run
        self._blocks = blocks
        self._at = 0
        self._kept = b""
        self._closed = False

    def __aiter__(self) -> Replay:
        return self

    async def __anext__(self) -> bytes:
        if self._at >= len(self._blocks):
            self.close()
            raise StopAsyncIteration
        block = self._blocks[self._at]
        self._at += 1
        if self._gateway.keep_answer > len(self._kept):
            self._kept += block[: self._gateway.keep_answer - len(self._kept)]
        return block

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._at < len(self._blocks):
            self._run.trail.status, self._run.trail.code = 499, "client_left"
        self._gateway.record(self._run, self._kept)


def _own(error: KeyturnError, first: Run, run: Run) -> bool:
    """Whether *error* is the own one of *first*, and *run* may fare better by itself: it may wait for longer, say."""
    if isinstance(error, NOBODY_ELSES) and first.caller.name != run.caller.name:
        return True
    return error.status == 429 and first.patience < run.patience


def digest(call: Call, scope: str) -> bytes:
    """What identical calls of one *scope* have in common: 32 bytes that no others have. Raises ValueError without a
    scope: an answer must never reach somebody by mistake."""
    if not scope:
        raise ValueError("an answer is shared within a scope")
    found = sha256()
    parts: list[bytes] = [
        *(text.encode("utf-8", "surrogatepass") for text in (scope, call.dialect, call.kind, call.model)),
        *(text.encode("utf-8", "surrogatepass") for text in (call.path, call.form, "stream" if call.stream else "")),
        *(call.headers.get(name, "").encode("utf-8", "surrogatepass") for name in HEADERS),
    ]
    for name in sorted(call.members):
        parts += name.encode("utf-8", "surrogatepass"), bytes(call.members[name])
    for part in parts:
        found.update(b"%d:" % len(part))
        found.update(part)
    return found.digest()


async def _key(run: Run, scope: SharingScope) -> bytes:
    """The key of *run*. Who may be answered by others than another caller shares nothing with that one."""
    if scope == "shared":
        whose = "shared " + " ".join(sorted(map(str, run.deployments)))
    else:
        whose = f"caller {run.caller.name}"
    if run.call.size > LARGE:
        return await asyncio.to_thread(digest, run.call, whose)
    return digest(run.call, whose)


def _names(patterns: tuple[str, ...]) -> Callable[[str], object]:
    """Whether a name fits one of *patterns*, which may hold shell wildcards."""
    return re.compile("|".join(map(translate, patterns)) or r"(?!)").match
