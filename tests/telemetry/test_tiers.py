"""Figures of who answered: by provider and tier, by first choice, fallback and last resort; and their switch."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from keyturn.config import Config, DataFolder, load
from keyturn.core import Secret
from keyturn.errors import UnknownPath
from keyturn.server import Access, App, Pages
from keyturn.server.pages import Asked
from keyturn.simulator import Fault
from keyturn.telemetry import Telemetry
from tests.support import asgi, virtual
from tests.support.world import World

ROLES = """
roles:
  senior_dev:
    model_chain: [gpt-4o-mini]
    providers: [openai, groq, g4f]
"""
POOL = {"openai": 1, "groq": 1, "g4f": 1}
OFFERED = {name: ["gpt-4o-mini"] for name in POOL}
G4F = {"G4F_MAIN_API_BASE": "https://g4f.test/v1"}
Figures = dict[tuple[str, frozenset[tuple[str, str]]], float]


def figures(telemetry: Telemetry) -> Figures:
    page = telemetry.metrics_page()
    assert page is not None
    families = text_string_to_metric_families(page.decode())
    return {(row.name, frozenset(row.labels.items())): row.value for family in families for row in family.samples}


def value(found: Figures, name: str, **labels: str) -> float:
    """The sum of the samples that have these labels, whatever others they have."""
    return sum(amount for (each, have), amount in found.items() if each == name and labels.items() <= set(have))


def after(faults: list[Fault], calls: int) -> Figures:
    """The figures after so many calls of a chain over three tiers."""
    seen: list[Figures] = []

    async def main() -> None:
        files = {"roles.yaml": ROLES}
        async with World(POOL, environ=G4F, files=files, faults=faults, latency=0.25, models=OFFERED) as world:
            telemetry = Telemetry(world.gateway, io.StringIO())
            for _ in range(calls):
                assert (await world.chat("senior_dev")).status == 200
            seen.append(figures(telemetry))
            telemetry.close()

    virtual.run(main)
    return seen[0]


def test_MON_01_a_forced_fallback_is_counted_by_who_answered() -> None:
    found = after(
        [Fault(provider="openai", kind="chat", status=500), Fault(provider="groq", kind="chat", status=429)], 4
    )
    served = "keyturn_served_total"
    assert value(found, served, provider="g4f", tier="5", fallback="last") == 4
    assert value(found, served) == 4


def test_MON_01_a_later_tier_that_is_not_the_last_is_told_apart() -> None:
    found = after([Fault(provider="openai", kind="chat", times=1, status=429)], 2)
    served = "keyturn_served_total"
    assert value(found, served, provider="groq", tier="2", fallback="later") == value(found, served) == 2


def test_MON_01_the_first_choice_is_no_fallback() -> None:
    found = after([], 2)
    assert value(found, "keyturn_served_total", provider="openai", tier="1", fallback="none") == 2


def test_MON_02_latency_by_provider_and_tier() -> None:
    found = after([Fault(provider="openai", kind="chat", times=1, status=500)], 1)
    name = "keyturn_attempt_duration_seconds"
    assert value(found, f"{name}_count", provider="openai", tier="1") == 1
    assert value(found, f"{name}_sum", provider="groq", tier="2") == pytest.approx(0.25)
    assert value(found, f"{name}_bucket", provider="groq", tier="2", le="0.16") == 0
    assert value(found, f"{name}_bucket", provider="groq", tier="2", le="0.32") == 1


def test_MON_03_errors_by_provider_and_tier() -> None:
    found = after([Fault(provider="openai", kind="chat", times=1, status=500)], 1)
    attempts = "keyturn_upstream_attempts_total"
    assert value(found, attempts, provider="openai", tier="1", result="server_error") == 1
    assert value(found, attempts, provider="groq", tier="2", result="ok") == 1


def test_MON_01_a_tier_that_was_set_is_the_one_that_is_told() -> None:
    async def main() -> None:
        environ = {"PROVIDER_PRIORITY_GROQ": "9"}
        async with World({"groq": 1}, environ=environ) as world:
            telemetry = Telemetry(world.gateway, io.StringIO())
            await world.chat("groq/llama-3.1-8b-instant")
            assert value(figures(telemetry), "keyturn_served_total", tier="9", fallback="none") == 1
            telemetry.close()

    virtual.run(main)


def configured(said: str = "", **environ: str) -> Config:
    return load({"GROQ_API_KEY": "gsk_key_of_the_test", **environ}, cwd=Path("/nonexistent"))


def test_CFG_54_metrics_are_on_unless_they_are_switched_off() -> None:
    assert configured().server.metrics
    assert not configured(METRICS_ENABLED="false").server.metrics


def test_CFG_54_the_file_says_it_too_and_the_variable_wins(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "settings.toml").write_text("[server]\nmetrics = false\n")
    assert not load({}, cwd=tmp_path).server.metrics
    assert load({"METRICS_ENABLED": "1"}, cwd=tmp_path).server.metrics


def test_CFG_54_switched_off_there_is_no_page_and_nothing_is_counted() -> None:
    async def main() -> None:
        async with World({"groq": 1}) as world:
            telemetry = Telemetry(world.gateway, io.StringIO(), figures=False)
            key = Secret("k" * 20)
            access = Access(bound_host="testserver", allowed_hosts=("testserver",), caller_key=key, admin_key=key)
            app = App(world.gateway, access, Pages(world.gateway, telemetry, DataFolder(Path("/nonexistent"))))
            await world.chat("groq/llama-3.1-8b-instant")
            reply = await asgi.call(app, "GET", "/metrics", key="k" * 20)
            assert (reply.status, reply.json()["error"]["code"]) == (404, "unknown_path")
            assert "METRICS_ENABLED" in reply.json()["error"]["message"]
            telemetry.close()

    virtual.run(main)


def test_CFG_54_the_page_of_a_gateway_without_figures_does_not_exist() -> None:
    class Silent:
        def metrics_page(self) -> bytes | None:
            return None

        def say(self, text: str) -> None:
            """Nothing is said."""

    async def main() -> None:
        async with World({"groq": 1}) as world:
            pages = Pages(world.gateway, Silent(), DataFolder(Path("/nonexistent")))
            with pytest.raises(UnknownPath):
                await pages.page("metrics", Asked(world.gateway.config.default_caller))

    virtual.run(main)


def test_MON_14_the_health_of_the_last_resort_can_be_asked_for() -> None:
    async def main() -> None:
        fault = Fault(provider="g4f", kind="chat", status=429)
        async with World(POOL, environ=G4F, faults=[fault]) as world:
            telemetry = Telemetry(world.gateway, io.StringIO())
            for state, key in (("ready", "healthy"), ("cooling", "cooling")):
                rows = {row["name"]: row for row in world.gateway.providers()}
                assert (rows["g4f"]["state"], rows["g4f"]["tier"]) == (state, 5)
                assert value(figures(telemetry), "keyturn_keys", provider="g4f", state=key) == 1
                await world.chat("g4f/gpt-4o-mini", timeout=0.5)
            telemetry.close()

    virtual.run(main)
