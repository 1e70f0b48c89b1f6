"""What outlives a client that owns its data folder: limits, cooldowns, the record of calls."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from keyturn import AsyncClient, Client
from keyturn.client import opening
from keyturn.config import DataFolder
from keyturn.dispatch import Gateway
from keyturn.errors import StoreError
from keyturn.stores import look_at_snapshot
from tests.support.serving import Upstreams

MODEL = "groq/llama-3.1-8b-instant"


def recorded(place: Path) -> int:
    """Attempts in the ledger, those in its journal not counted."""
    connection = sqlite3.connect(place / ".cache" / "state.sqlite")
    try:
        return int(connection.execute("SELECT count(*) FROM attempts").fetchone()[0])
    finally:
        connection.close()


async def used(client: AsyncClient) -> int:
    stats: dict[str, Any] = await client.get_quota_stats()
    return sum(each["used"] for row in stats["keys"] for each in row["limits"] if each["metric"] == "requests")


def test_LIB_01_limits_go_on_where_the_last_client_ended(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMITS_GROQ", "rpm=30")

    async def first() -> None:
        async with AsyncClient() as client:
            for _ in range(3):
                await client.chat("Hi", MODEL)

    async def second() -> None:
        async with AsyncClient() as client:
            assert await used(client) == 3

    asyncio.run(first())
    assert recorded(elsewhere) == 3
    asyncio.run(second())


def test_LIB_01_share_false_keeps_nothing(elsewhere: Path) -> None:
    async def story() -> None:
        async with AsyncClient(share=False) as client:
            await client.chat("Hi", MODEL)

    asyncio.run(story())
    assert not (elsewhere / ".cache").exists()


def test_LIB_01_a_damaged_file_is_told_and_the_folder_is_free_again(elsewhere: Path) -> None:
    (elsewhere / ".cache").mkdir()
    (elsewhere / ".cache" / "state.sqlite").write_bytes(b"not a database" * 1000)

    async def story() -> None:
        client = AsyncClient()
        with pytest.raises(StoreError, match=r"state\.sqlite"):
            await client.chat("Hi", MODEL)
        both = (client.chat("Hi", MODEL), AsyncClient().chat("Hi", MODEL))
        assert [type(each) for each in await asyncio.gather(*both, return_exceptions=True)] == [StoreError] * 2
        folder = DataFolder(elsewhere / ".cache")
        folder.lock()
        folder.release()
        (elsewhere / ".cache" / "state.sqlite").unlink()
        assert await client.chat("Hi", MODEL)
        await client.close()

    asyncio.run(story())
    assert recorded(elsewhere) == 1


def test_LIB_01_who_comes_from_another_loop_waits_until_the_pool_is_open(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = threading.Event()
    seen: list[bool] = []

    async def story() -> None:
        first = AsyncClient()
        gate, began = asyncio.Event(), asyncio.Event()
        real = Gateway.open

        async def slow(gateway: Any) -> None:
            began.set()
            await gate.wait()
            await real(gateway)
            opened.set()

        monkeypatch.setattr(Gateway, "open", slow)
        asking = asyncio.ensure_future(first.chat("Hi", MODEL))
        await began.wait()

        async def other() -> None:
            async with AsyncClient():
                seen.append(opened.is_set())

        elsewhere_too = asyncio.get_running_loop().run_in_executor(None, lambda: asyncio.run(other()))
        late = AsyncClient()
        leaving = asyncio.ensure_future(late.chat("Hi", MODEL))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        leaving.cancel()  # who stops waiting breaks nothing off for the others
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert await asking
        await elsewhere_too
        await first.close()
        await late.close()

    asyncio.run(story())
    assert seen == [True]
    assert (elsewhere / ".cache").resolve() not in opening._pools
    assert recorded(elsewhere) == 1


ENDING_BADLY = f"""
import asyncio, os, sys
from keyturn import AsyncClient, Client
client = Client()
client.chat("Hi", {MODEL!r})
if (child := os.fork()) == 0:
    import warnings
    warnings.simplefilter("ignore")
    print("child:", client.chat("Hi", {MODEL!r}), flush=True)
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print("parent:", client.chat("Hi", {MODEL!r}))
client.close()
forgotten = AsyncClient()
print("forgotten:", asyncio.run(forgotten.chat("Hi", {MODEL!r})))
"""


def test_LIB_01_a_forked_child_leaves_the_file_of_its_parent_alone_and_a_forgotten_client_its_calls_in_the_journal(
    elsewhere: Path,
) -> None:
    """One program for both: the forgotten client's loop is over when it ends."""
    done = subprocess.run(
        [sys.executable, "-c", ENDING_BADLY], capture_output=True, text=True, timeout=60, env=dict(os.environ)
    )
    assert (done.returncode, done.stdout.count("You said: Hi")) == (0, 3), done.stderr
    assert recorded(elsewhere) == 2, "those of the parent, whose client was closed: the child keeps nothing"

    async def story() -> None:
        async with AsyncClient() as client:
            await client.chat("Hi", MODEL)

    asyncio.run(story())
    assert recorded(elsewhere) == 4, "also that of the forgotten client"
    connection = sqlite3.connect(elsewhere / ".cache" / "state.sqlite")
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_LIB_01_the_plain_client_keeps_its_state_too(
    elsewhere: Path, upstreams: Upstreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIMITS_GROQ", "rpm=30")
    with Client() as client:
        client.chat("Hi", MODEL)
    kept = look_at_snapshot(elsewhere / ".cache")
    assert kept is not None
    assert kept.head.clean
    assert len(kept.uses) == 1
