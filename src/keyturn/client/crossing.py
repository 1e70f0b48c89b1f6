"""From one thread to the event loop of another: a coroutine runs there, its result comes back, nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, Generic, Protocol, TypeVar

from keyturn.core import TimerHandle
from keyturn.dispatch import SystemClock
from keyturn.errors import Draining, KeyturnError, UpstreamInterrupted

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
MOST_AHEAD = 64
"""Items of a stream that are read before anybody takes them."""
LOOK_EVERY = 1.0
"""Seconds after which it is looked whether the other loop is still there: what is begun on one that is just ending is
never answered."""
CLOSED = "this client is closed: make another one"
FORKED = "this was begun by the parent of this process: begin it anew here"
ENDED = "the event loop that the pool lived on has ended; the call may have been made all the same"
UNREAD = "the stream was ended before it was complete"
_running: set[asyncio.Task[Any]] = set()
_under_way: set[Future[Any]] = set()
"""Every crossing that has no result yet: none is left to wait for a loop that is closed."""
_left: list[object] = []
"""In a process that was forked: what is the parent's. Freeing it would close what the parent uses."""


def in_child(renew: Callable[[], None]) -> None:
    """Has *renew* called in every process that is forked from this one, where there is such a thing."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=renew)


def leave_to_parent(*things: object) -> None:
    """Never touch these again: loops do not run here, and hang whoever waits for them."""
    _left.extend(things)


class Crossing(Future[T]):
    """The result of a coroutine on *loop*, for another thread. Cancelling it cancels the coroutine."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.loop = loop

    def abandon(self) -> None:
        """Nobody waits any more: cancel what it stands for, close what comes of it all the same."""
        if not self.cancel():
            self.add_done_callback(lambda _: self._drop())

    def _drop(self) -> None:
        if not self.cancelled() and self.exception() is None:
            close_on(self.loop, self.result())


def start(loop: asyncio.AbstractEventLoop, make: Callable[[], Coroutine[Any, Any, T]]) -> Crossing[T]:
    """Runs the coroutine that *make* makes on *loop*, which lives in another thread. Raises Draining when the loop is
    closed, or was left behind in the parent of this process."""
    if loop in _left:
        raise Draining(FORKED)
    crossing: Crossing[T] = Crossing(loop)
    _under_way.add(crossing)
    crossing.add_done_callback(_under_way.discard)
    try:
        loop.call_soon_threadsafe(_begin, loop, make, crossing)
    except RuntimeError:
        _under_way.discard(crossing)
        raise Draining(CLOSED) from None
    return crossing


def result(crossing: Crossing[T]) -> T:
    """Waits in a thread without a loop; who is interrupted cancels what runs. Raises Draining when the loop ends."""
    try:
        while True:
            try:
                return crossing.result(LOOK_EVERY)
            except TimeoutError:
                if crossing.done():
                    raise
                if crossing.loop.is_closed():
                    crossing.cancel()
    except CancelledError:
        raise Draining(CLOSED) from None
    except BaseException:
        if not crossing.done():
            crossing.abandon()
        raise


async def awaited(crossing: Crossing[T]) -> T:
    """Waits on another loop than the one it runs on; who is cancelled cancels what runs. Raises KeyturnError when the
    loop of *crossing* ends: that is no cancellation of who waits."""
    clock, timers = SystemClock(), deque[TimerHandle](maxlen=1)

    def look() -> None:
        if crossing.loop.is_closed():
            crossing.cancel()
        timers.append(clock.call_at(clock.mono() + LOOK_EVERY, look))

    look()
    try:
        return await asyncio.wrap_future(crossing)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if crossing.done() and task is not None and not task.cancelling():
            raise KeyturnError(ENDED) from None
        crossing.abandon()
        raise
    finally:
        timers[0].cancel()


def close_on(loop: asyncio.AbstractEventLoop, found: object) -> None:
    """Has *found*, if it can be closed, closed on *loop*."""
    close = getattr(found, "close", None)
    if callable(close) and loop not in _left:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and everything on it
            loop.call_soon_threadsafe(close)


def _begin(loop: asyncio.AbstractEventLoop, make: Callable[[], Coroutine[Any, Any, T]], crossing: Crossing[T]) -> None:
    if crossing.cancelled():
        return
    task = loop.create_task(make())
    _running.add(task)

    def over(task: asyncio.Task[T]) -> None:
        _running.discard(task)
        taken = crossing.set_running_or_notify_cancel()
        if task.cancelled():
            if taken:
                crossing.set_exception(CancelledError())
        elif (error := task.exception()) is not None:
            if taken:
                crossing.set_exception(error)
        elif taken:
            crossing.set_result(task.result())
        else:
            close_on(loop, task.result())

    def cancelled(crossing: Future[T]) -> None:
        if crossing.cancelled() and not loop.is_closed():
            loop.call_soon_threadsafe(task.cancel)

    crossing.add_done_callback(cancelled)
    task.add_done_callback(over)


class Source(Protocol[T_co]):
    """A stream: its items, and closing it."""

    def __aiter__(self) -> AsyncIterator[T_co]: ...
    def close(self) -> None: ...


class Pump(Generic[T]):
    """Reads *source* in one task of its loop, a little ahead of who takes the items from elsewhere.

    A stream of ours watches for the silence of the task that reads it, so it must be one task from beginning to end.
    """

    def __init__(self, source: Source[T]) -> None:
        self._source = source
        self._items: list[T] = []
        self._error: KeyturnError | None = None
        self._filled, self._room = asyncio.Event(), asyncio.Event()
        self._over = False
        self._task = asyncio.get_running_loop().create_task(self._read())

    async def take(self) -> list[T]:
        """What has come, at least one item; nothing at the end. Raises what the source raised."""
        while not self._items and not self._over:  # another who takes may have been first
            self._filled.clear()
            await self._filled.wait()
        items, self._items = self._items, []
        if items:
            self._room.set()
        elif self._error is not None:
            raise self._error
        return items

    def close(self) -> None:
        """Let go of the source; who still waits for an item is told. May be called twice."""
        self._task.cancel()
        self._source.close()
        if not self._over:  # the task may be cancelled before its first step
            self._over, self._error = True, UpstreamInterrupted(UNREAD)
            self._filled.set()

    async def _read(self) -> None:
        try:
            async for item in self._source:
                self._items.append(item)
                self._filled.set()
                if len(self._items) >= MOST_AHEAD:
                    self._room.clear()
                    await self._room.wait()
        except KeyturnError as error:
            self._error = error
        except BaseException:  # whoever reads must not take what there is for all
            self._error = UpstreamInterrupted(UNREAD)
            raise
        finally:
            self._source.close()
            self._over = True
            self._filled.set()


class LoopThread:
    """An event loop in a thread of its own, for all synchronous clients together: from the first to the last."""

    _guard = threading.Lock()
    _shared: LoopThread | None = None

    def __init__(self) -> None:
        self.loop = _new_loop()
        self._users = 0
        self._thread = threading.Thread(target=self._run, name="keyturn", daemon=True)
        self._thread.start()

    @classmethod
    def join(cls) -> LoopThread:
        """The thread, with one more user."""
        with cls._guard:
            if cls._shared is None or not cls._shared._thread.is_alive():
                cls._shared = cls()
            cls._shared._users += 1
            return cls._shared

    def leave(self) -> None:
        """One user less; the last one ends the thread, and waits for its end unless it is that thread itself."""
        with self._guard:
            self._users -= 1
            last = self._users == 0
            if last and LoopThread._shared is self:
                LoopThread._shared = None
        if last:
            self.loop.call_soon_threadsafe(self.loop.stop)
            if threading.current_thread() is not self._thread:
                self._thread.join()

    def wait(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Runs on the thread what *make* makes, and waits for it. Raises RuntimeError on that thread itself."""
        self.check()
        return result(start(self.loop, make))

    def check(self) -> None:
        """Raises RuntimeError on the thread itself, where nothing may wait for it."""
        if threading.current_thread() is self._thread:
            raise RuntimeError("a Client cannot be used in its own callback, which it waits for: use AsyncClient there")

    @classmethod
    def renew(cls) -> None:
        """In a process that was forked: the thread stays behind."""
        cls._guard = threading.Lock()
        if cls._shared is not None:
            leave_to_parent(cls._shared, cls._shared.loop)
        cls._shared = None
        leave_to_parent(*_running, *_under_way)
        _running.clear()
        _under_way.clear()

    def _run(self) -> None:
        loop = self.loop
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            while tasks := asyncio.all_tasks(loop):
                for task in tasks:
                    task.cancel()
                loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
            with contextlib.suppress(RuntimeError):  # the program ends: no thread can be started to wait for others
                loop.run_until_complete(loop.shutdown_default_executor())
            asyncio.set_event_loop(None)
            loop.close()
            for crossing in list(_under_way):
                if isinstance(crossing, Crossing) and crossing.loop is loop:
                    crossing.cancel()


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        from uvloop import new_event_loop
    except ImportError:
        return asyncio.new_event_loop()
    return new_event_loop()


in_child(LoopThread.renew)
