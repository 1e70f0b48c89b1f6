"""Records calls as fast as it can and says each that is on record, until it is killed: `python -m … FOLDER ROUND`."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from keyturn.core import TimerHandle
from keyturn.stores import Journal, JournaledLedger, Keeping, Shared, SqliteFile, SqliteSink
from tests.support.ledger_rows import began, ended, numbered, over, shared_by


class Clock:
    """The real one."""

    mono = staticmethod(time.monotonic)
    wall = staticmethod(time.time)

    def sleep_until(self, when: float) -> Awaitable[None]:
        return asyncio.sleep(when - time.monotonic())

    def call_at(self, when: float, callback: Callable[[], object]) -> TimerHandle:
        return asyncio.get_running_loop().call_later(when - time.monotonic(), callback)


def kept(folder: Path, *, durable: bool = False) -> JournaledLedger:
    """A ledger with small files, so that they are begun and removed all the time."""
    journal = Journal(folder / "journal", most=1 << 30, segment=20_000)
    sink = SqliteSink(SqliteFile(folder / "state.sqlite"))
    return JournaledLedger(journal, sink, Clock(), Keeping(durable=durable))


async def record(folder: Path, turn: int) -> None:
    ledger = kept(folder)
    await ledger.open()
    number, shared = 0, dict[str, Shared]()
    while True:
        name = f"{turn}-{number}"
        row = began(name, at=int(time.time() * 1000), charged=10)
        begins = shared.setdefault("i", shared_by(row))
        assert ledger.intend(numbered(row, begins), begins, paying=True) is None
        os.write(1, f"i {name}\n".encode())
        if number % 3:
            final = over(row, charged=1)
            ends = shared.setdefault("f", shared_by(final))
            ledger.finish(numbered(final, ends), ends)
            ledger.ended(ended(row.call, at=row.at))
            await asyncio.sleep(0)
            os.write(1, f"f {name}\n".encode())
        number += 1


if __name__ == "__main__":
    asyncio.run(record(Path(sys.argv[1]), int(sys.argv[2])))
