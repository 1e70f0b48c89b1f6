"""What the measurements of the event loop and of memory lead to: who is refused, from when and until when."""

from __future__ import annotations

import pytest

from keyturn.core import Caller
from keyturn.dispatch import Strain
from keyturn.dispatch.strain import class_of
from keyturn.errors import Overloaded

BATCH, NORMAL, INTERACTIVE = (Caller(rank="batch"), Caller(rank="normal"), Caller(rank="interactive"))
TICK = 0.1


class Loop:
    """A loop whose lateness the test says, measured every 100 ms of its own time."""

    def __init__(self) -> None:
        self.strain = Strain()
        self.now = 100.0

    def late(self, by: float, times: int = 1) -> None:
        for _ in range(times):
            self.now += TICK + by
            self.strain.measured(self.now, TICK + by, by)

    def late_for(self, seconds: float, by: float) -> None:
        until = self.now + seconds
        while self.now < until:
            self.late(by)


def refused(strain: Strain, caller: Caller, stated: bytes = b"", length: int = 10) -> bool:
    try:
        strain.admit(caller, stated, length)
    except Overloaded as error:
        return error.status == 503 and bool(error.retry_after)
    return False


def test_a_loop_in_time_refuses_nobody() -> None:
    loop = Loop()
    loop.late_for(60.0, 0.02)
    assert not loop.strain.on
    assert not refused(loop.strain, BATCH)


def test_batch_is_refused_above_100_ms_and_normal_above_500_ms_for_3_s() -> None:
    loop = Loop()
    loop.late_for(1.5, 0.15)
    assert loop.strain.level == 0
    loop.late_for(1.5, 0.15)
    assert (loop.strain.level, loop.strain.on) == (1, True)
    assert refused(loop.strain, BATCH)
    assert not refused(loop.strain, NORMAL)
    loop.late_for(3.0, 0.6)
    assert loop.strain.level == 2
    assert refused(loop.strain, NORMAL)
    assert not refused(loop.strain, INTERACTIVE)
    assert loop.strain.shed == {("batch", "lag"): 1, ("normal", "lag"): 1}


def test_lateness_that_comes_and_goes_between_the_bounds_does_not_flap() -> None:
    loop = Loop()
    loop.late_for(3.5, 0.15)
    changes = 0
    for _ in range(40):
        before = loop.strain.level
        loop.late(0.08)
        loop.late(0.12)
        changes += loop.strain.level != before
    assert changes == 0
    assert loop.strain.level == 1


def test_it_ends_when_the_loop_was_in_time_for_3_s() -> None:
    loop = Loop()
    loop.late_for(4.0, 0.7)
    assert loop.strain.level == 2
    loop.late_for(2.0, 0.0)
    assert loop.strain.level == 2
    loop.late_for(1.2, 0.0)
    assert (loop.strain.level, loop.strain.on, loop.strain.lag) == (0, False, 0.0)


def test_it_goes_back_one_class_at_a_time() -> None:
    loop = Loop()
    loop.late_for(4.0, 0.7)
    loop.late_for(4.0, 0.15)
    assert loop.strain.level == 1


@pytest.mark.parametrize("stall", [2.0, 30.0])
def test_one_stall_refuses_batch_for_a_moment_and_nobody_else(stall: float) -> None:
    loop = Loop()
    loop.late(0.0, 30)
    loop.late(stall)
    assert loop.strain.level == 1
    loop.late(0.0, 32)
    assert loop.strain.level == 0


def test_stalls_that_follow_on_one_another_refuse_normal_calls_however_long_each_is() -> None:
    loop = Loop()
    loop.late(4.0, 2)
    assert loop.strain.level == 2
    loop.late(0.0, 32)
    assert loop.strain.level == 0


def test_a_short_stall_refuses_nobody() -> None:
    loop = Loop()
    loop.late(0.0, 30)
    loop.late(1.0)
    assert loop.strain.level == 0


def test_measurements_are_bounded() -> None:
    loop = Loop()
    loop.late(0.0, 10_000)
    assert len(loop.strain._stalls) <= 31


def test_large_requests_are_refused_from_85_to_below_80_percent_of_memory() -> None:
    strain = Strain()
    strain.memory_limit = 1000
    strain.weighed(850)
    assert not refused(strain, INTERACTIVE, length=1 << 20)
    strain.weighed(851)
    assert refused(strain, INTERACTIVE, length=64 * 1024 + 1)
    assert not refused(strain, BATCH, length=64 * 1024)
    strain.weighed(801)
    assert strain.full
    strain.weighed(800)
    assert not strain.on
    assert strain.shed == {("interactive", "memory"): 1}


def test_without_a_limit_memory_refuses_nothing() -> None:
    strain = Strain()
    strain.weighed(1 << 50)
    assert not strain.on


def test_lag_and_memory_do_not_undo_each_other() -> None:
    loop = Loop()
    loop.strain.memory_limit = 100
    loop.strain.weighed(90)
    loop.late(0.0)
    assert loop.strain.on
    loop.late_for(4.0, 0.2)
    loop.strain.weighed(10)
    assert loop.strain.on
    assert loop.strain.told() == "calls of class batch are refused"


@pytest.mark.parametrize(
    ("caller", "stated", "expected"),
    [
        (NORMAL, b"", "normal"),
        (NORMAL, b"batch", "batch"),
        (NORMAL, b" Batch ", "batch"),
        (NORMAL, b"interactive", "normal"),
        (BATCH, b"interactive", "batch"),
        (INTERACTIVE, b"normal", "normal"),
        (INTERACTIVE, b"\xff?", "interactive"),
    ],
)
def test_a_call_can_only_lower_its_class(caller: Caller, stated: bytes, expected: str) -> None:
    assert class_of(caller, stated) == expected
