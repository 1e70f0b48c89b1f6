"""Answers of the Responses API that are kept here: whoever answers, it goes on; each caller sees its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from keyturn.core import Caller
from keyturn.errors import ResponseNotFound, ResponsesUnavailable, StoreAway
from keyturn.simulator import Fault
from keyturn.stores import ResponseRow
from keyturn.stores.postgres_link import MOST_WAITING
from tests.support import virtual
from tests.support.world import Answer, World

CHAT, NATIVE = "groq/llama-3.1-8b-instant", "openai/gpt-5.1"
ON = {"RESPONSES_STORE": "true"}


class Kept:
    """The database, slow or away when the test says so."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], ResponseRow] = {}
        self.away = 0
        """So many questions are not answered."""
        self.slow = self.slow_to_find = 0.0
        self.asked = self.busy = self.busiest = 0

    async def keep(self, row: ResponseRow) -> None:
        await self._work(self.slow)
        self._ask()
        self.rows[row.caller, row.id] = row

    async def find(self, caller: str, id: str) -> ResponseRow | None:
        await self._work(self.slow_to_find)
        self._ask()
        return self.rows.get((caller, id))

    async def forget(self, caller: str, id: str) -> bool:
        self._ask()
        return self.rows.pop((caller, id), None) is not None

    async def _work(self, seconds: float) -> None:
        self.busy += 1
        self.busiest = max(self.busy, self.busiest)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.busy -= 1

    def _ask(self) -> None:
        self.asked += 1
        if self.away:
            self.away -= 1
            raise StoreAway("PostgreSQL at db.internal does not answer")


async def respond(world: World, input: Any, model: str = CHAT, caller: Caller | None = None, **members: Any) -> Answer:
    return await world.send("responses", {"model": model, "input": input, **members}, caller=caller)


def play(story: Callable[[World, Kept], Awaitable[None]], environ: dict[str, str] = ON, **options: Any) -> None:
    async def main() -> None:
        async with World({"groq": 1, "openai": 1}, environ=environ, keep_bodies=True, **options) as world:
            kept, own = Kept(), world.gateway.ledger
            world.gateway.ledger = SimpleNamespace(keeps=False, sink=kept, close=own.close)
            await story(world, kept)

    virtual.run(main)


def final(answer: Answer) -> dict[str, Any]:
    """The response object, of a stream that of its last event."""
    if not answer.headers["content-type"].startswith("text/event-stream"):
        found: dict[str, Any] = answer.json()
        return found
    data = [line[6:] for line in answer.body.decode().splitlines() if line.startswith("data: ")]
    last: dict[str, Any] = json.loads(data[-1])["response"]
    return last


def sent(world: World) -> dict[str, Any]:
    """What the upstream was asked last."""
    body: dict[str, Any] = json.loads(world.upstream.record.log[-1].body)
    return body


def words(value: Any) -> str:
    return json.dumps(value)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", [CHAT, NATIVE])
def test_a_conversation_goes_on_from_its_last_answer(model: str, stream: bool) -> None:
    async def story(world: World, kept: Kept) -> None:
        first = await respond(world, "My name is Ada.", model, stream=stream, instructions="Be brief.")
        assert first.status == 200, first.body
        one = final(first)
        items = [{"role": "user", "content": "What is my name?"}]
        second = await respond(world, items, model, stream=stream, previous_response_id=one["id"])
        assert second.status == 200, second.body
        asked = words(sent(world))
        assert asked.index("My name is Ada.") < asked.index("You said") < asked.index("What is my name?")
        assert "Be brief." not in asked
        assert "previous_response_id" not in asked
        third = await respond(world, "And now?", model, previous_response_id=final(second)["id"])
        assert third.status == 200, third.body
        asked = words(sent(world))
        assert asked.index("My name is Ada.") < asked.index("What is my name?") < asked.index("And now?")
        if model == NATIVE:
            assert sent(world)["store"] is False
        else:
            assert (final(second)["previous_response_id"], final(second)["store"]) == (one["id"], True)
        await asyncio.sleep(1.0)
        assert len(kept.rows) == 3
        assert [row.previous for row in kept.rows.values()] == ["", one["id"], final(second)["id"]]

    play(story)


def test_the_next_turn_may_be_answered_by_another_provider() -> None:
    async def story(world: World, kept: Kept) -> None:
        one = final(await respond(world, "My name is Ada.", NATIVE))
        answer = await respond(world, "Go on.", CHAT, previous_response_id=one["id"])
        assert answer.headers["x-keyturn-provider"] == "groq"
        assert "My name is Ada." in words(sent(world))

    play(story)


def test_encrypted_thinking_goes_back_as_it_came() -> None:
    async def story(world: World, kept: Kept) -> None:
        more: dict[str, Any] = {
            "reasoning": {"effort": "high", "summary": "auto"},
            "include": ["reasoning.encrypted_content"],
        }
        one = final(await respond(world, "Think.", NATIVE, **more))
        secret = next(item["encrypted_content"] for item in one["output"] if item["type"] == "reasoning")
        answer = await respond(world, "Go on.", NATIVE, previous_response_id=one["id"], **more)
        assert answer.status == 200, answer.body
        assert secret in [item.get("encrypted_content") for item in sent(world)["input"]]

    play(story)


@pytest.mark.parametrize(
    ("members", "field"), [({"previous_response_id": "resp_1"}, "previous_response_id"), ({"store": True}, "store")]
)
def test_where_nothing_is_kept_it_is_refused_and_says_how_to_change_that(members: dict[str, Any], field: str) -> None:
    async def story(world: World, kept: Kept) -> None:
        for stream in (False, True):
            answer = await respond(world, "Hi", stream=stream, **members)
            assert (answer.status, answer.code, answer.json()["error"]["param"]) == (400, "bad_request", field)
            assert "RESPONSES_STORE" in answer.json()["error"]["message"]
        assert (await respond(world, "Hi")).json()["store"] is False
        assert not kept.rows

    play(story, environ={})


def test_store_false_is_not_kept_but_may_go_on() -> None:
    async def story(world: World, kept: Kept) -> None:
        one = final(await respond(world, "My name is Ada."))
        answer = await respond(world, "Go on.", previous_response_id=one["id"], store=False)
        assert "My name is Ada." in words(sent(world))
        assert answer.json()["store"] is False
        assert len(kept.rows) == 1
        lost = await respond(world, "Go on.", previous_response_id=answer.json()["id"])
        assert (lost.status, lost.code) == (400, "previous_response_not_found")

    play(story)


def test_an_unknown_id_is_refused_before_anybody_is_asked() -> None:
    async def story(world: World, kept: Kept) -> None:
        for id in ("resp_unknown", "", "x" * 5000, "a\0b"):
            answer = await respond(world, "Hi", previous_response_id=id)
            if id:
                error = answer.json()["error"]
                assert (answer.status, error["code"]) == (400, "previous_response_not_found")
                assert error["message"].startswith("Previous response with id '")
                assert error["param"] == "previous_response_id"
                assert len(error["message"]) < 300
        assert len(world.upstream.record.log) == 1

    play(story)


def test_nobody_goes_on_from_the_answer_of_another_caller() -> None:
    async def story(world: World, kept: Kept) -> None:
        ada, eve = Caller("ada"), Caller("eve")
        one = final(await respond(world, "My secret is 42.", caller=ada))
        answer = await respond(world, "Go on.", caller=eve, previous_response_id=one["id"])
        assert answer.code == "previous_response_not_found"
        assert (await respond(world, "Go on.", caller=ada, previous_response_id=one["id"])).status == 200
        responses = world.gateway.responses
        with pytest.raises(ResponseNotFound):
            await responses.find("eve", one["id"])
        with pytest.raises(ResponseNotFound):
            await responses.forget("eve", one["id"])
        assert (await responses.find("ada", one["id"])).id == one["id"]

    play(story)


def test_who_goes_on_at_once_need_not_wait_until_the_answer_is_written() -> None:
    async def story(world: World, kept: Kept) -> None:
        kept.slow = 3.0
        one = final(await respond(world, "My name is Ada."))
        began = world.clock.mono()
        assert (await respond(world, "Go on.", previous_response_id=one["id"])).status == 200
        assert "My name is Ada." in words(sent(world))
        assert (await world.gateway.responses.find("default", one["id"])).id == one["id"]
        assert not kept.rows
        assert world.clock.mono() - began < 2.0
        await world.gateway.responses.forget("default", one["id"])
        await asyncio.sleep(5.0)
        assert ("default", one["id"]) not in kept.rows

    play(story)


def test_to_forget_what_is_not_written_in_time_is_refused() -> None:
    async def story(world: World, kept: Kept) -> None:
        kept.slow = 50.0
        one = final(await respond(world, "Hi"))
        with pytest.raises(ResponsesUnavailable):
            await world.gateway.responses.forget("default", one["id"])
        await asyncio.sleep(60.0)
        await world.gateway.responses.forget("default", one["id"])

    play(story)


def test_a_burst_does_not_ask_the_database_for_everything_at_once() -> None:
    async def story(world: World, kept: Kept) -> None:
        kept.slow = kept.slow_to_find = 0.05
        firsts = await asyncio.gather(*(respond(world, "Hi") for _ in range(100)))
        await asyncio.sleep(10.0)
        assert len(kept.rows) == 100
        ids = [final(each)["id"] for each in firsts]
        nexts = await asyncio.gather(*(respond(world, "Go on", previous_response_id=id) for id in ids))
        assert {each.status for each in nexts} == {200}
        await asyncio.sleep(10.0)
        assert len(kept.rows) == 200
        assert 16 <= kept.busiest < MOST_WAITING
        assert world.gateway.responses.lost == 0

    play(story)


def test_a_database_that_hangs_is_told_of_to_all_who_wait_for_it() -> None:
    async def story(world: World, kept: Kept) -> None:
        kept.away = 10**6
        kept.slow_to_find = 5.0  # as long as the link to PostgreSQL lets a transaction hang
        began = world.clock.mono()
        many = (respond(world, "Go on", previous_response_id=f"resp_{number}") for number in range(200))
        answers = await asyncio.gather(*many)
        assert {each.code for each in answers} == {"responses_unavailable"}
        assert world.clock.mono() - began < 11.0

    play(story)


def test_what_is_not_written_at_the_end_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def story(world: World, kept: Kept) -> None:
        kept.slow = 50.0
        one = final(await respond(world, "Hi"))
        await world.gateway.close()
        assert world.gateway.responses.lost == 1
        assert one["id"] in caplog.text
        await asyncio.sleep(1.0)
        assert (kept.busy, world.gateway.responses._writing) == (0, {})

    play(story)


def test_an_upstream_that_repeats_its_ids_makes_no_circle() -> None:
    async def story(world: World, kept: Kept) -> None:
        one = final(await respond(world, "Hi"))
        await asyncio.sleep(1.0)
        run = SimpleNamespace(call=SimpleNamespace(previous=one["id"]), caller=Caller("default"))
        world.gateway.responses._keep(run, b"[]", json.dumps(one).encode())  # type: ignore[arg-type]
        await asyncio.sleep(1.0)
        assert [row.previous for row in kept.rows.values()] == [""]
        assert world.gateway.responses.lost == 1

    play(story)


def test_an_answer_that_cannot_be_written_at_once_is_tried_again_and_then_given_up() -> None:
    async def story(world: World, kept: Kept) -> None:
        kept.away = 2
        one = final(await respond(world, "Hi"))
        await asyncio.sleep(10.0)
        assert (("default", one["id"]) in kept.rows, world.gateway.responses.lost) == (True, 0)
        kept.away = 100
        two = final(await respond(world, "Hi"))
        await asyncio.sleep(10.0)
        assert world.gateway.responses.lost == 1  # nobody finds it in memory any more
        answer = await respond(world, "Hi", previous_response_id=two["id"])
        assert (answer.status, answer.code) == (503, "responses_unavailable")
        assert answer.headers["retry-after"] == "2"
        assert "internal" not in answer.body.decode()

    play(story)


def test_too_much_that_waits_to_be_written_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World, kept: Kept) -> None:
        monkeypatch.setattr("keyturn.dispatch.keeping.MOST_WAITING", 4000)
        kept.slow = 30.0
        for _ in range(4):
            assert (await respond(world, "Hi")).status == 200
        assert world.gateway.responses.lost >= 2
        await asyncio.sleep(100.0)
        assert world.gateway.responses._waiting == 0
        assert len(kept.rows) == 4 - world.gateway.responses.lost

    play(story)


def test_what_another_gateway_is_writing_is_found_a_moment_later() -> None:
    async def story(world: World, kept: Kept) -> None:
        one = final(await respond(world, "My name is Ada."))
        await asyncio.sleep(1.0)
        row = kept.rows.pop(("default", one["id"]))

        async def arrive() -> None:
            await asyncio.sleep(0.3)
            kept.rows["default", one["id"]] = row

        arriving = asyncio.create_task(arrive())
        assert (await respond(world, "Go on.", previous_response_id=one["id"])).status == 200
        await arriving

    play(story, environ={**ON, "DATABASE_URL": "postgresql://localhost/keyturn"})


def test_a_conversation_is_bounded_in_turns_and_in_size() -> None:
    async def story(world: World, kept: Kept) -> None:
        def row(number: int, text: str = "Hi") -> ResponseRow:
            output = [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}]
            response = {"id": f"resp_{number}", "status": "completed", "output": output}
            previous = f"resp_{number - 1}" if number else ""
            return ResponseRow(f"resp_{number}", "default", 0, previous, b"[]", json.dumps(response).encode())

        for number in range(101):
            kept.rows["default", f"resp_{number}"] = row(number)
        assert (await respond(world, "Hi", previous_response_id="resp_99")).status == 200
        longer = await respond(world, "Hi", previous_response_id="resp_100")
        assert (longer.status, longer.json()["error"]["param"]) == (400, "previous_response_id")
        del kept.rows["default", "resp_3"]
        assert (await respond(world, "Hi", previous_response_id="resp_99")).code == "previous_response_not_found"
        kept.rows["default", "resp_0"] = row(0, "x" * 1_200_000)
        larger = await respond(world, "Hi", previous_response_id="resp_0")
        assert (larger.status, larger.code) == (413, "too_large")

    play(story, files={"settings.toml": "[server]\nmax_body_mib = 1\n"})


def test_an_answer_that_was_cut_or_refused_is_not_kept() -> None:
    async def story(world: World, kept: Kept) -> None:
        cut = await respond(world, "Hi", stream=True)
        assert b"upstream_interrupted" in cut.body
        assert (await respond(world, "Hi")).status == 400
        await asyncio.sleep(1.0)
        assert not kept.rows

    play(story, faults=[Fault(at_chunk=3, does="reset", stream=True), Fault(status=400)])


def test_a_client_that_leaves_in_the_middle_leaves_nothing_behind() -> None:
    async def story(world: World, kept: Kept) -> None:
        one = final(await respond(world, "Hi"))
        await asyncio.sleep(1.0)
        kept.slow_to_find = 0.1
        task = asyncio.create_task(respond(world, "Go on.", previous_response_id=one["id"]))
        await virtual.idle()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(1.0)
        assert len(kept.rows) == 1
        assert world.gateway.responses._writing == {}

    play(story)


def test_the_deadline_of_a_call_bounds_the_search_too() -> None:
    async def story(world: World, kept: Kept) -> None:
        kept.slow_to_find = 50.0
        body = {"model": CHAT, "input": "Hi", "previous_response_id": "resp_1"}
        answer = await world.send("responses", body, timeout=2.0)
        assert (answer.status, answer.code) == (504, "deadline")
        assert kept.busy == 0

    play(story)


def test_without_a_ledger_there_is_nothing_to_keep_them_in() -> None:
    async def story(world: World, kept: Kept) -> None:
        world.gateway.ledger.sink = None  # type: ignore[misc]
        answer = await respond(world, "Hi")
        assert answer.status == 400
        assert "LEDGER_ENABLED" in answer.json()["error"]["message"]
        assert (await respond(world, "Hi", store=False)).status == 200

    play(story)
