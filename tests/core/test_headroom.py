"""What bounds leave, and how many calls fit into the seats that they bound."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from keyturn.core import (
    FOREVER,
    Claim,
    Fill,
    Limit,
    LimitRow,
    Mark,
    Meters,
    Room,
    Seat,
    Window,
    cost_within,
    fill_seats,
    room_after,
    room_of,
)

MINUTE = Window("rolling", 60.0)
START = 1_000.0


def seat(*calls: tuple[str, int], tokens: tuple[str, ...] = ()) -> Seat:
    return Seat(calls, tokens)


def test_calls_fill_what_each_seat_has_left() -> None:
    rooms = {"one": 3, "two": 5}
    assert fill_seats([seat(("one", 1)), seat(("two", 2))], rooms) == Fill(5, None)


def test_what_seats_share_is_spent_once() -> None:
    shared = seat(("group", 1), ("key 1", 1)), seat(("group", 1), ("key 2", 1))
    assert fill_seats(shared, {"group": 5, "key 1": 4, "key 2": 4}).calls == 5
    assert fill_seats(shared, {"group": 50, "key 1": 4, "key 2": 4}).calls == 8


def test_one_seat_without_a_bound_takes_any_number() -> None:
    assert fill_seats([seat(("one", 1)), seat()], {"one": 0}) == Fill(None, None)
    assert fill_seats([seat(("free", 0))], {"free": 0}) == Fill(None, None)
    assert fill_seats([], {}) == Fill(0, 0)


def test_tokens_are_those_of_seats_that_a_call_could_go_to() -> None:
    rooms = {"calls 1": 0, "tokens 1": 900, "calls 2": 1, "tokens 2": 400}
    seats = [
        seat(("calls 1", 1), ("tokens 1", 100), tokens=("tokens 1",)),
        seat(("calls 2", 1), ("tokens 2", 100), tokens=("tokens 2",)),
    ]
    assert fill_seats(seats, rooms) == Fill(1, 400)
    assert fill_seats(seats, rooms | {"tokens 2": 99}) == Fill(0, 0)


def test_who_waits_is_taken_off() -> None:
    seats, rooms = [seat(("calls", 1), ("tokens", 10), tokens=("tokens",))], {"calls": 4, "tokens": 1000}
    assert fill_seats(seats, rooms, 1) == Fill(3, 750)
    assert fill_seats(seats, rooms, 4) == fill_seats(seats, rooms, 9) == Fill(0, 0)


def mark(until: float, **more: object) -> Mark:
    found = Mark(("key", "groq", "x"), "cooling", until, "rate_limited", 1, START)
    for name, value in more.items():
        setattr(found, name, value)
    return found


def test_a_mark_lets_nobody_through_and_then_one_that_probes() -> None:
    assert room_after(None, START, START + 60) is None
    assert room_after(mark(START + 10, state="counting"), START, START + 60) is None
    assert room_after(mark(START + 10), START, START + 60) == Room(0, 1)
    assert room_after(mark(START), START, START + 60) == Room(1, 1)
    assert room_after(mark(START, probes={"a"}), START, START + 60) == Room(0, 0)
    assert room_after(mark(START, width=3, probes={"a"}), START, START + 60) == Room(2, 2)
    assert room_after(mark(FOREVER), START, START + 60) == Room(0, 0)


def test_what_a_call_takes_is_clamped_but_for_money() -> None:
    tokens, money = Limit("s", "tokens", MINUTE, 1000), Limit("s", "cost", Window("month", 1.0), 1000)
    assert cost_within(Claim(tokens, 5000)) == 1000
    assert cost_within(Claim(tokens, 5000, floor=2000)) is None
    assert cost_within(Claim(money, 900, floor=900)) == 900
    assert cost_within(Claim(Limit("s", "tokens", Window("bucket", 60.0), 1000), 5000)) == 990


def test_what_others_share_and_hold_is_not_promised() -> None:
    limit = Limit("s", "requests", MINUTE, 10)
    row = LimitRow("requests", MINUTE, 10, 4, 2, 4, 90.0, "declared")
    assert room_of(limit, None, row, START, START + 60) == Room(4, 4)
    assert room_of(limit, None, row._replace(resets_in=50.0), START, START + 60) == Room(4, 8), (
        "all is back but what is held"
    )


@given(
    window=st.sampled_from(
        [MINUTE, Window("rolling", 86_400.0), Window("bucket", 120.0), Window("calendar", 86_400.0)]
    ),
    capacity=st.integers(1, 60),
    uses=st.lists(st.tuples(st.floats(0, 40), st.integers(1, 9)), max_size=12),
    held=st.integers(0, 5),
    later=st.floats(0, 200),
)
def test_the_room_at_a_moment_is_what_fits_then_and_not_more(
    window: Window, capacity: int, uses: list[tuple[float, int]], held: int, later: float
) -> None:
    limit, meters, now = Limit("s", "requests", window, capacity), Meters(), START
    meters.wall_offset = 1_772_452_800.0
    for pause, amount in uses:
        now += pause
        meters.take(limit, amount, now)
    counter = meters.counter(limit)
    if counter is not None:
        counter.held += min(held, capacity)
    row, then = meters.row(limit, now), now + later
    room = room_of(limit, counter, row, now, then)
    for moment, left in ((now, room.now), (then, room.later)):
        there = meters.counter(limit)
        if there is not None:
            assert left == 0 or there.fits(left, moment)
            assert not there.fits(left + 1, moment)
