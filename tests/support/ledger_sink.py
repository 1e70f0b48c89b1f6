"""A database of the ledger in memory, which may be away, or refuse lines."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from keyturn.errors import RowsRefused
from keyturn.stores import CallStory, UsageQuery, UsageRow
from keyturn.stores.lines import Names, in_full


class Database:
    """*away* is raised by everything; *refuses* names lines that it will never take."""

    name: Literal["sqlite", "postgres"] = "sqlite"

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.given_up: list[tuple[str, int]] = []
        self.away: Exception | None = None
        self.refuses: bytes | None = None
        self.asked: list[int] = []
        """How many lines each time."""
        self.opened = False
        self.houses = 0
        self.gate: asyncio.Event | None = None

    def _here(self) -> None:
        if self.away is not None:
            raise self.away

    async def open(self) -> None:
        self._here()
        self.opened = True

    async def apply(self, lines: Sequence[bytes], instance: str, names: Names | None = None) -> None:
        self.asked.append(len(lines))
        if self.gate is not None:
            await self.gate.wait()
        self._here()
        if self.refuses is not None and any(self.refuses in line for line in lines):
            raise RowsRefused("no such row")
        bare = [line.rstrip(b"\n") for line in in_full(lines, {} if names is None else names)]
        self.taken += [line for line in bare if line not in self.taken]

    async def give_up(self, instance: str, before: int) -> int:
        self._here()
        self.given_up.append((instance, before))
        return 0

    async def add_spent(self, month: str, spent: Mapping[str, int], source: str) -> None:
        self._here()

    async def spent(self, month: str) -> Mapping[str, int]:
        self._here()
        return {"caller/default": 3}

    async def usage(self, query: UsageQuery) -> Sequence[UsageRow]:
        return ()

    async def story(self, call: str) -> CallStory | None:
        return None

    async def keep_house(self, now: int, keep_days: float, responses_days: float) -> int:
        self.houses += 1
        return 0

    async def check(self) -> Sequence[str]:
        return ()

    async def outline(self) -> str:
        return ""

    async def backup(self, path: Path) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        self.opened = False
