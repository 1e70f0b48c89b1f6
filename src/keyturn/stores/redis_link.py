"""The link to Redis: one connection that is shared, a breaker, probes, and what is done when Redis is back.

Between `open` and `close` one task of its own lives through it: talk until the connection is lost or silent, then look
every half second whether Redis is back, tell those above to make up for the time between, and talk again.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from asyncio import Future
from collections.abc import Awaitable, Callable, Mapping, Sequence
from math import inf
from typing import Any

from keyturn.core import Clock, Draw, Secret
from keyturn.errors import StoreError

from .redis_boot import Address, Greeting, Unreachable, address_of, greet, named, timeout_for
from .redis_channel import Channel
from .redis_conversation import Conversation, Message
from .redis_port import Argument, Away
from .redis_presence import Presence
from .redis_scripts import SCRIPTS, channel_of, script
from .redis_wire import ended, hang_up, packed, within

BOOT_PATIENCE = 10.0
"""Seconds that `open` waits for a Redis that is not up yet."""
PROBE_EVERY = 0.5
BEAT_EVERY = 1.0
STEADY = 10.0
"""Seconds after which a connection that breaks is made again at once: a proxy may have closed it."""
RECOVERY_TIMEOUT = 1.0
"""Seconds that an operation may take while what was missed is made up for: no call waits for it."""
SUBSCRIBE_PATIENCE = 1.0
CLOSE_PATIENCE = 1.0

_log = logging.getLogger("keyturn")


class RedisLink:
    """`Link` over redis-py. *scripts*: other Lua sources by their names. Used on one event loop only.

    *prefix* goes before every key and names the channel `<prefix>:news`. A `tell` that was taken is sent again after a
    loss when it may not have arrived, so it must do no harm twice.
    """

    def __init__(
        self, url: Secret, prefix: str, clock: Clock, draw: Draw, *, scripts: Mapping[str, str] | None = None
    ) -> None:
        self._reachable = False
        self.trouble = ""
        """Why Redis is away and what to do about it; empty while it is reachable."""
        self._url = url
        self._prefix = prefix
        self._clock = clock
        self._draw = draw
        if scripts is None:
            scripts = {name: script(name) for name in SCRIPTS}
        self._sources = tuple(scripts.values())
        self._shas = {
            name: hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest() for name, source in scripts.items()
        }
        self._presence = Presence(prefix, draw)
        self._conversation: Conversation | None = None
        self._left: list[Message] = []
        """What the last conversation could not deliver."""
        self._lost = False
        """Redis lost all that it knew, and those above have not made up for it yet."""
        self._rewound = inf
        """The same of what it lost after a moment."""
        self._losses = 0
        self._timeout = 0.0
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False

    @property
    def reachable(self) -> bool:
        return self._reachable and self._conversation is not None and not self._conversation.over

    @property
    def replicas(self) -> int:
        return self._presence.replicas

    @property
    def shift(self) -> float:
        return self._presence.shift

    @property
    def rewound(self) -> float:
        return self._rewound

    @property
    def queued(self) -> int:
        return len(self._left) + (self._conversation.waiting if self._conversation is not None else 0)

    async def open(self, recover: Callable[[bool], Awaitable[None]], news: Callable[[bytes], None]) -> None:
        """See `Link.open`. A Redis that is not up yet is waited for, 10 s."""
        address = address_of(self._url)
        greeting = await self._reach(address)
        for warning in greeting.warnings:
            _log.warning("%s %s", named(address), warning)
        self._timeout = timeout_for(greeting.trip)
        channel = Channel(address, channel_of(self._prefix), news, self._clock, self._draw)
        self._talk(greeting)
        self._reachable = True
        self._tasks = [
            asyncio.create_task(self._live(address, channel, recover)),
            asyncio.create_task(channel.run()),
        ]
        try:
            await within(self._clock, SUBSCRIBE_PATIENCE, channel.listening())
        except TimeoutError as error:
            await self.close()
            raise StoreError(
                f"{named(address)} does not let this gateway hear the channel {channel_of(self._prefix)}: "
                f"{channel.trouble or 'it does not answer'}"
            ) from error
        except BaseException:
            await self.close()
            raise

    def ask(self, script: str, keys: Sequence[str], arguments: Sequence[Argument]) -> Future[Any]:
        data = self._packed(script, keys, arguments)
        conversation = self._conversation
        if conversation is None or conversation.full:
            away: Future[Any] = asyncio.get_running_loop().create_future()
            away.set_exception(
                Away(self.trouble or ("too much waits to be sent" if self.reachable else "the connection was lost"))
            )
            away.exception()
            return away
        future = conversation.ask(data, script).future
        assert future is not None
        return future

    def tell(self, script: str, keys: Sequence[str], arguments: Sequence[Argument]) -> bool:
        conversation = self._conversation
        if conversation is None or not self.reachable or conversation.full:
            return False
        conversation.tell(self._packed(script, keys, arguments), script)
        return True

    async def close(self) -> None:
        """See `Link.close`. Takes at most a second; may be called twice."""
        conversation = self._conversation
        was_reachable, self._reachable, self._closed = self.reachable, False, True
        self.trouble = "the link is closed"
        try:
            if conversation is not None and was_reachable:
                conversation.tell(self._presence.leave(), "leave")
                await within(self._clock, CLOSE_PATIENCE, conversation.quiet())
        except TimeoutError:
            _log.warning("Redis did not take the last messages in time; it settles what is open by itself")
        finally:
            self._conversation, self._left = None, []
            if conversation is not None:
                await conversation.close(self.trouble)
            await ended(*self._tasks)

    def _packed(self, script: str, keys: Sequence[str], arguments: Sequence[Argument]) -> bytes:
        return packed(("EVALSHA", self._shas[script], len(keys), *keys, *arguments))

    async def _reach(self, address: Address) -> Greeting:
        """The first greeting, waiting for a Redis that starts at the same time as we."""
        until = self._clock.mono() + BOOT_PATIENCE
        told = False
        while True:
            try:
                return await self._greet(address)
            except Unreachable as error:
                if self._clock.mono() >= until:
                    raise
                if not told:
                    _log.warning("%s; waiting up to %.0f s", error, BOOT_PATIENCE)
                told = True
            await self._clock.sleep_until(self._clock.mono() + PROBE_EVERY)

    def _greet(self, address: Address) -> Awaitable[Greeting]:
        return greet(address, self._clock, self._presence, self._sources)

    def _talk(self, greeting: Greeting) -> Conversation:
        sources = (*self._sources, self._presence.source)
        self._conversation = Conversation(greeting.wire, self._clock, self._timeout, sources)
        self._conversation.resume(self._left)
        self._left = []
        return self._conversation

    async def _live(self, address: Address, channel: Channel, recover: Callable[[bool], Awaitable[None]]) -> None:
        missed = False
        while True:
            conversation = self._conversation
            assert conversation is not None
            reason = await self._through(conversation, channel, recover, missed)
            was_reachable, self._reachable, self._conversation = self._reachable, False, None
            self._left = conversation.left
            between = ": " if reason.startswith("the ") else " "  # a sentence of its own, or what Redis does
            self.trouble = f"{named(address)}{between}{reason}"
            if was_reachable:
                _log.warning("%s; each limit follows its policy until it is back", self.trouble)
            greeting = await self._return(address, at_once=self._clock.mono() - conversation.began >= STEADY)
            if self._closed:
                return await hang_up(greeting.wire)
            missed = True
            self._talk(greeting)

    def _forgot(self, lost: bool) -> None:
        """A heartbeat told what Redis lost: it holds until it was made up for, however often that is cut short."""
        rewound = self._presence.rewound
        self._losses += lost or rewound < inf
        self._lost = self._lost or lost
        self._rewound = min(self._rewound, rewound)

    async def _through(
        self,
        conversation: Conversation,
        channel: Channel,
        recover: Callable[[bool], Awaitable[None]],
        missed: bool,
    ) -> str:
        """One conversation, to its end; the reason of that."""
        emptied = asyncio.Event()
        talk = asyncio.create_task(conversation.run())
        beat = asyncio.create_task(self._beat(conversation, emptied))
        attend = asyncio.create_task(self._attend(conversation, channel, recover, missed, emptied))
        ends: list[asyncio.Task[Any]] = [talk, beat, attend]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await ended(*ends)
            await conversation.close("the link was closed")  # where it never began to run
        failure = None if attend.cancelled() else attend.exception()
        if failure is not None and not isinstance(failure, Away):
            _log.error("what was missed could not be made up for; trying again", exc_info=failure)
        if talk.cancelled():
            return (
                "answers heartbeats by something else"
                if failure is None
                else "answers, but what was missed could not be made up for: trying again"
            )
        return talk.result()

    async def _beat(self, conversation: Conversation, emptied: asyncio.Event) -> None:
        """Say each second that we are there. Ends when a heartbeat is answered by something else."""
        while True:
            await self._clock.sleep_until(self._clock.mono() + BEAT_EVERY * (0.95 + 0.1 * self._draw()))
            beat = conversation.ask(self._presence.beat(), "presence")
            try:
                reply = await beat.future  # type: ignore[misc]
            except Away:
                continue  # the conversation counts silences, and ends by them
            lost, losses = self._presence.heard(reply, beat.since, beat.received), self._losses
            self._forgot(lost)
            if self._losses > losses:
                what = "was emptied" if lost else "lost its last writes"
                _log.warning("Redis %s: the gateways tell it again what they remember", what)
                self._reachable = False
                emptied.set()

    async def _attend(
        self,
        conversation: Conversation,
        channel: Channel,
        recover: Callable[[bool], Awaitable[None]],
        missed: bool,
        emptied: asyncio.Event,
    ) -> None:
        """Make up for what was *missed*, if anything, and again when Redis forgets under us."""
        if missed:
            await self._recover(conversation, channel, recover)
        while await emptied.wait():
            emptied.clear()
            self._reachable = False
            await self._recover(conversation, channel, recover)

    async def _recover(
        self,
        conversation: Conversation,
        channel: Channel,
        recover: Callable[[bool], Awaitable[None]],
    ) -> None:
        """Have those above make up for what was missed; then Redis counts as reachable."""
        began = self._clock.mono()
        try:  # news that came before the subscription would be missed otherwise; without it, reservations tell
            await within(self._clock, SUBSCRIBE_PATIENCE, channel.listening())
        except TimeoutError:
            _log.warning(
                "Redis is back, but its news is not heard yet%s", f": {channel.trouble}" * bool(channel.trouble)
            )
        conversation.timeout = max(self._timeout, RECOVERY_TIMEOUT)
        lost, rewound, losses = self._lost, self._rewound, self._losses
        await recover(lost)
        if self._losses == losses:
            self._lost, self._rewound = False, inf
        conversation.timeout = self._timeout
        if not self._closed:
            self._reachable, self.trouble = True, ""
        _log.warning(
            "Redis is back%s; made up for what was missed in %.1f s",
            ", without what it knew" if lost else ", without its last writes" if rewound < inf else "",
            self._clock.mono() - began,
        )

    async def _return(self, address: Address, *, at_once: bool) -> Greeting:
        """Look again and again until Redis can be used."""
        pause = 0.0 if at_once else PROBE_EVERY
        while True:
            await self._clock.sleep_until(self._clock.mono() + pause * (0.75 + 0.5 * self._draw()))
            pause = PROBE_EVERY
            try:
                greeting = await self._greet(address)
            except StoreError as error:
                self.trouble = str(error)
                continue
            self._forgot(greeting.lost)
            if greeting.trip <= self._timeout:
                break
            self.trouble = f"{named(address)} answers only after {greeting.trip * 1000:.0f} ms"
            await hang_up(greeting.wire)
        return greeting
