"""The asynchronous client: every door of the pool as a coroutine. All that the library does begins here."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, TypeVar, Unpack, overload

import msgspec

from keyturn.core import Caller
from keyturn.dispatch import Door, Gateway, Reply, SystemClock
from keyturn.errors import BadUpstream, Draining, KeyturnError
from keyturn.providers import known, plain_name

from . import summary
from .arguments import Arguments, Given, over, read
from .batching import Batcher, index_of
from .crossing import CLOSED, leave_to_parent, start
from .doorway import NO_HEADERS
from .failures import failure
from .hooks import Hook
from .local import LocalDoorway
from .opening import open_after
from .parameters import encode, listed, read_options, wait_of
from .pool import LONGEST_LEAVE, Callback, Gone, Pool
from .streams import Stream, TextStream, text_of
from .values import Answer, Told, Value

T = TypeVar("T")
AUTO = "auto"
"""The route of calls that name no model."""
CALL = b"x-keyturn-call"
_log = logging.getLogger("keyturn.client")


class AsyncClient:
    """The pool inside a program, for asyncio: the same as the gateway, in process.

    Takes the arguments listed in `Arguments`, all optional. The configuration is read at once (raises TypeError,
    ValueError or ConfigError); the pool is opened by the first call, on its event loop. To be closed, best by
    `async with`. It is a `Doorway` itself: `ask` takes requests as the gateway's HTTP does.

    A call that fails raises the error of `keyturn.errors` that says why: ProviderExhaustedError when nothing could
    answer, a RequestError when the call itself is the cause. Each has `code`, `status` and `trail`.
    """

    def __init__(self, **arguments: Unpack[Arguments]) -> None:
        self._begin(read(**arguments))

    @classmethod
    def of(cls, gateway: Gateway, caller: Caller | None = None, **arguments: Any) -> AsyncClient:
        """A client of a pool that is there already, on the loop that runs now. Closing it leaves the pool open."""
        client = cls.__new__(cls)
        client._begin(over(gateway.config, **arguments))
        client._clock, client._loop = gateway.clock, asyncio.get_running_loop()
        client._pool = LocalDoorway(gateway, caller, let_go=_nothing)
        return client

    def _begin(self, given: Given) -> None:
        self._given = given
        self._clock: Any = SystemClock()
        self._pool: Pool | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening: asyncio.Lock | None = None
        self._latest: Iterable[tuple[bytes, bytes]] = ()
        self._closed = False
        self._batcher: Batcher | None = None
        self._forsake: weakref.finalize[..., AsyncClient] | None = None

    # --- calls --------------------------------------------------------------------------------------------------------

    @overload
    async def acompletion(
        self, model: str, messages: Sequence[Any], *, stream: Literal[False] = False, **more: Any
    ) -> Answer: ...
    @overload
    async def acompletion(
        self, model: str, messages: Sequence[Any], *, stream: Literal[True], **more: Any
    ) -> Stream: ...
    @overload
    async def acompletion(
        self, model: str, messages: Sequence[Any], *, stream: bool, **more: Any
    ) -> Answer | Stream: ...
    async def acompletion(
        self, model: str, messages: Sequence[Any], *, stream: bool = False, **more: Any
    ) -> Answer | Stream:
        """One OpenAI chat completion; *more* are its parameters, besides `timeout` (seconds), `extra_headers`,
        `extra_body` and `pre_request_callback`. None counts as not given. With *stream* its chunks."""
        return await self._asked("chat", {"model": model, "messages": messages}, stream, more)

    completion = acompletion

    async def aembedding(self, model: str, input: Any, **more: Any) -> Answer:
        """Vectors for a text, a list of texts or of tokens, in OpenAI's form. Calls that come within a few
        milliseconds and differ in *input* only are joined into one request."""
        callback = self._callback(more)
        headers = read_options(more)
        members = {"model": model, "input": input, **more}
        if callback is None and not headers and self._given.batch_window:
            await self._ready()
            if self._batcher is None:
                self._batcher = Batcher(self._clock, self._given.batch_window, self._embedded)
            return await self._batcher.embed(members)
        return await self._embedded(members, headers, callback)

    embedding = aembedding

    @overload
    async def chat(
        self, messages: str | Sequence[Any], model: str | None = None, *, stream: Literal[False] = False, **more: Any
    ) -> str: ...
    @overload
    async def chat(
        self, messages: str | Sequence[Any], model: str | None = None, *, stream: Literal[True], **more: Any
    ) -> TextStream: ...
    @overload
    async def chat(
        self, messages: str | Sequence[Any], model: str | None = None, *, stream: bool, **more: Any
    ) -> str | TextStream: ...
    async def chat(
        self, messages: str | Sequence[Any], model: str | None = None, *, stream: bool = False, **more: Any
    ) -> str | TextStream:
        """The text that is answered to *messages* (a string is one message of the user); with *stream*, piece by piece.
        Without *model*, the route `auto` is asked."""
        said = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
        if stream:
            return TextStream(await self.acompletion(model or AUTO, said, stream=True, **more))
        reply = await self.acompletion(model or AUTO, said, **more)
        if not reply.get("choices"):
            raise BadUpstream("the answer holds no choices")
        return text_of((reply["choices"][0].get("message") or {}).get("content"))

    async def embed(self, texts: str | Sequence[str], model: str | None = None, **more: Any) -> list[list[float]]:
        """A vector for each of *texts*. Without *model*, the route `auto` is asked."""
        given = listed(texts)
        if not given:
            return []
        reply = await self.aembedding(model or AUTO, given, encoding_format="float", **more)
        rows = sorted(enumerate(reply["data"]), key=lambda row: index_of(row[1], row[0]))
        return [row["embedding"] for _, row in rows]

    async def responses(self, input: Any, model: str | None = None, *, stream: bool = False, **more: Any) -> Any:
        """One call in the form of OpenAI's Responses: an Answer with `output` and `output_text`, or its events."""
        return await self._asked("responses", {"model": model or AUTO, "input": input}, stream, more)

    async def messages(
        self, model: str, messages: Sequence[Any], *, max_tokens: int = 4096, stream: bool = False, **more: Any
    ) -> Any:
        """One call in the form of Anthropic's Messages: an Answer with `content`, or its events."""
        members = {"model": model, "max_tokens": max_tokens, "messages": messages}
        return await self._asked("messages", members, stream, more)

    anthropic_messages = messages

    async def anthropic_count_tokens(self, model: str, messages: Sequence[Any], **more: Any) -> Answer:
        """`input_tokens` of a prompt in Anthropic's form: counted by the provider where it can, else our estimate."""
        found = await self._asked("count_tokens", {"model": model, "messages": messages}, False, more)
        assert isinstance(found, Answer)
        return found

    async def token_count(
        self, model: str | None = None, text: str = "", messages: Sequence[Any] | None = None, tools: Any = None
    ) -> int:
        """Our estimate of the tokens of *text*, *messages* and *tools*, for who would be asked first for *model*."""
        parts = {"text": text, "messages": messages, "tools": tools}
        question = {"model": model or AUTO, **{name: part for name, part in parts.items() if part}}
        asked = msgspec.json.decode(encode(question))
        return await self._told(lambda pool: pool.count_tokens(asked))

    async def complete(self, role: str, prompt: str, model_id: str | None = None) -> str:
        """The text that *role* answers to *prompt*: its chain of roles.yaml is tried in order. *model_id* asks for one
        model instead."""
        return await self.chat(prompt, model_id or role)

    async def ask(
        self, door: Door, body: bytes, headers: Mapping[str, str] = NO_HEADERS, argument: str = "", query: str = ""
    ) -> Reply:
        """As `Doorway.ask`: the request of any door, the answer as the gateway's HTTP gives it, errors included."""
        return await self._ask(door, body, headers, argument, query, self._given.callback)

    # --- what the pool tells ------------------------------------------------------------------------------------------

    def get_current_provider(self) -> str | None:
        """The provider of the latest good answer to this client, None before the first. Of calls that run at once the
        one that was answered last counts: `reply.keyturn.provider` tells it of each."""
        return Told.of(self._latest).provider

    async def get_available_models(self, provider: str) -> list[str]:
        """The names that can be asked for at *provider*, `provider/model`."""
        wanted = _canonical(provider)
        return [name for name, owner in await self._told(lambda pool: pool.models()) if owner == wanted]

    @overload
    async def get_all_available_models(self, grouped: Literal[True] = True) -> dict[str, list[str]]: ...
    @overload
    async def get_all_available_models(self, grouped: Literal[False]) -> list[str]: ...
    async def get_all_available_models(self, grouped: bool = True) -> dict[str, list[str]] | list[str]:
        """Every name that can be asked for; *grouped* by the provider that answers it."""
        rows = await self._told(lambda pool: pool.models())
        if not grouped:
            return [name for name, _ in rows]
        found: dict[str, list[str]] = {}
        for name, provider in rows:
            found.setdefault(provider, []).append(name)
        return found

    async def get_quota_stats(self, provider: str | None = None) -> dict[str, Any]:
        """What `GET /v1/quota-stats` answers: every key with its state and limits, own limits, totals."""
        wanted = None if provider is None else _canonical(provider)
        return await self._told(lambda pool: pool.quota_stats(wanted))

    async def force_refresh_quota(self, provider: str | None = None) -> dict[str, Any]:
        """The same as `get_quota_stats`: limits are taken over from each answer, so there is nothing to fetch."""
        return await self.get_quota_stats(provider)

    async def reload_usage_from_disk(self) -> dict[str, Any]:
        """The same as `get_quota_stats`: who owns the data folder is the only one to write it, so nothing on the disk
        is newer than what the pool knows."""
        return await self.get_quota_stats()

    async def get_status_summary(self) -> dict[str, Any]:
        """Per provider `total`, `available`, `rate_limited`, `total_success_calls`, `total_error_calls`; and
        `timestamp`. Calls are attempts, of everybody who shares the pool, since it was opened."""
        rows, tally = await self._told(_standing)
        return summary.status_summary(rows, tally, self._clock.wall())

    async def get_available_providers(self) -> list[str]:
        """The providers that have a key that can be used, or will be soon, by tier."""
        rows = await self._told(lambda pool: pool.providers())
        return [row["name"] for row in rows if row["state"] != "unavailable"]

    def get_provider_priority(self, name: str) -> int:
        """The tier of a provider, 1 first, as this client is configured."""
        return summary.priority_of(self._given.config, name)

    def get_providers_by_priority(self) -> list[str]:
        """The configured providers, by tier, then name."""
        return summary.by_priority(self._given.config)

    async def clear_rate_limits(self, providers: str | Iterable[str] | None = None) -> list[str]:
        """Clears what stands against the keys of *providers* (default: of all), but `disabled`; the keys that had
        something. The providers' own limits go on: they answer 429 again if there was a reason."""
        named = [providers] if isinstance(providers, str) else providers
        wanted = [None] if named is None else [_canonical(name) for name in named]

        async def cleared(pool: Pool) -> list[str]:
            return [key for name in wanted for key in await pool.reset(name)]

        return await self._told(cleared)

    # --- the life of a client -----------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Lets go of the pool: when nobody else uses it, what must last is written and all connections are closed.
        Calls that still run fail. May be called twice."""
        self._closed = True
        batcher, self._batcher = self._batcher, None
        pool, self._pool = self._pool, None
        if batcher is not None:
            await batcher.close()
        if pool is not None:
            if self._forsake is not None:
                self._forsake.detach()
            await pool.close()

    aclose = close

    async def __aenter__(self) -> AsyncClient:
        await self._ready()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # --- inside -------------------------------------------------------------------------------------------------------

    async def _asked(self, door: Door, members: dict[str, Any], stream: bool, more: dict[str, Any]) -> Answer | Stream:
        """Asks at *door* and reads the answer. Raises what it says when it is an error."""
        callback = self._callback(more)
        headers = read_options(more) if more else NO_HEADERS
        if stream:
            members["stream"] = True
        if more:
            members.update(more)
        reply = await self._ask(door, encode(members), headers, "", "", callback)
        if reply.stream is not None:
            return Stream(reply, self._tell)
        if reply.status >= 400:
            raise await self._failed(reply)
        return _read(reply)

    async def _embedded(
        self, members: Mapping[str, Any], headers: Mapping[str, str] = NO_HEADERS, callback: Callback | None = None
    ) -> Answer:
        reply = await self._ask("embeddings", encode(members), headers, "", "", callback)
        if reply.status >= 400:
            raise await self._failed(reply)
        return _read(reply)

    async def _ask(
        self,
        door: Door,
        body: bytes,
        headers: Mapping[str, str],
        argument: str,
        query: str,
        callback: Callback | None,
    ) -> Reply:
        pool = self._pool
        if pool is None or self._loop is not asyncio.get_running_loop():
            pool = await self._ready()
        try:
            reply = await pool.ask(door, body, headers, argument, query, callback=callback)
        except Gone as gone:
            pool = await self._reopened(pool, gone, wait_of(headers))
            reply = await pool.ask(door, body, headers, argument, query, callback=callback)
        except KeyturnError:
            if self._closed:
                raise Draining(CLOSED) from None
            raise
        if reply.status < 400:
            self._latest = reply.headers
        if self._given.log_calls:
            told = Told.of(reply.headers)
            _log.info("%s %s: %s by %s after %d", door, told.call, reply.status, told.provider, told.attempts)
        return reply

    async def _told(self, ask: Callable[[Pool], Awaitable[T]]) -> T:
        """What the pool tells of itself."""
        pool = await self._ready()
        try:
            return await ask(pool)
        except Gone as gone:
            return await ask(await self._reopened(pool, gone))

    async def _ready(self) -> Pool:
        """The pool, opened on the loop that runs now. Raises Draining when the client is closed."""
        if self._closed:
            raise Draining(CLOSED)
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None and not self._loop.is_closed() and self._pool is not None:
                raise RuntimeError(
                    "this AsyncClient is in use on another event loop: make one for each loop, or use Client"
                )
            self._loop, self._pool, self._batcher, self._opening = loop, None, None, asyncio.Lock()
        assert self._opening is not None or self._pool is not None
        if self._pool is None:
            assert self._opening is not None
            async with self._opening:
                if self._pool is None:
                    self._use(await self._opened())
        assert self._pool is not None
        return self._pool

    def _use(self, pool: Pool) -> None:
        if self._forsake is not None:
            self._forsake.detach()
        self._pool = pool
        assert self._loop is not None
        self._forsake = weakref.finalize(self, _forsaken, pool, self._loop)

    async def _reopened(self, gone: Pool, why: Gone, patience: float = LONGEST_LEAVE) -> Pool:
        """Another pool in place of one that is gone: the gateway was stopped, or started anew. One that is shutting
        down is waited for, *patience* seconds at most."""
        assert self._opening is not None
        async with self._opening:
            if self._pool is gone:
                await gone.leave()
                self._use(await self._opened(why.leaving, patience))
        return await self._ready()

    async def _opened(self, leaving: int | None = None, patience: float = 0.0) -> Pool:
        """A pool, not that of process *leaving* if it can be helped. Raises Draining when the client was closed in the
        meantime."""
        pool = None if self._closed else await open_after(self._given, leaving, patience)
        if pool is not None and self._closed:
            await pool.close()
            pool = None
        if pool is None:
            raise Draining(CLOSED)
        return pool

    def _renew(self) -> None:
        """In a process that was forked: the pool stays behind, the next call opens another."""
        if self._forsake is not None:
            self._forsake.detach()
        leave_to_parent(self._pool, self._batcher, self._loop)
        self._pool = self._batcher = self._loop = self._opening = self._forsake = None

    def _callback(self, more: dict[str, Any]) -> Callback | None:
        """The callback of one call: its own, else the client's."""
        own: Hook | None = more.pop("pre_request_callback", None)
        if own is not None and not callable(own):
            raise TypeError(f"pre_request_callback must be a function, not {own!r:.40}")
        return self._given.callback if own is None else Callback(own, self._given.abort)

    async def _failed(self, reply: Reply) -> KeyturnError:
        if self._closed:
            return Draining(CLOSED)
        error = failure(reply.status, reply.headers, reply.body)
        if error.trail is None:
            error.trail = {"call": Told.of(reply.headers).call, "attempts": []}
        await self._tell(error)
        return error

    async def _tell(self, error: KeyturnError) -> None:
        """Gives *error* the whole story of its call, as far as the pool remembers it."""
        call = (error.trail or {}).get("call")
        found = None
        if isinstance(call, str) and call and self._pool is not None:
            try:
                found = await self._told(lambda pool: pool.trail(call))
            except KeyturnError:
                pass  # what the answer itself said of the call is there all the same
        if found or error.trail:
            error.trail = Value(found or error.trail or {})


async def open_doorway(**arguments: Unpack[Arguments]) -> AsyncClient:
    """A `Doorway` to the pool that the arguments describe, opened: an AsyncClient. To be closed."""
    client = AsyncClient(**arguments)
    return await client.__aenter__()


def _read(reply: Reply) -> Answer:
    try:
        return Answer.of(reply)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadUpstream(f"the answer cannot be read: {error}") from error


def _canonical(provider: str) -> str:
    row = known(provider)
    return row.name if row is not None else plain_name(provider)


def _forsaken(pool: Pool, loop: asyncio.AbstractEventLoop) -> None:
    """A client was forgotten without `close`: its pool is let go of all the same."""
    if loop.is_running():
        start(loop, pool.close)
    elif isinstance(pool, LocalDoorway):
        pool.forsake()


async def _standing(pool: Pool) -> tuple[list[dict[str, Any]], dict[str, tuple[int, int]]]:
    return await pool.keys(), await pool.tally()


async def _nothing() -> None:
    """The pool is somebody else's."""
