"""Who is asked first while it is being found out which keys share, who then, and for how long anybody is waited for."""

from __future__ import annotations

import pytest

from keyturn.core import Exhausted, Leading, Pool, pick
from keyturn.core.leading import HOLD

from .test_selection import SMALL, Shares, block, make, picked


def led(count: int, *groups: tuple[int, ...]) -> tuple[Pool, Shares]:
    """A pool in which of each of *groups* the first leads."""
    pool, view = make(count)
    names = [tuple(pool.entries[each].candidate.credential.group for each in group) for group in groups]
    pool.strategy = Leading(pool.strategy, lambda: names)
    return pool, view


def nobody(pool: Pool, now: float, tried: tuple[int, ...] = ()) -> float:
    """Nobody is picked; in how many seconds somebody may be."""
    found = pick(pool, SMALL, tried, now, lambda: 0.0)
    assert isinstance(found, Exhausted), found
    return found.wait


def test_the_leader_of_each_group_comes_before_its_followers_and_they_once_it_cannot_be_asked() -> None:
    pool, view = led(4, (1, 0), (3, 2))
    assert [picked(pool), picked(pool)] == [1, 1]
    block(view, pool, 1, 60.0)
    assert picked(pool) == 0, "to be asked as soon as its leader cannot be"
    assert [picked(pool), picked(pool)] == [3, 3], "once, then the next leader"
    block(view, pool, 3, 60.0)
    assert picked(pool) == 2
    assert picked(pool) in (0, 2), "after everybody they are asked again"


def test_a_follower_waits_for_a_leader_that_is_back_in_a_moment_but_not_for_one_that_refused_the_same_call() -> None:
    pool, view = led(2, (0, 1))
    block(view, pool, 0, HOLD)
    assert nobody(pool, 0.5) == pytest.approx(HOLD - 0.5)
    assert picked(pool, 0.5, tried=[0]) == 1
    block(view, pool, 0, 60.0)
    assert picked(pool, HOLD + 1.0) == 1, "its rest is longer by then"


def test_a_follower_waits_for_a_leader_that_is_tried_after_a_rest_but_not_for_long() -> None:
    pool, view = led(2, (0, 1))
    block(view, pool, 0, 10.0)
    assert picked(pool, 10.0) == 0
    pool.used(pool.entries[0])
    view.marks.begin(pool.entries[0].scopes, "probe", 10.0)
    assert nobody(pool, 10.5) == pytest.approx(HOLD)
    assert nobody(pool, 12.0) == pytest.approx(HOLD - 1.5)
    assert picked(pool, 10.5 + HOLD) == 1
    assert picked(pool, 11.0 + HOLD) == 1, "it is not waited for again"


def test_a_key_beside_them_is_asked_as_ever() -> None:
    pool, view = led(3, (0, 1))
    block(view, pool, 0, HOLD)
    assert picked(pool, 0.5) == 2
