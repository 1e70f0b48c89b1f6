"""`GET /v1/headroom` and `GET /v1/calls/{id}` as clients meet them: who sees what, and what is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from keyturn.config import DataFolder
from keyturn.core import Secret
from keyturn.server.access import Access
from keyturn.server.app import App
from keyturn.server.pages import Pages
from keyturn.server.tally import SPAN, UNWATCHED
from tests.support import virtual
from tests.support.world import World

from .fakes import ADMIN_KEY, KEY, Answer, FakeObserver, ask

CI_KEY = "kt_planted_key_of_the_caller_ci"
HASH = hashlib.sha256(CI_KEY.encode()).hexdigest()
FILES = {
    "models.yaml": "aliases: { mine: [groq/m, mistral/m], other: [groq/n] }\n",
    "callers.yaml": f"ci: {{ key_hash: 'sha256:{HASH}', routes: [mine], rpm: 20 }}\n",
}
PROMPT = "the planted words of a prompt"


class Site:
    """The application over a gateway in virtual time."""

    def __init__(self, world: World) -> None:
        config = world.gateway.config
        access = Access(
            bound_host="127.0.0.1",
            allowed_hosts=(),
            caller_key=Secret(KEY),
            admin_key=Secret(ADMIN_KEY),
            callers=config.callers,
            default=config.default_caller,
        )
        self.world = world
        pages = Pages(world.gateway, FakeObserver(), cast(DataFolder, None))
        self.app = App(world.gateway, access, pages)

    async def get(self, path: str, key: str | None = KEY, method: str = "GET", **more: Any) -> Answer:
        path, _, query = path.partition("?")
        return await ask(self.app, path, method, key=key, body=b"", query=query.encode(), **more)

    async def chat(self, model: str, key: str = KEY) -> Answer:
        body = json.dumps({"model": model, "messages": [{"role": "user", "content": PROMPT}]}).encode()
        return await ask(self.app, key=key, body=body)

    async def admin(self, path: str) -> Any:
        answer = await self.get(path, key=None, headers={"x-keyturn-admin": ADMIN_KEY})
        assert answer.status == 200
        return answer.json


def run(work: Callable[[Site], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        pool = options.pop("pool", {"groq": 2, "mistral": 1})
        async with World(pool, files=FILES, environ={"LIMITS_GROQ": "rpm=3"}, **options) as world:
            await work(Site(world))

    virtual.run(main)


def test_headroom_of_every_route_for_who_may_do_everything() -> None:
    async def work(site: Site) -> None:
        answer = await site.get("/v1/headroom")
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
        told = answer.json
        rows = {row["route"]: row for row in told["routes"]}
        assert rows["mine"]["now"] == {"requests": None, "tokens": None}, "mistral has no limits"
        assert rows["other"]["now"] == {"requests": 6, "tokens": None}
        assert rows["other"]["kind"] == "alias"
        assert {each["key"].partition(":")[0] for each in told["keys"]} == {"groq-1", "groq-2", "mistral-1"}
        assert "secret" not in answer.body.decode()
        assert told["at"] == "2026-03-02T12:00:00Z"

    run(work)


@pytest.mark.parametrize("path", ["/headroom", "/v1/v1/headroom", "/v1/headroom"])
def test_headroom_of_one_route_under_every_spelling(path: str) -> None:
    async def work(site: Site) -> None:
        told = (await site.get(f"{path}?route=groq%2Fn&tokens=50&output=10")).json
        assert [row["route"] for row in told["routes"]] == ["groq/n"]
        assert told["call"] == {"tokens": 50, "output": 10}

    run(work)


def test_a_caller_sees_its_routes_and_limits_and_no_keys() -> None:
    async def work(site: Site) -> None:
        answer = await site.get("/v1/headroom", CI_KEY)
        assert [row["route"] for row in answer.json["routes"]] == ["mine"]
        assert answer.json["routes"][0]["now"]["requests"] == 20
        assert [row["capacity"] for row in answer.json["own"]] == [20]
        assert "keys" not in answer.json
        assert "groq-1" not in answer.body.decode()
        assert (await site.get("/v1/headroom?route=other", CI_KEY)).code == "route_not_allowed"

    run(work)


def test_what_is_wrong_with_a_question_is_said() -> None:
    async def work(site: Site) -> None:
        assert (await site.get("/v1/headroom", key=None)).status == 401
        assert (await site.get("/v1/headroom", method="POST")).status == 405
        assert (await site.get("/v1/headroom", method="HEAD")).status == 200
        unknown = await site.get("/v1/headroom?route=xai/grok-9")
        assert (unknown.status, unknown.code) == (404, "model_not_found")
        for query in ("tokens=0", "tokens=-3", "output=ten", "tokens=99999999999"):
            refused = await site.get(f"/v1/headroom?{query}")
            assert (refused.status, refused.code) == (400, "bad_request"), query

    run(work)


def test_a_caller_sees_its_own_calls_and_nobody_elses() -> None:
    async def work(site: Site) -> None:
        mine = (await site.chat("mine", CI_KEY)).headers["x-keyturn-call"]
        theirs = (await site.chat("other")).headers["x-keyturn-call"]
        answer = await site.get(f"/v1/calls/{mine}", CI_KEY)
        story = answer.json
        assert (story["object"], story["call"], story["caller"], story["route"]) == ("call", mine, "ci", "mine")
        assert story["plan"] == ["groq/m", "mistral/m"]
        assert story["attempts"][0]["key"].startswith("groq-")
        assert story["attempts"][0]["pick"] == {"ready": 2, "load": 0.0, "active": 0, "pace_ms": None}
        assert story["deadlines"] == {"total_ms": 600_000.0, "content_ms": 600_000.0, "wait_ms": 20_000.0}
        assert story["wait"] is None
        for word in (PROMPT, "secret", "Hello"):
            assert word not in answer.body.decode()
        for id in (theirs, mine[:13], "no-id", "0" * 32, "%00", f"{mine}0"):
            refused = await site.get(f"/v1/calls/{id}", CI_KEY)
            assert (refused.status, refused.code) == (404, "unknown_call"), id
        for key, call in ((KEY, mine), (KEY, theirs)):
            assert (await site.get(f"/v1/calls/{call.upper()}", key)).json["call"] == call
            assert (await site.get(f"/v1/calls/{call.replace('-', '')}", key)).json["call"] == call
        assert (await site.get(f"/calls/{mine}", CI_KEY)).status == 200
        assert (await site.get(f"/v1/calls/{mine}", CI_KEY, method="HEAD")).status == 200
        assert (await site.get(f"/v1/calls/{mine}", CI_KEY, method="DELETE")).status == 405
        assert (await site.get(f"/v1/calls/{mine}/x", CI_KEY)).code == "unknown_path"
        assert (await site.get("/v1/calls/", CI_KEY)).code == "unknown_path"
        assert (await site.get(f"/v1/calls/{mine}", key=None)).status == 401

    run(work)


def test_where_the_ledger_is_that_cannot_be_read_is_not_for_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    from keyturn.errors import StoreError
    from keyturn.stores import NullLedger

    async def away(ledger: NullLedger, call: str) -> None:
        raise StoreError("/home/owner/ledger.sqlite is gone")

    monkeypatch.setattr(NullLedger, "story", away)
    monkeypatch.setattr(NullLedger, "keeps", True)

    async def work(site: Site) -> None:
        for key, where in ((CI_KEY, False), (KEY, True)):
            answer = await site.get(f"/v1/calls/{'0' * 32}", key)
            assert (answer.status, answer.code) == (503, "store_unavailable")
            assert ("/home/owner" in answer.body.decode()) is where

    run(work)


def test_an_upstreams_words_to_us_are_not_for_callers() -> None:
    from keyturn.simulator import Fault

    async def work(site: Site) -> None:
        call = (await site.chat("mine", CI_KEY)).headers["x-keyturn-call"]
        theirs, ours = (await site.get(f"/v1/calls/{call}", CI_KEY)).json, (await site.get(f"/v1/calls/{call}")).json
        assert [each["meaning"] for each in theirs["attempts"]] == ["rate_limited", "ok"]
        assert [each["detail"] for each in theirs["attempts"]] == ["", ""]
        assert ours["attempts"][0]["detail"]

    run(work, faults=[Fault(provider="groq", error="rate_limited", times=1)])


def test_a_wait_is_told_with_its_place_in_the_line_and_what_was_expected() -> None:
    async def work(site: Site) -> None:
        for _ in range(6):
            await site.chat("other")
        await site.world.clock.sleep_until(site.world.clock.mono() + 50)
        call = (await site.chat("other")).headers["x-keyturn-call"]
        story = (await site.get(f"/v1/calls/{call}")).json
        assert story["wait"]["position"] == 1
        assert 9_000 < story["wait"]["expected_ms"] < 13_000
        assert story["wait"]["actual_ms"] == pytest.approx(story["wait"]["expected_ms"], abs=1_000)

    run(work, latency=0.1)


def test_what_top_shows_counts_the_calls_of_the_last_minute_only_while_somebody_watches() -> None:
    async def work(site: Site) -> None:
        gateway, clock = site.world.gateway, site.world.clock
        watchers = len(gateway.events._subscribers)
        await site.chat("mine")
        told = await site.admin("/admin/headroom")
        assert told["minute"] == {"mine": {"calls": 1, "errors": 0}}, "what ended before is remembered"
        assert told["status"]["inflight"] == 0
        assert len(gateway.events._subscribers) == watchers + 1
        await site.chat("mine")
        await site.chat("xai/grok-9")
        told = await site.admin("/admin/headroom?route=mine")
        assert told["minute"] == {"mine": {"calls": 2, "errors": 0}, "xai/grok-9": {"calls": 1, "errors": 1}}
        await clock.sleep_until(clock.mono() + SPAN + 1)
        assert (await site.admin("/admin/headroom"))["minute"] == {}
        await clock.sleep_until(clock.mono() + UNWATCHED + 1)
        await site.chat("mine")
        assert len(gateway.events._subscribers) == watchers

    run(work)
