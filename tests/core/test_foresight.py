"""When a turn comes: what limits give back, the work before a call, and who was told to come back."""

from __future__ import annotations

import random

import pytest

from keyturn.core import (
    MINUTE,
    PROBE,
    Answers,
    CallerClass,
    Claim,
    Cost,
    Crowd,
    Demand,
    Deployment,
    KeySupply,
    Limit,
    Meters,
    Promise,
    Promises,
    Refill,
    Supply,
    Usage,
    Weighed,
    Window,
    claims,
    expected_until,
    returns_of,
    work_before,
)

Wants = dict[CallerClass, dict[str, Weighed]]
HERE = (Deployment("groq", "m"),)
RPM = Limit("groq/g|m", "requests", MINUTE, 10, "declared")
TIMES = (0.0, 1.0, 30.0, 60.0, 61.0, 62.0, 122.0)


def used(limit: Limit, *moments: float) -> Meters:
    meters = Meters()
    for number, moment in enumerate(moments):
        assert meters.reserve(f"a{number}", [Claim(limit, 1, 1)], moment) is None
        meters.counted(f"a{number}", moment)
    return meters


def calls_by(refills: list[Refill], blocked: float, now: float, times: tuple[float, ...]) -> list[float]:
    key = KeySupply(blocked, returns_of(refills, now))
    return [key.calls(each) for each in times]


def refill(meters: Meters, limit: Limit, now: float, unit: float = 1.0) -> Refill:
    return Refill(limit, meters.counter(limit), meters.row(limit, now), unit)


def test_a_rolling_window_gives_back_what_left_it_again_and_again() -> None:
    meters = used(RPM, *([0.0] * 6), *([30.0] * 4))
    calls = calls_by([refill(meters, RPM, 30.0)], 0.0, 30.0, TIMES)
    assert calls == [0, 0, 0, 6, 10, 10, 20]
    assert calls_by([refill(meters, RPM, 30.0)], 40.0, 30.0, TIMES) == [0, 0, 0, 6, 10, 10, 20]
    assert calls_by([], 40.0, 30.0, TIMES)[:4] == [0, 0, 0, 1e9]


def test_the_tightest_limit_counts_and_tokens_by_what_a_call_takes() -> None:
    tpm = Limit("groq/g|m", "tokens", MINUTE, 1000, "declared")
    meters = Meters()
    calls = calls_by([refill(meters, RPM, 0.0), refill(meters, tpm, 0.0, 250.0)], 0.0, 0.0, (0.0, 61.5))
    assert calls == [4.0, 8.0]


def test_a_bucket_refills_evenly_and_a_day_at_its_end() -> None:
    bucket = Limit("g", "requests", Window("bucket", 99.0), 100, "declared")
    meters = Meters()
    assert calls_by([refill(meters, bucket, 0.0)], 0.0, 0.0, (0.0, 10.0)) == [99, 109]
    day = Limit("g", "requests", Window("calendar", 86_400.0, "UTC"), 2, "declared")
    meters = used(day, 5.0, 6.0)
    resets = meters.row(day, 10.0).resets_in
    assert calls_by([refill(meters, day, 10.0)], 0.0, 10.0, (0.0, resets - 1, resets + 1)) == [0, 0, 2]


def test_of_a_day_that_refills_no_more_is_left_than_the_limiter_gives() -> None:
    """The last hundredth of a bucket is not used, and a part of a call is none: twelve such keys have nothing."""
    day = Limit("g", "requests", Window("bucket", 86_400.0), 720, "declared")
    meters = Meters()
    spent = 0
    while meters.reserve(f"a{spent}", claims((day,), Cost(1, 0)), 0.0) is None:
        meters.counted(f"a{spent}", 0.0)
        meters.settle(f"a{spent}", Usage(), 0.0)
        spent += 1
    assert spent == 712
    wait = meters.wait(claims((day,), Cost(1, 0)), 0.0)[0]
    assert 0.0 < wait < 122.0
    before, after, second = wait - 0.1, wait + 0.1, wait + 86_400 / (720 * 0.99) + 0.1
    assert calls_by([refill(meters, day, 0.0)], 0.0, 0.0, (0.0, before, after, second)) == [0, 0, 1, 2]
    twelve = Supply({KeySupply(0.0, returns_of([refill(meters, day, 0.0)], 0.0)): 12.0})
    assert twelve.time_for(1) > 20.0
    assert twelve.time_for(12) == pytest.approx(wait, abs=10.0)
    assert twelve.time_for(13) > wait


def test_a_day_that_begins_anew_gives_no_more_at_once_than_its_minutes_allow() -> None:
    """Nine calls at the reset, one of each key; then what a minute's limit lets through, until the day is used up."""
    day = Limit("g", "requests", Window("calendar", 86_400.0, "UTC"), 50, "declared")
    minute = Limit("g", "requests", MINUTE, 10, "declared")
    meters = used(day, *([5.0] * 50))
    resets = meters.row(day, 10.0).resets_in
    returns = returns_of([refill(meters, day, 10.0), refill(meters, minute, 10.0)], 10.0)
    key = KeySupply(0.0, returns)
    supply, whole = Supply({key: 9.0}), minute.window.seconds * 122 / 120
    assert key.calls(resets - 0.01) == 0.0
    assert key.calls(resets + whole) == pytest.approx(11.0, abs=0.01)
    assert key.calls(resets + 3600.0) == 50.0
    assert [supply.time_for(calls) for calls in (1, 9)] == pytest.approx([resets, resets], abs=0.01)
    for calls in (10, 99, 300, 450):
        assert supply.time_for(calls) == pytest.approx(resets + (calls / 9 - 1) * whole / 10, rel=0.003)
    assert supply.time_for(451) == pytest.approx(resets + 86_400.0, abs=0.01)
    later = Supply({key: 9.0}, 100.0)  # as it stood a while ago
    assert later.time_for(99) == pytest.approx(supply.time_for(99) - 100.0, rel=0.003)


def test_a_key_that_rests_for_long_is_good_for_one_call_and_then_for_its_pace() -> None:
    meters = Meters()
    key = KeySupply(1000.0, returns_of([refill(meters, RPM, 0.0)], 0.0))
    assert [key.calls(each) for each in (999.0, 1000.0)] == [0.0, pytest.approx(1.0)]
    assert key.calls(1061.0) == pytest.approx(11.0)
    tried = KeySupply(20.0, (*returns_of([refill(meters, RPM, 0.0)], 0.0), PROBE))
    assert [tried.calls(each) for each in (19.0, 20.0, 5000.0)] == [0.0, 1.0, 1.0]


def test_how_long_answers_take_is_learned_from_late() -> None:
    answers, one = Answers(), Deployment("groq", "g")
    assert answers.usual(one, stream=False) == 0.0
    for _ in range(50):
        answers.observe(one, 2.0, stream=False)
    assert answers.usual(one, stream=False) == 2.0
    assert answers.usual(one, stream=True) == 0.0
    for turn in range(50):
        answers.observe(one, 1.0 if turn % 2 else 3.0, stream=False)
    assert 2.5 < answers.usual(one, stream=False) < 3.5
    for number in range(2000):
        answers.observe(Deployment("groq", f"m{number}"), 9.0, stream=False)
    assert answers.usual(one, stream=False) == 0.0


@pytest.mark.parametrize("window", [MINUTE, Window("bucket", 99.0), Window("calendar", 86_400.0, "UTC")])
def test_what_nobody_else_counts_is_read_from_the_counter_itself(window: Window) -> None:
    limit = Limit("g", "requests", window, 10, "declared")
    for count in (0, 1, 9, 10):
        meters = used(limit, *(float(each) for each in range(count)))
        for now in (9.0, 40.5, 65.0, 90_000.0):
            read = refill(meters, limit, now, 1.5)
            assert returns_of([read._replace(row=None)], now) == returns_of([read], now)


def test_a_supply_tells_when_so_many_are_taken() -> None:
    bucket = Limit("g", "requests", Window("bucket", 99.0), 100, "declared")
    refills = [refill(Meters(), bucket, 0.0)]
    supply = Supply({KeySupply(0.0, returns_of(refills, 0.0)): 1.0, KeySupply(10.0, returns_of(refills, 0.0)): 2.0})
    assert [supply.time_for(calls) for calls in (0, 99, 104)] == [0.0, 0.0, 5.0]
    assert 9.5 < supply.time_for(110) <= 10.0  # from there on the two others, with 109 calls each
    assert supply.time_for(3 * 109 + 3 * 7) == pytest.approx(17.0)
    assert supply.time_for(1e9) == float("inf")


def test_a_supply_tells_the_same_whatever_it_was_asked_before() -> None:
    draw = random.Random(4)
    day = Limit("g", "requests", Window("calendar", 86_400.0, "UTC"), 60, "declared")
    drip = Limit("g", "requests", Window("bucket", 86_400.0), 300, "declared")
    keys: dict[KeySupply, float] = {}
    for number in range(12):
        limits = draw.sample((day, drip, RPM), 2)
        meters = Meters()
        for limit in limits:
            meters.take(limit, draw.randrange(limit.capacity + 1), 5.0)
        returns = returns_of([refill(meters, each, 10.0, draw.choice((1.0, 2.5))) for each in limits], 10.0)
        keys[KeySupply(draw.choice((0.0, 4000.0 * draw.random())), returns, 10.0)] = 1.0 + number % 2
    often = Supply(keys, 40.0)
    for _ in range(400):
        calls = draw.choice((3.0, 40.0, 900.0, 5000.0)) * draw.random()
        assert often.time_for(calls) == Supply(keys, 40.0).time_for(calls)


def test_callers_that_are_many_are_reckoned_with_in_groups_which_changes_hardly_anything() -> None:
    draw = random.Random(5)
    callers = {
        f"c{n}": Weighed(draw.choice((1.0, 4.0)), draw.randrange(100, 90_000), draw.randrange(1, 30))
        for n in range(400)
    }
    wants: Wants = {"normal": callers, "batch": {"c1": Weighed(1.0, 5000.0, 5.0)}}
    crowd = Crowd(wants)
    for name in ("c1", "c77", "nobody"):
        own = callers.get(name)
        some = crowd.besides("normal", name, own)
        assert len(some["normal"]) <= 25
        work, calls = work_before(some, "normal", name, 1.0, 10.0)
        exact, number = work_before(wants, "normal", name, 1.0, 10.0)
        assert work == pytest.approx(exact, rel=0.03)
        assert calls == pytest.approx(number, rel=0.1)
    few = Crowd({"normal": {"a": Weighed(1.0, 10.0, 1.0), "b": Weighed(2.0, 3.0, 1.0)}})
    assert few.besides("normal", "a", None) == {"normal": {"b": Weighed(2.0, 3.0, 1.0)}}
    assert few.size == 2


def test_who_asks_for_more_than_its_share_will_go_on_to() -> None:
    demand = Demand()
    for second in range(300):
        demand.asked(HERE, "normal", "a", 50.0, float(second))
    work, calls = demand.coming(HERE, "normal", "a", 299.0)
    assert work == pytest.approx(50.0, rel=0.03)
    assert calls == pytest.approx(1.0, rel=0.03)
    assert demand.coming(HERE, "normal", "a", 400.0)[1] < 0.05
    assert demand.coming(HERE, "batch", "a", 299.0) == (0.0, 0.0)
    wants: Wants = {"normal": {"a": Weighed(1.0, 10.0, 1.0, work, calls)}}
    assert work_before(wants, "normal", "me", 1.0, 600.0, 10.0)[0] == pytest.approx(1110.0, rel=0.03)
    assert work_before(wants, "normal", "me", 1.0, 600.0)[0] == 610.0


def test_the_work_before_a_call_is_what_its_fair_share_lets_others_have() -> None:
    loud, quiet = Weighed(1.0, 1000.0, 100.0), Weighed(1.0, 10.0, 1.0)
    work, calls = work_before({"normal": {"loud": loud, "quiet": quiet}}, "normal", "quiet", 1.0, 10.0)
    assert (work, calls) == (40.0, 4.0)
    work, _ = work_before({"normal": {"loud": loud}}, "normal", "loud", 1.0, 10.0)
    assert work == 1010.0
    work, _ = work_before({"normal": {"loud": loud}}, "interactive", "me", 1.0, 8.0)
    assert work == 11.0
    work, _ = work_before({"interactive": {"loud": loud}}, "batch", "me", 1.0, 8.0)
    assert work == 72.0


def told(
    number: int,
    at: float,
    now: float = 0.0,
    caller: str = "a",
    size: int = 1,
    patience: float = 20.0,
    content: int = 0,
) -> Promise:
    until = expected_until(at, now)
    return Promise(number, at, until, HERE, "normal", caller, 1.0, 10, size, patience, content)


def test_who_comes_back_takes_up_the_earliest_promise_that_is_due() -> None:
    promises = Promises()
    for number, at in ((1, 30.0), (2, 10.0), (3, 20.0)):
        assert promises.make(told(number, at), 0.0)
    like = told(0, 0.0)
    assert promises.due(like, 9.0) is None
    found = promises.due(like, 25.0)
    assert found is None  # the first one was expected by 13 s: it did not come
    assert promises.open == 1
    found = promises.due(like, 30.0)
    assert found is not None
    assert found.number == 1
    promises.take_up(found)
    promises.take_up(found)
    assert promises.open == 0
    assert promises.wants(HERE, {}, counts=True) == {}


def test_promises_count_by_when_they_are_and_by_how_many_come() -> None:
    promises = Promises()
    for number in range(10):
        promises.make(told(number, 10.0 + number), 0.0)
    everything = promises.wants(HERE, {"normal": {"a": Weighed(1.0, 5.0, 1.0)}}, counts=True)
    assert everything["normal"]["a"] == Weighed(1.0, 105.0, 11.0)
    soon = promises.wants(HERE, {}, counts=True, until=15.0, all_come=False)
    assert soon["normal"]["a"].work == 0.0  # nobody ever came back
    assert promises.wants(HERE, {}, counts=False, until=14.1)["normal"]["a"].calls == 6.0
    for _ in range(40):
        promises.make(told(99, 0.5, caller="b"), 0.0)
        found = promises.due(told(99, 0.5, caller="b"), 0.5)
        assert found is not None
        promises.take_up(found)
    assert promises.faith("b") == (0.0, 1.0)  # not before all who were told so would have come
    assert not promises.concerns((Deployment("other", "m"),), 1.0)
    promises.expire(100.0)
    assert promises.open == 0
    assert promises.faith("b")[0] > 0.9
    assert promises.faith("a")[1] < 0.2


def test_who_is_told_to_wait_for_hours_is_learned_apart_from_who_waits_for_seconds() -> None:
    promises = Promises()
    for number in range(100):
        promises.make(told(number, 30.0, content=number), 0.0)
        if number % 5 == 0:
            found = promises.due(told(0, 0.0, content=number), 30.0)
            assert found is not None
            promises.take_up(found)
    promises.expire(100.0)
    least, most = promises.faith("a")
    assert least < 0.2 < most < 0.28
    assert promises.faith("a", 30_000.0) == (least, most)  # as long as nothing is known of these
    for number in range(100):
        promises.make(told(number, 30_100.0, 100.0), 100.0)
    promises.expire(40_000.0)
    assert promises.faith("a") == (least, most)
    assert promises.faith("a", 30_000.0)[1] == 0.05  # some are always expected: they must not come all at once


def test_the_very_call_takes_up_what_it_was_told_and_one_that_was_changed_only_just_then() -> None:
    promises = Promises()
    for number, at in ((1, 100.0), (2, 101.0), (3, 130.0)):
        promises.make(told(number, at, content=number), 0.0)
    found = promises.due(told(0, 0.0, content=1), 104.0)
    assert found is not None
    assert found.number == 1
    assert promises.due(told(0, 0.0, content=9), 104.0) is None  # of the same size, and nobody's
    found = promises.latest(told(0, 0.0, content=2), 104.0)
    assert found is not None
    assert found.number == 2
    assert promises.latest(told(0, 0.0, content=9), 104.0) is None
    found = promises.due(told(0, 0.0, content=9), 131.0)
    assert found is not None
    assert found.number == 3


def test_sums_of_what_is_promised_are_right_at_every_moment() -> None:
    promises, draw = Promises(), random.Random(2)
    moments = [draw.choice((20.0, 900.0, 90_000.0)) * draw.random() for _ in range(500)]
    for number, at in enumerate(moments):
        assert promises.make(told(number, at, content=number), 0.0)
    for moment in (0.0, 1.0, 19.0, 130.0, 700.0, 5000.0, 60_000.0, 90_001.0):
        wants = promises.wants(HERE, {}, counts=False, until=moment).get("normal", {})
        assert wants["a"].calls == sum(at // 2 <= moment // 2 for at in moments)


def test_sums_of_what_is_promised_stay_right_while_promises_are_made_and_are_over() -> None:
    promises, draw, now = Promises(), random.Random(3), 0.0
    open_ones: list[Promise] = []
    for number in range(1500):
        now += 5.0 * draw.random()
        promises.expire(now)
        open_ones = [each for each in open_ones if each.open]
        if open_ones and draw.random() < 0.3:
            promises.take_up(open_ones.pop(draw.randrange(len(open_ones))))
        promise = told(number, now + draw.choice((20.0, 200.0)) * draw.random(), now, content=number)
        assert promises.make(promise, now)
        open_ones.append(promise)
        moment = draw.choice((now, now + 30.0, now // 50 * 50 + 60, 1e9))
        wants = promises.wants(HERE, {}, counts=False, until=moment, all_come=True).get("normal", {})
        shares = [promises.faith("a", each)[1] for each in (20.0, 200.0)]
        counted = sum(shares[each.horizon] for each in open_ones if each.at // 2 <= moment // 2)
        assert wants["a"].calls == pytest.approx(counted)


def test_there_is_a_bound_to_what_is_promised() -> None:
    promises = Promises()
    assert not promises.make(told(1, 172_900.0), 0.0)
    assert promises.make(told(1, 100_000.0), 0.0)
    promises.expire(200_000.0)
    now = 200_000.0
    kept = sum(promises.make(told(n, now + 100.0, now, caller="loud", size=n), now) for n in range(33_000))
    assert kept == promises.open == 32_000  # it leaves room for others
    kept = sum(promises.make(told(n, now + 100.0, now, caller="quiet", size=n), now) for n in range(8000))
    assert kept == 6400
    for number in range(3000):
        promises.make(told(number, now + 100.0, now, caller=f"c{number}"), now)
    assert promises.open == 40_000
    promises.expire(now + 1000.0)
    assert promises.open == promises.callers == 0
