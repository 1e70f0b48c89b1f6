"""`keyturn` in a process whose clock runs several times as fast: python -m tools.torture.hurried SPEED serve …

All that waits or measures asks the one clock of the gateway; sockets and other processes are as quick as they are.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from keyturn.cli.entry import main
from keyturn.core import TimerHandle
from keyturn.dispatch import SystemClock

_MONO, _WALL = time.monotonic(), time.time()


@contextmanager
def hurry(speed: float) -> Iterator[None]:
    """Have every `SystemClock` of this process run *speed* times as fast."""

    def mono() -> float:
        return _MONO + (time.monotonic() - _MONO) * speed

    def wall() -> float:
        return _WALL + (time.monotonic() - _MONO) * speed

    async def sleep_until(self: SystemClock, when: float) -> None:
        await asyncio.sleep((when - mono()) / speed)

    def call_at(self: SystemClock, when: float, callback: Callable[[], object]) -> TimerHandle:
        return asyncio.get_running_loop().call_later(max(0.0, when - mono()) / speed, callback)

    changed = {"mono": staticmethod(mono), "wall": staticmethod(wall), "sleep_until": sleep_until, "call_at": call_at}
    before = {name: SystemClock.__dict__[name] for name in changed}
    try:
        for name, value in changed.items():
            setattr(SystemClock, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(SystemClock, name, value)


if __name__ == "__main__":
    speed, sys.argv = float(sys.argv[1]), ["keyturn", *sys.argv[2:]]
    with hurry(speed):
        main()
