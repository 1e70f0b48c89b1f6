"""Whose turn it is: shares by class and caller, order within one, and what finding the next costs."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyturn.core import WEIGHTS, CallerClass, Place, Queue, Shares

CLASSES: tuple[CallerClass, ...] = ("interactive", "normal", "batch")


def place(number: int, caller: str = "a", cost: int = 1, rank: CallerClass = "normal", weight: float = 1.0) -> Place:
    return Place(number, rank, caller, weight, cost)


def filled(*places: Place, counts_tokens: bool = True) -> Queue:
    queue = Queue(Shares(counts_tokens=counts_tokens))
    for each in places:
        queue.add(each)
    return queue


def serve(queue: Queue) -> Place:
    walk = queue.walk()
    found = walk.next()
    assert found is not None
    queue.serve(found[1])
    walk.end()
    return found[1]


def test_one_caller_is_served_in_the_order_of_arrival() -> None:
    queue = filled(*(place(number, cost=100 - number) for number in range(20)))
    assert [serve(queue).number for _ in range(20)] == list(range(20))
    assert (queue.size, queue.shares.calls, queue.shares.work) == (0, 0, 0)


def test_who_comes_back_stands_where_it_stood() -> None:
    queue = filled(place(5), place(6))
    first = serve(queue)
    assert first.number == 5
    queue.add(place(7))
    queue.add(place(5))
    assert [serve(queue).number for _ in range(3)] == [5, 6, 7]


def test_classes_share_by_eight_three_and_one() -> None:
    queue = filled(*(place(number, rank, rank=rank) for number in range(200) for rank in CLASSES))
    served = Counter(serve(queue).rank for _ in range(120))
    assert served == {"interactive": 80, "normal": 30, "batch": 10}


def test_callers_share_by_weight_and_by_tokens() -> None:
    places = [place(number, "heavy", 30, weight=3.0) for number in range(100)]
    places += [place(100 + number, "light", 10) for number in range(100)]
    queue = filled(*places)
    given: Counter[str] = Counter()
    for _ in range(80):
        one = serve(queue)
        given[one.caller] += one.cost
    assert given["heavy"] / given["light"] == pytest.approx(3.0, rel=0.05)


def test_where_nothing_counts_tokens_a_call_counts_as_one() -> None:
    places = [place(number, "large", 1000) for number in range(10)] + [place(10 + n, "small", 1) for n in range(10)]
    queue = filled(*places, counts_tokens=False)
    assert [serve(queue).caller for _ in range(6)] == ["large", "small"] * 3


def test_silence_is_not_saved_up() -> None:
    queue = filled(*(place(number, "busy") for number in range(100)))
    for _ in range(50):
        serve(queue)
    for number in range(100, 120):
        queue.add(place(number, "late"))
    assert [serve(queue).caller for _ in range(10)].count("late") == 5


def test_who_is_passed_over_keeps_its_place() -> None:
    queue = filled(place(0, "a"), place(1, "a"), place(2, "b"))
    walk = queue.walk()
    seen = []
    while (found := walk.next()) is not None:
        seen.append(found[1].number)
        walk.pass_over(found[1])
    walk.end()
    assert seen == [0, 1, 2]
    assert [serve(queue).number for _ in range(3)] == [0, 2, 1]


def test_who_is_ahead_stays_ahead_when_queues_come_together() -> None:
    one = filled(place(0, "a"), place(1, "a"), place(2, "b"), place(3, "a"))
    assert [serve(one).caller, serve(one).caller] == ["a", "b"]
    two = filled(place(4, "c"))
    together = Shares(counts_tokens=True)
    together.take_over(one.shares)
    together.take_over(two.shares)
    one.move(together)
    two.move(together)
    assert together.calls == 3
    assert serve(one).number == 1


Step = tuple[int, int, int, int]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 2), st.integers(1, 50)), max_size=200))
def test_nothing_is_lost_and_nobody_overtakes_itself(steps: list[Step]) -> None:
    """Calls come, leave, are passed over and served, at random: counts stay right, and one caller's stay in order."""
    queue = Queue(Shares(counts_tokens=True))
    waiting: dict[int, Place] = {}
    for number, (what, caller, rank, cost) in enumerate(steps):
        if what <= 1:
            waiting[number] = place(number, f"c{caller}", cost, CLASSES[rank])
            queue.add(waiting[number])
        elif what == 2 and waiting:
            leaves = waiting.pop(list(waiting)[cost % len(waiting)])
            queue.remove(leaves)
        elif waiting:
            walk = queue.walk()
            for _ in range(caller):
                if (found := walk.next()) is not None:
                    walk.pass_over(found[1])
            walk.end()
            one = serve(queue)
            same = [each for each in waiting.values() if (each.rank, each.caller) == (one.rank, one.caller)]
            assert one.number == min(each.number for each in same)
            del waiting[one.number]
        assert queue.size == queue.shares.calls == len(waiting) == len(list(queue))
        assert queue.shares.work == sum(each.cost for each in waiting.values())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 100), st.floats(0.5, 4.0)), min_size=2, max_size=6), st.integers(0, 1000))
def test_callers_who_wait_differ_by_one_call_of_each_at_most(callers: list[tuple[int, float]], seed: int) -> None:
    draw = random.Random(seed)
    queue, number = Queue(Shares(counts_tokens=True)), 0
    given_to = dict.fromkeys(range(len(callers)), 0.0)
    for name, (largest, weight) in enumerate(callers):
        for _ in range(60):
            number += 1
            queue.add(place(number, str(name), draw.randint(1, largest), weight=weight))
    for _ in range(50):
        one = serve(queue)
        given_to[int(one.caller)] += one.cost / one.weight
        for name, (largest, weight) in enumerate(callers):
            for other, (most, share) in enumerate(callers):
                assert abs(given_to[name] - given_to[other]) <= largest / weight + most / share + 1e-6


@pytest.mark.parametrize("callers", [1, 50, 1000])
def test_finding_the_next_takes_a_few_steps_however_many_wait(callers: int) -> None:
    queue = filled(*(place(number, str(number % callers), 1 + number % 7) for number in range(1000)))
    before = queue.steps
    for number in range(500):
        serve(queue)
        queue.add(place(1000 + number, str(number % callers), 1 + number % 7))
    assert queue.steps - before <= 8 * 500


def test_the_weights_are_those_that_are_documented() -> None:
    assert WEIGHTS == {"interactive": 8.0, "normal": 3.0, "batch": 1.0}
