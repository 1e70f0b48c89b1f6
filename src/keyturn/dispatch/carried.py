"""What a restart must not lose: rotation indexes, in files of the data folder, and the month's spend.

The spend is what the ledger recorded. `spend.json`, in which it was kept before there was a ledger and is kept without
one, is taken into the ledger once and then called `spend.json.migrated`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Set
from datetime import UTC, datetime

from keyturn.config import DataFolder
from keyturn.core import Clock, Limit, TimerHandle
from keyturn.errors import KeyturnError, StoreAway
from keyturn.stores import Ledger, LiveState, Sink

MONTHS_BACK = 12
"""In how many earlier months a role is looked for that had spent something before Keyturn counted."""
PACE = 1.0
"""Seconds between two writes of the spend: a crash loses no more than that."""
NOTHING: Mapping[str, int] = {}
UNWRITTEN = "the data folder could not be written: %s"
_log = logging.getLogger("keyturn")


class Carried:
    """Reads the data folder at the start and keeps it current. Without a folder it remembers for this process only.

    Only the owner of the folder may have one; a write is made in a thread, the latest value wins.
    """

    def __init__(self, folder: DataFolder | None, clock: Clock, live: LiveState, spent: Mapping[str, int]) -> None:
        self._folder = folder
        self._clock = clock
        self._live = live
        self._indexes: dict[str, int] = {}
        self._moved: set[str] = set()
        self._budgets: dict[str, Limit] = {}
        """Those that something was spent of, by scope."""
        self._since = self._month()
        self._ends = _end_of(self._since)
        self._spent = {f"role/{role}": amount for role, amount in spent.items()}
        """What was spent in the month *_since* of what has no budget yet."""
        self._stated = set(self._spent)
        """Of these, what the settings said."""
        if folder is not None:
            self._spent |= folder.spent(self._since)
        self._timer: TimerHandle | None = None
        self._writing: asyncio.Future[None] | None = None
        self._late = False
        """Something changed while the last write was under way."""
        self._ledger: Ledger | None = None
        """Keeps the spend, in place of the file."""
        self._telling: set[asyncio.Task[None]] = set()

    async def open(self, ledger: Ledger, budgets: Iterable[Limit]) -> None:
        """Take over what *ledger*, if it keeps anything, knows of this month's spend of *budgets*; and what was written
        down before there was one. Raises StoreError, and ConfigError when the file is broken."""
        if not ledger.keeps:
            return
        self._ledger, sink = ledger, ledger.sink
        if self._folder is not None and sink is not None:
            try:
                await take_spend(self._folder, sink)
            except StoreAway as error:  # nobody has a budget, else the ledger would not have opened without it
                _log.warning("spend.json is taken into the ledger at the next start: %s", error.message)
        recorded = await ledger.spent(self._since)
        filed = self._folder.spent(self._since) if self._folder is not None else NOTHING
        stated = self._stated - recorded.keys() - filed.keys()
        for scope in await self._known_before(ledger, stated):
            del self._spent[scope]
            stated.discard(scope)
        for scope in stated:
            await self._told(scope, self._spent[scope])
        self._spent |= recorded
        self.take_over(budgets)

    async def _known_before(self, ledger: Ledger, scopes: Set[str]) -> set[str]:
        """Those of *scopes* that *ledger* knows of in an earlier month: what they had spent then is over."""
        known: set[str] = set()
        year, month = map(int, self._since.split("-"))
        for back in range(1, MONTHS_BACK + 1):
            if known >= scopes:
                break
            before = year * 12 + month - 1 - back
            known |= scopes & (await ledger.spent(f"{before // 12:04d}-{before % 12 + 1:02d}")).keys()
        return known

    def index(self, provider: str) -> int:
        """Where the round robin of *provider* stood, from 0; 0 when that is not known."""
        if provider not in self._indexes:
            self._indexes[provider] = self._folder.rotation_index(provider) if self._folder is not None else 0
        return self._indexes[provider]

    def moved(self, provider: str, index: int) -> None:
        """The round robin of *provider* stands at *index* now: written at once."""
        self._indexes[provider] = index
        self._moved.add(provider)
        self._write_soon()

    def take_over(self, budgets: Iterable[Limit], spent: Mapping[str, int] = NOTHING) -> None:
        """Charge each of *budgets* with what was spent of it this month, once: as written down, else as *spent* says
        of roles that are new."""
        now = self._clock.mono()
        if self._since == self._month():
            for role, amount in spent.items():
                scope = f"role/{role}"
                if scope not in self._budgets and scope not in self._spent and scope not in self._stated:
                    self._stated.add(scope)
                    self._spent[scope] = amount
                    self._tell_soon(scope, amount)
        for limit in budgets:
            if limit.scope not in self._budgets:
                self._budgets[limit.scope] = limit
                amount = self._spent.pop(limit.scope, 0)
                if amount and self._since == self._month():
                    self._live.take(limit, amount, now)
            else:
                self._budgets[limit.scope] = limit

    def charged(self, caller: str, role: str, amount: int, limits: Iterable[Limit]) -> None:
        """An attempt came to *amount* nano-dollars, of which the budgets among *limits* know by themselves: a budget
        that *caller* or *role* gets later this month must count it."""
        known = {limit.scope for limit in limits if limit.metric == "cost"}
        for scope in (f"caller/{caller}", f"role/{role}") if role else (f"caller/{caller}",):
            if scope in known:
                continue
            budget = self._budgets.get(scope)
            if budget is not None:  # it was set while the attempt was under way
                self._live.take(budget, amount, self._clock.mono())
                continue
            if self._clock.wall() >= self._ends:
                self._since = self._month()
                self._ends = _end_of(self._since)
                self._spent.clear()
            self._spent[scope] = self._spent.get(scope, 0) + amount

    def spending(self, limits: Iterable[Limit]) -> None:
        """Something was spent of *limits*, so far as they are budgets: written within a second."""
        self._budgets.update((limit.scope, limit) for limit in limits if limit.metric == "cost")
        if self._timer is None and self._folder is not None and self._ledger is None:
            self._timer = self._clock.call_at(self._clock.mono() + PACE, self._due)

    def spent(self) -> dict[str, int]:
        """Scope -> nano-dollars of this month, of everything that has a budget."""
        now = self._clock.mono()
        view = self._live.view(now)
        found = dict(self._spent) if self._since == self._month() else {}
        for scope, limit in self._budgets.items():
            found[scope] = view.row(limit, now).used
        return found

    def write(self) -> None:
        """Write everything that changed, now."""
        if self._folder is None:
            return
        self._save(self._take_moved(), self._to_write(), self._month())

    async def close(self) -> None:
        """Write what is left to write."""
        if self._timer is not None:
            self._timer.cancel()
        if self._writing is not None or self._telling:
            await asyncio.wait([*self._telling, *([self._writing] if self._writing is not None else ())])
        try:
            self.write()
        except (OSError, KeyturnError) as error:
            _log.warning(UNWRITTEN, error)

    def _due(self) -> None:
        self._timer = None
        self._write_soon()

    def _write_soon(self) -> None:
        if self._folder is None:
            return
        if self._writing is not None:
            self._late = True
            return
        moved, spent, month = self._take_moved(), self._to_write(), self._month()
        self._writing = asyncio.get_running_loop().run_in_executor(None, self._save, moved, spent, month)
        self._writing.add_done_callback(lambda writing: self._written(writing, moved))

    def _written(self, writing: asyncio.Future[None], moved: Mapping[str, int]) -> None:
        self._writing = None
        error = None if writing.cancelled() else writing.exception()
        if error is not None:
            _log.warning(UNWRITTEN, error)
            self._moved.update(moved)  # to be written with the next change, or at the end
        if self._late:
            self._late = False
            self._write_soon()

    def _to_write(self) -> dict[str, int]:
        """The spend that belongs into the file: none where a ledger keeps it."""
        return self.spent() if self._ledger is None else {}

    def _tell_soon(self, scope: str, amount: int) -> None:
        """Have the ledger know what was spent of a budget that became known after the start."""
        if self._ledger is not None and amount:
            telling = asyncio.get_running_loop().create_task(self._told(scope, amount))
            self._telling.add(telling)
            telling.add_done_callback(self._telling.discard)

    async def _told(self, scope: str, amount: int) -> None:
        try:
            await self._tell(scope, amount)
        except KeyturnError as error:
            _log.warning("what was spent of %s before could not be recorded: %s", scope, error.message)

    async def _tell(self, scope: str, amount: int) -> None:
        sink = self._ledger.sink if self._ledger is not None else None
        if sink is not None and amount:
            await sink.add_spent(self._since, {scope: amount}, f"settings {scope}")

    def _take_moved(self) -> dict[str, int]:
        moved = {provider: self._indexes[provider] for provider in self._moved}
        self._moved.clear()
        return moved

    def _save(self, moved: Mapping[str, int], spent: Mapping[str, int], month: str) -> None:
        assert self._folder is not None
        for provider, index in moved.items():
            self._folder.write_rotation_index(provider, index)
        if spent:
            self._folder.write_spent(month, spent)

    @property
    def folder(self) -> DataFolder | None:
        """The data folder; None: nothing outlives this process."""
        return self._folder

    @property
    def month(self) -> str:
        """The month whose spend it keeps, `2026-11`."""
        return self._since

    def _month(self) -> str:
        return f"{datetime.fromtimestamp(self._clock.wall(), UTC):%Y-%m}"


def _end_of(month: str) -> float:
    """When `2026-11` is over in UTC, Unix seconds."""
    year, number = map(int, month.split("-"))
    return datetime(year + number // 12, number % 12 + 1, 1, tzinfo=UTC).timestamp()


async def take_spend(folder: DataFolder, sink: Sink) -> bool:
    """Put into *sink* what was spent before there was a ledger, and set its file aside; whether there was one. Raises
    StoreError, and ConfigError when the file is broken."""
    earlier = folder.spend_before()
    if earlier is None:
        return False
    for month, amounts in earlier.months.items():
        await sink.add_spent(month, amounts, earlier.source)
    folder.set_spend_aside()
    return True
