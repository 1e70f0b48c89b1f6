"""A gateway that is started again: what must come back, what must not, and what a killed one loses."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from keyturn.config import DataFolder
from keyturn.core import MONTH, Limit, Transition, Verdict, Window, nano
from keyturn.dispatch import Alarm, Gateway
from keyturn.errors import ConfigError, StoreAway
from keyturn.stores import JournaledLedger, UsageQuery, UsageRow, look_at_snapshot
from tests.support import virtual
from tests.support.world import World

MODEL = "groq/llama-3.1-8b-instant"
LIMITED = {"LIMITS_GROQ": "rpm=10,tpm=5000,rpd=50"}
Story = Callable[[World], Awaitable[object]]


def use(
    path: Path,
    story: Story,
    pool: dict[str, Any] | None = None,
    *,
    killed: bool = False,
    shift: float = 0.0,
    start_wall: float = virtual.START_WALL,
    **more: Any,
) -> None:
    """Run *story* in a gateway on the data folder *path*, which is then closed, or *killed*: no more is written."""

    async def main() -> None:
        world = World(pool or {"groq": 2}, folder=DataFolder(path), **more)
        world.clock.wall_shift = shift
        await world.__aenter__()
        try:
            await story(world)
        finally:
            if killed:
                forget(world.gateway)
            else:
                await world.__aexit__()

    virtual.run(main, start_wall=start_wall)


def forget(gateway: Gateway) -> None:
    """End the process of *gateway*, as far as the data folder can tell."""
    restoring = gateway.restoring
    assert restoring is not None
    for timer in (restoring._timer, restoring._soon):
        if timer is not None:
            timer.cancel()
    for task in asyncio.all_tasks():
        if task is not asyncio.current_task():
            task.cancel()
    gateway.ledger.abandon()
    restoring.abandon()


async def later(world: World, seconds: float) -> None:
    await world.clock.sleep_until(world.clock.mono() + seconds)


def cool(world: World, scope: tuple[str, ...], state: Any, seconds: float, reason: str) -> None:
    now = world.clock.mono()
    world.gateway.cool(Verdict([Transition(scope, state, now + seconds, reason, 2, now)]), None)


def key_of(world: World, number: int = 0, provider: str = "groq") -> Any:
    return world.gateway.config.credentials[provider][number]


def marks(world: World) -> dict[tuple[str, ...], tuple[str, float, str, int]]:
    now = world.clock.mono()
    return {
        each.scope: (each.state, round(each.until - now, 1), each.reason, each.strikes)
        for each in world.gateway.marks.of("groq")
    }


def used(world: World, metric: str, seconds: float, number: int = 0) -> int:
    scope = f"groq/{key_of(world, number).group}|llama-3.1-8b-instant"
    found = [
        each
        for each in world.gateway.live.view(0.0).snapshot(scope, world.clock.mono())
        if each.metric == metric and each.window.seconds == seconds
    ]
    return found[0].used if found else 0


def total(world: World, metric: str, seconds: float) -> int:
    return sum(used(world, metric, seconds, number) for number in range(2))


# --- marks


@pytest.mark.parametrize("killed", [False, True], ids=["closed", "killed"])
def test_what_stands_against_keys_comes_back_and_what_is_brief_does_not(tmp_path: Path, killed: bool) -> None:
    async def first(world: World) -> None:
        one, other = key_of(world).fingerprint, key_of(world, 1)
        cool(world, ("key", "groq", one), "invalid", 86_400.0, "invalid_key")
        cool(world, ("group_model", "groq", other.group, "m"), "exhausted", 40_000.0, "daily_quota")
        cool(world, ("key_model", "groq", other.fingerprint, "m"), "unentitled", float("inf"), "forbidden")
        cool(world, ("key_model", "groq", one, "m"), "cooling", 4.0, "server_error")
        cool(world, ("key_model", "groq", one, "n"), "counting", 0.0, "server_error")
        cool(world, ("deployment", "groq", "m"), "cooling", 60.0, "overloaded")
        await later(world, 0.3)

    async def second(world: World) -> None:
        one, other = key_of(world).fingerprint, key_of(world, 1)
        assert marks(world) == {
            ("key", "groq", one): ("invalid", 86_399.7, "invalid_key", 2),
            ("group_model", "groq", other.group, "m"): ("exhausted", 39_999.7, "daily_quota", 2),
            ("key_model", "groq", other.fingerprint, "m"): ("unentitled", 86_400.0, "forbidden", 2),
            ("deployment", "groq", "m"): ("cooling", 59.7, "overloaded", 2),
        }

    use(tmp_path, first, killed=killed)
    use(tmp_path, second, start_wall=virtual.START_WALL + 0.3)


def test_time_goes_on_while_the_gateway_is_down(tmp_path: Path) -> None:
    async def first(world: World) -> None:
        cool(world, ("deployment", "groq", "m"), "cooling", 60.0, "overloaded")
        cool(world, ("key", "groq", key_of(world).fingerprint), "invalid", 86_400.0, "invalid_key")
        await later(world, 1.0)  # the second run's monotonic clock is behind: the machine was started anew

    async def second(world: World) -> None:
        assert marks(world)["key", "groq", key_of(world).fingerprint][:2] == ("invalid", 86_400.0 - 600.0)
        assert world.gateway.marks.blocked([("deployment", "groq", "m")], world.clock.mono()) is None

    use(tmp_path, first)
    use(tmp_path, second, start_wall=virtual.START_WALL + 600.0)


@pytest.mark.parametrize("shift", [-3600.0, -86_400.0, -400 * 86_400.0])
def test_a_wall_clock_that_went_back_keeps_nothing_longer_than_it_had_left(tmp_path: Path, shift: float) -> None:
    async def first(world: World) -> None:
        cool(world, ("deployment", "groq", "m"), "cooling", 60.0, "overloaded")
        await later(world, 20.0)

    async def second(world: World) -> None:
        assert marks(world)["deployment", "groq", "m"][1] == 40.0

    use(tmp_path, first)
    use(tmp_path, second, shift=shift)


def test_a_wall_clock_that_was_set_ahead_frees_no_invalid_key_while_the_machine_runs_on(tmp_path: Path) -> None:
    """Two gateways in one run of the machine: the monotonic clock says that hardly any time has passed."""

    async def main() -> None:
        async with World({"groq": 2}, folder=DataFolder(tmp_path)) as world:
            cool(world, ("key", "groq", key_of(world).fingerprint), "invalid", 86_400.0, "invalid_key")
        world = World({"groq": 2}, folder=DataFolder(tmp_path))
        world.clock.wall_shift = 3 * 86_400.0
        async with world:
            assert marks(world)["key", "groq", key_of(world).fingerprint][:2] == ("invalid", 86_400.0)

    virtual.run(main)


def test_a_changed_key_starts_fresh_and_the_others_keep_what_they_had(tmp_path: Path) -> None:
    async def first(world: World) -> None:
        for number in range(2):
            cool(world, ("key", "groq", key_of(world, number).fingerprint), "invalid", 86_400.0, "invalid_key")
        for _ in range(6):
            await world.chat(MODEL)

    async def second(world: World) -> None:
        assert list(marks(world)) == [("key", "groq", key_of(world).fingerprint)]
        assert used(world, "requests", 60.0, 1) == 0

    use(tmp_path, first, environ=LIMITED)
    use(tmp_path, second, environ={**LIMITED, "GROQ_API_KEY_2": "another-secret-key"})


def test_a_cleared_mark_does_not_come_back(tmp_path: Path) -> None:
    async def first(world: World) -> None:
        cool(world, ("key", "groq", key_of(world).fingerprint), "invalid", 86_400.0, "invalid_key")
        await later(world, 0.5)
        assert world.gateway.reset(None) == [key_of(world).shown]
        await later(world, 0.5)

    async def second(world: World) -> None:
        assert marks(world) == {}

    use(tmp_path, first, killed=True)
    use(tmp_path, second)


def test_a_disabled_key_is_told_by_its_own_file_alone(tmp_path: Path) -> None:
    async def first(world: World) -> None:
        world.gateway.disable("groq-1")
        await later(world, 0.5)

    async def second(world: World) -> None:
        assert marks(world) == {}

    use(tmp_path, first)
    use(tmp_path, second)


# --- what is used


@pytest.mark.parametrize("killed", [False, True], ids=["closed", "killed"])
def test_the_windows_go_on_where_they_were(tmp_path: Path, killed: bool) -> None:
    seen: dict[str, int] = {}

    async def first(world: World) -> None:
        for _ in range(20):
            assert (await world.chat(MODEL)).status == 200
        assert (await world.chat(MODEL, timeout=0.5)).status == 429
        seen.update(tokens=total(world, "tokens", 60.0))
        await later(world, 1.5)

    async def second(world: World) -> None:
        assert total(world, "requests", 60.0) == 20
        assert total(world, "requests", 86_400.0) == 20
        assert total(world, "tokens", 60.0) == seen["tokens"] > 0
        assert (await world.chat(MODEL, timeout=0.5)).status == 429
        await later(world, 61.0)
        assert total(world, "requests", 60.0) == 0
        assert total(world, "requests", 86_400.0) == 20

    use(tmp_path, first, environ=LIMITED, killed=killed)
    use(tmp_path, second, environ=LIMITED, start_wall=virtual.START_WALL + 1.5)


def test_attempts_of_the_last_moments_before_a_kill_are_charged_from_the_ledger(tmp_path: Path) -> None:
    seen: dict[str, int] = {}

    async def first(world: World) -> None:
        await later(world, 1.01)  # just after a look at what changed
        for _ in range(7):
            assert (await world.chat(MODEL)).status == 200
        assert world.clock.mono() < virtual.START_MONO + 1.9
        kept = look_at_snapshot(tmp_path)
        assert kept is not None
        assert [each for each in kept.uses if "requests" in each.key] == []
        await world.gateway.ledger.flush()
        seen.update(tokens=total(world, "tokens", 60.0))

    async def second(world: World) -> None:
        assert total(world, "requests", 60.0) == 7
        assert total(world, "requests", 86_400.0) == 7
        assert total(world, "tokens", 60.0) >= seen["tokens"] > 0

    use(tmp_path, first, environ=LIMITED, killed=True)
    use(tmp_path, second, environ=LIMITED, start_wall=virtual.START_WALL + 2.0)


def test_they_are_charged_also_when_the_clock_was_set_back_meanwhile(tmp_path: Path) -> None:
    async def first(world: World) -> None:
        await later(world, 1.01)
        for _ in range(7):
            assert (await world.chat(MODEL)).status == 200
        await world.gateway.ledger.flush()

    async def second(world: World) -> None:
        assert total(world, "requests", 86_400.0) == 7

    use(tmp_path, first, environ=LIMITED, killed=True)
    use(tmp_path, second, environ=LIMITED, start_wall=virtual.START_WALL + 2.0, shift=-3600.0)


def test_a_ledger_that_cannot_be_asked_at_the_start_costs_the_last_moment_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def first(world: World) -> None:
        cool(world, ("deployment", "groq", "m"), "cooling", 600.0, "overloaded")
        assert (await world.chat(MODEL)).status == 200
        await later(world, 1.5)
        assert (await world.chat(MODEL)).status == 200

    async def second(world: World) -> None:
        assert list(marks(world)) == [("deployment", "groq", "m")]
        assert total(world, "requests", 86_400.0) == 1
        assert "are not counted again: no database" in caplog.text

    async def away(ledger: JournaledLedger, query: UsageQuery) -> Sequence[UsageRow]:
        raise StoreAway("no database")

    use(tmp_path, first, environ=LIMITED, killed=True)
    monkeypatch.setattr(JournaledLedger, "usage", away)
    use(tmp_path, second, environ=LIMITED, start_wall=virtual.START_WALL + 2.0)


def test_what_a_killed_gateway_had_under_way_counts_as_it_was_reserved(tmp_path: Path) -> None:
    async def first(world: World) -> None:
        calls = [asyncio.ensure_future(world.chat(MODEL, max_tokens=100)) for _ in range(3)]
        await later(world, 3.0)
        assert world.held() == 3
        for each in calls:
            each.cancel()
        kept = look_at_snapshot(tmp_path)
        assert kept is not None
        assert {each.key.split(" ")[0] for each in kept.uses} == {"requests", "tokens"}

    async def second(world: World) -> None:
        assert used(world, "requests", 60.0) == 3
        assert used(world, "tokens", 60.0) >= 3

    use(tmp_path, first, {"groq": 1}, environ=LIMITED, killed=True, latency=30.0)
    use(tmp_path, second, {"groq": 1}, environ=LIMITED, start_wall=virtual.START_WALL + 3.0)


def test_a_callers_own_limit_goes_on_too(tmp_path: Path) -> None:
    files = {"callers.yaml": f"hasty: {{ key_hash: 'sha256:{hashlib.sha256(b'kt-hasty').hexdigest()}', rpm: 2 }}"}

    async def ask(world: World) -> int:
        (caller,) = world.gateway.config.callers.values()
        return (await world.chat(MODEL, caller=caller, timeout=0.5)).status

    async def first(world: World) -> None:
        assert [await ask(world) for _ in range(3)] == [200, 200, 429]

    async def second(world: World) -> None:
        assert await ask(world) == 429
        await later(world, 61.0)
        assert await ask(world) == 200

    use(tmp_path, first, files=files, killed=True)
    use(tmp_path, second, files=files)


def test_reported_limits_come_back_with_their_age(tmp_path: Path) -> None:
    window = Window("rolling", 60.0)

    async def first(world: World) -> None:
        scope = f"groq/{key_of(world).group}|m"
        assert world.gateway.live.report(scope, "requests", window, 30, world.clock.mono(), 28)
        await later(world, 2.0)

    async def second(world: World) -> None:
        scope = f"groq/{key_of(world).group}|m"
        (limit,) = world.gateway.live.limits(scope)
        assert (limit.capacity, limit.source) == (30, "reported")
        world.gateway.live.reserve("any", [], world.clock.mono()).close()  # type: ignore[union-attr]
        assert world.gateway.live.limits(scope)
        await later(world, 90.0)
        world.gateway.live.reserve("other", [], world.clock.mono()).close()  # type: ignore[union-attr]
        assert world.gateway.live.limits(scope) == ()

    use(tmp_path, first, killed=True)
    use(tmp_path, second, start_wall=virtual.START_WALL + 86_400.0 - 60.0)


def test_a_counter_at_rest_is_not_written(tmp_path: Path) -> None:
    async def first(world: World) -> None:
        for _ in range(4):
            await world.chat(MODEL)
        await later(world, 1.5)
        kept = look_at_snapshot(tmp_path)
        assert kept is not None
        assert len(kept.uses) == 4  # requests and tokens, of two keys
        await later(world, 120.0)

    use(tmp_path, first, environ={"LIMITS_GROQ": "rpm=10,tpm=5000"})
    kept = look_at_snapshot(tmp_path)
    assert kept is not None
    assert (kept.uses, kept.head.clean) == ([], True)


def test_a_fair_cycle_goes_on(tmp_path: Path) -> None:
    environ = {"FAIR_CYCLE_GROQ": "true"}

    async def first(world: World) -> None:
        await world.chat(MODEL)
        cool(world, ("key", "groq", key_of(world).fingerprint), "exhausted", 4000.0, "daily_quota")
        for _ in range(4):
            await world.chat(MODEL)
        cycles = world.gateway.rotations
        assert [cycle.spent for cycle in cycles._cycles.values()] == [{key_of(world).fingerprint}]
        await later(world, 1.5)

    async def second(world: World) -> None:
        (cycle,) = world.gateway.rotations._cycles.values()
        assert cycle.spent == {key_of(world).fingerprint}

    use(tmp_path, first, environ=environ, killed=True)
    use(tmp_path, second, environ=environ, start_wall=virtual.START_WALL + 2.0)


def test_a_changed_custom_cap_ends_the_rests_of_the_old_one(tmp_path: Path) -> None:
    async def first(world: World) -> None:
        scope = ("key_model", "groq", key_of(world).fingerprint, "m")
        until = world.clock.mono() + 3600.0
        world.gateway.cool(Verdict([Transition(scope, "cooling", until, "custom_cap", 0, until)]), None)

    async def same(world: World) -> None:
        assert len(marks(world)) == 1

    async def other(world: World) -> None:
        assert marks(world) == {}

    caps = {"CUSTOM_CAP_GROQ": "requests=100/day"}
    use(tmp_path, first, environ=caps)
    use(tmp_path, same, environ=caps)
    use(tmp_path, other, environ={"CUSTOM_CAP_GROQ": "requests=50/day"})


# --- money


def test_spend_json_is_taken_into_the_ledger_once_and_set_aside(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    folder.write_spent("2026-03", {"role/senior": nano(2.5)})
    budget = Limit("role/senior", "cost", MONTH, nano(10.0), owner="caller")

    async def spent(world: World) -> None:
        world.gateway.carried.take_over([budget])
        assert world.gateway.live.view(0.0).row(budget, world.clock.mono()).used == nano(2.5)

    use(tmp_path, spent)
    assert not (tmp_path / "spend.json").exists()
    assert json.loads((tmp_path / "spend.json.migrated").read_text())["usd"] == {"role/senior": 2.5}
    use(tmp_path, spent)
    (tmp_path / "spend.json").write_bytes((tmp_path / "spend.json.migrated").read_bytes())
    use(tmp_path, spent)


def test_a_broken_spend_json_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "spend.json").write_text("half of it")

    async def never(world: World) -> None:
        raise AssertionError

    with pytest.raises(ConfigError, match=r"spend\.json.*mend it, or remove it"):
        use(tmp_path, never)


def test_without_a_ledger_the_spend_stays_in_its_file_and_live_state_comes_back_all_the_same(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    folder.write_spent("2026-03", {"role/senior": nano(2.5)})

    async def first(world: World) -> None:
        assert not world.gateway.ledger.keeps
        cool(world, ("deployment", "groq", "m"), "cooling", 60.0, "overloaded")
        await world.chat(MODEL)

    async def second(world: World) -> None:
        assert list(marks(world)) == [("deployment", "groq", "m")]
        assert total(world, "requests", 60.0) == 1

    environ = {**LIMITED, "LEDGER_ENABLED": "false"}
    use(tmp_path, first, environ=environ)
    use(tmp_path, second, environ=environ)
    assert folder.spent("2026-03") == {"role/senior": nano(2.5)}


# --- clocks, files


@pytest.mark.parametrize("step", [-3600.0, 86_400.0, 2.5])
def test_a_wall_clock_that_is_set_is_told_and_no_cooldown_changes(tmp_path: Path, step: float) -> None:
    async def first(world: World) -> None:
        told: list[str] = []
        world.gateway.events.subscribe(lambda event: told.append(event.text) if isinstance(event, Alarm) else None)
        cool(world, ("deployment", "groq", "m"), "cooling", 600.0, "overloaded")
        await world.chat(MODEL)
        world.clock.wall_shift += step
        world.gateway.keep_time()
        (said,) = told
        assert f"set by {step:+.0f} s" in said
        assert marks(world)["deployment", "groq", "m"][1] == pytest.approx(600.0, abs=5.0)
        await later(world, 1.5)

    async def second(world: World) -> None:
        assert marks(world)["deployment", "groq", "m"][1] == pytest.approx(598.0, abs=5.0)
        assert total(world, "requests", 60.0) == 1

    use(tmp_path, first, environ=LIMITED, killed=True)
    use(tmp_path, second, environ=LIMITED, shift=step, start_wall=virtual.START_WALL + 2.0)


def test_a_clock_that_is_slewed_is_not_a_step(tmp_path: Path) -> None:
    async def first(world: World) -> None:
        told: list[object] = []
        world.gateway.events.subscribe(told.append)
        for _ in range(20):
            world.clock.wall_shift += 0.0005
            world.gateway.keep_time()
        assert told == []

    use(tmp_path, first)


def test_rows_that_cannot_be_read_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def first(world: World) -> None:
        cool(world, ("deployment", "groq", "m"), "cooling", 60.0, "overloaded")

    async def second(world: World) -> None:
        assert list(marks(world)) == [("deployment", "groq", "m")]

    use(tmp_path, first)
    connection = sqlite3.connect(tmp_path / "state.sqlite")
    for kind, value in [("mark", '["half'), ("use", "[1]"), ("mark", '[["key"],"cooling",1,"",1,1]')]:
        connection.execute("INSERT INTO live_state VALUES (?, ?, ?)", (kind, f"broken {value}", value))
    connection.execute("INSERT INTO live_state VALUES ('use', 'z', '[\"what is this\",1,2,[],0]')")
    connection.commit()
    connection.close()
    use(tmp_path, second)
    assert "2 rows of the snapshot of live state cannot be read" in caplog.text


def test_a_name_that_cannot_be_written_costs_nothing_else(tmp_path: Path) -> None:
    async def first(world: World) -> None:
        cool(world, ("deployment", "groq", "half \ud800"), "cooling", 60.0, "overloaded")
        cool(world, ("deployment", "groq", "m"), "cooling", 60.0, "overloaded")
        await later(world, 1.5)

    async def second(world: World) -> None:
        assert list(marks(world)) == [("deployment", "groq", "m")]

    use(tmp_path, first, killed=True)
    use(tmp_path, second)


def test_a_file_that_another_program_holds_does_not_keep_the_gateway_from_starting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def first(world: World) -> None:
        cool(world, ("deployment", "groq", "m"), "cooling", 600.0, "overloaded")

    holder = sqlite3.connect(tmp_path / "state.sqlite", isolation_level=None)

    async def second(world: World) -> None:
        assert "cannot be used; it is tried again" in caplog.text
        assert list(marks(world)) == [("deployment", "groq", "m")], "reading needs no lock"
        holder.execute("ROLLBACK")
        await later(world, 2.0)
        assert (await world.chat(MODEL)).status == 200

    use(tmp_path, first)
    monkeypatch.setattr("keyturn.stores.sqlite_file.BUSY", 0.0)
    holder.execute("BEGIN IMMEDIATE")
    use(tmp_path, second)
    holder.close()


def test_what_cannot_be_read_at_the_start_is_taken_over_later_and_not_overwritten(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def first(world: World) -> None:
        cool(world, ("deployment", "groq", "m"), "cooling", 600.0, "overloaded")
        for _ in range(6):
            await world.chat(MODEL)

    def hold() -> sqlite3.Connection:
        holder = sqlite3.connect(tmp_path / "state.sqlite", isolation_level=None)
        holder.execute("PRAGMA locking_mode = EXCLUSIVE")
        holder.execute("BEGIN EXCLUSIVE")
        return holder

    async def held_to_the_end(world: World) -> None:
        assert marks(world) == {}
        cool(world, ("deployment", "groq", "n"), "cooling", 600.0, "overloaded")
        await later(world, 2.5)

    async def second(world: World) -> None:
        assert marks(world) == {}
        cool(world, ("deployment", "groq", "n"), "cooling", 600.0, "overloaded")
        for _ in range(2):
            assert (await world.chat(MODEL)).status == 200
        await later(world, 2.5)
        holders.pop().close()
        await later(world, 2.5)
        assert {scope[2] for scope in marks(world)} == {"m", "n"}
        assert total(world, "requests", 60.0) == 8

    async def third(world: World) -> None:
        assert {scope[2] for scope in marks(world)} == {"m", "n"}
        assert total(world, "requests", 60.0) == 8

    use(tmp_path, first, environ=LIMITED)
    monkeypatch.setattr("keyturn.stores.sqlite_file.BUSY", 0.0)
    holders = [hold()]
    use(tmp_path, held_to_the_end, environ=LIMITED)
    assert "the snapshot of live state could not be written at the end" in caplog.text
    use(tmp_path, second, environ=LIMITED, killed=True)
    monkeypatch.undo()
    use(tmp_path, third, environ=LIMITED, start_wall=virtual.START_WALL + 5.0)


def test_no_secret_is_in_any_file(tmp_path: Path) -> None:
    async def first(world: World) -> None:
        cool(world, ("key", "groq", key_of(world).fingerprint), "invalid", 86_400.0, "invalid_key")
        await world.chat(MODEL)

    use(tmp_path, first, environ=LIMITED)
    files = [each for each in tmp_path.rglob("*") if each.is_file()]
    assert files
    assert not [each for each in files if b"secret-key" in each.read_bytes()]


def test_a_snapshot_that_cannot_be_written_is_tried_again_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def first(world: World) -> None:
        holder = sqlite3.connect(tmp_path / "state.sqlite", isolation_level=None)
        holder.execute("PRAGMA busy_timeout = 0")
        restoring = world.gateway.restoring
        assert restoring is not None
        await restoring._snapshots._file.run(lambda connection: connection.execute("PRAGMA busy_timeout = 0"))
        holder.execute("BEGIN IMMEDIATE")
        cool(world, ("deployment", "groq", "m"), "cooling", 600.0, "overloaded")
        await later(world, 5.0)
        assert "the snapshot of live state cannot be used; it is tried again" in caplog.text
        assert (await world.chat(MODEL)).status == 200
        holder.execute("ROLLBACK")
        holder.close()
        await later(world, 2.0)

    async def second(world: World) -> None:
        assert list(marks(world)) == [("deployment", "groq", "m")]

    use(tmp_path, first, killed=True)
    use(tmp_path, second)
