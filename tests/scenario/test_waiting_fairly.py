"""The waiting room among several callers: fair shares, large calls, a full room, and refusals that hold."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest

from keyturn.core import Caller, CallerClass
from keyturn.simulator import KeyRule
from tests.support import virtual
from tests.support.world import Answer, World

MODEL = "groq/llama-3.1-8b-instant"
ONE = {"LIMITS_GROQ": "concurrency=1"}


def caller(name: str, weight: float = 1.0, rank: CallerClass = "normal") -> Caller:
    return Caller(name=name, weight=weight, rank=rank)


async def line_up(world: World, *calls: tuple[Caller, dict[str, Any]]) -> list[asyncio.Task[Answer]]:
    """These calls, begun one after the other."""
    tasks = []
    for who, more in calls:
        tasks.append(asyncio.create_task(world.chat(MODEL, caller=who, **more)))
        await virtual.idle()
    return tasks


def order_of(world: World, calls: list[tuple[Caller, dict[str, Any]]]) -> list[str]:
    """In which order they are answered, by caller, while the only key takes one at a time."""

    async def main() -> list[str]:
        done: list[str] = []

        async def one(who: Caller, more: dict[str, Any]) -> None:
            assert (await world.chat(MODEL, caller=who, **more)).status == 200
            done.append(who.name)

        async with world:
            tasks = []
            for who, more in calls:
                tasks.append(asyncio.create_task(one(who, more)))
                await virtual.idle()
            await asyncio.gather(*tasks)
        return done

    return virtual.run(main)


def test_callers_take_turns_and_one_that_floods_stands_behind_itself() -> None:
    loud, quiet = caller("loud"), caller("quiet")
    calls: list[tuple[Caller, dict[str, Any]]] = [(who, {}) for who in (*[loud] * 8, *[quiet] * 3)]
    done = order_of(World({"groq": 1}, environ=ONE, latency=1.0), calls)
    assert done[:7] == ["loud", "loud", "quiet", "loud", "quiet", "loud", "quiet"]


def test_the_class_of_a_call_is_its_callers_unless_it_asks_for_a_lower_one() -> None:
    async def main() -> None:
        async with World({"groq": 1}, environ=ONE, latency=1.0) as world:
            done: list[str] = []
            me = caller("me", rank="interactive")
            body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}

            async def one(stated: str) -> None:
                headers = {"x-keyturn-class": stated} if stated else {}
                assert (await world.send("chat", body, None, me, headers=headers)).status == 200
                done.append(stated)

            tasks = []
            for stated in ("", "batch", "batch", "interactive", "", ""):
                tasks.append(asyncio.create_task(one(stated)))
                await virtual.idle()
            assert world.gateway.room.classes == {"batch": 2, "interactive": 3}
            await asyncio.gather(*tasks)
            assert done == ["", "batch", "interactive", "", "", "batch"]

    virtual.run(main)


def test_a_call_of_class_batch_waits_longer() -> None:
    async def main() -> None:
        environ = {"LIMITS_GROQ": "rpm=1", "WAITING_BATCH_WAIT": "90"}
        async with World({"groq": 1}, environ=environ) as world:
            await world.chat(MODEL)
            began = world.clock.mono()
            assert (await world.chat(MODEL, caller=caller("nightly", rank="batch"))).status == 200
            assert world.clock.mono() - began == pytest.approx(61, abs=1.1)
            assert (await world.chat(MODEL, caller=caller("nightly", rank="batch"), timeout=5)).status == 429

    virtual.run(main)


def test_a_large_call_keeps_one_key_and_holds_up_nobody_else() -> None:
    """Two keys are nearly full. The large call gets the one where it fits first; small ones meanwhile use the other."""

    async def main() -> None:
        environ = {"LIMITS_GROQ": "tpm=4000"}
        async with World({"groq": 2}, environ=environ) as world:
            for _ in range(6):
                await world.chat(MODEL, text="x" * 2000, max_tokens=100)
                await world.clock.sleep_until(world.clock.mono() + 2)
            done: list[str] = []

            async def one(name: str, size: int) -> None:
                assert (await world.chat(MODEL, text="x" * size, max_tokens=10, timeout=100)).status == 200
                done.append(name)

            large = asyncio.create_task(one("large", 12_000))
            await virtual.idle()
            small = [asyncio.create_task(one("small", 500)) for _ in range(6)]
            await virtual.idle()
            assert done.count("small") >= 2  # at once, though they came later
            began = world.clock.mono()
            await large
            assert world.clock.mono() - began < 62  # what left the window of its key was for nobody else
            await asyncio.gather(*small)

    virtual.run(main)


def test_small_calls_without_end_do_not_starve_a_large_one() -> None:
    async def main() -> None:
        environ = {"LIMITS_GROQ": "tpm=4000"}
        async with World({"groq": 3}, environ=environ) as world:
            began = world.clock.mono()
            served: Counter[int] = Counter()

            async def small(number: int) -> None:
                await world.clock.sleep_until(began + number * 0.1)
                answer = await world.chat(MODEL, text="x" * 900, max_tokens=10, timeout=90, caller=caller("crowd"))
                served[answer.status] += 1

            crowd = [asyncio.create_task(small(number)) for number in range(900)]
            await world.clock.sleep_until(began + 30)
            answer = await world.chat(MODEL, text="x" * 11_000, max_tokens=10, timeout=125, caller=caller("large"))
            assert answer.status == 200
            await asyncio.gather(*crowd)
            assert served[200] > 70
            assert world.upstream.own_429 == 0

    virtual.run(main)


def test_who_has_less_than_a_tenth_of_a_full_room_gets_in() -> None:
    async def main() -> None:
        async with World({"groq": 1}, environ=ONE, latency=30.0) as world:
            room = world.gateway.room
            room.resize(20, 1 << 30)
            hog = await line_up(world, *((caller("hog"), {"timeout": 500}) for _ in range(21)))
            assert room.waiting == 20
            refused = await world.chat(MODEL, caller=caller("hog"), timeout=500)
            assert (refused.status, refused.code) == (429, "capacity")
            modest = await line_up(world, *((caller("modest"), {"timeout": 500}) for _ in range(3)))
            assert room.waiting == 20
            evicted = [task for task in hog if task.done()]
            assert evicted == hog[-2:]
            answer = evicted[0].result()
            assert (answer.status, answer.code) == (429, "capacity")
            assert modest[2].done()  # a tenth is two places
            assert room.refused == {("normal", "full"): 2, ("normal", "evicted"): 2}
            for task in (*hog, *modest):
                task.cancel()
            await asyncio.gather(*hog, *modest, return_exceptions=True)
            assert (room.waiting, room.held) == (0, 0)

    virtual.run(main)


def test_a_call_that_cannot_make_it_is_refused_at_once_and_told_why() -> None:
    async def main() -> None:
        async with World({"groq": 1}, environ={"LIMITS_GROQ": "rpm=10"}) as world:
            await world.many(MODEL, 10)
            began = world.clock.mono()
            waits = asyncio.gather(*(world.chat(MODEL, timeout=65) for _ in range(10)))
            await virtual.idle()
            refused = await world.chat(MODEL, timeout=65)
            assert world.clock.mono() == began
            assert (refused.status, refused.code) == (429, "capacity")
            told = refused.json()["error"]["keyturn"]
            assert told["queue_position"] == 11
            assert told["limiting"]["scope"] == MODEL
            assert told["limiting"]["metric"] == "requests"
            assert told["limiting"]["resets_at"].startswith("2026-03-02T12:01:0")
            assert 100 < float(refused.headers["retry-after-ms"]) / 1000 < 123
            trail = next(reversed(world.gateway.recent.values()))
            assert trail.position is None
            assert {answer.status for answer in await waits} == {200}
            waited = [each for each in world.gateway.recent.values() if each.position is not None]
            assert sorted(each.position or 0 for each in waited) == list(range(1, 11))
            assert all(each.expected_wait == pytest.approx(each.waited, abs=1.5) for each in waited)

    virtual.run(main)


def test_a_quota_of_the_day_that_is_spent_everywhere_says_when_it_begins_anew() -> None:
    async def main() -> None:
        async with World({"gemini": 2}, environ={"LIMITS_GEMINI": "rpd=3"}) as world:
            model = "gemini/gemini-2.5-flash"
            await world.many(model, 6)
            told = [await world.chat(model) for _ in range(3)]
            rows: list[Any] = [row["limits"] for row in world.gateway.keys() if row["limits"]]
            (used,) = {row[0]["resets_at"] for row in rows}
            assert {answer.status for answer in told} == {429}
            waits = [float(answer.headers["retry-after-ms"]) / 1000 for answer in told]
            assert max(waits) - min(waits) < 1
            assert told[0].json()["error"]["keyturn"]["limiting"]["resets_at"][:16] == used[:16]
            await world.clock.sleep_until(world.clock.mono() + waits[0])
            assert (await world.chat(model)).status == 200

    virtual.run(main)


def test_who_is_told_to_come_back_tomorrow_is_told_when_the_keys_will_bear_it() -> None:
    """The day's quota is spent. Sixty more are told moments that are spread over the first minutes of the next day, all
    of them come back then, and newcomers at the same time stand behind them."""

    async def main() -> None:
        environ = {"LIMITS_GEMINI": "rpd=50,rpm=6"}
        async with World({"gemini": 4}, environ=environ, latency=0.1) as world:
            model, clock = "gemini/gemini-2.5-flash", world.clock
            while (await world.chat(model, timeout=100)).status == 200:
                pass
            resets = 43_200 - (clock.mono() - 1000) + 8 * 3600  # midnight in Los Angeles, from noon in UTC
            told: list[float] = []
            statuses: Counter[int] = Counter()

            async def one(number: int) -> None:
                answer = await world.chat(model, text="x" * number)
                assert answer.status == 429
                told.append(float(answer.headers["retry-after-ms"]) / 1000)
                await clock.sleep_until(clock.mono() + told[-1])
                statuses[(await world.chat(model, text="x" * number)).status] += 1

            calls = []
            for number in range(60):
                calls.append(asyncio.create_task(one(number)))
                await virtual.idle()
            assert world.gateway.room.promises.open == 61
            assert min(told) == pytest.approx(resets, abs=1)
            assert 100 < max(told) - min(told) < 180
            late = [sum(each <= min(told) + 30 * n for each in told) for n in range(1, 5)]
            assert late == pytest.approx([15, 27, 39, 51], abs=6)
            await clock.sleep_until(clock.mono() + resets + 60)
            strangers = [asyncio.create_task(world.chat(model, text="y" * n)) for n in range(100, 110)]
            await asyncio.gather(*calls)
            assert statuses == {200: 60}
            assert Counter(each.status for each in await asyncio.gather(*strangers))[429] >= 5
            assert world.upstream.own_429 == 0

    virtual.run(main)


def obeying(load: float, callers: int, seconds: float, keys: int = 8, environ: str = "rpm=30") -> tuple[int, int, int]:
    """How many were refused, how many of them were answered when they came back, and what the upstream refused."""
    draw = random.Random(callers)

    async def main() -> tuple[int, int, int]:
        rules = [KeyRule(rpm=30, limiter="rolling")] * keys
        world = World({"groq": rules}, environ={"LIMITS_GROQ": environ}, latency=(0.02, 0.4))
        async with world:
            began, back = world.clock.mono(), []

            async def one(moment: float, who: Caller) -> None:
                await world.clock.sleep_until(began + moment)
                answer = await world.chat(MODEL, caller=who)
                if answer.status == 429:
                    wait = float(answer.headers["retry-after-ms"]) / 1000
                    assert 0 <= int(answer.headers["retry-after"]) - wait <= 1
                    await world.clock.sleep_until(world.clock.mono() + wait)
                    back.append((await world.chat(MODEL, caller=who)).status)

            now, calls = 0.0, []
            while (now := now + draw.expovariate(load * keys * 0.5)) < seconds:
                calls.append(one(now, caller(f"c{draw.randrange(callers)}")))
            await asyncio.gather(*calls)
            assert world.gateway.room.waiting == 0
            return len(back), back.count(200), world.upstream.own_429

    return virtual.run(main)


@pytest.mark.parametrize(("load", "callers"), [(1.4, 1), (1.4, 6)])
def test_who_comes_back_when_it_was_told_to_is_answered(load: float, callers: int) -> None:
    refused, answered, upstream = obeying(load, callers, 200.0, keys=6)
    assert refused > 150
    assert answered >= 0.95 * refused, f"{answered} of {refused}"
    assert upstream == 0


def test_promises_to_those_who_never_come_back_keep_nobody_out() -> None:
    """Half as much again as the keys bear, and nobody returns: all that can be served is."""

    async def main() -> None:
        rules = [KeyRule(rpm=30, limiter="rolling")] * 8
        world = World({"groq": rules}, environ={"LIMITS_GROQ": "rpm=30"}, latency=(0.02, 0.4))
        draw = random.Random(1)
        async with world:
            began, statuses = world.clock.mono(), Counter[int]()

            async def one(moment: float, text: str) -> None:
                await world.clock.sleep_until(began + moment)
                statuses[(await world.chat(MODEL, text=text)).status] += 1

            now, calls = 0.0, []
            while (now := now + draw.expovariate(1.5 * 8 * 0.5)) < 240:
                calls.append(one(now, "x" * draw.randrange(1000)))
            await asyncio.gather(*calls)
            bound = 8 * 30 * (240 + 20) / 61
            assert statuses[200] >= 0.96 * bound, (statuses, bound)
            assert world.gateway.room.promises.faith("default")[1] < 0.3
            await world.clock.sleep_until(world.clock.mono() + 200)
            assert (await world.chat(MODEL)).status == 200
            assert world.gateway.room.promises.open == 0

    virtual.run(main)


RATE = 0.11
"""Calls of one caller in a second."""


def fairness(loudness: int) -> tuple[dict[str, int], dict[str, list[float]]]:
    """Tokens that twenty callers were served, and how long the calls of each waited; one is *loudness* times louder."""

    async def main() -> tuple[dict[str, int], dict[str, list[float]]]:
        draw, served, waits = random.Random(3), Counter[str](), dict[str, list[float]]()
        world = World({"groq": 4}, environ={"LIMITS_GROQ": "tpm=6000"}, latency=(0.02, 0.2))
        names = [f"c{number:02}" for number in range(20)]
        async with world:
            began = world.clock.mono()

            async def one(moment: float, name: str, size: int) -> None:
                await world.clock.sleep_until(began + moment)
                start = world.clock.mono()
                answer = await world.chat(MODEL, text="x" * size, max_tokens=50, caller=caller(name), timeout=100)
                if answer.status == 200 and moment > 61:  # by then every limit has turned once
                    served[name] += int(size / 4 * 1.3) + 50
                    waits.setdefault(name, []).append(world.clock.mono() - start)

            calls = []
            for name in names:
                # all twenty together ask for a little more than the keys bear, and the loud one for fifty times as much
                step = 1 / (RATE * (loudness if name == "c00" else 1))
                moments = [(number + draw.random()) * step for number in range(int(200 / step))]
                calls += [one(moment, name, (400, 800, 1200)[number % 3]) for number, moment in enumerate(moments)]
            await asyncio.gather(*calls)
            assert world.upstream.own_429 == 0
        return dict(served), waits

    return virtual.run(main)


def p99(values: list[float]) -> float:
    return sorted(values)[int(0.99 * (len(values) - 1))]


def test_a_caller_fifty_times_louder_takes_nothing_from_the_others() -> None:
    served, waits = fairness(50)
    _, solo = fairness(1)
    total, squares = sum(served.values()), sum(each * each for each in served.values())
    jain = total * total / (len(served) * squares)
    quiet = [wait for name, each in waits.items() if name != "c00" for wait in each]
    alone = [wait for name, each in solo.items() if name != "c00" for wait in each]
    assert jain >= 0.95, (jain, served)
    assert p99(quiet) <= 2 * p99(alone), (p99(quiet), p99(alone))


def test_where_a_thousand_wait_one_grant_costs_a_few_tries() -> None:
    """Each that is served costs one try and the wake-up one more, however many wait and in however many lines."""

    async def main() -> None:
        models = {"groq": ["one", "two"], "together": ["one", "two"]}
        environ = {"LIMITS_GROQ": "concurrency=1", "LIMITS_TOGETHER": "concurrency=1"}
        async with World({"groq": 1, "together": 1}, environ=environ, models=models, latency=0.1) as world:
            names = ["one", "two", "groq/one", "groq/two", "together/one", "together/two"]
            tasks = [
                asyncio.create_task(world.chat(names[n % 6], caller=caller(f"c{n % 40}"), timeout=300))
                for n in range(1000)
            ]
            await virtual.idle()
            waiting = world.gateway.room.waiting
            assert waiting > 600
            tries = 0
            reserving = world.gateway.generation.reserving
            take = reserving.take

            def counted(*args: Any, **more: Any) -> Any:
                nonlocal tries
                tries += 1
                return take(*args, **more)

            reserving.take = counted  # type: ignore[method-assign]
            await asyncio.gather(*tasks)
            assert tries < waiting * (len(names) + 2)

    virtual.run(main)


def test_one_that_leaves_in_the_turn_of_its_grant_gives_it_to_the_next() -> None:
    async def main() -> None:
        async with World({"groq": 1}, environ=ONE, latency=2.0) as world:
            room = world.gateway.room
            tasks = await line_up(world, *((caller("me"), {}) for _ in range(4)))
            serve = room._serve

            def served() -> None:
                serve()
                tasks[1].cancel()

            room._serve = served  # type: ignore[method-assign]
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            assert isinstance(answers[1], asyncio.CancelledError)
            assert [answer.status for answer in answers if isinstance(answer, Answer)] == [200, 200, 200]
            assert (room.waiting, room.held, dict(room.classes)) == (0, 0, {"normal": 0})

    virtual.run(main)


@pytest.mark.parametrize("step", range(12))
def test_one_that_leaves_at_any_moment_leaves_nothing(step: int) -> None:
    async def main() -> None:
        async with World({"groq": 1}, environ={"LIMITS_GROQ": "rpm=2,concurrency=1"}, latency=1.0) as world:
            room = world.gateway.room
            tasks = [asyncio.create_task(world.chat(MODEL, caller=caller(f"c{n % 2}"), timeout=70)) for n in range(4)]
            for _ in range(step):
                await asyncio.sleep(0)
            tasks[step % 4].cancel()
            await world.clock.sleep_until(world.clock.mono() + step * 0.5)
            tasks[(step + 1) % 4].cancel()
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            assert sum(isinstance(answer, Answer) and answer.status == 200 for answer in answers) >= 2
            assert (room.waiting, room.held, room._lines.lines, room._holdings.waiters) == (0, 0, {}, {})
            assert room._lines._at == {}
            assert not room._lines._wanted

    virtual.run(main)
