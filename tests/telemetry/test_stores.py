"""The figures of the ledger, of live state and of money, from a gateway's page of metrics."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

from keyturn.stores import LiveStanding, Standing
from keyturn.telemetry import Telemetry
from tests.support import virtual
from tests.support.world import World

from .test_tiers import figures, value

PRICED = """
provider_routes:
  - {id: dear, provider: groq, model: dear, is_paid: false, tier: budget, price: {input: 1, output: 2}}
"""


def test_what_attempts_cost_is_counted_and_what_has_no_price_apart() -> None:
    async def main() -> None:
        offered = {"groq": ["dear", "mystery"]}
        async with World({"groq": 1}, files={"models.yaml": PRICED}, models=offered) as world:
            telemetry = Telemetry(world.gateway, io.StringIO())
            reply = await world.chat("groq/dear")
            await world.chat("groq/dear")
            assert (await world.chat("groq/mystery")).status == 200
            used = reply.json()["usage"]
            found = figures(telemetry)
            telemetry.close()
        cost = 2 * (used["prompt_tokens"] * 1e-6 + used["completion_tokens"] * 2e-6)
        assert value(found, "keyturn_cost_usd_total", provider="groq", model="dear") == pytest.approx(cost)
        assert value(found, "keyturn_unpriced_attempts_total", provider="groq", model="mystery") == 1
        assert ("keyturn_unpriced_attempts_total", frozenset({("provider", "groq"), ("model", "dear")})) not in found

    virtual.run(main)


def test_how_the_stores_stand_is_shown() -> None:
    async def main() -> None:
        async with World({"groq": 1}) as world:
            gateway = world.gateway
            telemetry = Telemetry(gateway, io.StringIO())
            page = (telemetry.metrics_page() or b"").decode()
            assert "\nkeyturn_ledger_writable" not in page, "nothing is kept here, so nothing stands"
            assert value(figures(telemetry), "keyturn_live_replicas") == 1
            ledger, live = gateway.ledger, gateway.live
            standing = Standing("postgres", False, False, 4096, 3, "away", 17)
            gateway.ledger = SimpleNamespace(keeps=True, standing=lambda: standing)
            gateway.live = SimpleNamespace(standing=lambda: LiveStanding("redis", False, 3, 2, 5), view=live.view)
            found = figures(telemetry)
            gateway.ledger, gateway.live = ledger, live
            telemetry.close()
        expected = {
            "keyturn_ledger_rows_total": 17,
            "keyturn_ledger_rows_lost_total": 3,
            "keyturn_ledger_writable": 0,
            "keyturn_ledger_reachable": 0,
            "keyturn_ledger_waiting_bytes": 4096,
            "keyturn_live_reachable": 0,
            "keyturn_live_replicas": 3,
            "keyturn_live_reservations": 2,
            "keyturn_live_queued": 5,
        }
        assert {name: value(found, name) for name in expected} == expected

    virtual.run(main)
