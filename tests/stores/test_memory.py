from __future__ import annotations

from keyturn.core import Cost, Limit, Marks, Usage, Window, claims
from keyturn.stores import MemoryState, Reservation

LIMIT = Limit("s", "tokens", Window("rolling", 60.0), 10_000)


def test_its_marks_are_those_it_was_given() -> None:
    marks = Marks()
    live = MemoryState(marks, wall_offset=12.5)
    assert live.wall_offset == 12.5
    live.begin([("key", "p", "k")], "a", 0.0)
    assert live.blocked([("key", "p", "k")], 0.0) is marks.blocked([("key", "p", "k")], 0.0) is None


def test_nothing_is_held_when_idle() -> None:
    live = MemoryState(Marks())
    live.declare("s", [LIMIT])
    for number in range(100):
        name = f"a{number}"
        got = live.reserve(name, claims(live.limits("s"), Cost(10, 10)), number * 0.1)
        assert isinstance(got, Reservation)
        if number % 3:
            live.counted(name, number * 0.1)
        if number % 2:
            live.settle(name, Usage(5, 5), number * 0.1)
        got.close()
    assert live.held() == 0
    assert [row.reserved for row in live.snapshot("s", 10.0)] == [0]


def test_closing_what_is_settled_leaves_no_tombstone() -> None:
    live = MemoryState(Marks())
    got = live.reserve("a", (), 0.0)
    assert isinstance(got, Reservation)
    live.settle("a", None, 0.0)
    got.close()
    assert isinstance(live.reserve("a", (), 0.0), Reservation)
