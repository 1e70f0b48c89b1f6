from __future__ import annotations

import pytest

from keyturn.core.limitbook import BELIEVED, Limit, LimitBook, Source
from keyturn.core.windows import DAY, MINUTE, Window


def rpm(capacity: int, source: Source = "declared", window: Window = MINUTE) -> Limit:
    return Limit("s", "requests", window, capacity, source)


def test_capacity_and_source_do_not_change_what_is_counted() -> None:
    assert rpm(10).key == rpm(20, "reported").key
    assert len({rpm(1).key, rpm(1, window=DAY).key, rpm(1, window=Window("bucket", 60.0)).key}) == 3
    assert Limit("s", "tokens", MINUTE, 1).key != Limit("t", "tokens", MINUTE, 1).key


@pytest.mark.parametrize("capacity", [0, -1])
def test_a_limit_of_nothing_is_no_limit(capacity: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        rpm(capacity)


@pytest.mark.parametrize(
    ("source", "declared", "reported", "holds"),
    [
        ("default", 10, 30, 30),
        ("default", 30, 10, 10),
        ("learned", 10, 30, 30),
        ("declared", 10, 30, 10),
        ("declared", 30, 10, 10),
        ("declared", 10, 10, 10),
    ],
)
def test_reported_limits_win_unless_the_owner_declared_a_tighter_one(
    source: Source, declared: int, reported: int, holds: int
) -> None:
    book = LimitBook()
    book.declare("s", [rpm(declared, source)])
    book.report(rpm(reported, "reported"), 0.0)
    assert [limit.capacity for limit in book.of("s")] == [holds]


def test_a_report_tells_whether_another_limit_holds() -> None:
    book = LimitBook()
    assert book.report(rpm(10, "reported"), 0.0)
    assert not book.report(rpm(10, "reported"), 1.0)
    assert book.report(rpm(20, "reported"), 2.0)
    book.declare("s", [rpm(5)])
    assert not book.report(rpm(30, "reported"), 3.0)
    assert book.of("s") == (rpm(5),)


def test_windows_and_metrics_stand_beside_each_other() -> None:
    book = LimitBook()
    book.declare("s", [rpm(10), rpm(100, window=DAY)])
    book.report(Limit("s", "tokens", MINUTE, 6000, "reported"), 0.0)
    assert [(limit.metric, limit.capacity) for limit in book.of("s")] == [
        ("requests", 10),
        ("requests", 100),
        ("tokens", 6000),
    ]
    assert book.of("other") == ()


def test_of_two_declared_for_the_same_window_the_tighter_holds() -> None:
    book = LimitBook()
    book.declare("s", [rpm(10), rpm(7), rpm(20)])
    assert book.of("s") == (rpm(7),)


def test_what_is_reported_is_believed_for_a_day_after_the_last_report() -> None:
    book = LimitBook()
    book.declare("s", [rpm(5, "default")])
    book.report(rpm(10, "reported"), 0.0)
    book.report(rpm(10, "reported"), 1000.0)
    book.expire(BELIEVED + 999.0)
    assert book.of("s") == (rpm(10, "reported"),)
    book.expire(BELIEVED + 1000.0)
    assert book.of("s") == (rpm(5, "default"),)
    assert book.report(rpm(10, "reported"), BELIEVED + 2000.0)


def test_declaring_again_replaces_and_nothing_forgets() -> None:
    book = LimitBook()
    book.declare("s", [rpm(5), rpm(50, window=DAY)])
    book.declare("s", [rpm(6)])
    assert book.of("s") == (rpm(6),)
    book.declare("s", [])
    assert book.of("s") == ()
