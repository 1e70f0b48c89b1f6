"""A thousand routes and 500 keys: a call costs as much work as with ten, counted in lines that run and not in time."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import pytest

import keyturn
from keyturn.config import Config
from keyturn.config.model import Strategy
from keyturn.core import Call, Caller, resolve
from keyturn.dispatch import read_call
from keyturn.simulator import Fault
from tests.support import virtual
from tests.support.world import World

HOUSE = str(Path(keyturn.__file__).parent)
ROOMS = tuple(f"{HOUSE}/{room}/" for room in ("core", "dispatch", "providers", "stores", "wire"))
FEW, MANY, MANY_KEYS = 10, 1000, 500
NO_MORE = 1.25
"""How many times the lines of a small configuration a large one may take: a binary search or two."""
LOOKED_UP = ("names", "routes", "facts", "aliases", "unconfigured")
T = TypeVar("T")
NAMES = ["model-7", "role-7", "alias-7", "groq/model-7", "groq/never-listed", "chain"]


class Lines:
    """How many lines of Keyturn's own were run."""

    count = 0

    def enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        """Called for each function that is entered: whether its lines count."""
        return self.step if frame.f_code.co_filename.startswith(ROOMS) else None

    def step(self, frame: FrameType, event: str, argument: Any) -> Any:
        """Called for each line, and for each turn of a loop within one."""
        self.count += event == "line"
        return self.step


@contextmanager
def counted() -> Iterator[Lines]:
    """Counts the lines that run inside."""
    lines, before = Lines(), sys.gettrace()
    sys.settrace(lines.enter)
    try:
        yield lines
    finally:
        sys.settrace(before)


def models(count: int) -> str:
    """models.yaml with *count* routes and as many aliases."""
    routes = "\n".join(f"  - {{ id: model-{number}, provider: groq, tier: free }}" for number in range(count))
    aliases = "\n".join(f"  alias-{number}: [model-{number}, model-{number - 1}]" for number in range(1, count))
    return f"provider_routes:\n{routes}\naliases:\n{aliases}\n  chain: [model-1, model-2, model-3]\n"


def roles(count: int) -> str:
    chain = "model_chain: [model-{0}, model-1], providers: [groq]"
    return "roles:\n" + "\n".join(f"  role-{number}: {{ {chain.format(number)} }}" for number in range(count)) + "\n"


def limits(count: int, rates: str) -> str:
    rows = "\n".join(f"      model-{number}: {{ {rates} }}" for number in range(count))
    return f"providers:\n  groq:\n    models:\n{rows}\n"


@cache
def config(routes: int, keys: int, rates: str) -> Config:
    """Read once: it is frozen, and the largest takes a second."""
    files = {"models.yaml": models(routes), "roles.yaml": roles(routes), "limits.yaml": limits(routes, rates)}
    return World({"groq": keys}, files=files, environ={"TIMEOUT_QUEUE_WAIT": "1"}).config()


class Prepared(World):
    """A world of *routes* routes, aliases and roles and of *keys* keys."""

    def __init__(self, routes: int, keys: int, rates: str, strategy: Strategy, faults: Iterable[Fault]) -> None:
        super().__init__({"groq": keys}, faults=faults)
        self._config = replace(config(routes, keys, rates), strategies={"groq": strategy})

    def config(self) -> Config:
        return self._config


def work(
    measure: Callable[[World], Coroutine[Any, Any, T]],
    *,
    few: int = 10,
    rates: str = "rpm: 1000",
    strategy: Strategy = "balanced",
    faults: Iterable[Fault] = (),
) -> tuple[T, T]:
    """What *measure* tells of a small configuration, with *few* keys, and of a large one."""

    async def main(routes: int, keys: int) -> T:
        async with Prepared(routes, keys, rates, strategy, faults) as world:
            return await measure(world)

    return virtual.run(lambda: main(FEW, few)), virtual.run(lambda: main(MANY, MANY_KEYS))


def call_of(name: str) -> Call:
    return read_call("chat", b'{"model":"%s","messages":[{"role":"user","content":"Hi"}]}' % name.encode(), {})


@pytest.mark.parametrize("strategy", ["balanced", "round_robin", "sequential", "weighted", "fastest"])
def test_a_call_costs_as_much_as_with_ten(strategy: Strategy) -> None:
    async def measure(world: World) -> dict[str, int]:
        found = {}
        for name in NAMES:
            for _ in range(3):
                assert (await world.chat(name)).status == 200
            with counted() as lines:
                for _ in range(10):
                    await world.chat(name)
            found[name] = lines.count
        return found

    # the small one has as many keys as `balanced` compares one by one at most: each pick of the large one does no more
    small, large = work(measure, few=64, strategy=strategy)
    for name in NAMES:
        assert small[name] > 500
        assert large[name] <= small[name] * NO_MORE, name


def test_a_name_that_was_never_asked_for_is_planned_at_the_same_cost() -> None:
    async def measure(world: World) -> dict[str, int]:
        found = {}
        catalog = world.gateway.lists.catalog
        for name in NAMES:
            call = call_of(name)
            with counted() as lines:
                resolve(call, Caller(), catalog)
            found[name] = lines.count
        return found

    small, large = work(measure)
    assert small == large
    assert min(small.values()) > 10


class Walked(dict[Any, Any]):
    """A mapping that notes whoever walks over it."""

    walks = 0

    def __iter__(self) -> Iterator[Any]:
        Walked.walks += 1
        return super().__iter__()

    def items(self) -> Any:
        Walked.walks += 1
        return super().items()

    def values(self) -> Any:
        Walked.walks += 1
        return super().values()

    def keys(self) -> Any:
        Walked.walks += 1
        return super().keys()


def test_planning_looks_names_up_and_never_walks_over_them() -> None:
    async def measure(world: World) -> int:
        catalog = world.gateway.lists.catalog
        walked: dict[str, Any] = {name: Walked(getattr(catalog, name)) for name in LOOKED_UP}
        watched = replace(catalog, plans={}, **walked)
        Walked.walks = 0
        for name in NAMES:
            assert resolve(call_of(name), Caller(), watched).deployments
        return Walked.walks

    assert work(measure) == (0, 0)


def test_a_pool_in_which_nearly_every_key_rests_costs_no_more() -> None:
    """Each resting key is found out once and then left alone until its time comes."""

    async def measure(world: World) -> int:
        for _ in range(60):
            if (await world.chat("model-7", timeout=0.01)).headers["x-keyturn-attempts"] == "1":
                break
        assert (await world.chat("model-7")).status == 200
        with counted() as lines:
            for _ in range(10):
                assert (await world.chat("model-7")).status == 200
        return lines.count

    good = "groq-secret-key-1"
    faults = [Fault(key=good, latency=0.0), Fault(error="rate_limited", wait=3000.0)]
    small, large = work(measure, faults=faults, strategy="round_robin")
    assert large <= small * NO_MORE


def test_a_refusal_when_every_key_is_at_its_limit_costs_no_more() -> None:
    async def measure(world: World) -> int:
        keys = len(world.gateway.config.credentials["groq"])
        for _ in range(keys):
            assert (await world.chat("model-7")).status == 200
        assert (await world.chat("model-7")).status == 429
        with counted() as lines:
            for _ in range(10):
                assert (await world.chat("model-7")).status == 429
        return lines.count

    small, large = work(measure, rates="rpm: 1")
    assert large <= small * NO_MORE


@pytest.mark.parametrize("patience", [10.0, 55.0])
def test_a_refusal_costs_hardly_more_where_many_callers_were_refused(patience: float) -> None:
    """Twice what the keys bear is mostly refusals: were each compared with every caller, that would be all it does."""

    async def lines_of(callers: int) -> float:
        async with Prepared(FEW, 10, "rpm: 30", "balanced", ()) as world:
            who = [Caller(name=f"c{number}") for number in range(callers)]
            for _ in range(300):
                assert (await world.chat("model-7")).status == 200
            for number in range(1500):  # each has a promise or two, some wait
                asked = world.chat("model-7", caller=who[number % callers], timeout=patience + number % 7)
                await asyncio.wait([asyncio.ensure_future(asked)], timeout=0)
            with counted() as lines:
                for number in range(100):
                    told = await world.chat("model-7", caller=who[number * 7 % callers], timeout=patience)
                    assert told.status == 429
            world.gateway.drain()
            return lines.count / 100

    few, many = virtual.run(lambda: lines_of(24)), virtual.run(lambda: lines_of(1200))
    assert many <= 2 * few, (few, many)


def test_a_chain_steps_over_what_is_spent_at_the_same_cost() -> None:
    async def measure(world: World) -> int:
        keys = len(world.gateway.config.credentials["groq"])
        for _ in range(keys):
            assert (await world.chat("model-1")).status == 200
        assert (await world.chat("chain")).headers["x-keyturn-model"] == "model-2"
        with counted() as lines:
            for _ in range(5):
                assert (await world.chat("chain")).headers["x-keyturn-model"] == "model-2"
        return lines.count

    small, large = work(measure, few=64, rates="rpm: 1")
    assert large <= small * NO_MORE


def test_every_key_of_the_500_gets_its_share() -> None:
    async def measure(world: World) -> int:
        keys = len(world.gateway.config.credentials["groq"])
        answers = await world.many("model-7", keys)
        assert {answer.status for answer in answers} == {200}
        return len({each.key for each in world.seen()})

    assert work(measure, rates="rpm: 1") == (10, MANY_KEYS)
