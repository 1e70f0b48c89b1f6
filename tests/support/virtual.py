"""Virtual time: an asyncio loop whose clock jumps to the next timer whenever nothing else is ready.

A simulated day takes seconds, and every run of the same test sees the same times. Real input and output have no place
here: registering a socket fails, functions for an executor run at once on the loop's own thread.

    def test_something():
        async def main():
            clock = virtual.VirtualClock()
            await clock.sleep_until(clock.mono() + 3600)
        virtual.run(main)
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

START_WALL = 1_772_452_800.0
"""2026-03-02T12:00:00Z, a Monday noon: away from midnight in every zone that a provider resets in."""

START_MONO = 1000.0
"""Not zero, so that code which takes 0 for "never" is caught."""

GRACE_TURNS = 200
"""Loop turns, at one and the same instant, in which tasks may end after the main coroutine did."""


class VirtualTimeError(AssertionError):
    """The run itself went wrong: a deadlock, a run that never ends, tasks left over, an error nobody awaited."""


class Deadlock(VirtualTimeError):
    """Nothing is ready, no timer is set, and the main coroutine is not done."""


class Runaway(VirtualTimeError):
    """The main coroutine did not end within the allowed loop turns or virtual seconds."""


class LeftOver(VirtualTimeError):
    """Tasks were still alive when the main coroutine had returned."""


class Unhandled(VirtualTimeError):
    """A task or callback failed and nobody looked at its exception."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop. *start_wall* is what the wall clock shows (Unix seconds) when the run begins."""

    def __init__(self, *, start_wall: float, horizon: float, max_turns: int) -> None:
        self.now = START_MONO
        self.start_wall = start_wall
        self.turns = 0
        self.unhandled: list[Mapping[str, Any]] = []
        self._horizon = START_MONO + horizon
        self._max_turns = max_turns
        super().__init__(_Jump(self))
        self.set_exception_handler(lambda _, context: self.unhandled.append(context))

    def time(self) -> float:
        return self.now

    def advance(self) -> None:
        """Called when nothing is ready: move the clock to the next timer."""
        timers: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        if not timers:
            raise Deadlock(f"deadlock at {self.now:g}: nothing is ready and no timer is set\n{self.describe()}")
        when = max(self.now, timers[0].when())
        if when > self._horizon:
            raise Runaway(f"not done after {self._horizon - START_MONO:g} virtual seconds\n{self.describe()}")
        self.now = when

    def turn(self) -> None:
        """Called once per turn of the loop."""
        self.turns += 1
        if self.turns > self._max_turns:
            raise Runaway(f"not done after {self._max_turns} turns, now at {self.now:g}\n{self.describe()}")

    def lift_bounds(self) -> None:
        """Allow a little more, to cancel what is left after a failed run."""
        self._max_turns = self.turns + 100_000
        self._horizon = self.now + 3600

    def describe(self) -> str:
        """The tasks that are alive and where each one waits."""
        return _describe([task for task in asyncio.all_tasks(self) if not task.done()])

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # handed to whoever awaits, as an executor does
            future.set_exception(error)
        return future


class _Jump(selectors.BaseSelector):
    """A selector that never waits. It accepts the loop's own wake-up pipe and nothing else."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._keys: dict[int, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        if self._keys:
            raise RuntimeError(
                "no sockets, pipes or processes in virtual time; use asyncio.run for real input and output"
            )
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        key = self._keys[fd] = selectors.SelectorKey(fileobj, fd, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj if isinstance(fileobj, int) else fileobj.fileno())

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._loop.turn()
        if timeout != 0:
            self._loop.advance()
        return []


class VirtualClock:
    """keyturn's Clock protocol on the running virtual loop. May be made before the run begins.

    *wall_shift* moves the wall clock alone, as a corrected system clock would.
    """

    def __init__(self) -> None:
        self.wall_shift = 0.0

    def mono(self) -> float:
        return _loop().now

    def wall(self) -> float:
        loop = _loop()
        return loop.start_wall + (loop.now - START_MONO) + self.wall_shift

    async def sleep_until(self, when: float) -> None:
        loop = _loop()
        if when <= loop.now:
            await asyncio.sleep(0)
            return
        reached = loop.create_future()
        timer = loop.call_at(when, reached.set_result, None)
        try:
            await reached
        finally:
            timer.cancel()

    def call_at(self, when: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        return _loop().call_at(when, callback)


def seeded(seed: int = 0) -> Callable[[], float]:
    """A `draw` whose numbers depend on *seed* alone."""
    return random.Random(seed).random


async def idle() -> None:
    """Return when no other task has anything to do at this instant. No virtual time passes."""
    loop = _loop()
    while True:
        await asyncio.sleep(0)
        if not loop._ready:  # type: ignore[attr-defined]
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
        _cancel_all(loop)
        asyncio.set_event_loop(None)
        loop.close()


async def _grace() -> None:
    for _ in range(GRACE_TURNS):
        if len(asyncio.all_tasks()) == 1:
            return
        await asyncio.sleep(0)


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


def _loop() -> VirtualLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop), f"a VirtualClock needs virtual.run(), this is {loop!r}"
    return loop
