"""The admin pages about what is remembered, over a real gateway with a real ledger."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from keyturn.config import DataFolder, Options, load
from keyturn.core import Caller, Clock, Deployment, Trail
from keyturn.dispatch import Gateway, SystemClock, build
from keyturn.errors import BadRequest, StoreError
from keyturn.server.pages import Asked, Pages
from keyturn.stores import CallRow, Standing
from keyturn.stores.lines import line_of
from tests.cli.recorded_calls import BROKEN, REFUSED, ROWS, SERVED, STREAMED, at

from .fakes import FakeObserver

MONTH = {"since": at("2026-11-01 00:00"), "until": at("2026-12-01 00:00")}


class Asking:
    """Pages of a gateway, asked like the admin endpoints ask them."""

    def __init__(self, gateway: Gateway, folder: DataFolder) -> None:
        self.gateway = gateway
        self._pages = Pages(gateway, FakeObserver(), folder)

    async def ask(self, name: str, body: object) -> Any:
        page = await self._pages.page(name, Asked(Caller(), body=json.dumps(body).encode()))
        assert page.status == 200
        return json.loads(page.body)


def run(tmp_path: Path, work: Callable[[Asking], Awaitable[None]], clock: Clock | None = None, **environ: str) -> None:
    """*work* over a gateway whose ledger holds the rows of November."""

    async def main() -> None:
        config = load({"GROQ_API_KEY": "gsk_planted", **environ}, cwd=tmp_path, options=Options())
        folder = DataFolder(config.data)
        folder.lock()
        gateway = build(config, clock=clock, folder=folder)
        await gateway.open()
        for row in ROWS:
            if isinstance(row, CallRow):
                gateway.ledger.ended(row)
            else:
                gateway.ledger.finish(line_of(row))
        try:
            await work(Asking(gateway, folder))
        finally:
            await gateway.close()
            folder.release()

    asyncio.run(main())


def test_usage_has_what_was_recorded_a_moment_ago(tmp_path: Path) -> None:
    async def work(pages: Asking) -> None:
        told = await pages.ask("admin_usage", {"by": "model", **MONTH})
        assert (told["keeps"], told["complete"]) == (True, True)
        assert [(row["name"], row["attempts"]) for row in told["rows"]] == [
            ("groq/llama-3.1-8b-instant", 3),
            ("gemini/gemini-3.8-flash", 1),
        ]
        calls = await pages.ask("admin_usage", {"by": "call", "most": 3, **MONTH})
        assert [(row["name"], row["status"], row["code"]) for row in calls["rows"]] == [
            (BROKEN, 200, ""),  # its only attempt was good, and says it all
            (REFUSED, 429, "capacity"),
            (STREAMED, 200, ""),
        ]

    run(tmp_path, work)


def test_usage_without_a_ledger_says_so(tmp_path: Path) -> None:
    async def work(pages: Asking) -> None:
        assert await pages.ask("admin_usage", {"by": "day", **MONTH}) == {"keeps": False, "complete": True, "rows": []}
        with pytest.raises(StoreError, match="LEDGER_ENABLED is false"):
            await pages.ask("admin_stores", {"action": "prune"})

    run(tmp_path, work, LEDGER_ENABLED="false")


@pytest.mark.parametrize(
    ("page", "body"),
    [
        ("admin_usage", {"by": "colour", **MONTH}),
        ("admin_usage", {"by": "day"}),
        ("admin_usage", {"by": "day", "since": 0, "until": 2**63}),
        ("admin_story", {}),
        ("admin_story", {"call": "01a2"}),
        ("admin_stores", {"action": "drop everything"}),
        ("admin_stores", {"action": "backup", "file": "relative.sqlite"}),
        ("admin_stores", {"action": "backup"}),
        ("admin_stores", {"action": "prune", "keep_days": -1}),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, page: str, body: object) -> None:
    async def work(pages: Asking) -> None:
        with pytest.raises(BadRequest):
            await pages.ask(page, body)

    run(tmp_path, work)


def test_the_story_of_a_call_comes_from_the_ledger(tmp_path: Path) -> None:
    async def work(pages: Asking) -> None:
        for name in (SERVED, SERVED[:13]):
            story = (await pages.ask("admin_story", {"call": name}))["story"]
            assert (story["call"], story["status"], len(story["attempts"])) == (SERVED, 200, 2)
        found = await pages.ask("admin_story", {"call": SERVED[:8]})
        assert (found["story"], found["alike"]) == (None, True)
        assert {row["call"] for row in found["near"]} == {SERVED, STREAMED}

    run(tmp_path, work)


def test_the_story_of_a_call_that_is_not_recorded_comes_from_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(pages: Asking) -> None:
        gateway = pages.gateway
        call = "01a2ffff-0000-7000-8000-00000000000f"
        trail = Trail(call, "fast", gateway.clock.mono(), refusals=["no key"], status=429, code="capacity")
        trail.ended = trail.started + 0.25
        gateway.recent[call] = trail
        for name in (call, call[:9]):
            story = (await pages.ask("admin_story", {"call": name}))["story"]
            assert (story["status"], story["code"], story["ms"], story["caller"]) == (429, "capacity", 250.0, None)
            assert story["refusals"] == ["no key"]

    run(tmp_path, work)
    run(tmp_path / "off", work, LEDGER_ENABLED="false")

    async def away(*_: object) -> None:
        raise StoreError("the database is away")

    async def while_away(pages: Asking) -> None:
        monkeypatch.setattr(type(pages.gateway.ledger), "story", away)
        await work(pages)
        with pytest.raises(StoreError, match="away"):
            await pages.ask("admin_story", {"call": SERVED})

    run(tmp_path / "away", while_away)


@contextmanager
def away(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The database takes nothing while this lasts."""

    async def refused(*_: object) -> None:
        raise StoreError("the database is away")

    with monkeypatch.context() as patched:
        patched.setattr(type(gateway.ledger), "flush", refused)
        yield


def test_usage_while_the_database_does_not_take_rows_says_that_it_is_not_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(pages: Asking) -> None:
        await pages.gateway.ledger.flush()
        with away(pages.gateway, monkeypatch):
            told = await pages.ask("admin_usage", {"by": "caller", **MONTH})
            assert (told["complete"], [row["name"] for row in told["rows"]]) == (False, ["ci"])

    run(tmp_path, work)


def test_check_finds_nothing_wrong_and_says_what_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(pages: Asking) -> None:
        found = (await pages.ask("admin_stores", {"action": "check"}))["findings"]
        assert {row["check"] for row in found} == {"ledger", "database", "journal", "disk", "live state"}
        assert {row["check"]: row["state"] for row in found if row["check"] != "disk"} == {
            "ledger": "ok",
            "database": "ok",
            "journal": "ok",
            "live state": "ok",
        }
        full = Standing("sqlite", False, True, 5, 2, "the disk is full")
        monkeypatch.setattr(type(pages.gateway.ledger), "standing", lambda self: full)
        found = (await pages.ask("admin_stores", {"action": "check"}))["findings"]
        (ledger,) = (row for row in found if row["check"] == "ledger")
        assert ledger["state"] == "fail"
        assert "the disk is full" in ledger["detail"]

        async def away(_: object) -> None:
            raise StoreError("PostgreSQL is away")

        monkeypatch.setattr(type(pages.gateway.ledger.sink), "check", away)
        found = (await pages.ask("admin_stores", {"action": "check"}))["findings"]
        assert {"check": "database", "state": "fail", "detail": "PostgreSQL is away"} in found

    run(tmp_path, work)


def test_backup_is_private_whole_and_never_over_a_file(tmp_path: Path) -> None:
    async def work(pages: Asking) -> None:
        target = tmp_path / "copy.sqlite"
        assert await pages.ask("admin_stores", {"action": "backup", "file": str(target)}) == {"file": str(target)}
        assert stat.S_IMODE(target.stat().st_mode) == 0o600
        before = target.read_bytes()
        with pytest.raises(StoreError, match="exists"):
            await pages.ask("admin_stores", {"action": "backup", "file": str(target)})
        assert target.read_bytes() == before
        with pytest.raises(StoreError, match="No such file"):
            await pages.ask("admin_stores", {"action": "backup", "file": str(tmp_path / "nowhere" / "copy")})

    run(tmp_path, work)
    assert [path.name for path in tmp_path.iterdir() if "copy" in path.name] == ["copy.sqlite"]


def test_prune_drops_single_calls_and_keeps_their_sums(tmp_path: Path) -> None:
    async def work(pages: Asking) -> None:
        before = (await pages.ask("admin_usage", {"by": "model", **MONTH}))["rows"]
        assert (await pages.ask("admin_stores", {"action": "prune", "keep_days": 1}))["dropped"] > 0
        assert (await pages.ask("admin_usage", {"by": "model", **MONTH}))["rows"] == before
        assert (await pages.ask("admin_usage", {"by": "call", **MONTH}))["rows"] == []

    run(tmp_path, work, In2027())


class In2027(SystemClock):
    """A clock whose wall stands in March 2027."""

    def wall(self) -> float:
        return at("2027-03-01 00:00") / 1000


def test_figures_that_many_gateways_share_are_refreshed_before_they_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(pages: Asking) -> None:
        gateway = pages.gateway
        asked: list[set[str]] = []

        async def refresh(_: object, scopes: Iterable[str], limits: Iterable[object] = ()) -> None:
            asked.append(set(scopes))

        monkeypatch.setattr(type(gateway.live), "refresh", refresh)
        for deployment in (Deployment("groq", "m"), Deployment("groq", "n")):
            gateway.pools.of(deployment)
        (credential,) = gateway.config.credentials["groq"]
        shown = {scope for _, entry in gateway.pools.entries(credential) for scope in entry.limit_scopes}
        assert len(shown) > 1
        for name in ("admin_keys", "admin_status", "quota_stats"):
            await pages.ask(name, {})
        assert len(asked) == 3
        assert all(scopes >= shown for scopes in asked)

    run(tmp_path, work, LIMITS_GROQ="rpm=30")
