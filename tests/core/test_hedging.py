"""When a slow call may be sent a second time."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.core import Call, Deployment, Spent, Times, affordable, hedgeable, like, sent, sent_twice


def call(dialect: str = "openai_chat", kind: Any = "chat", **members: Any) -> Call:
    return Call(dialect, kind, "fast", {name: json.dumps(value).encode() for name, value in members.items()}, 100)


@pytest.mark.parametrize(
    ("asked", "may"),
    [
        (call(), True),
        (call(kind="embeddings"), True),
        (call(kind="images"), False),
        (call(kind="audio"), False),
        (call(kind="count"), False),
        (call(store=True), False),
        (call(store=False), True),
        (call(tools=[{"type": "function", "function": {"name": "f"}}]), True),
        (call(tools=[{"type": "function", "function": {"name": "f"}}, {"type": "web_search"}]), False),
        (call(tools=None), True),
        (call(tools="no list"), False),
        (call(web_search_options={}), False),
        (call(plugins=[{"id": "web"}]), False),
        (call("anthropic", tools=[{"name": "f", "input_schema": {}}]), True),
        (call("anthropic", tools=[{"type": "web_search_20250305", "name": "web_search"}]), False),
        (call("anthropic", mcp_servers=[]), False),
        (call("gemini", tools=[{"functionDeclarations": []}]), True),
        (call("gemini", tools=[{"functionDeclarations": [], "googleSearch": {}}]), False),
        (call("gemini", tools=[{"codeExecution": {}}]), False),
        (call("openai_responses"), False),
        (call("openai_responses", store=False), True),
        (call("openai_responses", store=False, background=True), False),
    ],
)
def test_what_may_be_sent_twice(asked: Call, may: bool) -> None:
    assert hedgeable(asked) is may


def test_slow_is_a_quarter_longer_than_95_of_a_hundred_took() -> None:
    times, kind = Times(), like(call(), Deployment("groq", "m"), thinks=False)
    for seconds in range(1, 20):
        times.observe(kind, float(seconds))
    assert times.slow(kind, 95.0) is None, "too few were seen"
    times.observe(kind, 20.0)
    assert times.slow(kind, 95.0) == 1.25 * 19.0
    assert times.slow(kind, 50.0) == 1.25 * 10.0
    for _ in range(64):
        times.observe(kind, 1.0)
    assert times.slow(kind, 95.0) == 1.25


@given(st.lists(st.tuples(st.integers(1, 5000), st.integers(0, 10_000)), max_size=500))
def test_second_requests_are_two_of_a_hundred_and_cost_a_twentieth_at_most(calls: list[tuple[int, int]]) -> None:
    spent = Spent()
    for tokens, money in calls:
        spent = sent(spent, tokens, money)
        if affordable(spent, tokens, money, 0.02, 0.05):
            spent = sent_twice(spent, tokens, money)
        assert spent.second <= 0.02 * spent.requests
        assert spent.second_tokens <= 0.05 * spent.tokens
        assert spent.second_money <= 0.05 * spent.money


def test_the_first_is_afforded_after_fifty_and_old_ones_fade() -> None:
    spent = Spent()
    for number in range(1, 51):
        spent = sent(spent, 100, 0)
        assert affordable(spent, 100, 0, 0.02, 0.05) is (number == 50)
    for _ in range(20_000):
        spent = sent(spent, 100, 0)
    assert spent.requests <= 10_000
