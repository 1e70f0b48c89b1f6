"""What is written down and read again by another process counts as it did, whatever happened, on any clock."""

from __future__ import annotations

from copy import deepcopy
from datetime import UTC, datetime

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from keyturn.core import (
    Claim,
    Instant,
    KeptMark,
    KeptUse,
    Limit,
    Marks,
    Meters,
    Transition,
    Usage,
    Window,
    offset_of,
)

INFLIGHT = Window("inflight")
EPSILON = 1e-3
"""Seconds: moments are read from sums of large numbers, whose last digits are lost."""
WALL = 1_772_452_800.0
WINDOWS = [Window("rolling", 10.0), Window("rolling", 60.0), Window("rolling", 3600.0), Window("rolling", 86_400.0)]
WINDOWS += [Window("bucket", 60.0), Window("bucket", 86_400.0)]

amounts = st.integers(1, 400)
gaps = st.floats(0.0, 50.0)
steps = st.lists(st.tuples(gaps, amounts), min_size=1, max_size=25)


def meters(offset: float) -> Meters:
    made = Meters()
    made.wall_offset = offset
    return made


def carried(kept: list[KeptUse]) -> list[KeptUse]:
    """Through the file: as JSON."""
    return msgspec.json.decode(msgspec.json.encode(kept), type=list[KeptUse])


@settings(max_examples=50)
@given(
    window=st.sampled_from(WINDOWS),
    steps=steps,
    down=st.floats(0.0, 100_000.0),
    boot=st.floats(0.0, 500_000.0),
    later=st.lists(st.floats(0.0, 100_000.0), min_size=1, max_size=5),
)
def test_a_window_counts_the_same_in_another_process_at_every_moment(
    window: Window, steps: list[tuple[float, int]], down: float, boot: float, later: list[float]
) -> None:
    """Never less than before within its window, and no longer; on a machine that has run for *boot* seconds."""
    limit = Limit("s", "tokens", window, 1000)
    first, now = meters(WALL - 100.0), 100.0
    for gap, amount in steps:
        now += gap
        first.take(limit, amount, now)
    kept = carried(first.dump(first.keys(), now, WALL - 100.0))
    written = Instant(WALL + now - 100.0, now, "one")
    began = Instant(written.wall + down, boot, "other")
    offset = offset_of(written, began)
    second = meters(began.wall - began.mono)
    second.restore(kept, began.mono, offset)
    for moment in sorted(later):
        before = first_used(first, limit, now + down + moment)
        assert before[0] <= second.used(limit, boot + moment) <= before[1]


def first_used(meters: Meters, limit: Limit, now: float) -> tuple[int, int]:
    """What is used a moment after *now* and a moment before: copies, as a counter does not go back."""
    return deepcopy(meters).used(limit, now + EPSILON), deepcopy(meters).used(limit, now - EPSILON)


@settings(max_examples=50)
@given(
    window=st.sampled_from(WINDOWS),
    steps=steps,
    back=st.floats(0.0, 10_000_000.0),
    boot=st.floats(0.0, 500_000.0),
    later=st.floats(0.0, 100_000.0),
)
def test_a_wall_clock_that_went_back_frees_nothing_and_holds_nothing_longer(
    window: Window, steps: list[tuple[float, int]], back: float, boot: float, later: float
) -> None:
    limit = Limit("s", "requests", window, 1000)
    first, now = meters(WALL - 100.0), 100.0
    for gap, amount in steps:
        now += gap
        first.take(limit, amount, now)
    written = Instant(WALL + now - 100.0, now, "one")
    began = Instant(written.wall - back, boot, "other")
    second = meters(began.wall - began.mono)
    second.restore(carried(first.dump(first.keys(), now, WALL - 100.0)), began.mono, offset_of(written, began))
    before = first_used(first, limit, now + later)
    assert before[0] <= second.used(limit, boot + later) <= before[1]


zones = st.sampled_from(["UTC", "America/Los_Angeles", "Europe/Berlin", "Asia/Kathmandu", "Australia/Lord_Howe"])
moments = st.sampled_from(
    [
        "2026-03-08T09:30",  # Los Angeles loses an hour
        "2026-11-01T08:30",  # and gets it back
        "2026-03-29T00:30",  # Berlin
        "2026-10-25T00:30",
        "2028-02-29T12:00",  # a leap day
        "2026-12-31T23:00",
        "2026-02-28T20:00",
        "2026-04-04T14:00",  # Lord Howe moves by half an hour
    ]
)


@settings(max_examples=50)
@given(
    kind=st.sampled_from(["calendar", "month"]),
    zone=zones,
    start=moments,
    steps=st.lists(st.tuples(st.floats(0.0, 20_000.0), amounts), min_size=1, max_size=12),
    down=st.floats(0.0, 100_000.0),
    later=st.lists(st.floats(0.0, 200_000.0), min_size=1, max_size=4),
)
@example("calendar", "America/Los_Angeles", "2026-03-08T09:30", [(0.0, 5)], 3000.0, [0.0, 70_000.0])
def test_a_day_or_a_month_begins_anew_when_it_would_have(
    kind: str, zone: str, start: str, steps: list[tuple[float, int]], down: float, later: list[float]
) -> None:
    wall = datetime.fromisoformat(start).replace(tzinfo=UTC).timestamp()
    limit = Limit("s", "requests", Window(kind, 86_400.0, zone), 1000)  # type: ignore[arg-type]
    first, now = meters(wall - 50.0), 50.0
    for gap, amount in steps:
        now += gap
        first.take(limit, amount, now)
    written = Instant(wall + now - 50.0, now, "")
    began = Instant(written.wall + down, 7.0, "")
    second = meters(began.wall - began.mono)
    second.restore(carried(first.dump(first.keys(), now, wall - 50.0)), began.mono, offset_of(written, began))
    for moment in sorted(later):
        before = first_used(first, limit, now + down + moment)
        assert second.used(limit, began.mono + moment) in before


@settings(max_examples=40)
@given(steps=steps, held=st.lists(amounts, max_size=4), done=st.integers(0, 4), boot=st.floats(0.0, 500_000.0))
def test_what_is_under_way_counts_as_used_and_reading_twice_changes_nothing(
    steps: list[tuple[float, int]], held: list[int], done: int, boot: float
) -> None:
    limits = [Limit("s", "tokens", window, 100_000) for window in WINDOWS]
    limits.append(Limit("s", "concurrency", INFLIGHT, 10))
    first, now = meters(WALL), 0.0
    for number, (gap, amount) in enumerate(steps):
        now += gap
        assert first.reserve(f"{number}", each(limits, amount), now) is None
        first.counted(f"{number}", now)
        first.settle(f"{number}", Usage(amount, 0, exact=True), now)
    for number, amount in enumerate(held):
        assert first.reserve(f"held {number}", each(limits, amount), now) is None
        if number < done:
            first.counted(f"held {number}", now)
    once = carried(first.dump(first.keys(), now, WALL))
    second = meters(WALL + now - boot)
    second.restore(once, boot, WALL + now - boot)
    for limit in limits[:-1]:
        row = first.row(limit, now)
        assert second.used(limit, boot) in (row.used + row.reserved, row.used + row.reserved + 1)
    assert second.held() == second.row(limits[-1], boot).reserved == 0
    again = carried(second.dump(second.keys(), boot, WALL + now - boot))
    third = meters(WALL + now - boot)
    third.restore(again, boot, WALL + now - boot)
    assert {limit.key: third.used(limit, boot) for limit in limits} == {
        limit.key: second.used(limit, boot) for limit in limits
    }
    assert {each.key: total(each) for each in again} == {each.key: total(each) for each in once}


def each(limits: list[Limit], amount: int) -> list[Claim]:
    return [Claim(limit, 1 if limit.metric == "concurrency" else amount) for limit in limits]


def total(kept: KeptUse) -> float:
    return round(sum(amount for _, amount in kept.amounts) + kept.level, 3)


@given(steps=steps, more=steps)
def test_what_is_counted_here_already_is_only_added_to(
    steps: list[tuple[float, int]], more: list[tuple[float, int]]
) -> None:
    limit = Limit("s", "tokens", Window("rolling", 60.0), 100_000)
    first, second, now = meters(0.0), meters(0.0), 1000.0
    for gap, amount in steps:
        now += gap
        first.take(limit, amount, now)
    for _, amount in more:
        second.take(limit, amount, now)
    second.restore(first.dump(first.keys(), now, 0.0), now, 0.0)
    assert second.used(limit, now) == first.used(limit, now) + sum(amount for _, amount in more)


@given(
    length=st.floats(0.0, 40 * 86_400.0),
    run=st.floats(0.0, 100_000.0),
    down=st.floats(-10_000_000.0, 100_000.0),
    state=st.sampled_from(["cooling", "exhausted", "unentitled", "invalid"]),
    reason=st.sampled_from(["rate_limited", "custom_cap", "invalid_key"]),
)
def test_a_mark_lasts_exactly_as_long_as_it_had_left(
    length: float, run: float, down: float, state: str, reason: str
) -> None:
    first, scope = Marks(), ("key_model", "groq", "abc", "m")
    first.apply(Transition(scope, state, 100.0 + length, reason, 3, 100.0))  # type: ignore[arg-type]
    now = Instant(WALL + run, 100.0 + run)
    kept = first.dump(now.mono, now.wall - now.mono)
    kept = msgspec.json.decode(msgspec.json.encode(kept), type=list[KeptMark])
    left = length - run
    assert (not kept) == (left <= -3600.0 or (left <= 5.0 and length <= 5.0 and reason != "custom_cap"))
    began = Instant(now.wall + down, 5.0)
    second = Marks()
    second.restore(kept, began.mono, offset_of(now, began))
    mark = second.get(scope)
    expected = min(left - max(down, 0.0), 86_400.0 if state == "invalid" else 32 * 86_400.0)
    if mark is None:
        assert not kept or expected <= -3600.0 + EPSILON
    else:
        assert abs(mark.until - began.mono - expected) < EPSILON
        assert (mark.state, mark.reason, mark.strikes) == (state, reason, 3)
        again = second.dump(began.mono, began.wall - began.mono)
        third = Marks()
        third.restore(again, began.mono, began.wall - began.mono)
        assert not again or abs(third.get(scope).until - mark.until) < EPSILON  # type: ignore[union-attr]


@given(wall=st.floats(0.0, 4e9), mono=st.floats(0.0, 1e7), later=st.floats(0.0, 1e7), shift=st.floats(-1e8, 1e8))
def test_while_the_machine_runs_on_the_wall_clock_is_not_asked(
    wall: float, mono: float, later: float, shift: float
) -> None:
    written = Instant(wall, mono, "boot")
    offset = offset_of(written, Instant(wall + shift, mono + later, "boot"))
    assert abs((wall - offset) - mono) < EPSILON
