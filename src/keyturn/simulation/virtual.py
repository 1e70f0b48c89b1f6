"""Virtual time: an event loop whose clock jumps to the next timer whenever nothing else is ready.

A simulated day takes seconds, and every run with the same seed sees the same times. Real input and output have no place
here: opening a socket fails, functions for an executor run at once on the loop's own thread.

    async def main():
        clock = VirtualClock()
        await clock.sleep_until(clock.mono() + 3600)
    run(main)
"""

from __future__ import annotations

import asyncio
import heapq
import random
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from contextvars import Context, copy_context
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

START_WALL = 1_772_452_800.0
"""2026-03-02T12:00:00Z, a Monday noon: away from midnight in every zone that a provider resets in."""

START_MONO = 1000.0
"""Not zero, so that code which takes 0 for "never" is caught."""

GRACE_TURNS = 200
"""Loop turns, at one and the same instant, in which tasks may end after the main coroutine did."""

RESOLUTION = 1e-9
"""Seconds; timers nearer to each other fire in one turn of the loop."""

MOST_CANCELLED = 1000
"""Cancelled timers that may lie in the heap before it is looked through, once they are more than half of it."""


class VirtualTimeError(RuntimeError):
    """The run itself went wrong: a deadlock, a run that never ends, tasks left over, an error nobody awaited."""


class Deadlock(VirtualTimeError):
    """Nothing is ready, no timer is set, and the main coroutine is not done."""


class Runaway(VirtualTimeError):
    """The main coroutine did not end within the allowed loop turns or virtual seconds."""


class LeftOver(VirtualTimeError):
    """Tasks were still alive when the main coroutine had returned."""


class Unhandled(VirtualTimeError):
    """A task or callback failed and nobody looked at its exception."""


class _Turn(asyncio.Handle):
    """A callback for the next turn. They are made by the million: of the loop nothing is asked for it."""

    __slots__ = ()

    def __init__(
        self, callback: Callable[..., object], args: tuple[Any, ...], loop: VirtualLoop, context: Context | None
    ) -> None:
        self._callback, self._args, self._loop = callback, args, loop
        self._context = copy_context() if context is None else context
        self._cancelled = False
        self._repr = self._source_traceback = None

    def cancel(self) -> None:
        self._cancelled = True
        self._callback = self._args = None  # type: ignore[assignment]


class _Timer(asyncio.TimerHandle):
    """A callback for a moment, likewise."""

    __slots__ = ()

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: VirtualLoop,
        context: Context | None,
    ) -> None:
        self._when, self._callback, self._args, self._loop = when, callback, args, loop
        self._context = copy_context() if context is None else context
        self._scheduled, self._cancelled = True, False
        self._repr = self._source_traceback = None

    def cancel(self) -> None:
        if not self._cancelled:
            self._cancelled = True
            self._callback = self._args = None  # type: ignore[assignment]
            if self._scheduled:
                self._loop._timer_cancelled_count += 1


class VirtualLoop(asyncio.BaseEventLoop):
    """The loop. *start_wall* is what the wall clock shows (Unix seconds) when the run begins.

    One turn does what asyncio's own does, without asking the system for input or for the time.
    """

    _ready: deque[_Turn | _Timer]
    _scheduled: list[tuple[float, int, _Timer]]
    """By when they are due, those for the same moment in the order in which they were set."""
    _timer_cancelled_count: int
    _stopping: bool

    def __init__(self, *, start_wall: float, horizon: float, max_turns: int) -> None:
        super().__init__()
        self.now = START_MONO
        self.start_wall = start_wall
        self.turns = 0
        self._timers = 0
        self.unhandled: list[Mapping[str, Any]] = []
        self._horizon = START_MONO + horizon
        self._max_turns = max_turns
        self.set_exception_handler(lambda _, context: self.unhandled.append(context))

    def time(self) -> float:
        return self.now

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer = _Timer(when, callback, args, self, context)
        self._timers += 1
        heapq.heappush(self._scheduled, (when, self._timers, timer))
        return timer

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        handle = _Turn(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def _run_once(self) -> None:
        """Turn after turn, until the loop is to stop."""
        ready, heappop = self._ready, heapq.heappop
        while True:
            self.turns += 1
            if self.turns > self._max_turns:
                raise Runaway(f"not done after {self._max_turns} turns, now at {self.now:g}\n{self.describe()}")
            if self._timer_cancelled_count > MOST_CANCELLED and 2 * self._timer_cancelled_count > len(self._scheduled):
                self._forget_cancelled()
            timers = self._scheduled
            if not ready and not self._stopping:
                while timers and timers[0][2]._cancelled:
                    self._drop(heappop(timers)[2])
                self._advance(timers)
            due = self.now + RESOLUTION
            while timers and timers[0][0] < due:
                handle = heappop(timers)[2]
                if handle._cancelled:
                    self._drop(handle)
                else:
                    handle._scheduled = False
                    ready.append(handle)
            for _ in range(len(ready)):
                each = ready.popleft()
                if not each._cancelled:
                    each._run()
            if self._stopping:
                return

    def _advance(self, timers: list[tuple[float, int, _Timer]]) -> None:
        """Nothing is ready: move the clock to the next timer."""
        if not timers:
            raise Deadlock(f"deadlock at {self.now:g}: nothing is ready and no timer is set\n{self.describe()}")
        when = timers[0][0]
        if when > self._horizon:
            raise Runaway(f"not done after {self._horizon - START_MONO:g} virtual seconds\n{self.describe()}")
        if when > self.now:
            self.now = when

    def _forget_cancelled(self) -> None:
        left = []
        for timer in self._scheduled:
            if timer[2]._cancelled:
                timer[2]._scheduled = False
            else:
                left.append(timer)
        heapq.heapify(left)
        self._scheduled = left
        self._timer_cancelled_count = 0

    def _drop(self, handle: _Timer) -> None:
        self._timer_cancelled_count -= 1
        handle._scheduled = False

    def lift_bounds(self) -> None:
        """Allow a little more, to cancel what is left after a failed run."""
        self._max_turns = self.turns + 100_000
        self._horizon = self.now + 3600

    def describe(self) -> str:
        """The tasks that are alive and where each one waits."""
        return _describe([task for task in asyncio.all_tasks(self) if not task.done()])

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        async def job() -> T:
            return func(*args)

        return self.create_task(job())

    async def create_connection(self, *_: Any, **__: Any) -> Any:
        raise _real()

    async def create_server(self, *_: Any, **__: Any) -> Any:
        raise _real()

    async def create_datagram_endpoint(self, *_: Any, **__: Any) -> Any:
        raise _real()

    async def subprocess_exec(self, *_: Any, **__: Any) -> Any:
        raise _real()

    async def subprocess_shell(self, *_: Any, **__: Any) -> Any:
        raise _real()

    def _process_events(self, event_list: object) -> None:
        raise _real()

    def _write_to_self(self) -> None:
        """Another thread may wake the loop; it never sleeps."""


class _UnderWay(threading.local):
    """The loop of the run that is under way in this thread: who asks for the time, as each call does many times, finds
    it at once. To ask asyncio for it takes a system call each time."""

    loop: VirtualLoop | None = None


_under_way = _UnderWay()


class VirtualClock:
    """keyturn's Clock protocol on the running virtual loop. May be made before the run begins.

    *wall_shift* moves the wall clock alone, as a corrected system clock would.
    """

    def __init__(self) -> None:
        self.wall_shift = 0.0

    def mono(self) -> float:
        loop = _under_way.loop
        return _loop().now if loop is None else loop.now

    def wall(self) -> float:
        loop = _under_way.loop or _loop()
        return loop.start_wall + (loop.now - START_MONO) + self.wall_shift

    async def sleep_until(self, when: float) -> None:
        loop = _loop()
        reached: asyncio.Future[None] = loop.create_future()
        if when <= loop.now:
            turn = loop.call_soon(_reach, reached)
            try:
                await reached
            finally:
                turn.cancel()
            return
        timer = loop.call_at(when, _reach, reached)
        try:
            await reached
        finally:
            timer.cancel()

    def call_at(self, when: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        return (_under_way.loop or _loop()).call_at(when, callback)


def _reach(reached: asyncio.Future[None]) -> None:
    if not reached.done():  # its task may be cancelled in the same turn
        reached.set_result(None)


def seeded(seed: int = 0) -> Callable[[], float]:
    """A `draw` whose numbers depend on *seed* alone."""
    return random.Random(seed).random


def seed_all(seed: int) -> None:
    """From now on every draw of this process, also those of `keyturn.dispatch`, follows from *seed* alone."""
    random.seed(seed)


@contextmanager
def all_seeded(seed: int) -> Iterator[None]:
    """Within the block every draw of this process, also those of `keyturn.dispatch`, follows from *seed* alone."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)


async def idle() -> None:
    """Return when no other task has anything to do at this instant. No virtual time passes."""
    loop = _loop()
    while True:
        await VirtualClock().sleep_until(loop.now)
        if not loop._ready:
            return


def run(
    main: Callable[[], Coroutine[Any, Any, T]],
    *,
    start_wall: float = START_WALL,
    horizon: float = 3 * 86_400.0,
    max_turns: int = 5_000_000,
) -> T:
    """Run `main()` in virtual time and return its result.

    Raises what main raises; else Deadlock, Runaway (after *horizon* virtual seconds or *max_turns* turns of the loop),
    LeftOver when tasks outlive main, Unhandled when a task failed and nobody noticed.
    """
    loop = VirtualLoop(start_wall=start_wall, horizon=horizon, max_turns=max_turns)
    before, _under_way.loop = _under_way.loop, loop
    asyncio.set_event_loop(loop)
    try:
        result = loop.run_until_complete(main())
        loop.run_until_complete(_grace())
        if left := [task for task in asyncio.all_tasks(loop) if not task.done()]:
            raise LeftOver(f"{len(left)} task(s) left over\n{_describe(left)}")
        if loop.unhandled:
            raise Unhandled(_first_unhandled(loop.unhandled)) from loop.unhandled[0].get("exception")
        return result
    finally:
        try:
            _cancel_all(loop)
        finally:
            _under_way.loop = before
            asyncio.set_event_loop(None)
            loop.close()


async def _grace() -> None:
    clock = VirtualClock()
    for _ in range(GRACE_TURNS):
        if len(asyncio.all_tasks()) == 1:
            return
        await clock.sleep_until(clock.mono())


def _cancel_all(loop: VirtualLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    loop.lift_bounds()
    try:
        if tasks:
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
    except VirtualTimeError:
        return  # A task that ignores cancellation; the first error is the one worth reading.


def _first_unhandled(contexts: list[Mapping[str, Any]]) -> str:
    first = contexts[0]
    return f"{len(contexts)} unhandled error(s); the first: {first.get('message')}: {first.get('exception')!r}"


def _describe(tasks: list[asyncio.Task[Any]]) -> str:
    lines = []
    for task in sorted(tasks, key=lambda task: task.get_name()):
        frames = task.get_stack(limit=1)
        place = f"{frames[0].f_code.co_filename}:{frames[0].f_lineno}" if frames else "not started"
        lines.append(f"  {task.get_name()}: {getattr(task.get_coro(), '__qualname__', '?')} at {place}")
    return "\n".join(lines) or "  no task is alive"


def _real() -> RuntimeError:
    return RuntimeError("no sockets, pipes or processes in virtual time; use asyncio.run for real input and output")


def _loop() -> VirtualLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop), f"a VirtualClock needs virtual time's run(), this is {loop!r}"
    return loop
