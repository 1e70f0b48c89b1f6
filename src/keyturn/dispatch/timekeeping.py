"""The wall clock, watched once a second: limits of days and months follow it when it is set, cooldowns do not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .events import Alarm

if TYPE_CHECKING:
    from .gateway import Gateway

STEP = 2.0
"""Seconds between two looks by which the clocks differ at most while none is set."""


def follow_clock(gateway: Gateway) -> None:
    """Have calendar periods follow the wall clock, and tell when it was set.

    Whatever waits by the monotonic clock (cooldowns, windows of minutes, timeouts) goes on as it was. Where that clock
    stands still while the machine sleeps, as on Linux, waking looks like a step ahead: what was to rest then rests for
    its full length of waking time, and the day's quotas are those of the day on which it wakes.
    """
    offset = gateway.clock.wall() - gateway.clock.mono()
    step = offset - gateway.live.wall_offset
    gateway.live.wall_offset = offset
    if abs(step) > STEP:
        gateway.events.emit(
            Alarm(
                f"the wall clock was set by {step:+.0f} s, or the machine slept: quotas of a day or a month follow it, "
                "cooldowns end when they would have ended"
            )
        )
        if gateway.restoring is not None:
            gateway.restoring.stepped()
