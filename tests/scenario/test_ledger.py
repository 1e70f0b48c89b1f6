"""What a gateway records of calls that go well, fail over, stream, are refused or left by their client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from keyturn.config import DataFolder
from keyturn.core import Trail
from keyturn.simulator import Fault
from keyturn.stores import AttemptRow, CallStory, Ledger, Shared, UsageQuery
from keyturn.stores.lines import attempt_of
from tests.support import virtual
from tests.support.world import World

MODEL = "groq/llama-3.1-8b-instant"
MODELS = """
provider_routes:
  - { id: llama, provider: groq, model: llama-3.1-8b-instant, price: { input: 100, output: 1000 } }
"""
ROLES = """
roles:
  team: { description: all, model: llama, budgets: { monthly_limit: 500 } }
"""
BUDGET = {"models.yaml": MODELS, "roles.yaml": ROLES}


def told(path: Path, story: Callable[[World], Awaitable[object]], **more: object) -> None:
    async def main() -> None:
        async with World({"groq": 2}, folder=DataFolder(path), **more) as world:  # type: ignore[arg-type]
            await story(world)

    virtual.run(main)


async def latest(world: World) -> tuple[Trail, CallStory]:
    """The latest call: as it is remembered, and as it was recorded."""
    trail = next(reversed(world.gateway.recent.values()))
    await world.gateway.ledger.flush()
    story = await world.gateway.ledger.story(trail.call)
    assert story is not None
    assert story.call is not None
    assert same(trail, story)
    return trail, story


def same(trail: Trail, story: CallStory) -> bool:
    """Whether the record says of every attempt what the trail does."""
    assert story.call is not None
    assert (story.call.status, story.call.code, story.call.attempts) == (trail.status, trail.code, len(trail.attempts))
    assert list(story.call.refusals) == list(trail.refusals)
    recorded = {row.id: (row.provider, row.model, row.key, row.meaning, row.status) for row in story.attempts}
    remembered = {each.id: (each.provider, each.model, each.key, each.meaning, each.status) for each in trail.attempts}
    return recorded == remembered and all(row.kind == "f" for row in story.attempts)


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_goes_well(tmp_path: Path, stream: bool) -> None:
    async def story(world: World) -> None:
        await world.chat(MODEL, stream=stream)
        _, found = await latest(world)
        [row] = found.attempts
        assert (row.meaning, row.exact, row.status) == ("ok", True, 200)
        assert row.input > 0
        assert row.output > 0
        assert row.ms is not None
        assert found.call is not None
        assert found.call.stream is stream
        [sums] = await world.gateway.ledger.usage(UsageQuery("key", 0, row.at + 1))
        assert (sums.name, sums.attempts, sums.input, sums.failed) == (row.key, 1, row.input, 0)

    told(tmp_path, story)


def test_every_attempt_of_a_call_that_fails_over(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        answer = await world.chat(MODEL)
        assert answer.status == 200
        _, found = await latest(world)
        assert [row.meaning for row in found.attempts] == ["rate_limited", "ok"]
        assert len({row.id for row in found.attempts}) == len(found.attempts)

    told(tmp_path, story, faults=[Fault(error="rate_limited", times=1)])


def test_a_call_that_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        answer = await world.chat("nobody/knows-this")
        assert answer.status != 200
        _, found = await latest(world)
        assert found.call is not None
        assert found.call.code
        [row] = await world.gateway.ledger.usage(UsageQuery("call", 0, found.call.at + 1))
        assert (row.name, row.attempts) == (found.call.id, len(found.attempts))

    told(tmp_path, story)


def test_a_call_whose_client_leaves(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        task = asyncio.ensure_future(world.chat(MODEL))
        await virtual.idle()
        task.cancel()
        await asyncio.wait([task])
        _, found = await latest(world)
        assert found.call is not None
        assert (found.call.status, found.call.code) == (499, "client_left")

    told(tmp_path, story, latency=5.0)


def test_the_intent_is_on_record_before_the_first_byte_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the upstream sees arrive is in the journal by then, at what is held for it."""
    seen: list[str] = []

    async def story(world: World) -> None:
        intend = world.gateway.ledger.intend

        def watched(ledger: Ledger, line: bytes | bytearray, shared: Shared, *, paying: bool) -> Awaitable[None] | None:
            told = attempt_of(shared.whole(line))
            assert world.seen() == []
            result = intend(line, shared, paying=paying)
            seen.append((next((tmp_path / "journal").iterdir())).read_text())
            assert told.charged > 0
            assert told.cost == told.charged
            assert told.id in seen[-1]
            return result

        monkeypatch.setattr(type(world.gateway.ledger), "intend", watched)
        answer = await world.chat("team")
        assert answer.status == 200
        assert len(seen) == 1

    told(tmp_path, story, files=BUDGET)


def test_what_no_budget_pays_is_held_at_its_likely_cost_and_what_has_no_price_at_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[AttemptRow] = []

    async def story(world: World) -> None:
        intend = world.gateway.ledger.intend

        def watched(ledger: Ledger, line: bytes | bytearray, shared: Shared, *, paying: bool) -> Awaitable[None] | None:
            rows.append(attempt_of(shared.whole(line)))
            return intend(line, shared, paying=paying)

        monkeypatch.setattr(type(world.gateway.ledger), "intend", watched)
        await world.chat("llama")
        await world.chat("groq/a-model-of-my-own")
        priced, unpriced = rows
        assert (priced.charged, unpriced.charged) == (0, 0)
        assert priced.cost == (priced.input * 100 + priced.output * 1000) * 1000
        assert priced.cost > 0
        assert unpriced.cost is None

    told(tmp_path, story, files=BUDGET)


def test_a_full_disk_refuses_calls_with_a_budget_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        def full(lines: bytes) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("keyturn.stores.journal.Journal.append", lambda self, lines: full(lines))
        refused = await world.chat("team")
        assert (refused.status, refused.code) == (503, "limiter_unavailable")
        assert refused.headers["retry-after"] == "2"
        assert world.seen() == []
        answer = await world.chat(MODEL)
        assert answer.status == 200
        monkeypatch.undo()
        await world.clock.sleep_until(world.clock.mono() + 2)
        assert (await world.chat("team")).status == 200
        await world.gateway.ledger.flush()
        assert world.gateway.ledger.standing().trouble == ""

    told(tmp_path, story, files=BUDGET)


def test_a_budget_that_a_reload_sets_counts_all_of_the_month(tmp_path: Path) -> None:
    """Before the start, since the start, and of what is under way when it is set."""
    callers = "anna: { key_env: ANNA_KEY }\n"

    async def story(world: World) -> None:
        [anna] = world.gateway.config.callers.values()
        await world.chat(MODEL, caller=anna)
        under_way = asyncio.ensure_future(world.chat(MODEL, caller=anna))
        await virtual.idle()
        world.files["callers.yaml"] = callers.replace("ANNA_KEY", "ANNA_KEY, monthly_usd: 100")
        world.gateway.adopt(world.config())
        await under_way
        await world.gateway.ledger.flush()
        recorded = await world.gateway.ledger.spent(world.gateway.carried.month)
        assert recorded["caller/anna"] > 0
        assert world.gateway.carried.spent()["caller/anna"] == recorded["caller/anna"]

    more = {"files": {"models.yaml": MODELS, "callers.yaml": callers}, "environ": {"ANNA_KEY": "sk-anna-" + "0" * 40}}
    for _ in range(2):
        told(tmp_path, story, latency=1.0, **more)


def test_a_budget_that_a_reload_sets_counts_nothing_of_the_month_before(tmp_path: Path) -> None:
    callers = "anna: { key_env: ANNA_KEY }\n"

    async def main() -> None:
        files = {"models.yaml": MODELS, "callers.yaml": callers}
        environ = {"ANNA_KEY": "sk-anna-" + "0" * 40}
        async with World({"groq": 1}, folder=DataFolder(tmp_path), files=files, environ=environ) as world:
            [anna] = world.gateway.config.callers.values()
            await world.chat(MODEL, caller=anna)
            await world.clock.sleep_until(world.clock.mono() + 86_400)
            await world.chat(MODEL, caller=anna)
            world.files["callers.yaml"] = callers.replace("ANNA_KEY", "ANNA_KEY, monthly_usd: 100")
            world.gateway.adopt(world.config())
            await world.gateway.ledger.flush()
            november, december = [await world.gateway.ledger.spent(month) for month in ("2026-11", "2026-12")]
            assert november["caller/anna"] == december["caller/anna"] > 0
            assert world.gateway.carried.spent()["caller/anna"] == december["caller/anna"]

    virtual.run(main, start_wall=1_796_083_200.0 - 3600)


def test_what_a_role_had_spent_before_counts_in_its_own_month_only(tmp_path: Path) -> None:
    roles = ROLES.replace("monthly_limit: 500", "monthly_limit: 500, current_usage: 12.5")

    def spent(days: int) -> int:
        async def main() -> int:
            files = {"models.yaml": MODELS, "roles.yaml": roles}
            async with World({"groq": 1}, folder=DataFolder(tmp_path), files=files) as world:
                return world.gateway.carried.spent()["role/team"]

        return virtual.run(main, start_wall=virtual.START_WALL + days * 86_400)

    assert [spent(days) for days in (0, 1, 40, 41, 75)] == [12_500_000_000, 12_500_000_000, 0, 0, 0]


def test_nothing_that_was_said_and_no_key_is_in_any_file(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        for stream in (False, True):
            await world.chat(MODEL, text="planted-prompt-4711", stream=stream)
        await world.gateway.ledger.flush()

    told(tmp_path, story)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    for path in files:
        content = path.read_bytes()
        for secret in (b"planted-prompt", b"groq-secret-key"):
            assert secret not in content, path
