"""The link when Redis is slow, refuses, forgets or goes away: a stand-in fails as told, in time moved by hand."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from math import inf

import pytest

from keyturn.errors import StoreError
from keyturn.stores.redis_conversation import MOST_WAITING
from keyturn.stores.redis_link import RedisLink
from keyturn.stores.redis_port import Away
from tests.support.redis_stand_in import ECHO, HandClock, StandIn, message, passing, turns, until, words


class Above:
    """What stands above the link: notes what it is told, and may fail to recover."""

    def __init__(self) -> None:
        self.recovered: list[bool] = []
        self.news: list[bytes] = []
        self.during: Callable[[], Awaitable[object]] | None = None

    async def recover(self, lost: bool) -> None:
        self.recovered.append(lost)
        if self.during is not None:
            await self.during()

    async def open(self, link: RedisLink) -> RedisLink:
        await link.open(self.recover, self.news.append)
        return link


async def outcome(future: asyncio.Future[object]) -> object:
    """The reply, or `Away` with its words."""
    try:
        return await future
    except Away as error:
        return f"away: {error}"


def echo(link: RedisLink, text: str) -> asyncio.Future[object]:
    return link.ask("echo", [], [text])


async def closed(link: RedisLink, clock: HandClock) -> None:
    """Close, and see that nothing of it is left."""
    task = asyncio.create_task(link.close())
    await passing(clock, task.done, step=0.25)
    await task
    await link.close()
    assert not link.reachable
    assert link.queued == 0
    assert clock.set_timers == 0
    names = [str(task.get_coro()) for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert not [name for name in names if "redis_" in name]


def story(act: Callable[[StandIn, HandClock], Awaitable[None]]) -> None:
    async def main() -> None:
        clock = HandClock()
        async with StandIn(clock) as server:
            await act(server, clock)

    asyncio.run(main())


def test_a_late_reply_is_nobody_elses() -> None:
    async def act(server: StandIn, clock: HandClock) -> None:
        link = await Above().open(server.link())
        server.silent = True
        first = echo(link, "first")
        await until(lambda: len(server.echoed) == 1)
        clock.advance(0.051)
        assert await outcome(first) == "away: no answer in time"
        second = echo(link, "second")
        await until(lambda: len(server.echoed) == 2)
        server.release()
        assert await outcome(second) == b"second"
        assert link.reachable
        assert await outcome(echo(link, "third")) == b"third"
        await closed(link, clock)

    story(act)


def test_three_silences_open_the_breaker_and_nobody_waits_longer_than_one() -> None:
    async def act(server: StandIn, clock: HandClock) -> None:
        above = Above()
        link = await above.open(server.link())
        server.silent = True
        for number in range(3):
            assert link.reachable
            asked = [echo(link, f"{number} {many}") for many in range(10)]
            await turns()
            clock.advance(0.051)
            assert {await outcome(one) for one in asked} == {"away: no answer in time"}
        await until(lambda: link.trouble)
        assert link.trouble.endswith("does not answer within 50 ms")
        assert str(server.port) in link.trouble
        assert await outcome(echo(link, "x")) == f"away: {link.trouble}"
        assert not link.tell("echo", [], ["x"])
        server.release()
        took = await passing(clock, lambda: link.reachable)
        assert took <= 1.0
        assert above.recovered == [False]
        assert link.trouble == ""
        assert await outcome(echo(link, "back")) == b"back"
        await closed(link, clock)

    story(act)


def test_a_burst_that_one_stall_delays_is_one_silence() -> None:
    async def act(server: StandIn, clock: HandClock) -> None:
        link = await Above().open(server.link())
        server.silent = True
        asked = []
        for number in range(20):
            asked.append(echo(link, str(number)))
            await turns(5)
            clock.advance(0.002)
        clock.advance(0.055)
        assert {await outcome(one) for one in asked} == {"away: no answer in time"}
        server.release()
        await turns(200)
        assert link.reachable
        await closed(link, clock)

    story(act)


def test_a_silence_shows_soon_though_nobody_else_asks() -> None:
    async def act(server: StandIn, clock: HandClock) -> None:
        link = await Above().open(server.link())
        server.silent = True
        only = echo(link, "only")
        assert await passing(clock, lambda: not link.reachable, step=0.01) <= 0.2
        assert str(await outcome(only)).startswith("away")
        await closed(link, clock)

    story(act)


def test_a_loop_that_was_held_up_itself_does_not_blame_redis() -> None:
    async def act(server: StandIn, clock: HandClock) -> None:
        link = await Above().open(server.link())
        server.silent = True
        asked = echo(link, "x")
        await until(lambda: server.echoed)
        server.release()
        clock.advance(0.5)  # the reply is in the socket, but the timer comes first
        assert await outcome(asked) == b"x"
        await closed(link, clock)

    story(act)


def test_a_thousand_replies_that_lie_ready_are_all_in_time() -> None:
    async def act(server: StandIn, clock: HandClock) -> None:
        link = await Above().open(server.link())
        server.silent = True
        asked = [echo(link, str(number)) for number in range(1000)]
        await until(lambda: len(server.echoed) == 1000)
        server.release()
        clock.advance(0.5)  # longer than they may take, in which our own loop did not turn
        assert [await outcome(one) for one in asked] == [b"%d" % number for number in range(1000)]
        assert link.reachable
        await closed(link, clock)

    story(act)


def test_a_busy_loop_does_not_take_itself_for_a_slow_redis() -> None:
    async def act(server: StandIn, clock: HandClock) -> None:
        link = await Above().open(server.link())
        server.drop(subscribers=False)
        await until(lambda: not link.reachable)
        for _ in range(4000):  # each turn of the loop takes 15 ms, and a round trip some of them
            if link.reachable:
                break
            await asyncio.sleep(0)
            clock.advance(0.015)
        assert link.reachable, link.trouble
        await closed(link, clock)

    story(act)


def test_a_loss_that_a_redis_too_slow_to_be_used_told_of_is_not_forgotten() -> None:
    async def act(server: StandIn, clock: HandClock) -> None:
        above = Above()
        link = await above.open(server.link())
        server.latency = 0.1
        server.epoch = "e2"
        server.drop()
        await passing(clock, lambda: "answers only after" in link.trouble, step=0.05)
        server.latency = 0.0
        await passing(clock, lambda: link.reachable, step=0.05)
        assert above.recovered == [True]
        await closed(link, clock)

    story(act)


def test_half_a_second_of_latency_opens_the_breaker_and_keeps_it_open() -> None:
    async def act(server: StandIn, clock: HandClock) -> None:
        link = await Above().open(server.link())
        server.latency = 0.5
        asked = echo(link, "slow")
        await passing(clock, lambda: not link.reachable, step=0.05)
        assert str(await outcome(asked)) == "away: no answer in time"
        await passing(clock, lambda: "answers only after" in link.trouble, step=0.05)
        for _ in range(100):
            clock.advance(0.05)
            await turns(10)
            assert not link.reachable
        server.latency = 0.0
        await passing(clock, lambda: link.reachable, step=0.05)
        await closed(link, clock)

    story(act)


def test_a_far_redis_gets_more_time_within_bounds() -> None:
    async def act(server: StandIn, clock: HandClock) -> None:
        server.latency = 0.02
        link = server.link()
        opening = asyncio.create_task(Above().open(link))
        await passing(clock, opening.done, step=0.01)
        server.silent = True
        asked = echo(link, "x")
        await turns()
        clock.advance(0.19)
        await turns()
        assert not asked.done()
        clock.advance(0.02)
        assert str(await outcome(asked)) == "away: no answer in time"
        server.release()
        await closed(link, clock)

    story(act)


@pytest.mark.parametrize(
    ("what", "trouble"),
    [
        (b"$5\r\nhe", ": the connection was lost"),
        (b"", ": the connection was lost"),
        (b"HTTP/1.1 400 Bad Request\r\n", " answers by something that is not the protocol of Redis"),
        (b"$x\r\n", " answers by something that is not the protocol of Redis"),
        (b"\xff\xfe\x00\r\n", " answers by something that is not the protocol of Redis"),
    ],
)
def test_a_broken_reply_costs_that_connection_only(what: bytes, trouble: str) -> None:
    async def act(server: StandIn, clock: HandClock) -> None:
        above = Above()
        link = await above.open(server.link())
        server.silent = True
        asked = [echo(link, str(number)) for number in range(3)]
        await until(lambda: len(server.echoed) == 3)
        server.say(what)
        await turns()
        server.drop(subscribers=False)
        assert {str(await outcome(one)).startswith("away") for one in asked} == {True}
        await until(lambda: link.trouble)
        assert link.trouble == f"Redis at 127.0.0.1:{server.port}{trouble}"
        server.silent = False
        await passing(clock, lambda: link.reachable)
        assert above.recovered == [False]
        assert await outcome(echo(link, "back")) == b"back"
        await closed(link, clock)

    story(act)


@pytest.mark.parametrize(
    ("refusal", "words_of_it"),
    [
        (
            b"-READONLY You can't write against a read only replica.\r\n",
            "takes no writes: point REDIS_URL at the primary",
        ),
        (
            b"-ERR Error running script (call to f_1): @user_script:3: @user_script: 3: -READONLY You can't write "
            b"against a read only replica.\r\n",
            "point REDIS_URL at the primary",
        ),
        (b"-LOADING Redis is loading the dataset in memory\r\n", "it comes back by itself"),
        (b"-OOM command not allowed when used memory > 'maxmemory'.\r\n", "raise its maxmemory"),
        (
            b"-ERR Error running script (call to f_1): @user_script:3: @user_script: 3: -OOM command not allowed when "
            b"used memory > 'maxmemory'.\r\n",
            "raise its maxmemory",
        ),
        (
            b"-MISCONF Redis is configured to save RDB snapshots, but it's unable to persist\r\n",
            "cannot save to its disk",
        ),
        (b"-NOAUTH Authentication required.\r\n", "write it into REDIS_URL"),
        (b"-WRONGPASS invalid username-password pair or user is disabled.\r\n", "does not accept the user"),
        (b"-NOPERM this user has no permissions to run the 'evalsha' command\r\n", "docs/replicas.md"),
        (b"-CLUSTERDOWN Hash slot not served\r\n", "cluster mode, which is not supported"),
        (b"-MOVED 3999 127.0.0.1:6381\r\n", "cluster mode, which is not supported"),
        (b"-BUSY Redis is busy running a script.\r\n", "SCRIPT KILL"),
        (b"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n", "lost its primary"),
        (b"-NOREPLICAS Not enough good replicas to write.\r\n", "too few replicas"),
    ],
)
def test_what_redis_refuses_is_told_in_words_and_reaches_no_call(refusal: bytes, words_of_it: str) -> None:
    async def act(server: StandIn, clock: HandClock) -> None:
        above = Above()
        link = await above.open(server.link())
        server.refuse = refusal
        assert str(await outcome(echo(link, "x"))).startswith("away")
        await until(lambda: link.trouble)
        assert words_of_it in link.trouble
        server.refuse = b""
        await passing(clock, lambda: link.reachable)
        assert await outcome(echo(link, "back")) == b"back"
        await closed(link, clock)

    story(act)


def test_a_redis_that_became_a_replica_is_not_used_until_it_is_a_primary_again() -> None:
    async def act(server: StandIn, clock: HandClock) -> None:
        link = await Above().open(server.link())
        server.facts["role"] = "slave"
        server.drop()
        await passing(clock, lambda: "is a replica" in link.trouble)
        for _ in range(20):
            clock.advance(0.5)
            await turns(60)
            assert not link.reachable
        server.facts["role"] = "master"
        await passing(clock, lambda: link.reachable)
        await closed(link, clock)

    story(act)


def test_flushed_scripts_are_loaded_again_and_the_order_stays() -> None:
    async def act(server: StandIn, clock: HandClock) -> None:
        link = await Above().open(server.link())
        server.unknown = {hashlib.sha1(source.encode()).hexdigest() for source in ECHO.values()}
        asked = []
        for number in range(40):
            if number % 2:
                assert link.tell("also", [], [str(number)])
            else:
                asked.append(echo(link, str(number)))
            if number % 7 == 0:
                await turns(3)
        assert [await outcome(one) for one in asked] == [b"%d" % number for number in range(0, 40, 2)]
        await until(lambda: len(server.echoed) == 40)
        assert server.echoed == [str(number) for number in range(40)]
        assert link.reachable
        await closed(link, clock)

    story(act)


@pytest.mark.parametrize("answer", [b"+OK\r\n", b"*4\r\n$1\r\nx\r\n$1\r\n0\r\n:1\r\n$1\r\ne\r\n", b"*0\r\n"])
def test_a_heartbeat_that_is_answered_by_something_else_ends_the_conversation(answer: bytes) -> None:
    async def act(server: StandIn, clock: HandClock) -> None:
        link = await Above().open(server.link())
        server.answers["EVALSHA"] = answer
        await passing(clock, lambda: link.trouble)
        for _ in range(20):
            clock.advance(0.5)
            await turns()
            assert not link.reachable
        del server.answers["EVALSHA"]
        await passing(clock, lambda: link.reachable)
        await closed(link, clock)

    story(act)


def test_heartbeats_go_on_while_what_was_missed_is_made_up_for() -> None:
    async def act(server: StandIn, clock: HandClock) -> None:
        above = Above()
        link = await above.open(server.link())
        held = asyncio.Event()
        above.during = held.wait
        server.epoch = "e2"
        await passing(clock, lambda: above.recovered == [True])
        server.heard.clear()
        for _ in range(50):
            clock.advance(0.1)
            await turns()
        assert words(server.heard).count("EVALSHA") >= 4
        server.epoch = "e3"  # emptied once more meanwhile
        await passing(clock, lambda: clock.mono() > 1009.0)
        assert not link.reachable
        held.set()
        await until(lambda: above.recovered == [True, True])
        await until(lambda: link.reachable)
        await closed(link, clock)

    story(act)


def test_a_script_that_fails_fails_that_call_alone_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async def act(server: StandIn, clock: HandClock) -> None:
        link = await Above().open(server.link())
        server.refuse = b"-ERR Error running script: attempt to index a nil value\r\n"
        for _ in range(3):
            assert "nil value" in str(await outcome(echo(link, "x")))
        server.refuse = b""
        assert await outcome(echo(link, "y")) == b"y"
        assert link.reachable
        await closed(link, clock)

    with caplog.at_level(logging.ERROR, "keyturn"):
        story(act)
    assert len([record for record in caplog.records if "nil value" in record.getMessage()]) == 1


def test_a_full_queue_takes_no_more_and_says_so() -> None:
    async def act(server: StandIn, clock: HandClock) -> None:
        link = await Above().open(server.link())
        server.silent = True
        for number in range(MOST_WAITING):
            assert link.tell("echo", [], [str(number)])
        assert link.queued == MOST_WAITING
        assert not link.tell("echo", [], ["x"])
        assert await outcome(echo(link, "x")) == "away: too much waits to be sent"
        server.release()
        await until(lambda: len(server.echoed) == MOST_WAITING)
        assert await outcome(echo(link, "room again")) == b"room again"
        await closed(link, clock)

    story(act)


def test_what_was_taken_is_sent_again_after_a_loss_before_anything_else() -> None:
    async def act(server: StandIn, clock: HandClock) -> None:
        above = Above()
        link = await above.open(server.link())
        server.silent = True
        assert link.tell("echo", [], ["told"])
        gone = echo(link, "asked")
        await until(lambda: len(server.echoed) == 2)
        server.drop(subscribers=False)
        await until(lambda: link.trouble)
        assert str(await outcome(gone)).startswith("away")
        assert link.queued == 1
        server.silent = False
        server.echoed.clear()
        above.during = lambda: echo(link, "recovering")
        await passing(clock, lambda: link.reachable)
        assert server.echoed == ["told", "recovering"]
        await closed(link, clock)

    story(act)


def test_nothing_is_taken_while_what_was_missed_is_made_up_for() -> None:
    async def act(server: StandIn, clock: HandClock) -> None:
        above = Above()
        link = await above.open(server.link())
        held = asyncio.Event()
        above.during = held.wait
        server.drop(subscribers=False)
        await passing(clock, lambda: above.recovered)
        assert not link.reachable
        assert not link.tell("echo", [], ["x"])
        held.set()
        await until(lambda: link.reachable)
        await closed(link, clock)

    story(act)


def test_a_recovery_that_fails_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    async def act(server: StandIn, clock: HandClock) -> None:
        above = Above()
        link = await above.open(server.link())
        failures: list[Exception] = [RuntimeError("a mistake"), Away("gone again")]

        async def fail() -> None:
            if failures:
                raise failures.pop()

        above.during = fail
        server.drop(subscribers=False)
        await passing(clock, lambda: link.reachable and len(above.recovered) == 3)
        assert above.recovered == [False, False, False]
        await closed(link, clock)

    with caplog.at_level(logging.ERROR, "keyturn"):
        story(act)
    assert [record.getMessage() for record in caplog.records] == [
        "what was missed could not be made up for; trying again"
    ]


def test_a_redis_that_lost_its_data_is_told_apart_from_one_that_kept_it() -> None:
    async def act(server: StandIn, clock: HandClock) -> None:
        above = Above()
        link = await above.open(server.link())
        server.facts["run_id"] = "r2"
        server.drop()
        await passing(clock, lambda: above.recovered == [False] and link.reachable)
        server.epoch = "e2"
        server.drop()
        await passing(clock, lambda: above.recovered == [False, True] and link.reachable)
        server.drop()
        await passing(clock, lambda: above.recovered == [False, True, False] and link.reachable)
        await closed(link, clock)

    story(act)


def test_a_loss_that_nobody_could_make_up_for_yet_is_not_forgotten() -> None:
    async def act(server: StandIn, clock: HandClock) -> None:
        above = Above()
        link = await above.open(server.link())
        server.deaf = True  # the subscription is waited for, which comes before all else
        server.answers["SUBSCRIBE"] = b""
        server.epoch = "e2"
        server.drop()
        await passing(clock, lambda: link._conversation is None, step=0.05)
        await passing(clock, lambda: link._conversation is not None, step=0.05)
        assert above.recovered == []
        server.drop()
        del server.answers["SUBSCRIBE"]
        server.deaf = False
        await passing(clock, lambda: link.reachable)
        assert above.recovered == [True]
        await closed(link, clock)

    story(act)


@pytest.mark.parametrize("broken", [True, False], ids=["after a loss", "without one"])
def test_a_redis_that_lost_its_last_writes_is_noticed(broken: bool) -> None:
    async def act(server: StandIn, clock: HandClock) -> None:
        above = Above()
        link = await above.open(server.link())
        moments: list[float] = []

        async def look() -> None:
            moments.append(link.rewound)

        above.during = look
        await passing(clock, lambda: sum(":present" in line for line in server.heard) >= 3)
        kept = int(server.seen) - 1000
        server.seen = b"%d" % kept
        if broken:
            server.drop()
        await passing(clock, lambda: moments and link.reachable)
        assert moments == [kept / 1000]
        assert above.recovered == [False]
        assert link.rewound == inf
        server.drop()
        await passing(clock, lambda: moments == [kept / 1000, inf] and link.reachable)
        await closed(link, clock)

    story(act)


def test_a_redis_that_is_emptied_under_us_is_noticed_by_the_next_heartbeat() -> None:
    async def act(server: StandIn, clock: HandClock) -> None:
        above = Above()
        link = await above.open(server.link())
        reachable: list[bool] = []

        async def look() -> None:
            reachable.append(link.reachable)

        above.during = look
        server.epoch = "e2"
        assert await passing(clock, lambda: above.recovered == [True]) <= 1.2
        assert reachable == [False]
        assert link.reachable
        await closed(link, clock)

    story(act)


def test_the_heartbeat_counts_the_gateways_and_keeps_the_number_while_away() -> None:
    async def act(server: StandIn, clock: HandClock) -> None:
        server.count = 3
        link = await Above().open(server.link())
        assert link.replicas == 3
        server.count = 4
        assert await passing(clock, lambda: link.replicas == 4) <= 1.2
        server.silent = True
        server.drop()
        await passing(clock, lambda: not link.reachable)
        for _ in range(40):
            clock.advance(0.5)
            await turns(10)
        assert link.replicas == 4
        server.count = 1  # the others come back one by one
        server.release()
        await passing(clock, lambda: link.reachable)
        assert link.replicas == 4
        assert 4.0 <= await passing(clock, lambda: link.replicas == 1) <= 7.0
        await closed(link, clock)

    story(act)


def test_news_arrives_and_the_subscription_is_made_again() -> None:
    async def act(server: StandIn, clock: HandClock) -> None:
        above = Above()
        link = await above.open(server.link())
        server.say(message("t:news", b"one"), subscribers=True)
        await until(lambda: above.news == [b"one"])
        server.drop(subscribers=True)
        await passing(clock, lambda: words(server.heard).count("SUBSCRIBE") == 2)
        await turns(60)
        server.say(message("t:news", b"two"), subscribers=True)
        await until(lambda: above.news == [b"one", b"two"])
        assert link.reachable
        await closed(link, clock)

    story(act)


def test_a_silent_subscription_is_made_anew() -> None:
    async def act(server: StandIn, clock: HandClock) -> None:
        link = await Above().open(server.link())
        await passing(clock, lambda: clock.mono() > 1020.0)
        assert words(server.heard).count("SUBSCRIBE") == 1
        server.deaf = True
        await passing(clock, lambda: words(server.heard).count("SUBSCRIBE") == 2, most=12.0)
        await closed(link, clock)

    story(act)


def test_closing_sends_what_waits_and_leaves_the_others() -> None:
    async def act(server: StandIn, clock: HandClock) -> None:
        link = await Above().open(server.link())
        for number in range(500):
            link.tell("echo", [], [str(number)])
        await link.close()
        assert len(server.echoed) == 500
        assert server.heard[-1].startswith("ZREM {t}:present ")
        assert not link.tell("echo", [], ["x"])
        assert str(await outcome(echo(link, "x"))) == "away: the link is closed"
        await closed(link, clock)

    story(act)


def test_closing_takes_a_second_at_most() -> None:
    async def act(server: StandIn, clock: HandClock) -> None:
        link = await Above().open(server.link())
        server.silent = True
        link.tell("echo", [], ["x"])
        waiting = echo(link, "y")
        closing = asyncio.create_task(link.close())
        assert await passing(clock, closing.done, step=0.1) <= 1.2
        assert str(await outcome(waiting)).startswith("away")
        await closed(link, clock)

    story(act)


@pytest.mark.parametrize("moment", range(12))
def test_closing_may_be_cancelled_at_any_moment(moment: int) -> None:
    async def act(server: StandIn, clock: HandClock) -> None:
        link = await Above().open(server.link())
        link.tell("echo", [], ["x"])
        closing = asyncio.create_task(link.close())
        for _ in range(moment):
            await asyncio.sleep(0)
        closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)
        await closed(link, clock)

    story(act)


@pytest.mark.parametrize("moment", [*range(0, 40, 3), 60, 80, 100, 130])
def test_opening_may_be_cancelled_at_any_moment(moment: int) -> None:
    async def act(server: StandIn, clock: HandClock) -> None:
        link = server.link()
        opening = asyncio.create_task(Above().open(link))
        for _ in range(moment):
            await asyncio.sleep(0)
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        await closed(link, clock)

    story(act)


def test_closing_while_redis_is_away_waits_for_nothing() -> None:
    async def act(server: StandIn, clock: HandClock) -> None:
        link = await Above().open(server.link())
        server.silent = True
        server.drop()
        await passing(clock, lambda: not link.reachable)
        await link.close()
        await closed(link, clock)

    story(act)


def test_a_channel_that_is_forbidden_is_said_at_boot() -> None:
    async def act(server: StandIn, clock: HandClock) -> None:
        server.answers["SUBSCRIBE"] = b"-NOPERM this user has no permissions to access one of the channels\r\n"
        opening = asyncio.create_task(Above().open(server.link()))
        await passing(clock, opening.done, step=0.1)
        with pytest.raises(StoreError, match=r"does not let this gateway hear the channel t:news: forbids this user"):
            await opening

    story(act)
