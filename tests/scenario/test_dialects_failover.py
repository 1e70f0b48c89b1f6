"""Failover across dialects: whoever answers, the client reads its own dialect, and a cut ends as that dialect ends."""

from __future__ import annotations

from typing import Any

import pytest

from keyturn.simulator import Fault
from tests.scenario.shapes import DIALECTS, UPSTREAMS, ask, assert_cut, assert_whole, events, play, refusal, said
from tests.support.world import World

CHAIN = [UPSTREAMS["anthropic"], UPSTREAMS["gemini"], UPSTREAMS["openai_chat"], UPSTREAMS["openai_responses"]]
ROLES = f"  team: {{ model_chain: [{', '.join(CHAIN)}] }}\n"
CLIENTS = pytest.mark.parametrize("dialect", DIALECTS)
STREAMED = pytest.mark.parametrize("stream", [False, True])
UPSTREAM = pytest.mark.parametrize("upstream", DIALECTS)


@CLIENTS
@STREAMED
def test_the_first_is_out_the_second_is_limited_the_third_answers(dialect: str, stream: bool) -> None:
    async def story(world: World) -> None:
        answer = await ask(world, dialect, "team", stream=stream)
        assert said(dialect, answer).endswith("You said: Hello")
        if stream:
            assert_whole(dialect, answer)
        assert [(each.provider, each.status) for each in world.seen()] == [
            ("anthropic", 503),
            ("gemini", 429),
            ("groq", 200),
        ]
        assert answer.headers["x-keyturn-provider"] == answer.headers["x-fallback-provider"] == "groq"
        assert answer.headers["x-keyturn-model"] == "llama-3.1-8b-instant"
        assert answer.headers["x-keyturn-attempts"] == "3"

    faults = [Fault(provider="anthropic", status=503), Fault(provider="gemini", error="rate_limited", wait=30)]
    play(story, roles=ROLES, faults=faults)


@CLIENTS
@STREAMED
def test_all_are_limited(dialect: str, stream: bool) -> None:
    async def story(world: World) -> None:
        answer = await ask(world, dialect, "team", stream=stream, timeout=2)
        told = refusal(dialect, answer)
        assert told.status == 429
        assert int(answer.headers["retry-after"]) > 1
        assert told.kind in ("rate_limit_error", "rate_limit_exceeded", "RESOURCE_EXHAUSTED", "requests")
        assert answer.headers["content-type"] == "application/json"

    play(story, roles=ROLES, faults=[Fault(error="rate_limited", wait=500)])


@CLIENTS
@UPSTREAM
@pytest.mark.parametrize(
    "fault",
    [
        Fault(does="reset", at_chunk=0),
        Fault(does="end", at_chunk=0),
        Fault(does="reset", at_chunk=0, inside="event"),
        Fault(error="overloaded", at_chunk=0),
        Fault(quirks=frozenset({"html"})),
        Fault(status=500),
    ],
    ids=["reset", "end", "inside", "event", "html", "500"],
)
def test_a_break_before_content_is_invisible(dialect: str, upstream: str, fault: Fault) -> None:
    first = UPSTREAMS[upstream]
    second = CHAIN[CHAIN.index(first) - 1]

    async def story(world: World) -> None:
        answer = await ask(world, dialect, "team", stream=True)
        assert_whole(dialect, answer)
        assert said(dialect, answer).count("This is") == 1
        assert answer.headers["x-keyturn-attempts"] == "2"
        assert answer.headers["x-fallback-provider"] == second.partition("/")[0]

    broken = Fault(**{**_members(fault), "provider": first.partition("/")[0], "kind": "chat"})
    play(story, roles=f"  team: {{ model_chain: [{first}, {second}] }}\n", faults=[broken])


def _members(fault: Fault) -> dict[str, Any]:
    return {name: getattr(fault, name) for name in ("does", "at_chunk", "inside", "error", "quirks", "status")}


@CLIENTS
@UPSTREAM
@pytest.mark.parametrize(("does", "inside"), [("reset", ""), ("end", ""), ("end", "event")])
def test_a_cut_after_output_ends_with_the_error_of_the_dialect(
    dialect: str, upstream: str, does: Any, inside: Any
) -> None:
    async def story(world: World) -> None:
        answer = await ask(world, dialect, UPSTREAMS[upstream], stream=True)
        told = assert_cut(dialect, answer)
        assert told.code in ("", "upstream_interrupted", "server_error")
        assert len(world.seen()) == 1

    play(story, faults=[Fault(does=does, at_chunk=8 if upstream != "gemini" else 4, inside=inside)])


@UPSTREAM
@pytest.mark.parametrize("does", ["reset", "end"])
def test_a_cut_array_of_gemini_is_still_json(upstream: str, does: Any) -> None:
    async def story(world: World) -> None:
        answer = await ask(world, "gemini", UPSTREAMS[upstream], stream=True, array=True)
        assert answer.headers["content-type"] == "application/json"
        rows = answer.json()
        assert rows[-1]["error"]["code"] >= 500
        assert not any(row["candidates"][0].get("finishReason") for row in rows[:-1])

    play(story, faults=[Fault(does=does, at_chunk=9 if upstream == "openai_responses" else 5)])


@UPSTREAM
def test_a_whole_array_of_gemini(upstream: str) -> None:
    async def story(world: World) -> None:
        answer = await ask(world, "gemini", UPSTREAMS[upstream], stream=True, array=True)
        assert said("gemini", answer).endswith("You said: Hello")
        assert answer.json()[-1]["candidates"][0]["finishReason"] == "STOP"

    play(story)


@CLIENTS
@UPSTREAM
@pytest.mark.parametrize("case", ["overloaded", "rate_limited", "server_error", "invalid_key"])
def test_an_error_in_the_stream_is_told_in_the_clients_dialect(dialect: str, upstream: str, case: str) -> None:
    async def story(world: World) -> None:
        answer = await ask(world, dialect, UPSTREAMS[upstream], stream=True)
        assert_cut(dialect, answer)
        assert "secret-key" not in answer.body.decode()
        (attempt,) = world.gateway.recent[answer.headers["x-keyturn-call"]].attempts
        assert attempt.meaning == case

    quirks = frozenset({"echo_key"})
    play(story, faults=[Fault(error=case, at_chunk=8 if upstream != "gemini" else 4, quirks=quirks)], pace=0.1)


@CLIENTS
@UPSTREAM
@pytest.mark.parametrize("quirk", ["bytewise", "crlf", "pings", "no_usage", "no_done"])
def test_however_it_arrives_the_text_is_whole(dialect: str, upstream: str, quirk: str) -> None:
    async def story(world: World) -> None:
        streamed = await ask(world, dialect, UPSTREAMS[upstream], stream=True)
        if (upstream, quirk) == ("openai_responses", "no_done"):  # nothing else says that the answer is complete
            assert_cut(dialect, streamed)
            return
        assert said(dialect, streamed).endswith("You said: Hello")
        if quirk != "no_done":
            assert_whole(dialect, streamed)
        plain = await ask(world, dialect, UPSTREAMS[upstream])
        assert said(dialect, plain) == said(dialect, streamed)

    play(story, faults=[Fault(quirks=frozenset({quirk}))])


GARBAGE = [(upstream, quirk) for upstream in DIALECTS for quirk in ("html", "truncated_json")]
"""An answer without any content is one in Anthropic and Responses, and none in the others."""


@CLIENTS
@pytest.mark.parametrize(("upstream", "quirk"), [*GARBAGE, ("openai_chat", "empty"), ("gemini", "empty")])
def test_garbage_is_passed_over(dialect: str, upstream: str, quirk: str) -> None:
    async def story(world: World) -> None:
        answer = await ask(world, dialect, UPSTREAMS[upstream])
        assert said(dialect, answer).endswith("You said: Hello")
        assert answer.headers["x-keyturn-attempts"] == "2"

    two = dict.fromkeys(("groq", "openai", "anthropic", "gemini"), 2)
    play(story, two, faults=[Fault(kind="chat", quirks=frozenset({quirk}), times=1)])


@CLIENTS
@UPSTREAM
def test_silence_after_output_is_a_cut(dialect: str, upstream: str) -> None:
    async def story(world: World) -> None:
        answer = await ask(world, dialect, UPSTREAMS[upstream], stream=True)
        assert_cut(dialect, answer)
        assert len(events(answer)) > 1

    play(story, faults=[Fault(does="hang", at_chunk=8 if upstream != "gemini" else 4)])
