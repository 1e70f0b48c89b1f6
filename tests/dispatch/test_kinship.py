"""Keys that share a quota without having been declared: the gateway finds out, tells, and treats them as one group."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

import pytest

from keyturn.config import DataFolder
from keyturn.core import Kin
from keyturn.dispatch import Alarm
from keyturn.simulator import KeyRule
from keyturn.simulator.limiters import Kind
from tests.support import virtual
from tests.support.world import World

GEMINI = "gemini/gemini-2.5-flash"
GPT = "openai/gpt-4o-mini"
TWO = [KeyRule(rpm=10, project="one")] * 2
FREELY = {"USE_PAID_MODELS": "true"}
Story = Callable[[World], Coroutine[Any, Any, Any]]


@pytest.fixture(autouse=True)
def same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("judging", "reserving"):
        monkeypatch.setattr(f"keyturn.dispatch.{name}.draw", virtual.seeded(7))


def play(story: Story, pool: dict[str, Any], **options: Any) -> None:
    environ = FREELY | options.pop("environ", {})

    async def main() -> None:
        async with World(pool, environ=environ, latency=0.3, **options) as world:
            await story(world)

    virtual.run(main)


def watched(world: World) -> list[str]:
    alarms: list[str] = []
    world.gateway.events.subscribe(lambda event: alarms.append(event.text) if isinstance(event, Alarm) else None)
    return alarms


def groups(world: World, provider: str = "gemini") -> int:
    """How many quota groups the keys are in."""
    return len({each.group for each in world.gateway.config.credentials[provider]})


async def arrive(world: World, model: str, moments: Iterable[float], until: Callable[[], bool]) -> int:
    """Calls at *moments* from now; how many there were when *until* held, or all."""
    start, calls, count = world.clock.mono() + 7, [], 0
    for moment in moments:
        await world.clock.sleep_until(start + moment)
        if until():
            break
        count += 1
        calls.append(asyncio.create_task(world.chat(model)))
    await asyncio.gather(*calls)
    return count


def steady(rpm: int) -> list[float]:
    return [each * 60 / (1.6 * rpm) for each in range(200)]


def bursts(rpm: int) -> list[float]:
    size = int(1.6 * rpm)
    return [each // size * 70.0 for each in range(200)]


async def found(world: World, model: str = GEMINI, moments: Iterable[float] = (), rpm: int = 10) -> None:
    alarms = watched(world)
    await arrive(world, model, moments or steady(rpm), lambda: bool(alarms))
    assert len(alarms) == 1, "not found"


@pytest.mark.parametrize("moments", [steady, bursts], ids=["steady", "bursts"])
@pytest.mark.parametrize("model", [GEMINI, GPT], ids=["limits unknown", "limits in headers"])
def test_two_keys_of_one_project_are_found_within_200_calls(model: str, moments: Callable[[int], list[float]]) -> None:
    provider = model.partition("/")[0]

    async def story(world: World) -> None:
        assert groups(world, provider) == 2
        alarms = watched(world)
        calls = await arrive(world, model, moments(10), lambda: bool(alarms))
        assert calls < 200
        assert groups(world, provider) == 1
        (alarm,) = alarms
        assert f"{provider}-1:" in alarm
        assert f"{provider}-2:" in alarm
        assert "More keys of that account do not help" in alarm
        assert "secret" not in alarm
        (told,) = world.gateway.adapting.groups()
        assert told["state"] == "inferred"
        assert told["evidence"]

    play(story, {provider: TWO})


GROQ = "groq/llama-3.1-8b-instant"
MISTRAL = "mistral/mistral-small-latest"
DEEPSEEK = "deepseek/deepseek-chat"
WHOLE = "each key declared with the whole limit"
IN_ORDER = "one after the other"


def waves(size: int, every: float) -> list[float]:
    """Calls that come *size* at a time."""
    return [each // size * every for each in range(400)]


def evenly(calls: float) -> list[float]:
    """So many calls a minute."""
    return [each * 60 / calls for each in range(400)]


@pytest.mark.parametrize(
    ("model", "kind", "rpm", "moments", "how"),
    [
        (GROQ, "rolling", 8, evenly(15), ()),
        (GROQ, "rolling", 5, evenly(6), (WHOLE, IN_ORDER)),
        (GROQ, "rolling", 20, evenly(36), (WHOLE,)),
        (GROQ, "rolling", 30, waves(90, 75), ()),
        (GEMINI, "fixed", 30, waves(90, 60), (WHOLE, IN_ORDER)),
        (GEMINI, "fixed", 30, evenly(57), ()),
        (DEEPSEEK, "bucket", 15, evenly(36), (IN_ORDER,)),
        (GPT, "bucket", 8, evenly(15), (IN_ORDER,)),
        (MISTRAL, "rolling", 20, waves(26, 60), ()),
    ],
)
def test_the_worst_of_many_loads_tell_within_200_calls(
    model: str, kind: Kind, rpm: int, moments: list[float], how: tuple[str, ...]
) -> None:
    provider = model.partition("/")[0]
    environ = {f"LIMITS_{provider.upper()}": f"rpm={rpm}"} if WHOLE in how else {}
    if IN_ORDER in how:
        environ[f"ROTATION_MODE_{provider.upper()}"] = "sequential"

    async def story(world: World) -> None:
        alarms = watched(world)
        before: list[int] = []

        def told() -> bool:
            if not world.upstream.own_429:
                before.append(1)
            return bool(alarms)

        calls = await arrive(world, model, moments, told)
        assert alarms, "not found"
        assert calls - len(before) < 200, "calls from the first 429 on"
        assert groups(world, provider) == 1

    play(story, {provider: [KeyRule(rpm=rpm, project="one", limiter=kind)] * 2}, environ=environ)


@pytest.mark.parametrize("model", [GROQ, GEMINI, GPT])
def test_two_pairs_are_told_from_each_other(model: str) -> None:
    provider = model.partition("/")[0]

    async def story(world: World) -> None:
        await arrive(world, model, evenly(32), lambda: groups(world, provider) == 2)
        one, two, three, four = (each.group for each in world.gateway.config.credentials[provider])
        assert one == two != three == four

    play(story, {provider: [KeyRule(rpm=10, project=each) for each in ("one", "one", "two", "two")]})


@pytest.mark.parametrize("model", [GROQ, GEMINI, DEEPSEEK])
def test_independent_keys_that_are_always_overloaded_stay_apart(model: str) -> None:
    provider = model.partition("/")[0]

    async def story(world: World) -> None:
        await arrive(world, model, evenly(50)[:220], lambda: False)
        assert groups(world, provider) == 2
        assert world.upstream.own_429 > 1

    play(story, {provider: [KeyRule(rpm=10)] * 2})


def test_three_keys_that_are_found_to_share_at_once_become_one_group() -> None:
    async def story(world: World) -> None:
        one, two, three = (each.fingerprint for each in world.gateway.config.credentials["gemini"])
        kindred = world.gateway.adapting.kindred
        kindred._take(
            [Kin("gemini", one, two, ("{one} as {other}",)), Kin("gemini", two, three, ("{one} as {other}",))]
        )
        await virtual.idle()
        assert groups(world) == 1
        (told,) = world.gateway.adapting.groups()
        assert len(told["keys"]) == 3  # type: ignore[arg-type]
        assert len(told["evidence"]) == 2  # type: ignore[arg-type]

    play(story, {"gemini": 3})


def test_reloads_while_somebody_is_suspected_leave_no_pool_behind() -> None:
    async def story(world: World) -> None:
        kindred = world.gateway.adapting.kindred
        leads = 0
        for moment in range(40):
            await arrive(world, GEMINI, [each * 0.5 for each in range(12)], lambda: False)
            world.files["models.yaml"] = f"aliases: {{ m{moment}: [{GEMINI}] }}"
            world.gateway.adopt(world.config())
            leads = max(leads, *(len(each) for each in kindred._led.values()), 0)
        assert leads == 1

    play(story, {"gemini": TWO}, environ={"LEARNING_GROUPS": "suggest"})


def test_of_three_keys_only_those_two_that_share_become_one_group() -> None:
    async def story(world: World) -> None:
        alarms = watched(world)
        await arrive(world, GEMINI, [each * 60 / 30 for each in range(400)], lambda: False)
        assert len(alarms) == 1
        one, two, three = world.gateway.config.credentials["gemini"]
        assert one.group == two.group != three.group

    play(story, {"gemini": [*TWO, KeyRule(rpm=10)]})


def test_independent_keys_that_run_out_together_stay_apart() -> None:
    async def story(world: World) -> None:
        alarms = watched(world)
        await arrive(world, GEMINI, [each // 32 * 70.0 for each in range(320)], lambda: False)
        assert (alarms, groups(world)) == ([], 2)
        assert world.upstream.own_429 > 20

    # Else the first refusals, which name the limit, would be the last ones.
    play(story, {"gemini": [KeyRule(rpm=10)] * 2}, environ={"LEARNING_ENABLED": "false"})


def test_afterwards_one_429_rests_both_and_nobody_is_watched() -> None:
    async def story(world: World) -> None:
        await found(world)
        await world.clock.sleep_until(world.clock.mono() + 1000)
        assert "kinship" not in world.gateway.adapting.alert
        before = world.upstream.own_429
        await world.many(GEMINI, 11, timeout=1)
        assert world.upstream.own_429 - before <= 1, "the other key was asked as well"

    play(story, {"gemini": TWO})


def test_what_was_used_of_each_counts_for_both() -> None:
    async def story(world: World) -> None:
        for _ in range(3):
            await world.many(GPT, 2)
        one, two = world.gateway.config.credentials["openai"]
        kindred = world.gateway.adapting.kindred
        from keyturn.core import Kin

        kindred._believe(Kin("openai", one.group, two.group, ("{one} and {other}",)))
        row = next(row for row in world.gateway.keys()[0]["limits"] if row["metric"] == "requests")  # type: ignore[attr-defined]
        assert (row["capacity"], row["used"]) == (10, 6)
        assert groups(world, "openai") == 1

    play(story, {"openai": TWO}, environ={"LIMITS_OPENAI": "rpm=10"})


@pytest.mark.parametrize("environ", [{"QUOTA_GROUP_GEMINI": "1;2"}, {"LEARNING_GROUPS": "off"}])
def test_what_the_owner_said_is_left_alone(environ: dict[str, str]) -> None:
    async def story(world: World) -> None:
        alarms = watched(world)
        await arrive(world, GEMINI, steady(10), lambda: False)
        assert (alarms, groups(world)) == ([], 2)

    play(story, {"gemini": TWO}, environ=environ)


def test_it_may_be_told_only() -> None:
    async def story(world: World) -> None:
        alarms = watched(world)
        await arrive(world, GEMINI, steady(10), lambda: False)
        (alarm,) = alarms
        assert "declare it with QUOTA_GROUP_<P>" in alarm
        assert groups(world) == 2
        assert [row["state"] for row in world.gateway.adapting.groups()] == ["suggested"]

    play(story, {"gemini": TWO}, environ={"LEARNING_GROUPS": "suggest"})


def test_it_outlives_a_restart_and_a_reload_and_ends_with_the_key(tmp_path: Path) -> None:
    async def finds(world: World) -> None:
        await found(world)
        world.gateway.adopt(world.config())
        assert groups(world) == 1

    async def knows(world: World) -> None:
        assert groups(world) == 1
        await found_nothing(world)

    async def found_nothing(world: World) -> None:
        alarms = watched(world)
        await arrive(world, GEMINI, steady(10), lambda: False)
        assert alarms == []

    async def has_another_key(world: World) -> None:
        assert groups(world) == 2
        assert world.gateway.adapting.groups() == []

    play(finds, {"gemini": TWO}, folder=DataFolder(tmp_path))
    written = (tmp_path / "quota_groups.json").read_text()
    assert "secret" not in written
    play(knows, {"gemini": TWO}, folder=DataFolder(tmp_path))

    async def main() -> None:
        world = World({"gemini": TWO}, folder=DataFolder(tmp_path), environ=FREELY)
        first, second = world.rules["gemini"].items()
        world.rules["gemini"] = {first[0]: first[1], f"another-{second[0]}": second[1]}
        async with world:
            await has_another_key(world)

    virtual.run(main)
    assert json.loads((tmp_path / "quota_groups.json").read_text())["groups"] == []


def test_the_owner_takes_them_apart_for_good(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await found(world)
        one, two = world.gateway.config.credentials["gemini"]
        assert set(world.gateway.adapting.ungroup([two.fingerprint])) == {one.fingerprint, two.fingerprint}
        assert groups(world) == 2
        alarms = watched(world)
        await arrive(world, GEMINI, steady(10), lambda: False)
        assert (alarms, groups(world)) == ([], 2)

    async def later(world: World) -> None:
        alarms = watched(world)
        await arrive(world, GEMINI, steady(10), lambda: False)
        assert (alarms, groups(world)) == ([], 2)

    play(story, {"gemini": TWO}, folder=DataFolder(tmp_path))
    play(later, {"gemini": TWO}, folder=DataFolder(tmp_path))


def test_a_broken_file_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "quota_groups.json").write_text('{"groups": [{"keys": 3}, 7], "apart": "x"}')

    async def story(world: World) -> None:
        assert groups(world) == 2
        assert (await world.chat(GEMINI)).status == 200

    play(story, {"gemini": TWO}, folder=DataFolder(tmp_path))


def test_one_that_is_wrong_leaves_the_rest_of_the_group_together() -> None:
    from keyturn.dispatch.kept_groups import Known, Remembered

    remembered = Remembered([Known("gemini", ("a", "b", "c"), 0.0, ("why",))], [])
    assert [each.keys for each in remembered.refuse(["b"])] == [("a", "b", "c")]
    assert [each.keys for each in remembered.groups] == [("a", "c")]
    assert remembered.forbids("gemini", ("a", "b"))
    assert remembered.forbids("gemini", ("b", "c"))
    assert not remembered.forbids("gemini", ("a", "c"))
