"""What the owner asks of quota groups that were found out, and how he takes them apart."""

from __future__ import annotations

import json
from typing import Any, cast

from keyturn.config import DataFolder
from keyturn.core import Kin, Secret
from keyturn.server.access import Access
from keyturn.server.app import App
from keyturn.server.pages import Pages
from tests.support import virtual
from tests.support.world import World

from .fakes import ADMIN_KEY, KEY, Answer, FakeObserver, ask


def test_groups_are_shown_with_their_evidence_and_taken_apart() -> None:
    async def main() -> None:
        async with World({"groq": 3}) as world:
            gateway = world.gateway
            access = Access(
                bound_host="127.0.0.1",
                allowed_hosts=(),
                caller_key=Secret(KEY),
                admin_key=Secret(ADMIN_KEY),
                callers=gateway.config.callers,
                default=gateway.config.default_caller,
            )
            app = App(gateway, access, Pages(gateway, FakeObserver(), cast(DataFolder, None)))

            async def owner(path: str, body: object = None) -> Answer:
                data, method = (b"", "GET") if body is None else (json.dumps(body).encode(), "POST")
                return await ask(app, path, method, key=None, body=data, headers={"x-keyturn-admin": ADMIN_KEY})

            assert (await owner("/admin/keys/groups")).json == []
            one, two, _ = gateway.config.credentials["groq"]
            gateway.adapting.kindred._believe(Kin("groq", one.group, two.group, ("{one} after {other}",)))
            rows: list[dict[str, Any]] = (await owner("/admin/keys/groups")).json
            assert [(row["keys"], row["state"]) for row in rows] == [([one.shown, two.shown], "inferred")]
            rows = (await owner("/admin/keys")).json
            assert set(rows[0]) == {"provider", "key", "state", "until", "reason", "limits"}
            assert (await owner("/admin/keys/ungroup", {"key": "groq-3"})).json == {"keys": []}
            assert (await owner("/admin/keys/ungroup", {"key": "groq-1"})).json == {"keys": [one.shown, two.shown]}
            assert (await owner("/admin/keys/groups")).json == []
            answer = await owner("/admin/keys/ungroup", {"key": "groq-9"})
            assert (answer.status, answer.code) == (400, "bad_request")

    virtual.run(main)
