"""How long an answer is worth waiting for, from what its like took before."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.core import Call, Deployment, Latencies, Like, like
from keyturn.core.latency import ENOUGH, FACTOR, MOST_KINDS, OPEN_ENDED, WINDOW

LLAMA = Deployment("groq", "llama")
SECONDS = st.floats(0.001, 500.0)


def kind(**members: Any) -> Like:
    call = Call("openai_chat", "chat", "groq/llama", {}, 100, **{"stream": True, "text_bytes": 100, **members})
    return like(call, LLAMA, thinks=False)


def seen(*seconds: float, of: Like | None = None) -> Latencies:
    latencies = Latencies()
    for each in seconds:
        latencies.observe(of or kind(), each)
    return latencies


def test_CAC_04_nothing_is_made_of_few_answers() -> None:
    assert seen(*[1.0] * (ENOUGH - 1)).bound(kind(), 60.0, 10.0) == 60.0
    assert seen(*[1.0] * ENOUGH).bound(kind(), 60.0, 10.0) == 10.0


def test_CAC_04_a_slow_answer_widens_the_bound_at_once_and_quick_ones_narrow_it() -> None:
    latencies = seen(*[1.0] * 100)
    latencies.observe(kind(), 20.0)
    assert latencies.bound(kind(), 60.0, 10.0) == 40.0
    for _ in range(WINDOW - 1):
        latencies.observe(kind(), 1.0)
        assert latencies.bound(kind(), 60.0, 10.0) == 40.0
    latencies.observe(kind(), 1.0)
    assert latencies.bound(kind(), 60.0, 10.0) == 10.0


def test_CAC_04_an_attempt_that_was_given_up_gives_the_next_one_more() -> None:
    latencies, bounds = seen(*[1.0] * 30), []
    for _ in range(4):
        bounds.append(latencies.bound(kind(), 60.0, 10.0))
        latencies.observe(kind(), bounds[-1])
    assert bounds == [10.0, 20.0, 40.0, 60.0]


@pytest.mark.parametrize(
    "other",
    [
        {"stream": False},
        {"media": 1},
        {"text_bytes": 100_000},
        {"stream": False, "max_output": 50},
    ],
)
def test_CAC_04_answers_are_compared_with_their_like_alone(other: dict[str, Any]) -> None:
    assert kind(**other) != kind()
    assert seen(*[1.0] * 30).bound(kind(**other), 60.0, 10.0) == 60.0


def test_CAC_04_sizes_of_one_order_are_alike() -> None:
    assert kind(text_bytes=70) == kind(text_bytes=200)
    assert kind(stream=False, max_output=300) == kind(stream=False, max_output=1000)
    assert kind(stream=False, max_output=300) != kind(stream=False, max_output=3000)
    assert kind(max_output=300) == kind(max_output=3000), "when a stream begins does not depend on its length"
    assert like(Call("openai_chat", "chat", "", {}, 0), LLAMA, thinks=True).thinks


def test_CAC_04_a_whole_answer_without_a_stated_length_gets_more() -> None:
    whole = kind(stream=False)
    assert whole.open_ended
    assert not kind(stream=False, max_output=1).open_ended
    assert not kind().open_ended
    assert seen(*[1.0] * 30, of=whole).bound(whole, 300.0, 10.0) == 10.0 * OPEN_ENDED


@given(st.lists(SECONDS, max_size=3 * WINDOW), SECONDS, SECONDS)
def test_CAC_04_never_above_the_ceiling_and_never_below_what_was_seen(
    seconds: list[float], ceiling: float, floor: float
) -> None:
    latencies = seen(*seconds)
    bound = latencies.bound(kind(), ceiling, floor)
    assert min(floor, ceiling) <= bound <= ceiling
    if len(seconds) < ENOUGH:
        assert bound == ceiling
    else:
        slowest = max(seconds[-WINDOW:])
        assert latencies.usual(kind()) == slowest
        assert bound == min(ceiling, max(floor, slowest * FACTOR))


def test_CAC_04_names_that_clients_make_up_do_not_fill_the_memory() -> None:
    latencies = seen(*[1.0] * 30)
    for number in range(MOST_KINDS):
        latencies.observe(kind()._replace(deployment=Deployment("groq", str(number))), 1.0)
    assert latencies.usual(kind()) is None
