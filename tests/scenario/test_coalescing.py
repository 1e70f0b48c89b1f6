"""Identical calls under way that share one call upstream: who is told what, who leaves, who is slow."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping
from typing import Any

import pytest

from keyturn.core import Caller
from keyturn.dispatch import CallEnded, Reply, new_id, read_call
from keyturn.simulator import Fault
from tests.support import virtual
from tests.support.world import Answer, World

MODEL = "groq/llama-3.1-8b-instant"
JOINED = {"COALESCE_ROUTES": "groq/*"}


def cache_of(answer: Answer) -> str | None:
    return answer.headers.get("x-keyturn-cache")


def ended(world: World) -> list[CallEnded]:
    """The calls that end from now on."""
    found: list[CallEnded] = []
    world.gateway.events.subscribe(lambda event: found.append(event) if isinstance(event, CallEnded) else None)
    return found


async def begun(world: World, *, text: str = "Hello", headers: Mapping[str, str] | None = None) -> Reply:
    """A streamed answer of which nothing has been read."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": text}], "stream": True}
    call = read_call("chat", json.dumps(body).encode(), dict(headers or {}))
    return await world.gateway.handle(call, world.gateway.config.default_caller, new_id(world.clock.wall()))


async def rest(reply: Reply) -> bytes:
    assert reply.stream is not None
    try:
        return b"".join([piece async for piece in reply.stream])
    finally:
        reply.close()


@pytest.mark.parametrize("stream", [False, True])
def test_CAC_03_identical_calls_in_flight_are_one_call_upstream(stream: bool) -> None:
    async def main() -> None:
        async with World({"groq": 2}, environ=JOINED, latency=2.0, pace=0.5) as world:
            calls = ended(world)
            tasks = [asyncio.create_task(world.chat(MODEL, stream=stream)) for _ in range(3)]
            await world.clock.sleep_until(world.clock.mono() + (3.5 if stream else 1.0))
            tasks.append(asyncio.create_task(world.chat(MODEL, stream=stream)))
            other = asyncio.create_task(world.chat(MODEL, stream=stream, text="Else"))
            answers = await asyncio.gather(*tasks)
            assert [cache_of(answer) for answer in answers] == [None, "joined", "joined", "joined"]
            assert len({answer.body for answer in answers}) == 1
            assert answers[0].text
            assert len({answer.headers["x-keyturn-call"] for answer in answers}) == 4
            assert [answer.headers["x-keyturn-attempts"] for answer in answers] == ["1", "0", "0", "0"]
            await other
            assert len(world.seen()) == 2
            assert [len(call.trail.attempts) for call in calls] == [1, 0, 0, 0, 1]
            assert {call.trail.status for call in calls} == {200}
            assert (await world.chat(MODEL, stream=stream)).status == 200
            assert len(world.seen()) == 3, "what is over is not joined"

    virtual.run(main)


def test_CAC_03_a_stream_is_followed_live() -> None:
    async def main() -> None:
        async with World({"groq": 1}, environ=JOINED, pace=1.0) as world:
            first, second = await begun(world), await begun(world)
            assert first.stream is not None
            assert second.stream is not None
            one = [await first.stream.__anext__() for _ in range(3)]
            now = world.clock.mono()
            two = [await second.stream.__anext__() for _ in range(3)]
            assert one == two
            assert world.clock.mono() == now, "what has come so far comes at once"
            await second.stream.__anext__()
            assert world.clock.mono() == now + 1.0
            assert b"".join(one) + await rest(first) == b"".join(two) + await _last(second, one)

    async def _last(reply: Reply, before: list[bytes]) -> bytes:
        assert reply.stream is not None
        flight = reply.stream._flight  # type: ignore[attr-defined]
        return bytes(flight.pieces[3]) + await rest(reply)

    virtual.run(main)


def test_CAC_03_the_answer_is_kept_for_later_calls_too() -> None:
    async def main() -> None:
        async with World({"groq": 1}, environ={**JOINED, "CACHE_ROUTES": "*"}, pace=0.1) as world:
            answers = await world.many(MODEL, 3, stream=True)
            assert [cache_of(answer) for answer in answers] == ["miss", "joined", "joined"]
            again = await world.chat(MODEL, stream=True)
            assert (cache_of(again), again.body) == ("hit", answers[0].body)
            plain = await world.many(MODEL, 2)
            assert [cache_of(answer) for answer in plain] == ["miss", "joined"]
            assert cache_of(await world.chat(MODEL)) == "hit"
            fresh = {"cache-control": "no-cache"}
            replies = await asyncio.gather(*(begun(world, headers=fresh) for _ in range(2)))
            assert [await rest(reply) for reply in replies]
            assert len(world.seen()) == 4

    virtual.run(main)


@pytest.mark.parametrize("stream", [False, True])
def test_CAC_03_who_began_may_leave_and_the_others_go_on(stream: bool) -> None:
    async def main() -> None:
        async with World({"groq": 1}, environ=JOINED, latency=2.0, pace=0.5) as world:
            calls = ended(world)
            first = asyncio.create_task(world.chat(MODEL, stream=stream))
            await world.clock.sleep_until(world.clock.mono() + 0.5)
            others = [asyncio.create_task(world.chat(MODEL, stream=stream)) for _ in range(2)]
            await world.clock.sleep_until(world.clock.mono() + (2.5 if stream else 1.0))
            first.cancel()
            await virtual.idle()
            assert first.cancelled()
            assert [(call.trail.status, len(call.trail.attempts)) for call in calls] == [(499, 0)]
            answers = await asyncio.gather(*others)
            assert {answer.status for answer in answers} == {200}
            assert answers[0].body == answers[1].body
            assert sorted(len(call.trail.attempts) for call in calls[1:]) == [0, 1]
            assert [each.result for each in world.seen()] == ["served"]

    virtual.run(main)


@pytest.mark.parametrize("stream", [False, True])
def test_CAC_03_when_the_last_has_left_the_upstream_is_closed(stream: bool) -> None:
    async def main() -> None:
        async with World({"groq": 1}, environ=JOINED, latency=2.0, pace=0.5) as world:
            calls = ended(world)
            tasks = [asyncio.create_task(world.chat(MODEL, stream=stream)) for _ in range(3)]
            await world.clock.sleep_until(world.clock.mono() + (3.2 if stream else 1.0))
            for task in tasks:
                task.cancel()
            await virtual.idle()
            assert all(task.cancelled() for task in tasks)
            assert (world.held(), world.gateway.inflight) == (0, 0)
            assert [call.trail.status for call in calls] == [499, 499, 499]
            told = [attempt for call in calls for attempt in call.trail.attempts]
            assert [(attempt.meaning, attempt.ended) for attempt in told] == [("cancelled", world.clock.mono())]
            assert (await world.chat(MODEL, stream=stream)).status == 200, "nobody joins what is being closed"

    virtual.run(main)


@pytest.mark.parametrize("stream", [False, True])
def test_CAC_03_a_failure_is_told_to_all(stream: bool) -> None:
    async def main() -> None:
        environ = {**JOINED, "CACHE_ROUTES": "groq/*"}
        async with World({"groq": 2}, environ=environ, faults=[Fault(status=500)], latency=0.1) as world:
            answers = await world.many(MODEL, 3, stream=stream)
            assert {(answer.status, answer.code) for answer in answers} == {(502, "bad_upstream")}
            assert len(world.seen()) == 2
            world.upstream.script.clear()
            world.gateway.reset(None)
            refused = Fault(error="bad_request", times=1)
            world.upstream.script.add(refused)
            answers = await world.many(MODEL, 2, stream=stream)
            assert {answer.status for answer in answers} == {400}
            assert len(world.seen()) == 3

    virtual.run(main)


def test_CAC_03_a_cut_is_told_to_all() -> None:
    async def main() -> None:
        faults = [Fault(does="reset", at_chunk=3)]
        async with World({"groq": 1}, environ=JOINED, faults=faults, pace=0.1) as world:
            calls = ended(world)
            answers = await world.many(MODEL, 3, stream=True)
            assert all(b"upstream_interrupted" in answer.body for answer in answers)
            assert [call.trail.code for call in calls] == ["upstream_interrupted"] * 3

    virtual.run(main)


def test_CAC_03_each_call_keeps_its_own_deadline() -> None:
    async def main() -> None:
        async with World({"groq": 1}, environ=JOINED, latency=5.0, pace=1.0) as world:
            calls = ended(world)
            impatient = asyncio.create_task(world.chat(MODEL, stream=True, timeout=1.0))
            patient = asyncio.create_task(world.chat(MODEL, stream=True))
            middling = asyncio.create_task(world.chat(MODEL, stream=True, timeout=7.5))
            assert (await impatient).code == "deadline"
            whole, cut = await asyncio.gather(patient, middling)
            assert whole.events[-1] == "[DONE]"
            assert b"the call's deadline passed" in cut.body
            assert "[DONE]" not in cut.events
            assert [call.trail.code for call in calls] == ["deadline", "upstream_interrupted", ""]
            assert sum(len(call.trail.attempts) for call in calls) == 1

    virtual.run(main)


def test_CAC_03_the_refusal_of_one_caller_is_not_that_of_another() -> None:
    async def main() -> None:
        files = {"callers.yaml": CALLERS}
        environ = {**JOINED, "COALESCE_SCOPE": "shared"}
        async with World({"groq": 1}, environ=environ, files=files, latency=1.0) as world:
            named = {caller.name: caller for caller in world.gateway.config.callers.values()}
            await world.chat(MODEL, caller=named["alice"], text="Else")
            alice = asyncio.create_task(world.chat(MODEL, caller=named["alice"]))
            bob = asyncio.create_task(world.chat(MODEL, caller=named["bob"]))
            carol = asyncio.create_task(world.chat(MODEL, caller=named["carol"]))
            answers = await asyncio.gather(alice, bob, carol)
            assert [answer.status for answer in answers] == [429, 200, 200]
            assert [cache_of(answer) for answer in answers] == [None, None, "joined"]
            told = [world.gateway.recent[answer.headers["x-keyturn-call"]] for answer in answers]
            assert [trail.shared for trail in told] == ["", "", "joined"]
            assert (told[1].notes, told[2].notes) == ([], [f"answered together with call {told[1].call}"])

    virtual.run(main)


CALLERS = "".join(
    f"{name}: {{ key_hash: 'sha256:{number:064}'{rest} }}\n"
    for number, (name, rest) in enumerate({"alice": ", rpm: 1", "bob": "", "carol": ""}.items())
)


def test_CAC_03_callers_share_nothing_unless_it_is_said() -> None:
    async def main() -> None:
        async with World({"groq": 1}, environ=JOINED, latency=1.0) as world:
            callers = [Caller("alice"), Caller("bob"), Caller("alice")]
            answers = await asyncio.gather(*(world.chat(MODEL, caller=caller) for caller in callers))
            assert [cache_of(answer) for answer in answers] == [None, None, "joined"]

    virtual.run(main)


LONG = "word " * 2000


def test_CAC_03_a_slow_client_holds_up_nobody_and_is_told_when_it_is_cut_off() -> None:
    async def main() -> None:
        environ = {**JOINED, "COALESCE_MAX_BUFFER": "3000"}
        async with World({"groq": 1}, environ=environ, pace=0.01) as world:
            calls = ended(world)
            slow, quick = await begun(world, text=LONG), await begun(world, text=LONG)
            assert slow.stream is not None
            piece = await slow.stream.__anext__()
            assert (await rest(quick)).endswith(b"data: [DONE]\n\n")
            late = await rest(slow)
            assert b"upstream_interrupted" in late
            assert b"too slowly" in late
            assert len(piece + late) < 3000
            assert [(call.trail.code, len(call.trail.attempts)) for call in calls] == [
                ("", 1),
                ("upstream_interrupted", 0),
            ]

    virtual.run(main)


def test_CAC_03_memory_is_bounded_and_who_reads_alone_is_waited_for() -> None:
    async def main() -> None:
        environ = {**JOINED, "CACHE_ROUTES": "*", "CACHE_MAX_ANSWER": "2000", "COALESCE_MAX_BUFFER": "3000"}
        async with World({"groq": 1}, environ=environ, pace=0.01) as world:
            reply = await begun(world, text=LONG)
            (flight,) = world.gateway.generation.sharing._under_way  # type: ignore[union-attr]
            await world.clock.sleep_until(world.clock.mono() + 60)
            assert 3000 < flight.size < 4000, "the upstream waits for its reader"
            assert not flight.open
            joined = await begun(world, text=LONG)
            assert dict(joined.headers)[b"x-keyturn-cache"] == b"miss", "nobody joins any more"
            joined.close()
            whole = await rest(reply)
            assert whole.endswith(b"data: [DONE]\n\n"), whole[-600:].decode()
            assert len(world.seen()) == 2
            assert cache_of(await world.chat(MODEL, stream=True, text=LONG)) == "miss"

    virtual.run(main)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("who", ["alone", "first", "second"])
def test_cancelled_at_every_single_step(stream: bool, who: str) -> None:
    """A shared call that is left at its first await, its second, and so on to its end; alone or with another."""

    async def main(step: int) -> bool:
        environ = {**JOINED, "CACHE_ROUTES": "*"}
        faults = [Fault(kind="chat", status=500, times=1)]
        async with World({"groq": 2}, environ=environ, faults=faults) as world:
            calls = ended(world)
            moments: list[float | None] = []
            world.gateway.events.subscribe(
                lambda event: (
                    moments.extend(each.ended for each in event.trail.attempts)
                    if isinstance(event, CallEnded)
                    else None
                )
            )
            task = asyncio.create_task(world.chat(MODEL, stream=stream))
            other = None if who == "alone" else asyncio.create_task(world.chat(MODEL, stream=stream))
            leaving = other if who == "second" and other is not None else task
            for _ in range(step):
                await asyncio.sleep(0)
                if leaving.done():
                    break
            done = leaving.done()
            leaving.cancel()
            if step % 2:
                await asyncio.sleep(0)
                leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
            if who != "alone":
                assert [each.status for each in await asyncio.gather(*({task, other} - {leaving, None}))] == [200]  # type: ignore[arg-type]
            await virtual.idle()
            assert (world.held(), world.gateway.inflight) == (0, 0)
            assert world.gateway.generation.calls == 0
            assert not world.gateway.generation.sharing._under_way  # type: ignore[union-attr]
            attempts = [attempt for call in calls for attempt in call.trail.attempts]
            assert len(attempts) == len(world.seen())
            assert None not in moments, "a call is recorded once its attempts are over"
            return done

    for step in range(400):
        if virtual.run(lambda step=step: main(step)):  # type: ignore[misc]
            break
    else:
        pytest.fail("the call never came to its end")
    assert step >= 3


def test_closing_the_gateway_ends_what_is_shared() -> None:
    async def main() -> None:
        async with World({"groq": 1}, environ=JOINED, pace=1.0, latency=3.0) as world:
            reply, waiting = asyncio.create_task(begun(world)), asyncio.create_task(world.chat(MODEL))
            await world.clock.sleep_until(world.clock.mono() + 5)
            streamed = await reply
            waiting = asyncio.create_task(world.chat(MODEL))
            await virtual.idle()
            await world.gateway.close()
            assert (await waiting).code == "draining"
            assert b"shutting down" in await rest(streamed)

    virtual.run(main)


def test_a_new_configuration_leaves_shared_calls_in_peace() -> None:
    async def main() -> None:
        async with World({"groq": 1}, environ=JOINED, pace=1.0, latency=3.0) as world:
            tasks: list[asyncio.Task[Any]] = [asyncio.create_task(world.chat(MODEL, stream=True)) for _ in range(2)]
            await world.clock.sleep_until(world.clock.mono() + 1)
            world.gateway.adopt(world.config())
            answers = await asyncio.gather(*tasks)
            assert [answer.events[-1] for answer in answers] == ["[DONE]", "[DONE]"]
            assert len(world.seen()) == 1
            assert not world.gateway.retired

    virtual.run(main)


@pytest.mark.parametrize(
    ("first", "second", "busy", "fine"),
    [(1.0, None, 5.0, True), (1.0, 90.0, 40.0, True), (None, 90.0, 40.0, True), (None, None, 40.0, False)],
)
def test_CAC_03_each_waits_for_a_key_as_long_as_it_would_alone(
    first: float | None, second: float | None, busy: float, fine: bool
) -> None:
    async def main() -> None:
        environ = {**JOINED, "LIMITS_GROQ": "rpm=100 concurrency=1"}
        async with World({"groq": 1}, environ=environ, latency=busy) as world:
            tasks = [asyncio.create_task(world.chat(MODEL, text="Else"))]
            for timeout in (first, second):
                await virtual.idle()
                tasks.append(asyncio.create_task(world.chat(MODEL, timeout=timeout)))
            statuses = [answer.status for answer in await asyncio.gather(*tasks)]
            assert statuses[0] == 200
            assert statuses[1] in (429, 504)
            assert (statuses[2] == 200) == fine

    virtual.run(main)


FAULTS = (
    Fault(share=0.15, status=500),
    Fault(share=0.1, error="rate_limited", wait=1.0),
    Fault(share=0.1, does="hang"),
    Fault(share=0.1, does="reset", at_chunk=3),
)


def test_many_that_share_and_leave_at_random_moments() -> None:
    async def left(world: World, draw: random.Random) -> None:
        stream, text, timeout = draw.random() < 0.6, draw.choice("ab"), draw.choice([None, None, 0.3])
        task = asyncio.create_task(world.chat(MODEL, stream=stream, text=text, timeout=timeout))
        await world.clock.sleep_until(world.clock.mono() + draw.uniform(0, 1.5))
        task.cancel()
        if draw.random() < 0.3:
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def main() -> None:
        draw = random.Random(7)
        environ = {**JOINED, "LIMITS_GROQ": "rpm=100 concurrency=2", "CACHE_ROUTES": "*", "CACHE_TTL": "1"}
        async with World({"groq": 4}, environ=environ, faults=FAULTS, latency=(0.0, 0.3), pace=0.02) as world:
            calls = ended(world)
            for _ in range(25):
                await asyncio.gather(*(left(world, draw) for _ in range(16)))
                await virtual.idle()
                assert (world.held(), world.gateway.inflight, world.gateway.room.waiting) == (0, 0, 0)
                assert world.gateway.generation.calls == 0
            assert len(calls) == 400
            assert {"hit", "joined", "miss"} <= {call.trail.shared for call in calls}
            attempts = [attempt.id for call in calls for attempt in call.trail.attempts]
            assert len(set(attempts)) == len(attempts) == len(world.seen()), "each attempt stands in one trail"

    virtual.run(main)
