"""Rows 21 to 25 and 39 to 48: limits that change, outages, clients that leave, clocks that step."""

from __future__ import annotations

import asyncio
from collections import Counter

from keyturn.simulator import Fault, KeyRule
from tests.support import virtual

from .stage import BOTH, LLAMA, SHARED, Stage, scenario, whole

OPENAI = "openai/gpt-4o"


def _spread(stage: Stage, model: str, seconds: float, every: float) -> asyncio.Future[list[int]]:
    """Calls at an even pace for so many seconds, none of which waits for another; their statuses."""

    async def one(number: int) -> int:
        await stage.later(number * every)
        return (await stage.ask(model)).status

    return asyncio.gather(*(one(number) for number in range(int(seconds / every))))


def _halve(stage: Stage) -> None:
    """The provider allows half of what it allowed, without a word."""
    for quota in stage.world.upstream.quotas._quotas.values():
        for meter in quota.meters.values():
            meter.capacity //= 2


@scenario(21, {"groq": [KeyRule(rpm=40)]}, variant="unsaid", environ={"LIMITS_GROQ": "rpm=40"})
@scenario(21, {"openai": [KeyRule(rpm=40, limiter="rolling")]}, variant="told", environ={"LIMITS_OPENAI": "rpm=40"})
async def limits_are_halved(stage: Stage) -> str:
    model = LLAMA if "groq" in stage.world.rules else OPENAI
    await _spread(stage, model, 60.0, 2.0)
    assert stage.world.upstream.own_429 == 0
    await stage.later(60.0)
    _halve(stage)
    await _spread(stage, model, 200.0, 2.5)
    assert stage.world.upstream.own_429 <= 3
    return "at most 3 answers of 429 until the new limit is known"


@scenario(22, {"openai": [KeyRule(rpm=40, limiter="rolling")]}, environ={"LIMITS_OPENAI": "rpm=40"})
async def somebody_else_uses_the_key(stage: Stage) -> str:
    await _spread(stage, OPENAI, 60.0, 4.0)
    (quota,) = stage.world.upstream.quotas._quotas.values()
    for _ in range(20):
        quota.admit(stage.world.upstream.now(), 10)
    await _spread(stage, OPENAI, 30.0, 4.0)
    answers = await asyncio.gather(*(stage.ask(OPENAI, timeout=90.0) for _ in range(20)))
    assert sum(map(whole, answers)) >= 19
    assert stage.world.upstream.own_429 <= 1
    return "known within 25 s: of a burst of 20 calls at most one is refused, the others wait for what is left"


@scenario(23, {"groq": 4}, faults=[Fault(kind="chat", status=500, every=5)])
async def every_fifth_is_a_500(stage: Stage) -> str:
    for _ in range(150):
        assert whole(await stage.ask())
        await stage.later(0.2)
    assert stage.sent() <= 1.3 * 150
    return "every call is answered, with at most 1.3 attempts each"


@scenario(24, {"groq": 4}, faults=[Fault(kind="chat", status=503, after=60.0, until=360.0)])
async def an_outage_of_five_minutes(stage: Stage) -> str:
    began = stage.now
    assert set(await _spread(stage, LLAMA, 60.0, 2.0)) == {200}
    await stage.later(began + 60.0 - stage.now)
    out = asyncio.ensure_future(_spread(stage, LLAMA, 300.0, 2.0))
    await stage.later(300.0)
    assert stage.sent(status=503) <= 1.1 * 150
    while (await stage.ask()).status != 200:
        await stage.later(0.5)
    assert stage.now - began - 360.0 <= 10.0
    assert set(await out) <= {200, 502}, "who waited at the end may be answered; nobody is told of limits"
    return "at most 1.1 attempts per call during the outage; answers again within 10 s of its end"


@scenario(
    25,
    {"groq": 3, "together": 1},
    models=BOTH,
    faults=[Fault(provider="groq", kind="chat", error="overloaded", status=529)],
)
async def an_overload(stage: Stage) -> str:
    answer = await stage.ask(SHARED)
    assert whole(answer)
    assert Counter(each.provider for each in stage.world.seen()) == {"groq": 1, "together": 1}
    assert stage.mark("deployment").reason == "overloaded"
    return "200 from the other provider; no second key of the overloaded one is asked"


# --- 39 and 40: the client leaves


async def _left(stage: Stage, seconds: float, *, twice: bool = False) -> None:
    task = asyncio.ensure_future(stage.ask())
    await stage.later(seconds)
    left = stage.now
    task.cancel()
    if twice:
        await asyncio.sleep(0)
        task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await virtual.idle()
    assert stage.world.held() == 0
    for each in stage.world.seen():
        if each.result == "cancelled":
            assert each.ended - left <= 0.25


@scenario(39, {"groq": 1}, variant="before-an-answer", latency=5.0)
@scenario(39, {"groq": 1}, variant="in-the-answer", modes=("stream",), pace=1.0)
async def the_client_leaves(stage: Stage) -> str:
    await _left(stage, 2.5)
    assert [each.result for each in stage.world.seen()] == ["cancelled"]
    return "the upstream is closed within 250 ms, nothing stays reserved"


@scenario(39, {"groq": 1}, variant="in-the-queue", environ={"LIMITS_GROQ": "concurrency=1"}, latency=6.0)
async def the_client_leaves_the_queue(stage: Stage) -> str:
    first = asyncio.ensure_future(stage.ask())
    await virtual.idle()
    task = asyncio.ensure_future(stage.ask())
    await stage.later(2.0)
    assert stage.world.gateway.room.waiting == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert stage.world.gateway.room.waiting == 0
    assert whole(await first)
    assert stage.sent() == 1
    return "the place in the queue is free at once"


@scenario(40, {"groq": 1}, latency=5.0)
async def cancelled_twice(stage: Stage) -> str:
    for seconds in (0.0, 1.0, 4.999):
        await _left(stage, seconds, twice=True)
    assert whole(await stage.ask())
    return "nothing leaks"


# --- 48: clocks that step


for _step in (-3600.0, 86_400.0):

    @scenario(
        48,
        {"groq": 2},
        variant="back" if _step < 0 else "ahead",
        environ={"LIMITS_GROQ": "rpd=1000"},
        faults=[Fault(key="*-1", error="rate_limited", wait=100.0, times=1)],
    )
    async def the_wall_clock_is_set(stage: Stage, step: float = _step) -> str:
        assert whole(await stage.ask())
        stage.world.clock.wall_shift = step
        stage.world.gateway.keep_time()
        await stage.later(50.0)
        for _ in range(4):
            assert whole(await stage.ask())
        assert stage.sent(key="groq-secret-key-1") == 1, "not used early"
        await stage.later(60.0)
        for _ in range(4):
            assert whole(await stage.ask())
        assert stage.sent(key="groq-secret-key-1") > 1, "not stuck"
        stage.world.clock.wall_shift = 0.0
        stage.world.gateway.keep_time()
        return "no key is used early, none is stuck"
