"""A process that records calls is killed again and again: whatever it was told to be on record is in the ledger."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import subprocess
import sys
from pathlib import Path

from .recording import kept

KILLS = 10


def test_what_was_on_record_outlives_every_kill(tmp_path: Path) -> None:
    draw = random.Random(5)
    begun: set[str] = set()
    finished: set[str] = set()
    for turn in range(KILLS):
        said = recorded_until_killed(tmp_path, turn, draw.randrange(1, 20_000))
        begun |= {name for kind, name in said if kind == "i"}
        finished |= {name for kind, name in said if kind == "f"}
    assert len(begun) > KILLS

    async def recovered() -> None:
        ledger = kept(tmp_path)
        await ledger.open()
        assert ledger.standing().waiting_bytes == 0
        await ledger.close()

    asyncio.run(recovered())
    found = sqlite3.connect(tmp_path / "state.sqlite")
    states = dict(found.execute("SELECT id, state FROM attempts").fetchall())
    assert begun - set(states) == set()
    assert {name for name in finished if states[name] != "final"} == set()
    assert set(states.values()) <= {"final", "estimated"}
    assert "estimated" in states.values()
    assert found.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    calls = {name for (name,) in found.execute("SELECT id FROM calls")}
    assert {f"call-{name}" for name in finished} <= calls
    found.close()


def recorded_until_killed(folder: Path, turn: int, after: int) -> list[tuple[str, str]]:
    """What the process said to be on record; it was killed when it had said so many bytes."""
    command = [sys.executable, "-m", f"{__package__}.recording", str(folder), str(turn)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout is not None
        heard = process.stdout.read(after)
        process.kill()
        heard += process.stdout.read()
    lines = heard.decode().split("\n")[:-1]
    return [(line[0], line[2:]) for line in lines]
