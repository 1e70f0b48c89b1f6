from __future__ import annotations

import pytest

from keyturn.core.limitbook import BELIEVED, LEARNED_FOR, UNKNOWN, Grounds, Limit, LimitBook, Source
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


def learned(capacity: int) -> Limit:
    return rpm(capacity, "learned")


@pytest.mark.parametrize(
    ("declared", "reported", "taught", "pinned", "holds"),
    [
        (None, None, 20, None, (20, "learned")),
        (rpm(30), None, 20, None, (20, "learned")),
        (rpm(10), None, 20, None, (10, "declared")),
        (rpm(10, "default"), None, 20, None, (10, "default")),
        (rpm(30), 40, 20, None, (30, "declared")),
        (None, 40, 20, None, (40, "reported")),
        (rpm(30), 10, 20, None, (10, "reported")),
        (rpm(30), 10, 20, 99, (99, "pinned")),
    ],
)
def test_who_is_trusted_more_holds(
    declared: Limit | None, reported: int | None, taught: int, pinned: int | None, holds: tuple[int, str]
) -> None:
    book = LimitBook()
    book.learn(learned(taught), Grounds(7.0, ("a",)), 0.0)
    book.declare("s", [declared] if declared else [])
    if reported:
        book.report(rpm(reported, "reported"), 0.0)
    if pinned:
        book.pin("s", [rpm(pinned, "pinned")])
    (limit,) = book.of("s")
    assert (limit.capacity, limit.source) == holds
    told = {each.limit.source: each for each in book.told("s", 1000.0)}
    assert [source for source, each in told.items() if each.holds] == [holds[1]]
    assert told["learned"].evidence == ("a",)
    assert told["learned"].at == 7.0
    if reported:
        assert (told["reported"].at, told["reported"].until) == (1000.0, 1000.0 + BELIEVED)
    assert book.stated(learned(1)) == bool(reported or pinned)


def test_a_pin_replaces_what_counts_over_the_same_length_otherwise() -> None:
    book = LimitBook()
    book.declare("s", [rpm(100, window=Window("calendar", 86_400.0))])
    pinned = rpm(7, "pinned", DAY)
    assert book.pin("s", [pinned])
    assert book.of("s") == (pinned,)


def test_a_learned_limit_is_forgotten_after_a_week_and_kept_by_a_snapshot() -> None:
    book = LimitBook()
    book.touched = set()
    book.learn(learned(20), Grounds(7.0, ("a",), 22, 6), 0.0)
    assert book.touched == {"s"}
    kept = book.dump("s", 1000.0)
    other = LimitBook()
    other.restore(kept, 50.0, 950.0)
    assert other.learned(learned(1)) == (learned(20), Grounds(7.0, ("a",), 22, 6))
    book.expire(LEARNED_FOR - 1.0)
    assert book.of("s")
    book.learn(learned(21), Grounds(8.0), LEARNED_FOR - 1.0)
    book.expire(LEARNED_FOR + 1.0)
    assert book.of("s")
    book.expire(3 * LEARNED_FOR)
    assert book.of("s") == ()
    assert book.scopes() == []


def test_what_is_only_counted_is_charged_and_no_limit_and_not_kept() -> None:
    book = LimitBook()
    counted = learned(UNKNOWN)
    assert not book.learn(counted, Grounds(), 0.0)
    assert book.of("s") == ()
    assert book.charged("s") == (counted,)
    assert book.dump("s", 0.0) == []
    assert book.told("s", 0.0) == []
    book.declare("s", [rpm(10)])
    assert book.charged("s") == (rpm(10),)


def test_learned_limits_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyturn.core.limitbook.MOST_LEARNED", 3)
    book = LimitBook()
    for number in range(5):
        book.learn(Limit(f"s{number}", "requests", MINUTE, 5, "learned"), Grounds(), float(number))
    assert book.scopes() == ["s2", "s3", "s4"]


def test_the_one_that_changed_longest_ago_is_forgotten_for_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyturn.core.limitbook.MOST_LEARNED", 3)
    book = LimitBook()
    rows = [Limit(f"s{number}", "requests", MINUTE, 5, "learned") for number in range(5)]
    for number, each in enumerate(rows[:3]):
        book.learn(each, Grounds(), float(number))
    book.forget(rows[1], "learned")
    book.learn(rows[0], Grounds(), 10.0)
    book.learn(rows[1], Grounds(), 11.0)
    book.learn(rows[3], Grounds(), 12.0)
    assert set(book.scopes()) == {"s0", "s1", "s3"}
    book.learn(rows[4], Grounds(), 13.0)
    assert set(book.scopes()) == {"s1", "s3", "s4"}


def test_a_reported_limit_is_believed_for_a_day_after_it_was_said_last_whatever_else_was_said_meanwhile() -> None:
    book = LimitBook()
    book.report(rpm(10, "reported"), 0.0)
    book.report(rpm(10, "reported"), 3600.0)
    for hour in range(1, 24):
        book.report(Limit(f"other {hour}", "requests", MINUTE, 5, "reported"), hour * 3600.0 + 1.0)
    book.expire(BELIEVED)
    book.expire(BELIEVED + 3599.0)
    assert book.of("s")
    book.expire(BELIEVED + 3600.0)
    assert book.of("s") == ()
    assert book.of("other 1")


def test_what_is_learned_and_forgotten_again_and_again_leaves_nothing_behind() -> None:
    book = LimitBook()
    for number in range(1000):
        book.learn(learned(20), Grounds(), float(number))
        book.forget(learned(20), "learned")
    assert len(book._learned._due) < 100
    book.learn(learned(20), Grounds(), 1000.0)
    book.expire(LEARNED_FOR + 999.0)
    assert book.of("s"), "it ends by when it was learned last"
    book.expire(LEARNED_FOR + 1000.0)
    assert book.of("s") == ()
