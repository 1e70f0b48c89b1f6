"""A provider is down for five minutes: how often it is asked meanwhile, and how soon its answers are back.

The judge is the simulator, which counts what reaches it.
"""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any, NamedTuple

import pytest

from keyturn.core import Call, Transition
from keyturn.dispatch import read_call
from keyturn.simulator import Fault
from tests.support import virtual
from tests.support.world import Answer, World

BEGAN, OVER, END = 10.0, 310.0, 335.0
"""Seconds from the start: when it goes down, when it is back, when the last call is made."""


class Told(NamedTuple):
    """One call: when it began and ended, and its answer."""

    began: float
    ended: float
    answer: Answer


class Outage:
    """Calls at an even pace while groq answers *fault* to everybody."""

    def __init__(self, *, other: bool, rate: float = 2.0, keys: int = 4, models: int = 2, **fault: Any) -> None:
        self.chains = [[f"groq/m{each}", *(["mistral/x"] if other else [])] for each in range(models)]
        names = ", ".join(f"m{each}: [{', '.join(chain)}]" for each, chain in enumerate(self.chains))
        down = Fault(provider="groq", kind="chat", after=BEGAN, until=OVER, **fault)
        pool = {"groq": keys, "mistral": 2} if other else {"groq": keys}
        self.world = World(pool, files={"models.yaml": f"aliases: {{ {names} }}\n"}, faults=[down], latency=0.5)
        self.rate = rate
        self.calls: list[Told] = []

    def run(self, **members: Any) -> Outage:
        virtual.run(lambda: self._run(members), max_turns=20_000_000)
        return self

    async def _run(self, members: dict[str, Any]) -> None:
        async with self.world as world:
            start = world.clock.mono()

            async def one(number: int) -> None:
                began = world.clock.mono() - start
                answer = await world.chat(f"m{number % len(self.chains)}", **members)
                self.calls.append(Told(began, world.clock.mono() - start, answer))

            tasks = []
            for number in range(int(END * self.rate)):
                await world.clock.sleep_until(start + number / self.rate)
                tasks.append(asyncio.ensure_future(one(number)))
            await asyncio.gather(*tasks)
            self.seen = [each.started - start for each in world.seen()]
            self.probes = [each.started - start for each in world.seen(provider="groq")]
            self.left = world.gateway.marks.every()
            self.opened = world.gateway.adapting.steadiness.opened["groq"]

    @property
    def ratio(self) -> float:
        """Attempts that reached anybody during the outage, by calls that began in it."""
        began = [each for each in self.calls if BEGAN <= each.began < OVER]
        return len([each for each in self.seen if BEGAN <= each < OVER]) / len(began)

    def served_by(self, provider: str) -> list[Told]:
        return [each for each in self.calls if each.answer.headers.get("x-keyturn-provider") == provider]


@pytest.mark.parametrize(
    ("fault", "other", "stream"),
    [
        ({"status": 503}, False, False),
        ({"status": 503}, False, True),
        ({"status": 503}, True, False),
        ({"status": 503}, True, True),
        ({"status": 500}, True, False),
        ({"does": "reset"}, False, True),
    ],
)
def test_five_minutes_down(fault: dict[str, Any], other: bool, stream: bool) -> None:
    outage = Outage(other=other, **fault).run(stream=stream)
    assert outage.ratio <= 1.1
    back = min(each.ended for each in outage.served_by("groq") if each.began >= BEGAN and each.ended >= OVER)
    assert back <= OVER + 10
    after = [each for each in outage.calls if each.began >= OVER + 10]
    assert {each.answer.status for each in after} == {200}
    during = [each for each in outage.probes if BEGAN + 30 <= each < OVER]
    gaps = [later - earlier for earlier, later in pairwise(during)]
    assert min(gaps) >= 5.0, "one real request at a time"
    assert max(gaps) <= 8.5, "however long it lasts"
    if other:
        assert {each.answer.status for each in outage.calls} == {200}, "nobody noticed"
    assert outage.opened > 10
    assert outage.left == [], "nothing of it stands against any key afterwards"


def test_few_calls_are_spared_no_probe_either() -> None:
    """A call every other second: too few for any share, and yet its answers are back in time."""
    outage = Outage(other=False, rate=0.55, keys=1, models=1, status=503).run()
    back = min(each.ended for each in outage.served_by("groq") if each.ended >= OVER)
    assert back <= OVER + 10
    assert outage.ratio <= 1.1


def test_without_the_breaker_the_cooldown_table_has_its_say() -> None:
    outage = Outage(other=False, rate=1.0, models=1, keys=1, status=503)
    outage.world.environ["BREAKER_ENABLED"] = "false"
    outage.run()
    assert outage.opened == 0
    assert max(later - earlier for earlier, later in pairwise(outage.probes)) >= 60


def test_switched_off_while_it_is_open_it_holds_up_nobody() -> None:
    """A restart with the breaker switched off finds the mark that it had set."""

    async def story() -> None:
        async with World({"groq": 2}, environ={"BREAKER_ENABLED": "false"}, latency=1.0) as world:
            now = world.clock.mono()
            scope = ("provider", "groq", "")
            world.gateway.live.cool(Transition(scope, "cooling", now + 5.0, "outage", 1, now))
            began = now + 5.0
            answers = await world.many("groq/m", 20)
            assert {answer.status for answer in answers} == {200}
            assert world.clock.mono() - began < 3, "not one after the other"
            assert world.gateway.marks.get(scope) is None

    virtual.run(story)


def test_limits_and_bad_keys_never_open_it() -> None:
    async def story() -> None:
        faults = [Fault(status=429, body='{"error":{"message":"Slow down."}}', headers={"retry-after": ""}, every=2)]
        async with World({"groq": 40}, faults=[*faults, Fault(error="invalid_key")]) as world:
            for _ in range(60):
                await world.chat("groq/m", timeout=0.5)
            assert len(world.seen()) >= 40
            assert not world.gateway.adapting.steadiness.opened

    virtual.run(story)


def test_slow_answers_are_no_faults() -> None:
    """One fault, then answers that take a minute: none of the calls that begin meanwhile is sent away."""

    async def story() -> None:
        async with World({"groq": 4}, faults=[Fault(times=1, status=500, latency=0.1)], latency=60.0) as world:
            tasks = []
            for _ in range(60):
                tasks.append(asyncio.ensure_future(world.chat("groq/m", timeout=300)))
                await world.clock.sleep_until(world.clock.mono() + 0.5)
            assert {answer.status for answer in await asyncio.gather(*tasks)} == {200}
            assert not world.gateway.adapting.steadiness.spared

    virtual.run(story)


def test_nor_are_clients_that_leave() -> None:
    async def story() -> None:
        async with World({"groq": 4}, faults=[Fault(times=1, status=500)], latency=5.0) as world:
            for _ in range(40):
                task = asyncio.ensure_future(world.chat("groq/m"))
                await world.clock.sleep_until(world.clock.mono() + 1)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            assert (await world.chat("groq/m")).status == 200

    virtual.run(story)


def test_a_broken_model_holds_up_no_other_for_long() -> None:
    """A model that is often asked and never answers, beside one that is seldom asked and does: when the latter closes
    the breaker, those who wait for the broken one are not all sent to it."""

    async def story() -> None:
        async with World({"groq": 2}, faults=[Fault(model="bad", does="reset")], latency=0.5) as world:
            good: list[tuple[int, float]] = []

            async def one(model: str) -> None:
                began = world.clock.mono()
                answer = await world.chat(f"groq/{model}")
                if model == "good":
                    good.append((answer.status, world.clock.mono() - began))

            tasks = []
            for number in range(600):
                model = "bad" if number % 100 else "good"
                tasks.append(asyncio.ensure_future(one(model)))
                await world.clock.sleep_until(world.clock.mono() + 0.2)
            await asyncio.gather(*tasks)
            assert {status for status, _ in good} == {200}
            assert max(seconds for _, seconds in good) < 10
            assert len(world.seen(model="bad")) < 100

    virtual.run(story, max_turns=20_000_000)


def test_it_is_told_with_the_keys_and_in_explain() -> None:
    async def story() -> None:
        async with World({"groq": 2}, faults=[Fault(status=503)], latency=0.5) as world:
            await asyncio.gather(*(world.chat(f"groq/m{each % 8}", timeout=20) for each in range(64)))
            gateway = world.gateway
            if gateway.marks.get(("provider", "groq", "")) is None:
                await world.many("groq/m0", 5, timeout=20)
            rows = gateway.keys()
            assert {row["reason"] for row in rows} == {"outage"}
            assert {row["state"] for row in rows} <= {"cooling", "probation"}
            told = await gateway.explain(call_of("groq/m0"), gateway.config.default_caller)
            (step,) = told["steps"]
            assert {each["why"] for each in step["deployments"][0]["candidates"]} <= {"outage", ""}
            assert gateway.reset("groq")
            assert gateway.marks.get(("provider", "groq", "")) is None

    virtual.run(story)


def call_of(model: str) -> Call:
    return read_call("chat", b'{"model":"%s","messages":[{"role":"user","content":"Hello"}]}' % model.encode(), {})
