"""A real gateway that is killed under load and started again: no call that was answered is missing from its ledger."""

from __future__ import annotations

import asyncio
from pathlib import Path

from keyturn.stores import SqliteFile, SqliteSink
from tests.support.ledger_rows import began, lines
from tools.torture.kills import judged, kills


def test_ten_kills_under_load() -> None:
    assert kills(10, seed=5) == []


def test_the_judge_finds_what_is_missing_and_what_was_never_ended(tmp_path: Path) -> None:
    data = tmp_path / ".cache"
    (data / "journal").mkdir(parents=True)
    (data / "journal" / "000000000001.jsonl").touch()

    async def main() -> list[str]:
        sink = SqliteSink(SqliteFile(data / "state.sqlite"))
        await sink.open()
        await sink.apply(lines(began("a")), "here")
        await sink.close()
        return await judged(tmp_path, None, ["call-a", "call-b"])

    under_way, missing, left = asyncio.run(main())
    assert "under way" in under_way
    assert "call-b" in missing
    assert "journal" in left
