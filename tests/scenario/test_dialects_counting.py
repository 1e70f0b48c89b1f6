"""Tokens counted and charged: by the provider where it counts, by estimate elsewhere, and settled in any dialect."""

from __future__ import annotations

import json
from typing import Any

import pytest

from keyturn.dispatch import new_id, read_call
from keyturn.dispatch.counting import count
from keyturn.errors import BadRequest
from keyturn.server.pages import Asked, Pages
from keyturn.simulator import Fault, KeyRule
from tests.scenario.shapes import DIALECTS, UPSTREAMS, ask, body, play, refusal
from tests.server.fakes import FakeObserver
from tests.support.world import Answer, World

STREAMED = pytest.mark.parametrize("stream", [False, True])


async def counted(world: World, dialect: str, model: str, given: dict[str, Any]) -> tuple[Answer, int]:
    """A question for the number of tokens, and what was answered."""
    asked = {name: value for name, value in given.items() if name != "max_tokens"}
    door = {"anthropic": "count_tokens", "gemini": "gemini", "openai_responses": "input_tokens"}[dialect]
    call = read_call(door, json.dumps(asked).encode(), {}, f"{model}:countTokens" if dialect == "gemini" else "")
    reply = await count(world.gateway, call, world.gateway.config.default_caller, new_id(world.clock.wall()))
    reply.close()
    answer = Answer(reply, [])
    assert answer.status == 200, answer.body
    return answer, answer.json()["totalTokens" if dialect == "gemini" else "input_tokens"]


@pytest.mark.parametrize("dialect", ["anthropic", "gemini"])
def test_who_counts_natively_is_asked(dialect: str) -> None:
    async def story(world: World) -> None:
        model = UPSTREAMS[dialect]
        answer, tokens = await counted(world, dialect, model, body(dialect, model, "Hello " * 100))
        assert "x-keyturn-estimated" not in answer.headers
        (seen,) = world.seen()
        assert seen.kind == "count"
        assert tokens == seen.input_tokens

    play(story)


@pytest.mark.parametrize("dialect", ["anthropic", "gemini", "openai_responses"])
@pytest.mark.parametrize("upstream", DIALECTS)
def test_elsewhere_it_is_an_estimate(dialect: str, upstream: str) -> None:
    if dialect == upstream != "openai_responses":
        return

    async def story(world: World) -> None:
        model = UPSTREAMS[upstream]
        given = body(dialect, model, "Hello there, you. " * 100, tools=True)
        answer, tokens = await counted(world, dialect, model, given)
        assert answer.headers["x-keyturn-estimated"] == "true"
        assert not world.seen(kind="chat")
        real = await ask(world, dialect, model, given)
        assert real.status == 200
        assert 0.5 < tokens / world.seen(kind="chat")[0].input_tokens < 2

    play(story)


@pytest.mark.parametrize("dialect", ["anthropic", "gemini"])
def test_while_it_cannot_be_asked_it_is_an_estimate(dialect: str) -> None:
    async def story(world: World) -> None:
        model = UPSTREAMS[dialect]
        answer, tokens = await counted(world, dialect, model, body(dialect, model, "Hello " * 100))
        assert answer.headers["x-keyturn-estimated"] == "true"
        assert tokens > 50

    play(story, faults=[Fault(kind="count", status=503)])


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("upstream", DIALECTS)
@STREAMED
def test_usage_settles_whole(dialect: str, upstream: str, stream: bool) -> None:
    """Input with what is cached, output with reasoning: as the upstream counted, whatever its dialect calls it."""
    model = UPSTREAMS[upstream]
    thinking: dict[str, dict[str, Any]] = {
        "openai_chat": {"reasoning_effort": "low"},
        "openai_responses": {"reasoning": {"effort": "low"}},
        "anthropic": {"thinking": {"type": "enabled", "budget_tokens": 1024}},
        "gemini": {"generationConfig": {"thinkingConfig": {"includeThoughts": True}}},
    }

    async def story(world: World) -> None:
        for number in range(2):
            answer = await ask(
                world, dialect, model, body(dialect, model, "Tell me. " * 200) | thinking[dialect], stream=stream
            )
            assert answer.status == 200, answer.body
            seen = world.seen()[number]
            (attempt,) = world.gateway.recent[answer.headers["x-keyturn-call"]].attempts
            usage = attempt.usage
            assert usage is not None
            assert usage.exact
            assert (usage.input, usage.output) == (seen.input_tokens, seen.output_tokens)
            assert usage.cached == seen.cached_tokens
            assert (usage.cached > 0) == (number == 1)

    play(story)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("upstream", ["anthropic", "gemini", "openai_responses"])
def test_token_limits_hold_for_translated_calls(dialect: str, upstream: str) -> None:
    model = UPSTREAMS[upstream]
    name = model.partition("/")[0]

    async def story(world: World) -> None:
        for _ in range(6):
            answer = await ask(world, dialect, model, body(dialect, model, "Tell me. " * 400))
            assert answer.status == 200, answer.body
        assert world.upstream.own_429 == 0
        assert world.clock.mono() > 1060, "six of some 900 tokens do not fit into one minute of 3,000"

    rules = [KeyRule(tpm=3000, limiter="rolling")]
    environ = {f"LIMITS_{name.upper()}": "tpm=3000", "TIMEOUT_QUEUE_WAIT": "200"}
    play(story, {name: rules}, environ=environ)


@pytest.mark.parametrize("dialect", DIALECTS)
@STREAMED
def test_a_budget_holds_for_translated_calls(dialect: str, stream: bool) -> None:
    bounds: dict[str, dict[str, Any]] = {
        "openai_chat": {"max_completion_tokens": 50},
        "openai_responses": {"max_output_tokens": 50},
        "anthropic": {"max_tokens": 50},
        "gemini": {"generationConfig": {"maxOutputTokens": 50}},
    }

    async def story(world: World) -> None:
        for _ in range(20):
            asked = body(dialect, "team", "Tell me. " * 400) | bounds[dialect]
            answer = await ask(world, dialect, "team", asked, stream=stream)
            if answer.status != 200:
                break
        told = refusal(dialect, answer)
        assert told.status == 402
        assert 0 < len(world.seen()) < 20

    roles = (
        "  team: { model_chain: [anthropic/claude-opus-4-6], budgets: { monthly_limit: 0.5, current_usage: 0.44 } }\n"
    )
    play(story, {"anthropic": 1}, roles=roles)


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"conversation": {"id": "conv_1"}}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
    ],
)
def test_what_would_need_kept_conversations_is_refused(more: dict[str, Any], field: str) -> None:
    for stream in (False, True):
        asked = body("openai_responses", "openai/gpt-5.1") | more | {"stream": stream}
        with pytest.raises(BadRequest) as caught:
            read_call("responses", json.dumps(asked).encode(), {})
        assert caught.value.param == field
        assert f"`{field}`" in caught.value.message


@pytest.mark.parametrize("more", [{}, {"store": False}, {"store": None}])
@pytest.mark.parametrize("dialect", ["openai_responses", "anthropic", "openai_chat", "gemini"])
def test_nothing_is_kept_upstream(more: dict[str, Any], dialect: str) -> None:
    async def story(world: World) -> None:
        given = body(dialect, UPSTREAMS["openai_responses"]) | (more if dialect.startswith("openai") else {})
        answer = await ask(world, dialect, UPSTREAMS["openai_responses"], given)
        assert answer.status == 200, answer.body
        assert json.loads(world.seen()[0].body)["store"] is False
        if dialect == "openai_responses":
            assert answer.json()["store"] is False

    play(story)


async def page(world: World, name: str, asked: dict[str, Any] | None = None, dialect: str = "openai_chat") -> Any:
    """What the page *name* answers."""
    pages = Pages(world.gateway, FakeObserver(), None)  # type: ignore[arg-type]
    data = json.dumps(asked).encode() if asked is not None else b""
    got = await pages.page(name, Asked(world.gateway.config.default_caller, body=data, dialect=dialect))
    return json.loads(got.body)


@pytest.mark.parametrize("upstream", DIALECTS)
def test_tokens_and_cost_of_a_question(upstream: str) -> None:
    async def story(world: World) -> None:
        model = UPSTREAMS[upstream]
        told = await page(world, "token_count", {"model": model, "text": "Hello there. " * 100})
        assert told["estimated"] is True
        assert 150 < told["token_count"] < 700
        used = {"prompt_tokens": 100_000, "completion_tokens": 10_000, "cache_read_tokens": 50_000}
        cost = await page(world, "cost_estimate", {"model": model, **used})
        assert cost["deployment"] == model
        if cost["cost"] is None:
            assert "models.yaml" in cost["error"]
            return
        prices = cost["pricing"]
        whole = prices["input"] * 0.05 + prices["cached"] * 0.05 + prices["output"] * 0.01
        assert cost["cost"] == pytest.approx(whole, rel=0.01)

    play(story)


def test_models_in_three_shapes() -> None:
    async def story(world: World) -> None:
        ours = await page(world, "models")
        anthropic = await page(world, "models", dialect="anthropic")
        google = await page(world, "models", dialect="gemini")
        names = [row["id"] for row in ours["data"]]
        assert "anthropic/claude-opus-4-6" in names
        assert [row["id"] for row in anthropic["data"]] == names
        assert anthropic["has_more"] is False
        assert (anthropic["first_id"], anthropic["last_id"]) == (names[0], names[-1])
        assert {row["type"] for row in anthropic["data"]} == {"model"}
        assert [row["name"] for row in google["models"]] == [f"models/{name}" for name in names]
        assert all("generateContent" in row["supportedGenerationMethods"] for row in google["models"])

    play(story)
