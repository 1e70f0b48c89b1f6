"""Prompt caches: marks are carried over, and a long conversation stays with the account that holds its cache."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from keyturn.simulator import Fault, KeyRule
from tests.scenario.shapes import DIALECTS, HISTORY, UPSTREAMS, ask, body, calls, followed, play, turn
from tests.support.world import World

LONG = "The conversation goes on and on, as it does. " * 150  # 6.7 kB
SHORT = "Hello"
CLIENTS = pytest.mark.parametrize("dialect", DIALECTS)


def system(dialect: str, model: str, text: str, asked: str = "And now?") -> dict[str, Any]:
    """A question below a long system prompt, which is what calls of one conversation share."""
    given = body(dialect, model, asked)
    if dialect == "anthropic":
        return given | {"system": text}
    if dialect == "gemini":
        return given | {"systemInstruction": {"parts": [{"text": text}]}}
    if dialect == "openai_responses":
        return given | {"instructions": text}
    return given | {"messages": [{"role": "system", "content": text}, *given["messages"]]}


class Talk:
    """A conversation that goes on: each call carries the answers before."""

    def __init__(self, world: World, dialect: str, model: str, text: str = LONG) -> None:
        self._world, self._dialect, self._model = world, dialect, model
        self.asked = system(dialect, model, text)
        self.keys: list[str] = []

    async def on(self, count: int) -> list[str]:
        """The keys that answer the next *count* calls."""
        name = HISTORY[self._dialect]
        for _ in range(count):
            answer = await ask(self._world, self._dialect, self._model, self.asked)
            assert answer.status == 200, answer.body
            self.keys.append(self._world.seen()[-1].key)
            more = body(self._dialect, self._model, "And now?")[name]
            self.asked = {**self.asked, name: [*self.asked[name], *turn(self._dialect, answer), *more]}
        return self.keys[-count:]


@CLIENTS
@pytest.mark.parametrize("upstream", DIALECTS)
def test_a_long_conversation_stays_where_its_cache_is(dialect: str, upstream: str) -> None:
    name = UPSTREAMS[upstream].partition("/")[0]

    async def story(world: World) -> None:
        first = Talk(world, dialect, UPSTREAMS[upstream])
        second = Talk(world, dialect, UPSTREAMS[upstream], "Another conversation. " + LONG)
        for _ in range(3):
            await first.on(2)
            await second.on(1)
        assert len(set(first.keys)) == len(set(second.keys)) == 1
        assert first.keys[0] != second.keys[0]
        assert all(each.cached_tokens for each in world.seen()[3:])

    play(story, {name: 5})


@CLIENTS
def test_short_calls_are_spread(dialect: str) -> None:
    async def story(world: World) -> None:
        keys = await Talk(world, dialect, UPSTREAMS["openai_chat"], "Be brief.").on(10)
        assert Counter(keys).most_common(1)[0][1] == 2

    play(story, {"groq": 5})


@CLIENTS
def test_a_conversation_moves_when_its_key_is_limited(dialect: str) -> None:
    model = UPSTREAMS["anthropic"]

    async def story(world: World) -> None:
        talk = Talk(world, dialect, model)
        first, *_ = await talk.on(3)
        world.upstream.script.add(Fault(key=first, error="rate_limited", wait=30, times=1))
        keys = (await talk.on(5))[1:]
        assert first not in keys
        assert len(set(keys)) == 1, "it stays where it moved to"

    play(story, {"anthropic": 5})


def test_a_conversation_moves_when_its_key_is_nearly_full() -> None:
    model = UPSTREAMS["anthropic"]

    async def story(world: World) -> None:
        keys = await Talk(world, "anthropic", model).on(12)
        assert 5 < max(Counter(keys).values()) < 10
        assert len(set(keys)) > 1
        assert world.upstream.own_429 == 0

    rules = [KeyRule(rpm=10)] * 5
    play(story, {"anthropic": rules}, environ={"LIMITS_ANTHROPIC": "rpm=10"})


def test_rotating_with_each_call_wins() -> None:
    models = """
providers:
  anthropic:
    rotation: { strategy: round_robin, rotate_each_call: true }
"""

    async def story(world: World) -> None:
        keys = await Talk(world, "anthropic", UPSTREAMS["anthropic"]).on(10)
        assert set(Counter(keys).values()) == {2}

    play(story, {"anthropic": 5}, models_yaml=models)


@CLIENTS
def test_a_tool_loop_stays_where_its_cache_is(dialect: str) -> None:
    """Its history has calls and results, and for a while nothing that the model said."""
    model = UPSTREAMS["openai_responses"]

    async def story(world: World) -> None:
        asked = body(dialect, model, "x", tools=True)
        prompt = " ".join('[then: weather {"city": "Rome"}]' for _ in range(4))
        asked |= {name: value for name, value in system(dialect, model, LONG, prompt).items() if name != "model"}
        for _ in range(4):
            answer = await ask(world, dialect, model, asked)
            assert calls(dialect, answer)
            asked = followed(dialect, asked, answer)
        assert len({each.key for each in world.seen()}) == 1

    play(story, {"openai": 5})


MARK = {"type": "ephemeral", "ttl": "1h"}


def test_marks_of_anthropic_reach_openai_where_the_model_takes_them() -> None:
    async def story(world: World) -> None:
        for model in ("openai/gpt-5.6", "openai/gpt-4o"):
            block = {"type": "text", "text": "Be brief.", "cache_control": MARK}
            asked = body("anthropic", model) | {"system": [block]}
            assert (await ask(world, "anthropic", model, asked)).status == 200
        taken, not_taken = (each.body.decode() for each in world.seen())
        assert '"prompt_cache_breakpoint":{' in taken
        assert "prompt_cache_breakpoint" not in not_taken
        assert "cache_control" not in taken + not_taken

    play(story)


@pytest.mark.parametrize("dialect", ["openai_chat", "openai_responses"])
def test_marks_of_openai_reach_anthropic(dialect: str) -> None:
    async def story(world: World) -> None:
        kind = "text" if dialect == "openai_chat" else "input_text"
        part = {"type": kind, "text": LONG, "prompt_cache_breakpoint": {"mode": "explicit", "ttl": "30m"}}
        name = "messages" if dialect == "openai_chat" else "input"
        model = UPSTREAMS["anthropic"]
        answer = await ask(world, dialect, model, {"model": model, name: [{"role": "user", "content": [part]}]})
        assert answer.status == 200, answer.body
        sent = json.loads(world.seen()[0].body)
        (block,) = sent["messages"][0]["content"]
        assert block["cache_control"]["type"] == "ephemeral"
        usage = answer.json()["usage"]
        details = usage.get("prompt_tokens_details") or usage["input_tokens_details"]
        assert details["cache_write_tokens"] > 0
        assert usage.get("prompt_tokens", usage.get("input_tokens")) > details["cache_write_tokens"]

    play(story)
