"""Two gateways on one PostgreSQL: what one has answered, the other goes on from."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest

from keyturn.config import LedgerSettings
from keyturn.core import Secret
from keyturn.dispatch import SystemClock, build, keeping
from keyturn.errors import ResponseNotFound
from keyturn.simulator import Simulator
from keyturn.stores import PostgresSink
from tests.support import virtual
from tests.support.postgres_server import PostgresServer
from tests.support.world import APP, World

from .test_kept_responses import CHAT, ON, final, respond, sent


def test_a_conversation_goes_on_at_another_replica(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "LOOK_AGAIN", (0.01, 0.1))
    url, clock = Secret(postgres.new_database()), SystemClock()

    async def replica() -> tuple[World, PostgresSink]:
        world = World({"groq": 1}, environ=ON, keep_bodies=True)
        world.clock = clock  # type: ignore[assignment]
        world.upstream = Simulator(clock, virtual.seeded(0), keys=world.rules, keep_bodies=True)
        config = replace(world.config(), ledger=LedgerSettings(database_url=url))
        world.gateway = build(config, clock=clock, apps={APP: world.upstream})
        sink = PostgresSink(url, clock)
        await sink.open()
        world.gateway.ledger = SimpleNamespace(keeps=False, sink=sink, close=sink.close)
        return world, sink

    async def main() -> None:
        (here, _), (there, _) = await replica(), await replica()
        one = final(await respond(here, "My name is Ada."))
        answer = await respond(there, "What is my name?", CHAT, previous_response_id=one["id"])
        assert answer.status == 200, answer.body
        assert sent(there)["messages"][0]["content"] == "My name is Ada."
        two = await respond(here, "And now?", CHAT, stream=True, previous_response_id=final(answer)["id"])
        assert two.status == 200, two.body
        await there.gateway.responses.forget("default", one["id"])
        with pytest.raises(ResponseNotFound):
            await here.gateway.responses.find("default", one["id"])
        for world in (here, there):
            await world.gateway.close()

    asyncio.run(main())
