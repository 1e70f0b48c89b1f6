"""The synchronous client: the same pool for programs without an event loop, usable from any thread."""

from __future__ import annotations

import atexit
import contextlib
import threading
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Generic, Literal, NamedTuple, TypeVar, Unpack, overload

from keyturn.dispatch import Door, Reply
from keyturn.errors import Draining, KeyturnError, UpstreamInterrupted

from .arguments import Arguments
from .asynchronous import AsyncClient
from .crossing import CLOSED, LoopThread, Pump, close_on, in_child, start
from .doorway import NO_HEADERS
from .streams import Stream, TextStream
from .values import Answer, Told, Value

T = TypeVar("T")
_living: weakref.WeakSet[Client] = weakref.WeakSet()
"""Clients that use the thread."""


class SyncStream(Generic[T]):
    """A stream as an iterator. It must be read to its end or closed: by `close`, by `with`, or by letting go of it."""

    def __init__(self, pump: Pump[T], thread: LoopThread, told: Told) -> None:
        self._pump = pump
        self._thread = thread
        self._items: deque[T] = deque()
        self._over = False
        self.keyturn = told
        """What is known of the call: its id, the provider, model and key that answer, how many were asked."""

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        """The next event or text. Raises UpstreamInterrupted when the answer was cut."""
        if not self._items:
            if self._over:
                raise StopIteration
            self._thread.check()
            try:
                came = self._thread.wait(self._pump.take)
            except Draining as error:
                self._over = True
                raise UpstreamInterrupted("the answer was interrupted: the client was closed") from error
            except KeyturnError:
                raise
            except BaseException:  # Ctrl-C: what was on its way is lost, so nothing after it may be taken for the next
                self.close()
                raise
            if not came:
                self._over = True
                raise StopIteration
            self._items.extend(came[1:])
            return came[0]
        return self._items.popleft()

    def close(self) -> None:
        """Let go of the answer: what still runs upstream ends. May be called twice."""
        self._over = True
        self._items.clear()
        close_on(self._thread.loop, self._pump)

    def __enter__(self) -> SyncStream[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_over", True):
            self.close()


class _Opened(NamedTuple):
    """A stream on its way from the loop to a thread."""

    pump: Pump[Any]
    told: Told

    def close(self) -> None:
        self.pump.close()


class Client:
    """The pool inside a program, for threads, scripts and notebooks: `AsyncClient` behind plain methods.

    Takes the same arguments and raises the same errors. All clients of a process share one thread, a daemon, which
    begins with the first call and ends with the last `close`. Methods block; they may be called from any thread, and
    inside a running event loop (a notebook), which they then block as well. To be closed, best by `with`; a client that
    is forgotten is closed when it is collected, and at the end of the program.
    """

    def __init__(self, **arguments: Unpack[Arguments]) -> None:
        self._inner = AsyncClient(**arguments)
        self._guard = threading.Lock()
        self._thread: LoopThread | None = None
        self._closed = False
        self._forsake: weakref.finalize[..., Client] | None = None

    @overload
    def completion(
        self, model: str, messages: Sequence[Any], *, stream: Literal[False] = False, **more: Any
    ) -> Answer: ...
    @overload
    def completion(
        self, model: str, messages: Sequence[Any], *, stream: Literal[True], **more: Any
    ) -> SyncStream[Value]: ...
    @overload
    def completion(
        self, model: str, messages: Sequence[Any], *, stream: bool, **more: Any
    ) -> Answer | SyncStream[Value]: ...
    def completion(
        self, model: str, messages: Sequence[Any], *, stream: bool = False, **more: Any
    ) -> Answer | SyncStream[Value]:
        """As `AsyncClient.acompletion`; with *stream*, an iterator of its chunks."""
        found: Answer | SyncStream[Value]
        found = self._answered(lambda: self._inner.acompletion(model, messages, stream=stream, **more))
        return found

    def embedding(self, model: str, input: Any, **more: Any) -> Answer:
        """As `AsyncClient.aembedding`: calls of several threads are joined too."""
        return self._run(lambda: self._inner.aembedding(model, input, **more))

    @overload
    def chat(
        self, messages: str | Sequence[Any], model: str | None = None, *, stream: Literal[False] = False, **more: Any
    ) -> str: ...
    @overload
    def chat(
        self, messages: str | Sequence[Any], model: str | None = None, *, stream: Literal[True], **more: Any
    ) -> SyncStream[str]: ...
    def chat(
        self, messages: str | Sequence[Any], model: str | None = None, *, stream: bool = False, **more: Any
    ) -> str | SyncStream[str]:
        """The text that is answered to *messages* (a string is one message of the user); with *stream*, piece by piece.
        Without *model*, the route `auto` is asked."""
        found: str | SyncStream[str]
        found = self._answered(lambda: self._inner.chat(messages, model, stream=stream, **more))
        return found

    def embed(self, texts: str | Sequence[str], model: str | None = None, **more: Any) -> list[list[float]]:
        """A vector for each of *texts*. Without *model*, the route `auto` is asked."""
        return self._run(lambda: self._inner.embed(texts, model, **more))

    def responses(self, input: Any, model: str | None = None, *, stream: bool = False, **more: Any) -> Any:
        """As `AsyncClient.responses`; with *stream*, an iterator of its events."""
        return self._answered(lambda: self._inner.responses(input, model, stream=stream, **more))

    def messages(
        self, model: str, messages: Sequence[Any], *, max_tokens: int = 4096, stream: bool = False, **more: Any
    ) -> Any:
        """As `AsyncClient.messages`; with *stream*, an iterator of its events."""
        return self._answered(
            lambda: self._inner.messages(model, messages, max_tokens=max_tokens, stream=stream, **more)
        )

    anthropic_messages = messages

    def anthropic_count_tokens(self, model: str, messages: Sequence[Any], **more: Any) -> Answer:
        """As `AsyncClient.anthropic_count_tokens`."""
        return self._run(lambda: self._inner.anthropic_count_tokens(model, messages, **more))

    def token_count(
        self, model: str | None = None, text: str = "", messages: Sequence[Any] | None = None, tools: Any = None
    ) -> int:
        """As `AsyncClient.token_count`."""
        return self._run(lambda: self._inner.token_count(model, text, messages, tools))

    def complete(self, role: str, prompt: str, model_id: str | None = None) -> str:
        """As `AsyncClient.complete`."""
        return self._run(lambda: self._inner.complete(role, prompt, model_id))

    def ask(
        self, door: Door, body: bytes, headers: Mapping[str, str] = NO_HEADERS, argument: str = "", query: str = ""
    ) -> Reply:
        """The request of any door, the answer as the gateway's HTTP gives it, errors included. A stream is read whole:
        `stream_from` gives its pieces as they come."""

        async def whole() -> Reply:
            reply = await self._inner.ask(door, body, headers, argument, query)
            if reply.stream is None:
                return reply
            try:
                pieces = [piece async for piece in reply.stream]
            finally:
                reply.close()
            return Reply(reply.status, reply.headers, b"".join(pieces))

        return self._run(whole)

    def stream_from(
        self, door: Door, body: bytes, headers: Mapping[str, str] = NO_HEADERS, argument: str = "", query: str = ""
    ) -> tuple[Reply, SyncStream[bytes] | None]:
        """The same with the bytes of a stream as they come; None for an answer without one."""

        async def asked() -> tuple[Reply, _Opened | None]:
            reply = await self._inner.ask(door, body, headers, argument, query)
            return reply, None if reply.stream is None else _Opened(Pump(reply.stream), Told.of(reply.headers))

        reply, opened = self._run(asked)
        if opened is None:
            return reply, None
        return Reply(reply.status, reply.headers), SyncStream(opened.pump, self._joined(), opened.told)

    def get_current_provider(self) -> str | None:
        """The provider of the latest good answer to this client, of whatever thread; None before the first."""
        return self._inner.get_current_provider()

    def get_available_models(self, provider: str) -> list[str]:
        """The names that can be asked for at *provider*, `provider/model`."""
        return self._run(lambda: self._inner.get_available_models(provider))

    @overload
    def get_all_available_models(self, grouped: Literal[True] = True) -> dict[str, list[str]]: ...
    @overload
    def get_all_available_models(self, grouped: Literal[False]) -> list[str]: ...
    def get_all_available_models(self, grouped: bool = True) -> dict[str, list[str]] | list[str]:
        """Every name that can be asked for; *grouped* by the provider that answers it."""
        if grouped:
            return self._run(lambda: self._inner.get_all_available_models(True))
        return self._run(lambda: self._inner.get_all_available_models(False))

    def get_quota_stats(self, provider: str | None = None) -> dict[str, Any]:
        """As `AsyncClient.get_quota_stats`."""
        return self._run(lambda: self._inner.get_quota_stats(provider))

    def force_refresh_quota(self, provider: str | None = None) -> dict[str, Any]:
        """The same as `get_quota_stats`: there is nothing to fetch."""
        return self.get_quota_stats(provider)

    def reload_usage_from_disk(self) -> dict[str, Any]:
        """The same as `get_quota_stats`: nothing on the disk is newer."""
        return self.get_quota_stats()

    def get_status_summary(self) -> dict[str, Any]:
        """As `AsyncClient.get_status_summary`."""
        return self._run(self._inner.get_status_summary)

    def get_available_providers(self) -> list[str]:
        """The providers that have a key that can be used, or will be soon, by tier."""
        return self._run(self._inner.get_available_providers)

    def get_provider_priority(self, name: str) -> int:
        """The tier of a provider, 1 first, as this client is configured."""
        return self._inner.get_provider_priority(name)

    def get_providers_by_priority(self) -> list[str]:
        """The configured providers, by tier, then name."""
        return self._inner.get_providers_by_priority()

    def clear_rate_limits(self, providers: str | Iterable[str] | None = None) -> list[str]:
        """As `AsyncClient.clear_rate_limits`."""
        return self._run(lambda: self._inner.clear_rate_limits(providers))

    def close(self) -> None:
        """Lets go of the pool, and of the thread when no other client uses it. Calls that still run fail. May be called
        twice, and from any thread but that of its own callback (RuntimeError)."""
        if self._thread is not None:
            self._thread.check()
        with self._guard:
            self._closed = True
            thread, self._thread = self._thread, None
        if thread is not None:
            if self._forsake is not None:
                self._forsake.detach()
            try:
                thread.wait(self._inner.close)
            finally:
                thread.leave()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _joined(self) -> LoopThread:
        """The thread that does the work. Raises Draining when the client is closed."""
        thread = self._thread
        if thread is not None:
            return thread
        with self._guard:
            if self._closed:
                raise Draining(CLOSED)
            if self._thread is None:
                self._thread = LoopThread.join()
                self._forsake = weakref.finalize(self, _forsaken, self._inner, self._thread)
                self._forsake.atexit = False
                _living.add(self)
            return self._thread

    def _run(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return self._joined().wait(make)

    def _renew(self) -> None:
        """In a process that was forked: the pool stays behind, the next call opens another."""
        self._guard, self._thread = threading.Lock(), None
        if self._forsake is not None:
            self._forsake.detach()
        self._inner._renew()

    def _answered(self, make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """The answer, or an iterator over the stream that it is."""

        async def asked() -> Any:
            found = await make()
            if isinstance(found, Stream | TextStream):
                return _Opened(Pump(found), found.keyturn)
            return found

        found = self._run(asked)
        if isinstance(found, _Opened):
            return SyncStream(found.pump, self._joined(), found.told)
        return found


def _forsaken(inner: AsyncClient, thread: LoopThread) -> None:
    """A client was forgotten: close its pool. This may be called by any thread, in the middle of anything."""
    with contextlib.suppress(Draining):  # it was closed just now
        start(thread.loop, inner.close).add_done_callback(lambda _: thread.leave())


def _at_exit() -> None:
    """The program ends: what must last is written, and nobody waits for ever."""
    for client in list(_living):
        client.close()


def _renew() -> None:
    """In a process that was forked: every client begins anew."""
    for client in list(_living):
        client._renew()
    _living.clear()


atexit.register(_at_exit)
in_child(_renew)
