"""Virtual time for tests: the product's own, see `keyturn.simulation.virtual`.

def test_something():
    async def main():
        clock = virtual.VirtualClock()
        await clock.sleep_until(clock.mono() + 3600)
    virtual.run(main)
"""

from __future__ import annotations

from keyturn.simulation.virtual import (
    GRACE_TURNS,
    START_MONO,
    START_WALL,
    Deadlock,
    LeftOver,
    Runaway,
    Unhandled,
    VirtualClock,
    VirtualLoop,
    VirtualTimeError,
    idle,
    run,
    seeded,
)

__all__ = [
    "GRACE_TURNS",
    "START_MONO",
    "START_WALL",
    "Deadlock",
    "LeftOver",
    "Runaway",
    "Unhandled",
    "VirtualClock",
    "VirtualLoop",
    "VirtualTimeError",
    "idle",
    "run",
    "seeded",
]
