"""The link on a real Redis: order, cancelled waiters, flushed scripts, presence, and Redis killed and started again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from keyturn.core import Clock, Secret
from keyturn.stores.redis_link import RedisLink
from keyturn.stores.redis_port import Away
from keyturn.stores.redis_presence import Presence
from tests.support.redis_process import RedisProcess
from tests.support.redis_stand_in import HandClock, passing, turns, until

SCRIPTS = {
    "echo": "return ARGV[1]",
    "push": "return redis.call('RPUSH', KEYS[1], ARGV[1])",
    "list": "return redis.call('LRANGE', KEYS[1], 0, -1)",
    "publish": "return redis.call('PUBLISH', ARGV[1], ARGV[2])",
}
ROUNDS = 5_000
"""Loop turns between two steps of the clock: a real Redis takes time that the clock does not know of."""


class Gateway:
    """A link and what it tells."""

    def __init__(self, server: RedisProcess, clock: HandClock, prefix: str = "t", seed: int = 1) -> None:
        self.clock = clock
        self.link = RedisLink(Secret(server.url), prefix, clock, random.Random(seed).random, scripts=SCRIPTS)
        self.recovered: list[bool] = []
        self.news: list[bytes] = []

    async def recover(self, lost: bool) -> None:
        assert await self.link.ask("echo", [], ["recovering"]) == b"recovering"
        self.recovered.append(lost)

    async def open(self) -> RedisLink:
        await self.link.open(self.recover, self.news.append)
        return self.link

    async def close(self) -> None:
        await self.link.close()


def story(act: Callable[[HandClock], Awaitable[None]]) -> None:
    async def main() -> None:
        clock = HandClock()
        await act(clock)
        await turns()
        assert len(asyncio.all_tasks()) == 1
        assert clock.set_timers == 0

    asyncio.run(main())


def test_messages_arrive_in_the_order_in_which_they_were_handed_over(redis_server: RedisProcess) -> None:
    async def act(clock: HandClock) -> None:
        gateway = Gateway(redis_server, clock, "order")
        link = await gateway.open()
        asked: list[asyncio.Future[Any]] = []
        for number in range(3_000):
            if number % 3:
                assert link.tell("push", ["order:l"], [number])
            else:
                asked.append(link.ask("push", ["order:l"], [number]))
            if number % 500 == 0:
                await turns(2)
        assert [await one for one in asked] == list(range(1, 3_001, 3))
        assert await link.ask("list", ["order:l"], []) == [b"%d" % number for number in range(3_000)]
        assert link.queued == 0
        await gateway.close()

    story(act)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_cancelled_waiters_never_cross_replies(redis_server: RedisProcess, seed: int) -> None:
    async def act(clock: HandClock) -> None:
        draw = random.Random(seed)
        gateway = Gateway(redis_server, clock, "cancel")
        link = await gateway.open()
        answered = 0

        async def call(marker: str) -> None:
            nonlocal answered
            assert await link.ask("echo", [], [marker]) == marker.encode()
            answered += 1

        tasks: list[asyncio.Task[None]] = []
        for number in range(1_000):
            tasks.append(asyncio.create_task(call(f"{seed}/{number}/{'x' * draw.randrange(2_000)}")))
            if draw.random() < 0.5:
                tasks[-draw.randint(1, min(len(tasks), 20))].cancel()
            if draw.random() < 0.1:
                await turns(draw.randrange(12))
        for task in draw.sample(tasks, 200):
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(end) for end in ends} == {type(None), asyncio.CancelledError}
        assert answered == sum(end is None for end in ends)
        assert 100 < answered < 900
        assert await link.ask("echo", [], ["last"]) == b"last"
        conversation = link._conversation
        assert conversation is not None
        assert (len(conversation._sent), len(conversation._queue), conversation.waiting) == (0, 0, 0)
        await gateway.close()

    story(act)


def test_a_script_flush_costs_nobody_anything(redis_server: RedisProcess) -> None:
    async def act(clock: HandClock) -> None:
        gateway = Gateway(redis_server, clock, "flush")
        link = await gateway.open()
        asked = []
        for number in range(100):
            asked.append(link.ask("push", ["flush:l"], [number]))
            if number % 25 == 10:
                redis_server.command("SCRIPT", "FLUSH")
            if number % 5 == 0:
                await turns(3)
        assert sorted([await one for one in asked]) == list(range(1, 101))
        assert link.reachable
        assert gateway.recovered == []
        await gateway.close()

    story(act)


def test_gateways_know_how_many_they_are_and_hear_each_other(redis_server: RedisProcess) -> None:
    async def act(clock: HandClock) -> None:
        one, two = Gateway(redis_server, clock, "many", 1), Gateway(redis_server, clock, "many", 2)
        other = Gateway(redis_server, clock, "elsewhere", 3)
        for gateway in (one, two, other):
            await gateway.open()
        assert two.link.replicas == 2
        await passing(clock, lambda: one.link.replicas == 2, step=0.5, rest=ROUNDS)
        assert other.link.replicas == 1
        await two.link.ask("publish", [], ["many:news", b"\x00 hello"])
        await until(lambda: one.news and two.news)
        assert (one.news, two.news, other.news) == ([b"\x00 hello"], [b"\x00 hello"], [])
        await two.close()
        assert redis_server.command("ZCARD", "{many}:present") == b":1\r\n"
        await passing(clock, lambda: one.link.replicas == 1, step=0.5, rest=ROUNDS)
        await one.close()
        await other.close()

    story(act)


@pytest.mark.parametrize("durable", [False, True])
def test_a_killed_redis_that_comes_back_is_used_again_and_whether_it_forgot_is_told(
    tmp_path: Path, durable: bool
) -> None:
    options = ["--appendonly", "yes", "--appendfsync", "always"] if durable else []

    async def act(clock: HandClock) -> None:
        with RedisProcess(tmp_path, *options) as server:
            gateways = [Gateway(server, clock, seed=seed) for seed in (1, 2)]
            links = [await gateway.open() for gateway in gateways]
            await links[0].ask("push", ["t:l"], ["kept"])
            server.kill()
            await until(lambda: not any(link.reachable for link in links))
            for link in links:
                with pytest.raises(Away):
                    await link.ask("echo", [], ["x"])
                assert not link.tell("echo", [], ["x"])
            for _ in range(10):
                clock.advance(0.5)
                await turns()
            assert "cannot be reached" in links[0].trouble
            server.start()
            await passing(clock, lambda: all(link.reachable for link in links), step=0.5, rest=ROUNDS)
            assert [gateway.recovered for gateway in gateways] == [[not durable]] * 2
            assert await links[1].ask("list", ["t:l"], []) == ([b"kept"] if durable else [])
            await links[0].ask("publish", [], ["t:news", "heard again"])
            await until(lambda: all(gateway.news == [b"heard again"] for gateway in gateways))
            for gateway in gateways:
                await gateway.close()

    story(act)


def test_an_emptied_redis_is_noticed(tmp_path: Path) -> None:
    async def act(clock: HandClock) -> None:
        with RedisProcess(tmp_path) as server:
            gateway = Gateway(server, clock)
            await gateway.open()
            server.command("FLUSHALL")
            await passing(clock, lambda: gateway.recovered == [True], step=0.5, rest=ROUNDS)
            assert gateway.link.reachable
            await gateway.close()

    story(act)


async def use_again(link: RedisLink, clock: Clock) -> None:
    while not link.reachable:
        await clock.sleep_until(clock.mono() + 0.01)


@pytest.mark.realtime
def test_a_redis_that_hangs_costs_a_call_50_ms_and_is_found_again(tmp_path: Path) -> None:
    from keyturn.dispatch import SystemClock

    async def main() -> tuple[list[float], float]:
        clock = SystemClock()
        with RedisProcess(tmp_path) as server:
            link = RedisLink(Secret(server.url), "t", clock, random.random, scripts=SCRIPTS)

            async def recover(lost: bool) -> None:
                assert not lost

            await link.open(recover, lambda news: None)
            waits = []
            with server.hung():
                while link.reachable:
                    began = clock.mono()
                    with pytest.raises(Away):
                        await link.ask("echo", [], ["x"])
                    waits.append(clock.mono() - began)
            began = clock.mono()
            await use_again(link, clock)
            took = clock.mono() - began
            assert await link.ask("echo", [], ["back"]) == b"back"
            await link.close()
        return waits, took

    waits, took = asyncio.run(main())
    assert 3 <= len(waits) <= 4
    assert min(waits) >= 0.049
    assert took < 5.0


def heard(presence: Presence, asked: float, now: float, time: float, count: int = 1) -> bool:
    micros = round(time % 1 * 1e6)
    return presence.heard([b"%d" % int(time), b"%d" % micros, count, b"e", b""], asked, now)


def test_the_shift_is_that_of_the_quickest_reply_and_follows_a_clock_that_is_set() -> None:
    presence = Presence("t", lambda: 0.25)
    heard(presence, 10.0, 10.100, 1010.080)  # the way there took longer than the way back
    assert presence.shift == pytest.approx(1000.030)
    heard(presence, 11.0, 11.002, 1011.001)
    assert presence.shift == pytest.approx(1000.0, abs=1e-6)
    heard(presence, 12.0, 12.080, 1012.075)
    assert presence.shift == pytest.approx(1000.0, abs=1e-6)
    heard(presence, 13.0, 13.050, 1010.025)  # three seconds back
    assert presence.shift == pytest.approx(997.0, abs=1e-6)
    for second in range(14, 80):
        heard(presence, second, second + 0.01, second + 997.0 + (second - 13) * 0.0001 + 0.005)  # it drifts
    assert presence.shift == pytest.approx(997.0066, abs=0.0065)


def test_a_heartbeat_that_is_answered_by_something_else_is_a_value_error() -> None:
    presence = Presence("t", lambda: 0.25)
    for reply in (None, b"OK", [], [1, 2, 3], [b"x", b"0", 1, b"e"], [b"1", b"2", 3, None], [b"1", b"2", 3, b"e"]):
        with pytest.raises(ValueError, match=r"heartbeat|invalid literal"):
            presence.heard(reply, 0.0, 0.0)
