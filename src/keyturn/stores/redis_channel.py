"""Hears the news of the other gateways: a subscription on a connection of its own, made again after each loss."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from keyturn.core import Clock, Draw
from keyturn.errors import StoreError

from .redis_boot import Address, connect
from .redis_wire import MEANINGS, Wire, code_of, ended, hang_up, packed

LOOK_EVERY = 5.0
"""Seconds after which a silent channel is asked whether it still lives; as long again, and it is made anew."""
AGAIN_AFTER = 0.5

_log = logging.getLogger("keyturn")


class Channel:
    """Calls *news* with each message on the channel *name*. Messages of the time of a loss are lost."""

    def __init__(self, address: Address, name: str, news: Callable[[bytes], None], clock: Clock, draw: Draw) -> None:
        self._address = address
        self._name = name
        self._news = news
        self._clock = clock
        self._draw = draw
        self._listening = asyncio.Event()
        self._heard = False
        """Something came since the last look."""
        self.trouble = ""
        """Why there is no subscription, where Redis said it."""

    async def listening(self) -> None:
        """Returns when the subscription stands."""
        await self._listening.wait()

    async def run(self) -> None:
        """Listen until cancelled."""
        while True:
            task = asyncio.create_task(self._once())
            try:
                await asyncio.wait([task])
            finally:
                self._listening.clear()
                await ended(task)
            self._note(task)
            await self._clock.sleep_until(self._clock.mono() + AGAIN_AFTER * (0.5 + self._draw()))

    async def _once(self) -> None:
        wire = await connect(self._address, self._clock)
        tasks = [asyncio.create_task(self._hear(wire)), asyncio.create_task(self._look(wire))]
        try:
            await wire.send_packed_command((packed(("SUBSCRIBE", self._name)),), check_health=False)
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await hang_up(wire)
            await ended(*tasks)
        for task in tasks:
            if not task.cancelled():
                task.result()

    async def _hear(self, wire: Wire) -> None:
        while True:
            reply: Any = await wire.read_response(disable_decoding=True, disconnect_on_error=False)
            self._heard = True
            if not isinstance(reply, list) or len(reply) < 2:
                continue
            if reply[0] == b"subscribe":
                self.trouble = ""
                self._listening.set()
            elif reply[0] == b"message" and len(reply) == 3:
                self._news(reply[2])

    async def _look(self, wire: Wire) -> None:
        """End when nothing was heard for long, not even the answer to a question."""
        self._heard = True
        while self._heard:
            self._heard = False
            await wire.send_packed_command((packed(("PING",)),), check_health=False)
            await self._clock.sleep_until(self._clock.mono() + LOOK_EVERY)

    def _note(self, task: asyncio.Task[None]) -> None:
        """A loss needs no line in the log, for the link writes one; a mistake of ours does."""
        from redis.exceptions import RedisError

        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        self.trouble = MEANINGS.get(code_of(error), "") or (str(error) if isinstance(error, StoreError) else "")
        if not isinstance(error, RedisError | StoreError | OSError | EOFError | ValueError):
            _log.error("the news of other gateways could not be taken in", exc_info=error)
