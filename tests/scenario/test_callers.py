"""Callers with routes, limits and budgets of their own: each is told what stands in its way, and nobody overspends."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from keyturn.config import DataFolder
from keyturn.core import Caller, nano
from keyturn.simulator import Fault, KeyRule
from keyturn.stores.sqlite_questions import spent
from tests.support import virtual
from tests.support.world import Answer, World

LAST_HOUR_OF_MARCH = 1774998000.0
"""2026-03-31 23:00 UTC."""
LLAMA = "groq/llama-3.1-8b-instant"
MODELS = """
providers:
  groq: { kind: http, base_url: https://api.groq.com/openai/v1, env_key: GROQ_API_KEY }
provider_routes:
  - { id: llama, provider: groq, model: llama-3.1-8b-instant, price: { input: 100, output: 1000 } }
  - { id: mystery, provider: groq, model: nobody-knows-its-price }
"""
ROLES = """
roles:
  senior_dev: { description: changes, model: llama, budgets: { monthly_limit: 1 } }
"""


def hashed(name: str) -> str:
    return hashlib.sha256(f"kt-{name}".encode()).hexdigest()


def named(world: World, name: str) -> Caller:
    return world.gateway.config.callers[hashed(name)]


def callers(rows: dict[str, str]) -> str:
    """callers.yaml: name -> the rest of its entry."""
    return "\n".join(f"{name}: {{ key_hash: 'sha256:{hashed(name)}', {rest} }}" for name, rest in rows.items())


def spend(path: Path) -> dict[str, float]:
    connection = sqlite3.connect(path / "state.sqlite")
    try:
        return {scope: amount / 1e9 for scope, amount in spent(connection, "2026-03").items()}
    finally:
        connection.close()


def test_twenty_callers_each_with_its_own_answer(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    folder.write_spent("2026-03", {"caller/spent": nano(5.0)})
    rows = {f"caller-{number}": "routes: [llama]" for number in range(17)}
    rows |= {"spent": "monthly_usd: 5", "hasty": "rpm: 2", "elsewhere": "routes: ['gemini/*']"}

    async def story() -> None:
        files = {"models.yaml": MODELS, "callers.yaml": callers(rows)}
        async with World({"groq": 3}, files=files, folder=folder) as world:
            answers = {name: await world.chat("llama", caller=named(world, name)) for name in rows}
            assert {answers[f"caller-{number}"].status for number in range(17)} == {200}
            assert (answers["spent"].status, answers["spent"].code) == (402, "budget_exhausted")
            assert answers["spent"].headers["x-should-retry"] == "false"
            assert (answers["elsewhere"].status, answers["elsewhere"].code) == (403, "route_not_allowed")
            assert answers["hasty"].status == 200
            assert (await world.chat("llama", caller=named(world, "hasty"))).status == 200
            hasty = await world.chat("llama", caller=named(world, "hasty"))
            assert (hasty.status, hasty.code) == (429, "caller_limit")
            assert 55 <= int(hasty.headers["retry-after"]) <= 62
            assert (await world.chat("llama", caller=named(world, "caller-3"))).status == 200
            await world.clock.sleep_until(world.clock.mono() + int(hasty.headers["retry-after"]))
            assert (await world.chat("llama", caller=named(world, "hasty"))).status == 200

    virtual.run(story)


def test_200_parallel_calls_against_one_remaining_dollar_never_spend_two(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    folder.write_spent("2026-03", {"caller/ci": nano(9.0)})

    async def story() -> None:
        files = {"models.yaml": MODELS, "callers.yaml": callers({"ci": "monthly_usd: 10"})}
        async with World({"groq": 8}, files=files, folder=folder) as world:
            calls = (
                world.chat("llama", caller=named(world, "ci"), max_tokens=40, text="word " * 40) for _ in range(200)
            )
            answers: list[Answer] = await asyncio.gather(*calls)
            statuses = Counter(each.status for each in answers)
            assert statuses[200] >= 10
            assert set(statuses) <= {200, 402, 429}
            (own,) = world.gateway.quota_stats(named(world, "ci"))["own"]
            assert 9.0 < own["used"] <= 10.0
            assert own["reserved"] == 0
        assert 9.0 < spend(tmp_path)["caller/ci"] <= 10.0

    virtual.run(story)


def test_LIM_17_a_role_budget_is_enforced_and_outlives_a_restart(tmp_path: Path) -> None:
    """The old system only logged role budgets; here they hold (design §6: 402 `budget_exhausted`)."""

    async def first() -> None:
        files = {"models.yaml": MODELS, "roles.yaml": ROLES}
        async with World({"groq": 2}, files=files, folder=DataFolder(tmp_path)) as world:
            answer = await world.chat("senior_dev", max_tokens=300)
            assert answer.status == 200
            while answer.status == 200:
                answer = await world.chat("senior_dev", max_tokens=300, text="word " * 500)
            assert (answer.status, answer.code) == (402, "budget_exhausted")
            assert "role senior_dev" in answer.json()["error"]["message"]
            assert (await world.chat("llama", max_tokens=300)).status == 200

    async def second() -> None:
        files = {"models.yaml": MODELS, "roles.yaml": ROLES}
        async with World({"groq": 2}, files=files, folder=DataFolder(tmp_path)) as world:
            answer = await world.chat("senior_dev", max_tokens=300, text="word " * 500)
            assert (answer.status, answer.code) == (402, "budget_exhausted")
            assert world.seen() == []

    virtual.run(first)
    before = spend(tmp_path)["role/senior_dev"]
    assert 0 < before <= 1.0
    virtual.run(second)
    assert spend(tmp_path)["role/senior_dev"] == before


def test_a_budget_begins_anew_with_the_month(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    folder.write_spent("2026-03", {"caller/ci": nano(1.0)})

    async def story() -> None:
        files = {"models.yaml": MODELS, "callers.yaml": callers({"ci": "monthly_usd: 1"})}
        async with World({"groq": 1}, files=files, folder=folder) as world:
            assert (await world.chat("llama", caller=named(world, "ci"), max_tokens=5)).status == 402
            await world.clock.sleep_until(world.clock.mono() + 7200.0)
            assert (await world.chat("llama", caller=named(world, "ci"), max_tokens=5)).status == 200

    virtual.run(story, start_wall=LAST_HOUR_OF_MARCH)


def test_an_unknown_price_is_said_and_never_zero() -> None:
    async def story() -> None:
        files = {"models.yaml": MODELS, "callers.yaml": callers({"ci": "monthly_usd: 1"})}
        async with World({"groq": 1}, files=files) as world:
            answer = await world.chat("mystery", caller=named(world, "ci"))
            assert (answer.status, answer.code) == (402, "budget_exhausted")
            assert "nobody knows what groq/nobody-knows-its-price costs" in answer.json()["error"]["message"]
            assert world.seen() == []
            assert (await world.chat("mystery")).status == 200

    virtual.run(story)


def test_a_failed_attempt_costs_the_caller_nothing() -> None:
    async def story() -> None:
        files = {"models.yaml": MODELS, "callers.yaml": callers({"ci": "rpm: 2"})}
        faults = [Fault(status=500, times=1)]
        async with World({"groq": 3}, files=files, faults=faults) as world:
            assert (await world.chat("llama", caller=named(world, "ci"))).status == 200
            assert len(world.seen()) == 2
            assert (await world.chat("llama", caller=named(world, "ci"))).status == 200
            assert (await world.chat("llama", caller=named(world, "ci"))).status == 429

    virtual.run(story)


def test_a_caller_sees_only_its_own_models_and_limits() -> None:
    async def story() -> None:
        files = {"models.yaml": MODELS, "callers.yaml": callers({"ci": "routes: [llama], rpm: 7", "other": "rpm: 9"})}
        async with World({"groq": 1}, files=files) as world:
            rows = await world.gateway.models(named(world, "ci"))
            assert [row.id for row in rows] == ["llama"]
            own = world.gateway.quota_stats(named(world, "ci"))["own"]
            assert [(each["name"], each["capacity"]) for each in own] == [("ci", 7)]

    virtual.run(story)


@pytest.mark.parametrize("asked", ["llama", LLAMA, "llama-3.1-8b-instant"])
def test_a_route_is_forbidden_under_every_name(asked: str) -> None:
    """A caller that may use one deployment may ask for it by any name, and for no other by none."""

    async def story() -> None:
        rows = {"ci": "routes: ['groq/llama-3.1-8b-instant']", "not": "routes: ['groq/other']"}
        files = {"models.yaml": MODELS, "callers.yaml": callers(rows)}
        async with World({"groq": [KeyRule()]}, files=files) as world:
            assert (await world.chat(asked, caller=named(world, "ci"))).status == 200
            assert (await world.chat(asked, caller=named(world, "not"))).code == "route_not_allowed"

    virtual.run(story)
