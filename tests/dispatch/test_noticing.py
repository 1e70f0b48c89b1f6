"""Changes of files are told at once where the extra `watch` is installed, and only those of our own files."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from keyturn.dispatch.noticing import Noticing

PATIENCE = 20.0


@pytest.mark.realtime
def test_a_change_is_told_and_one_beside_it_is_not(tmp_path: Path) -> None:
    async def story() -> None:
        told = asyncio.Event()
        mine, other = tmp_path / "config" / "models.yaml", tmp_path / "app.log"
        mine.parent.mkdir()
        noticing = Noticing([mine, tmp_path / ".env"], told.set)
        assert noticing.start()
        try:
            for number in range(3):  # what happens before the watcher listens may go unnoticed: write until it does
                other.write_text(f"line {number}")
                await asyncio.sleep(0.2)
            assert not told.is_set()
            for number in range(50):
                mine.write_text(f"# {number}\n")
                if told.is_set():
                    break
                await asyncio.sleep(0.1)
            await asyncio.wait_for(told.wait(), PATIENCE)
        finally:
            await asyncio.wait_for(noticing.close(), PATIENCE)

    asyncio.run(story())


def test_without_the_extra_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)

    async def story() -> None:
        noticing = Noticing([tmp_path / "models.yaml"], lambda: None)
        assert not noticing.start()
        await noticing.close()

    asyncio.run(story())
