"""The pool in this process: requests are read and answered as the server does it, without a server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from keyturn.config import Config
from keyturn.core import Attempt, Call, Caller
from keyturn.dispatch import (
    Alarm,
    CallEnded,
    Cooled,
    Door,
    Event,
    Gateway,
    Reply,
    Rotated,
    count,
    first_asked,
    new_id,
    read_call,
    request_ids,
)
from keyturn.errors import KeyturnError, NoValidCredentials
from keyturn.providers import CATALOG
from keyturn.wire import dialect, error_headers

from .doorway import NO_HEADERS
from .hooks import announce, upcoming
from .pool import Callback

DIALECTS: Mapping[str, str] = {"messages": "anthropic", "count_tokens": "anthropic", "gemini": "gemini"}
"""Doors whose errors are not written in OpenAI's shape."""
JSON = (b"content-type", b"application/json")
TICK = 1.0
"""Seconds between two looks at the wall clock, which limits that reset at midnight follow."""
USUAL = ("openrouter", "groq", "gemini", "openai", "anthropic")
"""Whose variables are named to who has no key at all."""
_log = logging.getLogger("keyturn.client")


class Watching:
    """What a pool in this process is watched for: attempts by provider, callbacks by call, and the log."""

    def __init__(self, gateway: Gateway, *, tells: bool = False) -> None:
        self._gateway = gateway
        self._counts: dict[str, list[int]] = {}
        self._callbacks: dict[str, tuple[Callback, list[str]]] = {}
        """Of the calls under way that have one, by their ids, with the attempts that were told."""
        self.tells = tells
        """Events go to the log."""
        gateway.events.subscribe(self._happened)

    def tally(self) -> dict[str, tuple[int, int]]:
        """Provider -> attempts that were answered well, and those that were not."""
        return {provider: (counts[0], counts[1]) for provider, counts in self._counts.items()}

    async def called_back(self, call: Call, caller: Caller, call_id: str, callback: Callback) -> Reply:
        """Answer *call*, with *callback* awaited before each attempt."""
        self._gateway.before_attempt = self._before
        self._callbacks[call_id] = callback, []
        try:
            return await self._gateway.handle(call, caller, call_id)
        finally:
            del self._callbacks[call_id]

    async def _before(self, call_id: str, call: Call, attempt: Attempt) -> None:
        found = self._callbacks.get(call_id)
        if found is not None:
            callback, told = found
            told.append(attempt.id)
            await announce(callback.hook, call, upcoming(call_id, call, len(told), attempt), abort=callback.abort)

    def _happened(self, event: Event) -> None:
        if isinstance(event, CallEnded):
            for attempt in event.trail.attempts:
                counts = self._counts.setdefault(attempt.provider, [0, 0])
                if attempt.meaning != "cancelled":
                    counts[attempt.meaning != "ok"] += 1
        elif not self.tells:
            return
        elif isinstance(event, Cooled):
            what = f"{event.key or event.provider} {event.model}".strip()
            _log.info("%s rests for %.1f s: %s", what, event.seconds, event.reason)
        elif isinstance(event, Alarm):
            _log.warning("%s", event.text)
        elif isinstance(event, Rotated):
            _log.info("%s: key %d of %d is used now", event.provider, event.position, event.count)


class LocalDoorway:
    """Hands requests to *gateway*, on the event loop that it runs on, as *caller*.

    *let_go* is awaited by the first `close`, in place of closing the gateway; *forsaken* is called in place of that
    when no loop runs any more to close it on.
    """

    def __init__(
        self,
        gateway: Gateway,
        caller: Caller | None = None,
        *,
        watching: Watching | None = None,
        let_go: Callable[[], Awaitable[None]] | None = None,
        forsaken: Callable[[], None] = lambda: None,
    ) -> None:
        self.gateway = gateway
        self.caller = caller or gateway.config.default_caller
        self._watching = watching or Watching(gateway)
        self._let_go = let_go
        self._forsaken = forsaken
        self._closed = False
        self._ending: asyncio.Task[None] | None = None
        self._look = 0.0
        self._empty = not gateway.config.providers

    async def ask(
        self,
        door: Door,
        body: bytes,
        headers: Mapping[str, str] = NO_HEADERS,
        argument: str = "",
        query: str = "",
        *,
        callback: Callback | None = None,
    ) -> Reply:
        """Answer one request, errors included. Raises what *callback* raises, and cancellation."""
        gateway = self.gateway
        clock = gateway.clock
        call_id = new_id(clock.wall())
        if clock.mono() >= self._look:
            self._look = clock.mono() + TICK
            gateway.keep_time()
        try:
            call = read_call(door, body, headers, argument, query)
            if self._empty:
                raise NoValidCredentials(nobody(gateway.config))
            if call.kind == "count":
                return await count(gateway, call, self.caller, call_id)
        except KeyturnError as error:
            error.message = gateway.redact(error.message)  # it quotes the client
            return refused(error, DIALECTS.get(door, "openai_chat"), call_id)
        if callback is not None:
            return await self._watching.called_back(call, self.caller, call_id, callback)
        return await gateway.handle(call, self.caller, call_id)

    async def close(self) -> None:
        """Let go of the pool; nothing can be asked afterwards. Whoever calls it again waits for the first: at the end
        of a program two do, and the second ends the loop."""
        if not self._closed:
            self._closed = True
            self._ending = asyncio.get_running_loop().create_task(self._end())
        ending = self._ending
        if ending is not None and not ending.done() and not ending.get_loop().is_closed():
            await asyncio.wait([ending])
        if ending is not None and ending.done() and not ending.cancelled():
            ending.result()

    async def _end(self) -> None:
        if self._let_go is None:
            await self.gateway.close()
        else:
            await self._let_go()

    def forsake(self) -> None:
        """The same without a loop."""
        if not self._closed:
            self._closed = True
            self._forsaken()

    async def leave(self) -> None:
        await self.close()

    async def trail(self, call_id: str) -> dict[str, Any] | None:
        found = self.gateway.recent.get(call_id)
        return None if found is None else found.told()

    async def models(self) -> list[tuple[str, str]]:
        return [(row.id, row.provider) for row in await self.gateway.models(self.caller)]

    async def quota_stats(self, provider: str | None) -> dict[str, Any]:
        return self.gateway.quota_stats(self.caller, provider)

    async def keys(self) -> list[dict[str, Any]]:
        return self.gateway.keys()

    async def reset(self, key: str | None) -> list[str]:
        return self.gateway.reset(key)

    async def providers(self) -> list[dict[str, Any]]:
        return self.gateway.providers(self.caller)

    async def tally(self) -> dict[str, tuple[int, int]]:
        return self._watching.tally()

    async def count_tokens(self, question: Mapping[str, Any]) -> int:
        parts = [msgspec.json.encode(each) for name, each in question.items() if name not in ("model", "text")]
        size = len(str(question.get("text", "")).encode()) + sum(map(len, parts))
        call = Call("openai_chat", "chat", str(question["model"]), {}, size, text_bytes=size)
        first = await first_asked(self.gateway, call, self.caller)
        return self.gateway.estimator.estimate(call, str(first)).likely


def refused(error: KeyturnError, spoken: str, call_id: str) -> Reply:
    """An error of a request that never became a call, in the dialect *spoken*."""
    headers = [JSON, *request_ids(spoken, call_id)]
    headers += [(name.encode(), value.encode()) for name, value in error_headers(error)]
    return Reply(error.status, headers, dialect(spoken).error_body(error, call_id, ()))


def nobody(config: Config) -> str:
    """What to say to who has no key at all: the variables to set."""
    wanted = list(dict.fromkeys(config.unset.values()))
    wanted = wanted or [f"{CATALOG[name].variables[0]}_API_KEY" for name in USUAL]
    return f"no provider has a key. Set {', '.join(wanted)}, in the environment or in .env, or hand keys in as api_keys"
