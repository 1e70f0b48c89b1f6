"""Failover from provider to provider: every test sends real requests, and the upstreams tell what arrived."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from keyturn.core import MONTH, Caller, Limit
from keyturn.simulator import Fault, KeyRule
from keyturn.telemetry.metrics import Metrics

from .scenario.shapes import DIALECTS, ask, assert_whole, said
from .security.live import BAD, live
from .support.tiers import ASKED, MODEL, asked, out, tiered
from .support.world import World

STREAMED = pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
FAILURES: dict[str, dict[str, Any]] = {
    "minute limit": {"error": "rate_limited", "wait": 30},
    "day quota": {"error": "daily_quota"},
    "no credit": {"error": "insufficient_credit"},
    "invalid key": {"error": "invalid_key"},
    "forbidden": {"error": "forbidden"},
    "not found": {"error": "not_found"},
    "too long for its context": {"error": "context_length"},
    "500": {"status": 500},
    "503": {"status": 503},
    "504": {"status": 504},
    "broken connection": {"does": "reset"},
    "nothing at all": {"does": "hang"},
    "a page": {"quirks": frozenset({"html"})},
    "an error inside the answer": {"error": "overloaded", "status": 200},
}
"""What one provider may meet, after which the next is asked."""


# --- what leads on --------------------------------------------------------------------------------------------------


@STREAMED
@pytest.mark.parametrize("failure", FAILURES)
def test_RTE_10_the_next_tier_answers(failure: str, stream: bool) -> None:
    async def story(world: World) -> None:
        answer = await world.chat(ASKED, stream=stream)
        assert answer.status == 200
        assert answer.text.endswith("You said: Hello")
        assert asked(world) == ["openai", "groq"]
        assert answer.headers["x-fallback-provider"] == answer.headers["x-keyturn-provider"] == "groq"
        assert answer.headers["x-keyturn-attempts"] == "2"

    tiered(story, out("openai", **FAILURES[failure]))


@STREAMED
def test_RTE_10_every_key_of_a_provider_first(stream: bool) -> None:
    async def story(world: World) -> None:
        assert (await world.chat(ASKED, stream=stream)).headers["x-fallback-provider"] == "groq"
        assert asked(world) == ["openai"] * 3 + ["groq"]
        assert len({each.key for each in world.seen(provider="openai")}) == 3

    tiered(story, out("openai", error="rate_limited", wait=30), pool={"openai": 3, "groq": 1})


def test_RTE_10_a_tier_that_is_known_to_be_out_is_not_even_asked() -> None:
    async def story(world: World) -> None:
        for _ in range(5):
            assert (await world.chat(ASKED)).headers["x-fallback-provider"] == "groq"
        assert asked(world) == ["openai"] + ["groq"] * 5
        trail = list(world.gateway.recent.values())[-1]
        (said,) = trail.refusals
        assert said.startswith(f"{ASKED}: every key is at its limit; one is free again in 6")

    tiered(story, out("openai", error="rate_limited", wait=60))


def test_RTE_10_a_limit_of_our_own_leads_on_before_the_provider_must_say_no() -> None:
    async def story(world: World) -> None:
        answers = [await world.chat(ASKED) for _ in range(4)]
        assert [each.headers["x-keyturn-provider"] for each in answers] == ["openai", "openai", "groq", "groq"]
        assert Counter(each.status for each in world.seen()) == {200: 4}

    tiered(story, environ={"LIMITS_OPENAI": "rpm=2"})


def test_RTE_10_three_tiers_fail_and_g4f_answers_within_the_bounds_of_a_call() -> None:
    """Two faults at a provider of many keys, then a fault at each of the others."""

    async def story(world: World) -> None:
        answer = await world.chat(ASKED)
        assert answer.headers["x-fallback-provider"] == "g4f"
        assert asked(world) == ["openai", "openai", "groq", "gemini", "g4f"]

    limited = out("gemini", error="rate_limited", wait=30)
    tiered(story, out("openai"), out("groq"), limited, pool={"openai": 5, "groq": 1, "gemini": 1})


def test_RTE_10_four_faults_end_a_call_and_the_next_one_goes_past_who_rests() -> None:
    async def story(world: World) -> None:
        answer = await world.chat(ASKED)
        assert (answer.status, answer.code, asked(world)) == (502, "bad_upstream", ["openai"] * 2 + ["groq"] * 2)
        answers = [await world.chat(ASKED) for _ in range(3)]
        assert answers[-1].headers["x-fallback-provider"] == "g4f"

    tiered(story, out("openai"), out("groq"), out("gemini"), pool={"openai": 2, "groq": 2, "gemini": 2})


# --- what does not --------------------------------------------------------------------------------------------------


@STREAMED
@pytest.mark.parametrize("error", ["bad_request", "content_filter"])
def test_RTE_10_a_mistake_of_the_client_is_sent_once_and_comes_back(error: str, stream: bool) -> None:
    async def story(world: World) -> None:
        answer = await world.chat(ASKED, stream=stream)
        assert answer.status == 400
        assert asked(world) == ["openai"]
        assert answer.headers["x-keyturn-provider"] == "openai"
        assert "x-fallback-provider" not in answer.headers

    tiered(story, out("openai", error=error))


@pytest.mark.parametrize("error", ["not_found", "context_length"])
def test_RTE_10_when_all_say_the_same_of_the_request_the_first_answer_comes_back(error: str) -> None:
    async def story(world: World) -> None:
        answer = await world.chat(ASKED)
        assert answer.status in (400, 404)
        assert answer.headers["x-keyturn-provider"] == "openai"
        assert "keyturn" not in answer.json()["error"]
        assert asked(world) == ["openai", "groq", "gemini", "g4f"]

    tiered(story, out(error=error))


def test_RTE_10_never_after_output() -> None:
    async def story(world: World) -> None:
        answer = await world.chat(ASKED, stream=True)
        assert answer.status == 200
        assert '"code":"upstream_interrupted"' in answer.events[-1]
        assert asked(world) == ["openai"]

    tiered(story, Fault(provider="openai", does="reset", at_chunk=4))


def test_RTE_10_a_stream_that_breaks_before_its_first_content_breaks_unseen() -> None:
    async def story(world: World) -> None:
        answer = await world.chat(ASKED, stream=True)
        assert answer.text.endswith("You said: Hello")
        assert answer.events[-1] == "[DONE]"
        assert asked(world) == ["openai", "groq"]

    tiered(story, Fault(provider="openai", does="reset", at_chunk=1))


def test_RTE_16_a_caller_is_not_led_to_providers_that_its_routes_do_not_name() -> None:
    async def story(world: World) -> None:
        answer = await world.chat(ASKED, caller=Caller("team", routes=("openai/*",)))
        assert (answer.status, asked(world)) == (502, ["openai", "openai"])

    tiered(story, out("openai", status=500))


def test_RTE_16_a_budget_does_not_pay_for_who_has_no_price() -> None:
    async def story(world: World) -> None:
        budget = Limit("caller/team", "cost", MONTH, 10**12, owner="caller")
        answer = await world.chat(ASKED, caller=Caller("team", limits=(budget,)))
        assert answer.headers["x-fallback-provider"] == "g4f"  # it costs nothing
        assert asked(world) == ["openai", "g4f"]

    tiered(story, out("openai", error="rate_limited", wait=30))


# --- what the client and the owner are told -------------------------------------------------------------------------


@STREAMED
@pytest.mark.parametrize("dialect", DIALECTS)
def test_RTE_15_the_header_stands_in_every_dialect(dialect: str, stream: bool) -> None:
    async def story(world: World) -> None:
        answer = await ask(world, dialect, ASKED, stream=stream)
        assert "x-fallback-provider" not in answer.headers
        world.upstream.script.add(out("openai", error="daily_quota"))
        answer = await ask(world, dialect, ASKED, stream=stream)
        assert answer.headers["x-fallback-provider"] == "groq"
        assert said(dialect, answer).endswith("You said: Hello")
        if stream:
            assert_whole(dialect, answer)

    tiered(story)


def test_RTE_15_another_provider_of_the_asked_tier_is_no_fallback() -> None:
    async def story(world: World) -> None:
        answer = await world.chat("groq/llama-3.3-70b-versatile")
        assert answer.headers["x-keyturn-provider"] == "openrouter"
        assert "x-fallback-provider" not in answer.headers

    tiered(story, out("groq"), pool={"groq": 1, "openrouter": 1}, models="{}")


def test_RTE_15_the_last_resort_is_told_in_the_trail_and_in_the_list_of_providers() -> None:
    async def story(world: World) -> None:
        assert (await world.chat(ASKED)).headers["x-fallback-provider"] == "g4f"
        assert list(world.gateway.recent.values())[-1].fallback == "last"
        rows = world.gateway.providers()
        assert [(row["name"], row["tier"], row["fallback"]) for row in rows] == [
            ("openai", 1, False),
            ("groq", 2, False),
            ("gemini", 3, False),
            ("g4f", 5, True),
        ]

    tiered(story, *(out(name, error="daily_quota") for name in ("openai", "groq", "gemini")))


def test_MON_13_failovers_are_counted_with_the_tier_they_went_to() -> None:
    metrics = Metrics(list)

    async def story(world: World) -> None:
        world.gateway.events.subscribe(metrics.count)
        assert (await world.chat(ASKED)).status == 200
        assert (await world.chat(ASKED)).status == 200  # openai rests: nobody asks it

    tiered(story, out("openai", error="rate_limited", wait=60), out("groq", status=500, times=1))
    page = metrics.page().decode()
    found = [line for line in page.splitlines() if line.startswith("keyturn_failovers_total{")]
    name = 'keyturn_failovers_total{from_provider="%s",reason="%s",tier="%s",to_provider="%s"} 1.0'
    assert sorted(found) == sorted(
        [
            name % ("openai", "rate_limited", "2", "groq"),
            name % ("groq", "server_error", "3", "gemini"),
            name % ("openai", "passed_over", "2", "groq"),
        ]
    )


def test_MON_13_the_first_choice_of_a_chain_is_no_failover_whatever_stands_before_it() -> None:
    metrics = Metrics(list)

    async def story(world: World) -> None:
        world.gateway.events.subscribe(metrics.count)
        assert (await world.chat("cheap")).headers["x-keyturn-provider"] == "gemini"

    text = f"aliases:\n  cheap: {{ chain: [{MODEL}], providers: [openai, gemini], strategy: cheapest }}\n"
    priced = "provider_routes:\n" + "".join(
        f"  - {{ id: {MODEL}, provider: {name}, price: {{ input: {price}, output: {price} }} }}\n"
        for name, price in (("openai", 9), ("gemini", 1))
    )
    tiered(story, models=text + priced)
    assert "keyturn_failovers_total{" not in metrics.page().decode()


# --- when nobody is left --------------------------------------------------------------------------------------------


def test_RTE_10_all_tiers_are_limited() -> None:
    async def story(world: World) -> None:
        answer = await world.chat(ASKED, timeout=2)
        assert (answer.status, answer.code) == (429, "capacity")
        assert 1 <= int(answer.headers["retry-after"]) <= 31
        assert [each["provider"] for each in answer.json()["error"]["keyturn"]["attempts"]] == asked(world)
        assert asked(world) == ["openai", "groq", "gemini", "g4f"]

    tiered(story, out(error="rate_limited", wait=30))


def test_RTE_10_all_tiers_fail() -> None:
    async def story(world: World) -> None:
        answer = await world.chat(ASKED)
        assert (answer.status, answer.code) == (502, "bad_upstream")
        assert asked(world) == ["openai", "groq", "gemini", "g4f"]

    tiered(story, out())


def test_RTE_10_all_keys_are_dead() -> None:
    async def story(world: World) -> None:
        answer = await world.chat(ASKED)
        assert (answer.status, answer.code) == (503, "no_valid_credentials")
        assert answer.headers["x-should-retry"] == "false"
        again = await world.chat(ASKED)
        assert (again.status, len(asked(world))) == (503, 4)  # nobody is asked twice with a dead key

    tiered(story, pool={name: [KeyRule(state="invalid_key")] for name in ("openai", "groq", "gemini", "g4f")})


def test_RTE_10_a_dead_key_is_told_although_the_last_resort_lacks_the_model() -> None:
    async def story(world: World) -> None:
        answer = await world.chat(ASKED)
        assert (answer.status, answer.code) == (503, "no_valid_credentials")
        assert asked(world) == ["openai", "g4f"]

    dead: dict[str, int | list[KeyRule]] = {"openai": [KeyRule(state="invalid_key")], "g4f": 1}
    tiered(story, out("g4f", error="not_found"), pool=dead)


# --- over real sockets ----------------------------------------------------------------------------------------------


@pytest.mark.realtime
@STREAMED
def test_RTE_10_a_refused_connection_leads_on(stream: bool, tmp_path: Path) -> None:
    async def main() -> None:
        environ = {"GROQ_API_BASE": "http://127.0.0.1:1/v1", "KEYTURN_EQUIVALENTS": "shipped"}
        async with live(tmp_path, environ) as gateway:
            answer = await gateway.chat(BAD, stream=stream)
            assert answer.status == 200
            assert answer.headers["x-keyturn-model"] == "meta-llama/Meta-Llama-3.1-8B-Instruct-Turbo"
            assert answer.headers["x-fallback-provider"] == "together"

    asyncio.run(main())
