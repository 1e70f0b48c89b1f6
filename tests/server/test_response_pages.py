"""`/v1/responses/{id}` over HTTP: what is kept, for its caller alone, and what is said where nothing is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from keyturn.config import ResponsesSettings
from keyturn.core import Caller
from keyturn.errors import StoreAway
from keyturn.server import App
from keyturn.stores import ResponseRow
from tests.support import virtual

from .fakes import Answer, FakeGateway, ask, make_app

EVE = "kt-the-key-of-eve-0123456789"
RESPONSE = {"id": "resp_1", "object": "response", "status": "completed", "output": [], "store": False, "model": "m"}
INPUT = [{"role": "user", "content": str(number)} for number in range(25)]


class Kept:
    def __init__(self) -> None:
        row = ResponseRow("resp_1", "default", 5, "resp_0", json.dumps(INPUT).encode(), json.dumps(RESPONSE).encode())
        self.rows = {("default", "resp_1"): row}
        self.away = False

    async def find(self, caller: str, id: str) -> ResponseRow | None:
        if self.away:
            raise StoreAway("PostgreSQL at db.internal does not answer")
        return self.rows.get((caller, id))

    async def forget(self, caller: str, id: str) -> bool:
        return self.rows.pop((caller, id), None) is not None


def play(story: Callable[[App, Kept], Awaitable[None]], *, store: bool = True) -> None:
    async def main() -> None:
        gateway, kept = FakeGateway(), Kept()
        gateway.config.responses = ResponsesSettings(store)
        gateway.config.ledger = SimpleNamespace(database_url=None)
        gateway.ledger = SimpleNamespace(keeps=True, sink=kept)  # type: ignore[assignment]
        callers = {hashlib.sha256(EVE.encode()).hexdigest(): Caller("eve")}
        await story(make_app(gateway, callers=callers), kept)

    virtual.run(main)


async def get(app: App, path: str, method: str = "GET", query: str = "", **more: Any) -> Answer:
    return await ask(app, path, method, body=b"", query=query.encode(), **more)


def test_it_is_given_out_and_forgotten() -> None:
    async def story(app: App, kept: Kept) -> None:
        for path in ("/v1/responses/resp_1", "/responses/resp_1", "/v1/v1/responses/resp%5F1"):
            answer = await get(app, path)
            assert answer.status == 200
            assert answer.json == {**RESPONSE, "store": True, "previous_response_id": "resp_0"}
        gone = await get(app, "/v1/responses/resp_1", "DELETE")
        assert (gone.status, gone.json) == (200, {"id": "resp_1", "object": "response", "deleted": True})
        for method in ("GET", "DELETE"):
            answer = await get(app, "/v1/responses/resp_1", method)
            assert (answer.status, answer.code) == (404, "response_not_found")

    play(story)


@pytest.mark.parametrize("path", ["/v1/responses/resp_1", "/v1/responses/resp_1/input_items"])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_nobody_else_finds_it(path: str, method: str) -> None:
    async def story(app: App, kept: Kept) -> None:
        answer = await get(app, path, method, key=EVE)
        assert answer.status == (405 if method == "DELETE" and "items" in path else 404)
        assert (await get(app, path, method, key=None)).status in (401, 405)
        assert len(kept.rows) == 1

    play(story)


def test_its_input_comes_in_pages() -> None:
    async def story(app: App, kept: Kept) -> None:
        path = "/v1/responses/resp_1/input_items"
        newest = (await get(app, path)).json
        assert [row["content"] for row in newest["data"]] == [str(number) for number in range(24, 4, -1)]
        assert newest["has_more"] is True
        rest = (await get(app, path, query=f"after={newest['last_id']}")).json
        assert [row["content"] for row in rest["data"]] == ["4", "3", "2", "1", "0"]
        first = (await get(app, path, query="order=asc&limit=1")).json
        assert [row["content"] for row in first["data"]] == ["0"]
        for wrong in ("limit=0", "limit=101", "limit=x", "order=up", "limit=000000001" + "9" * 5000):
            assert (await get(app, path, query=wrong)).status == 400

    play(story)


def test_what_an_upstream_took_for_an_item_and_is_none_is_left_out() -> None:
    async def story(app: App, kept: Kept) -> None:
        row = kept.rows["default", "resp_1"]
        kept.rows["default", "resp_1"] = row._replace(input=b'[{"id": "a"}, 5, null, "x"]')
        answer = await get(app, "/v1/responses/resp_1/input_items")
        assert (answer.status, answer.json["data"]) == (200, [{"id": "a"}])

    play(story)


def test_what_is_not_served_says_so() -> None:
    async def story(app: App, kept: Kept) -> None:
        assert (await get(app, "/v1/responses/resp_1", query="stream=true")).status == 400
        posted = await get(app, "/v1/responses/resp_1", "POST")
        assert (posted.status, posted.headers["allow"]) == (405, "GET, HEAD, DELETE")
        for path in ("/v1/responses/", "/v1/responses/resp_1/cancel", "/v1/responses//input_items"):
            assert (await get(app, path)).code == "unknown_path"

    play(story)


def test_where_nothing_is_kept_the_setting_is_named() -> None:
    async def story(app: App, kept: Kept) -> None:
        for method in ("GET", "DELETE"):
            answer = await get(app, "/v1/responses/resp_1", method)
            assert answer.status == 400
            assert "RESPONSES_STORE" in answer.json["error"]["message"]

    play(story, store=False)


def test_a_database_that_is_away_is_no_reason_to_say_that_it_is_gone() -> None:
    async def story(app: App, kept: Kept) -> None:
        kept.away = True
        answer = await get(app, "/v1/responses/resp_1")
        assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "responses_unavailable", "2")
        assert "internal" not in answer.body.decode()

    play(story)
