"""What a review of roles, callers, budgets and reloads found: each story failed once."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from keyturn.config import DataFolder
from keyturn.core import MONTH, Caller, Deployment, Limit, fingerprint, nano
from keyturn.dispatch import build, read_call
from keyturn.dispatch.owning import choices_of
from keyturn.simulator import Fault, KeyRule
from tests.scenario.test_callers import MODELS, callers, named
from tests.scenario.test_reload import Watched
from tests.support import virtual
from tests.support.world import APP, World

LLAMA = "groq/llama-3.1-8b-instant"
LIMITS = "providers: { groq: { models: { llama-3.1-8b-instant: { rpm: RPM } } } }\n"
BOTH = "aliases: { both: [groq/one, groq/two] }\n"
TWO = "providers: { groq: { models: { one: { rpm: 100 }, two: { rpm: RPM } } } }\n"


async def later(world: World, seconds: float) -> None:
    await world.clock.sleep_until(world.clock.mono() + seconds)


@pytest.mark.parametrize("end", ["cancelled", "refused"])
def test_a_probe_that_began_before_a_reload_frees_the_key_after_it(end: str) -> None:
    async def story() -> None:
        probing = Fault(latency=30.0, times=1, error="bad_request" if end == "refused" else "")
        async with World({"groq": 1}, faults=[Fault(error="rate_limited", wait=5, times=1), probing]) as world:
            assert (await world.chat(LLAMA, timeout=1)).status == 429
            await later(world, 10)
            probe = asyncio.create_task(world.chat(LLAMA))
            await later(world, 1)
            world.gateway.adopt(world.config())
            waiting = asyncio.create_task(world.chat(LLAMA, timeout=60))
            await later(world, 1)
            if end == "cancelled":
                probe.cancel()
            await asyncio.gather(probe, return_exceptions=True)
            assert (await waiting).status == 200

    virtual.run(story)


def test_a_call_on_the_old_configuration_does_not_bring_its_limits_back() -> None:
    async def story() -> None:
        files = {"models.yaml": BOTH, "limits.yaml": TWO.replace("RPM", "100")}
        async with World({"groq": 1}, files=files, faults=[Fault(latency=30.0, status=404, times=1)]) as world:
            old = asyncio.create_task(world.chat("both"))
            await later(world, 1)
            world.files["limits.yaml"] = TWO.replace("RPM", "2")
            world.gateway.adopt(world.config())
            assert [(await world.chat("groq/two", timeout=1)).status for _ in range(3)] == [200, 200, 429]
            await old
            assert (await world.chat("groq/two", timeout=1)).status == 429
            (row,) = world.gateway.keys()
            capacities = {each["model"]: each["capacity"] for each in row["limits"]}  # type: ignore[attr-defined]
            assert capacities["two"] == 2

    virtual.run(story)


def test_who_waits_moves_on_to_a_key_that_a_reload_brings() -> None:
    async def story() -> None:
        async with World({"groq": 2}, files={"limits.yaml": LIMITS.replace("RPM", "1")}) as world:
            second = world.rules["groq"].pop("groq-secret-key-2")
            world.gateway.adopt(world.config())
            assert (await world.chat(LLAMA)).status == 200
            waiting = asyncio.create_task(world.chat(LLAMA, timeout=100))
            await later(world, 1)
            world.rules["groq"]["groq-secret-key-2"] = second
            world.gateway.adopt(world.config())
            started = world.clock.mono()
            assert (await waiting).status == 200
            assert world.clock.mono() - started < 1
            assert world.gateway.retired == []

    virtual.run(story)


def test_a_limit_that_is_lifted_lets_everybody_in_who_waits() -> None:
    async def story() -> None:
        async with World({"groq": 1}, files={"limits.yaml": LIMITS.replace("RPM", "1")}) as world:
            assert (await world.chat(LLAMA)).status == 200
            waiting = [asyncio.create_task(world.chat(LLAMA, timeout=300)) for _ in range(3)]
            await later(world, 1)
            world.files = {}
            world.gateway.adopt(world.config())
            assert (await world.chat(LLAMA)).status == 200
            started = world.clock.mono()
            assert [(await each).status for each in waiting] == [200, 200, 200]
            assert world.clock.mono() - started < 1

    virtual.run(story)


def test_who_waits_for_a_name_that_a_reload_takes_away_waits_on() -> None:
    async def story() -> None:
        files = {"limits.yaml": LIMITS.replace("RPM", "1"), "models.yaml": f"aliases: {{ fast: [{LLAMA}] }}"}
        async with World({"groq": 1}, files=files) as world:
            assert (await world.chat("fast")).status == 200
            waiting = asyncio.create_task(world.chat("fast", timeout=100))
            await later(world, 1)
            del world.files["models.yaml"]
            world.gateway.adopt(world.config())
            assert (await world.chat("fast")).status == 404
            assert (await waiting).status == 200

    virtual.run(story)


def test_a_key_that_was_switched_off_stays_off_when_a_reload_brings_it_back() -> None:
    async def story() -> None:
        async with World({"groq": 2}) as world:
            second = world.rules["groq"].pop("groq-secret-key-2")
            off = fingerprint("groq", "groq-secret-key-2")
            await world.gateway.close()
            world.gateway = build(world.config(), clock=world.clock, apps={APP: world.upstream}, disabled={off})
            world.rules["groq"]["groq-secret-key-2"] = second
            world.gateway.adopt(world.config())
            answers = await world.many(LLAMA, 4)
            assert {each.headers["x-keyturn-key"][:6] for each in answers} == {"groq-1"}
            assert world.gateway.enable(off)
            answers = await world.many(LLAMA, 4)
            assert {each.headers["x-keyturn-key"][:6] for each in answers} == {"groq-1", "groq-2"}

    virtual.run(story)


def test_models_that_count_together_keep_one_anothers_limits() -> None:
    limits = (
        "providers: { groq: { models: { a: { quota_group: g, rpm: 2 }, b: { quota_group: g, rpd: 100, rpm: 5 } } } }\n"
    )

    async def story() -> None:
        async with World({"groq": 1}, files={"limits.yaml": limits}) as world:
            assert [(await world.chat(f"groq/{name}", timeout=1)).status for name in "aab"] == [200, 200, 429]
            assert (await world.chat("groq/a", timeout=1)).status == 429

    virtual.run(story)


def test_another_spelling_of_a_model_meets_the_same_gates_and_limits() -> None:
    models = (
        "provider_routes:\n"
        "  - { id: pro, provider: gemini, model: gemini-2.5-pro, is_paid: true, tier: performance }\n"
        "  - { id: flash, provider: gemini, model: models/gemini-2.5-flash, is_paid: false, tier: free }\n"
    )
    limits = "providers: { gemini: { models: { gemini-2.5-flash: { rpm: 1 }, gone: { unavailable: true } } } }\n"

    async def story() -> None:
        async with World({"gemini": 1}, files={"models.yaml": models, "limits.yaml": limits}) as world:
            for name in ("gemini/gemini-2.5-pro", "gemini/models/gemini-2.5-pro", "gemini/Gemini-2.5-Pro", "pro"):
                assert (await world.chat(name)).code == "paid_route", name
            for name in ("gemini/gone", "gemini/models/gone", "gemini/GONE"):
                assert (await world.chat(name)).status == 404, name
            assert (await world.chat("gemini/models/gemini-2.5-flash")).status == 200
            for name in ("flash", "gemini/gemini-2.5-flash", "gemini/GEMINI-2.5-flash"):
                assert (await world.chat(name, timeout=1)).status == 429, name
            assert {each.model for each in world.seen()} == {"gemini-2.5-flash"}

    virtual.run(story)


def held(world: World) -> float:
    limit = Limit("caller/ci", "cost", MONTH, nano(100.0), owner="caller")
    return world.gateway.live.view(0.0).row(limit, world.clock.mono()).reserved / 1e9


def test_no_request_can_make_what_a_budget_holds_smaller_than_what_it_may_cost() -> None:
    async def story() -> None:
        files = {"models.yaml": MODELS, "callers.yaml": callers({"ci": "monthly_usd: 1000"})}
        async with World({"groq": 1}, files=files, faults=[Fault(latency=10.0)]) as world:

            async def holds(**members: Any) -> float:
                task = asyncio.create_task(world.chat("llama", caller=named(world, "ci"), **members))
                await later(world, 1)
                amount = held(world)
                await task
                return amount

            assert 0.1 <= await holds(max_tokens=100) < 0.2
            assert await holds(max_completion_tokens=1, max_tokens=100_000) >= 100
            assert await holds(max_tokens=1, max_completion_tokens=100_000) >= 100
            assert await holds(max_tokens=100, n=100) >= 10
            assert await holds() >= 16

    virtual.run(story)


def test_a_bound_below_one_is_none() -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"Hi"}],"max_completion_tokens":-1,"max_tokens":10}'
    assert read_call("chat", body, {}).max_output is None


@pytest.mark.parametrize(
    ("n", "choices"), [("100.0", 100), ("1000", 128), ("1e999", 128), ("[]", 128), ("-3", 1), ("null", 1), ("2.5", 3)]
)
def test_what_is_held_for_odd_counts_of_answers(n: str, choices: int) -> None:
    body = f'{{"model":"m","messages":[{{"role":"user","content":"Hi"}}],"n":{n}}}'.encode()
    assert choices_of(read_call("chat", body, {})) == choices
    if n == "1e999":
        return  # JSON that nobody can read in Gemini's nested form is refused at once
    asked = f'{{"contents":[{{"parts":[{{"text":"Hi"}}]}}],"generationConfig":{{"candidate_count":{n}}}}}'.encode()
    assert choices_of(read_call("gemini", asked, {}, "m:generateContent")) == choices


def test_failing_calls_count_as_requests_of_their_caller() -> None:
    async def story() -> None:
        files = {"models.yaml": MODELS, "callers.yaml": callers({"ci": "rpm: 2"})}
        async with World({"groq": 1}, files=files, faults=[Fault(error="bad_request")]) as world:
            answers = [await world.chat("llama", caller=named(world, "ci")) for _ in range(5)]
            assert [each.status for each in answers] == [400, 400, 429, 429, 429]
            assert len(world.seen()) == 2

    virtual.run(story)


def test_an_attempt_that_was_sent_and_timed_out_keeps_the_money_it_held() -> None:
    async def story() -> None:
        settings = "[timeouts]\nno_content = 20\nfirst_token = 20\n"
        files = {"models.yaml": MODELS, "callers.yaml": callers({"ci": "monthly_usd: 10"}), "settings.toml": settings}
        async with World({"groq": 3}, files=files, faults=[Fault(does="hang")]) as world:
            answer = await world.chat("llama", caller=named(world, "ci"), max_tokens=1000)
            assert answer.status == 502
            (own,) = world.gateway.quota_stats(named(world, "ci"))["own"]
            assert own["used"] >= 2.0  # two attempts of a thousand tokens

    virtual.run(story)


@pytest.mark.parametrize("provider", ["groq", "gemini"])
def test_a_callers_tokens_count_output_wherever_the_provider_does(provider: str) -> None:
    async def story() -> None:
        files = {"callers.yaml": callers({"ci": "tpm: 1000"})}
        message = {"index": 0, "message": {"role": "assistant", "content": "long"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 10, "completion_tokens": 5000, "total_tokens": 5010}
        body = json.dumps({"id": "x", "object": "chat.completion", "choices": [message], "usage": usage})
        if provider == "gemini":
            candidate = {"content": {"role": "model", "parts": [{"text": "long"}]}, "finishReason": "STOP"}
            usage = {"promptTokenCount": 10, "candidatesTokenCount": 5000, "totalTokenCount": 5010}
            body = json.dumps({"candidates": [candidate], "usageMetadata": usage})
        async with World({provider: 1}, files=files, faults=[Fault(status=200, body=body)]) as world:
            assert (await world.chat(f"{provider}/some-model", caller=named(world, "ci"))).status == 200
            assert (await world.chat(f"{provider}/some-model", caller=named(world, "ci"))).code == "caller_limit"

    virtual.run(story)


def test_a_list_that_is_being_fetched_when_a_reload_comes_is_fetched_again() -> None:
    async def story() -> None:
        async with World({"groq": 1}, faults=[Fault(kind="models", latency=5.0, times=1)]) as world:
            fetching = asyncio.create_task(world.gateway.models())
            await later(world, 1)
            world.gateway.adopt(world.config())
            assert len(await world.gateway.models()) > 0
            await fetching

    virtual.run(story)


def test_a_clock_that_was_wrong_for_a_while_loses_no_spend(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    folder.write_spent("2026-03", {"caller/ci": nano(1.0)})
    folder.write_spent("2026-11", {"caller/ci": nano(9.0)})
    assert folder.spent("2026-03") == {"caller/ci": nano(1.0)}
    assert folder.spent("2026-11") == {"caller/ci": nano(9.0)}

    async def story() -> None:
        files = {"models.yaml": MODELS, "callers.yaml": callers({"ci": "monthly_usd: 1"})}
        async with World({"groq": 1}, files=files, folder=folder) as world:
            live, now = world.gateway.live, world.clock.mono()
            assert (await world.chat("llama", caller=named(world, "ci"), max_tokens=5)).status == 402
            live.wall_offset += 40 * 86400.0
            assert (await world.chat("llama", caller=named(world, "ci"), max_tokens=5)).status == 200
            await later(world, 1300)
            assert (await world.chat(LLAMA)).status == 200  # counters at rest are let go of, a month is not
            live.wall_offset -= 40 * 86400.0
            assert (await world.chat("llama", caller=named(world, "ci"), max_tokens=5)).status == 402
            assert now < world.clock.mono()

    virtual.run(story)


def test_what_was_spent_last_month_is_not_charged_to_a_caller_who_comes_back(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    folder.write_spent("2026-03", {"caller/ci": nano(1.0)})

    async def story() -> None:
        async with World({"groq": 1}, files={"models.yaml": MODELS}, folder=folder) as world:
            await later(world, 7200.0)
            world.files["callers.yaml"] = callers({"ci": "monthly_usd: 1"})
            world.gateway.adopt(world.config())
            assert (await world.chat("llama", caller=named(world, "ci"), max_tokens=5)).status == 200

    virtual.run(story, start_wall=1774998000.0)  # the last hour of March 2026


def test_other_changes_nearby_do_not_put_a_reload_off(tmp_path: Path) -> None:
    async def story() -> None:
        async with World({"groq": 1}) as world:
            watched = Watched(world, tmp_path)
            watched.file.write_text("a")
            watched.watch_its_size()
            watched.file.write_text("changed")
            for _ in range(60):
                watched.reloader.check()
                await later(world, 0.15)
            assert len(watched.adopted) == 1
            await watched.reloader.close()

    virtual.run(story)


def test_a_caller_sees_neither_keys_nor_addresses_nor_what_others_spend() -> None:
    async def story() -> None:
        rows = {"ci": "monthly_usd: 5", "plain": "class: batch"}
        async with World({"groq": 2}, files={"models.yaml": MODELS, "callers.yaml": callers(rows)}) as world:
            told = world.gateway.quota_stats(named(world, "plain"))
            assert (told["keys"], told["own"]) == ([], [])
            assert {row["base_url"] for row in world.gateway.providers(named(world, "plain"))} == {None}
            owner = world.gateway.quota_stats(Caller())
            assert len(owner["keys"]) == 2
            assert [each["name"] for each in owner["own"]] == ["ci"]

    virtual.run(story)


def test_names_that_clients_make_up_leave_no_limits_behind() -> None:
    async def story() -> None:
        limits = "providers: { groq: { scope: shared, default: { rpm: 1000000 } } }\n"
        async with World({"groq": 1}, files={"limits.yaml": limits}) as world:
            for number in range(2600):
                world.gateway.pools.of(Deployment("groq", f"junk-{number}"))
            book = world.gateway.live._meters._book  # type: ignore[attr-defined]
            assert len(book._declared) <= 2001

    virtual.run(story)


def test_a_deployment_that_rests_is_not_waited_for_by_who_has_tried_all_of_it() -> None:
    async def story() -> None:
        async with World({"groq": [KeyRule()]}, faults=[Fault(status=502)]) as world:
            await world.chat(LLAMA)
            await later(world, 30)
            started = world.clock.mono()
            assert (await world.chat(LLAMA)).status == 502
            assert world.clock.mono() - started < 1

    virtual.run(story)


def test_a_request_that_cannot_be_reckoned_keeps_nobody_waiting() -> None:
    async def story() -> None:
        limits = "providers: { groq: { models: { llama-3.1-8b-instant: { concurrency: 1 } } } }\n"
        files = {"models.yaml": MODELS, "callers.yaml": callers({"ci": "monthly_usd: 1000000"}), "limits.yaml": limits}
        async with World({"groq": 1}, files=files, faults=[Fault(latency=5.0)]) as world:
            first = asyncio.create_task(world.chat("llama"))
            await later(world, 1)
            body = b'{"model":"llama","messages":[{"role":"user","content":"Hi"}],"max_tokens":1,"n":1e999}'
            call = read_call("chat", body, {})
            odd = asyncio.create_task(world.gateway.handle(call, named(world, "ci"), "odd"))
            await later(world, 1)
            others = [asyncio.create_task(world.chat("llama", timeout=60)) for _ in range(3)]
            started = world.clock.mono()
            assert [(await each).status for each in (first, *others)] == [200] * 4
            assert world.clock.mono() - started < 40
            (await odd).close()

    virtual.run(story)


def test_a_call_on_the_old_configuration_keeps_to_the_limits_of_the_new_one() -> None:
    async def story() -> None:
        files = {"models.yaml": BOTH, "limits.yaml": TWO.replace("RPM", "100")}
        async with World({"groq": 1}, files=files, faults=[Fault(latency=30.0, status=404, times=1)]) as world:
            old = asyncio.create_task(world.chat("both"))
            await later(world, 1)
            world.files["limits.yaml"] = TWO.replace("RPM", "1")
            world.gateway.adopt(world.config())
            assert (await old).headers["x-keyturn-model"] == "two"
            assert (await world.chat("groq/two", timeout=1)).status == 429

    virtual.run(story)


def test_a_list_that_a_call_waits_for_is_not_taken_from_it_by_a_reload() -> None:
    async def story() -> None:
        slow = Fault(kind="models", provider="mistral", latency=5.0, times=1)
        async with World({"groq": 1, "mistral": 1}, faults=[slow]) as world:
            asking = asyncio.create_task(world.chat("mistral-small-latest"))
            listing = asyncio.create_task(world.gateway.models())
            for _ in range(3):
                await later(world, 1)
                world.gateway.adopt(world.config())
            assert (await asking).status == 200
            assert {row.provider for row in await listing} == {"groq", "mistral", "keyturn"}

    virtual.run(story)


def test_two_variants_are_no_way_around_the_gate_and_a_tag_is_no_variant() -> None:
    models = (
        "provider_routes:\n"
        "  - { id: foo, provider: openrouter, model: org/foo, is_paid: true, tier: performance }\n"
        "  - { id: gemma, provider: openrouter, model: gemma3, is_paid: true, tier: performance }\n"
    )

    async def story() -> None:
        async with World({"openrouter": 1}, files={"models.yaml": models}) as world:
            for name in ("org/foo:nitro:online", "org/foo:free:online", "Org/Foo:Online:nitro"):
                assert (await world.chat(f"openrouter/{name}")).code == "paid_route", name
            assert (await world.chat("openrouter/gemma3:27b")).status == 200

    virtual.run(story)


def test_a_name_that_is_known_as_it_stands_is_not_taken_for_another() -> None:
    models = (
        "provider_routes:\n"
        "  - { id: big, provider: openrouter, model: Org/Foo }\n"
        "  - { id: small, provider: openrouter, model: org/foo }\n"
    )

    async def story() -> None:
        async with World({"openrouter": 1}, files={"models.yaml": models}) as world:
            for name in ("Org/Foo", "org/foo", "ORG/FOO"):
                assert (await world.chat(f"openrouter/{name}")).headers["x-keyturn-model"] == name

    virtual.run(story)


def test_the_gate_and_the_pool_agree_on_what_a_plan_does_not_offer() -> None:
    limits = "providers: { groq: [ { models: { one: { rpm: 5 } } }, { plan: free, models: { one: { unavailable: true } } } ] }\n"  # noqa: E501

    async def story() -> None:
        async with World({"groq": 1}, files={"limits.yaml": limits}, environ={"KEY_PLAN_GROQ": "free"}) as world:
            answer = await world.chat("groq/one")
            assert (answer.status, answer.code) == (404, "model_not_found")
            assert "not offered on plan free" in answer.json()["error"]["message"]

    virtual.run(story)


def test_what_is_known_of_a_free_variant_holds_in_every_spelling() -> None:
    models = "provider_routes: [ { id: blind, provider: openrouter, model: 'org/foo:free', capabilities: { vision: false } } ]\n"  # noqa: E501
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    body: dict[str, Any] = {"messages": [{"role": "user", "content": [picture]}]}

    async def story() -> None:
        async with World({"openrouter": 1}, files={"models.yaml": models}) as world:
            for name in ("org/foo:free", "Org/Foo:Free", "ORG/foo:FREE"):
                answer = await world.send("chat", {"model": f"openrouter/{name}", **body})
                assert (answer.status, answer.code) == (400, "bad_request"), name
            assert world.seen() == []

    virtual.run(story)
