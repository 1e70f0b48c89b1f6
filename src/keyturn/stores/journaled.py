"""The ledger over a journal: a row is on record when its line is in the journal, and reaches the database soon after.

The loop only appends lines; one task hands them to the database in batches, again and again while it is away. What is
written while the journal cannot take it waits in memory, 10,000 lines at most; those beyond are counted and given up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress

from keyturn.core import Clock, TimerHandle
from keyturn.errors import LimiterUnavailable, RowsRefused, StoreAway, StoreError

from .disk_sync import DiskSync
from .instance import instance_of
from .journal import Broken, Full, Journal
from .ledger import CallRow, CallStory, Keeping, Sink, Standing, UsageQuery, UsageRow
from .lines import Names, Shared, line_of
from .troubles import Troubles

BATCH = 5000
"""Lines that are handed over together at most."""
PACE = 0.5
"""Seconds between two visits to the database at least, but for who asks at once."""
RETRY = 1.0
"""Seconds after which a journal that could not be written is tried again."""
PATIENCE = 2.0
"""Seconds after which a call that was refused for want of a journal should be asked again."""
LEAST_BACKOFF, MOST_BACKOFF = 0.5, 10.0
MOST_KEPT = 10_000
"""Lines that wait in memory while the journal cannot be written."""
LEAST_KEPT = 1.0
"""Days that single calls are kept at least: what the journal may hand over again after a crash must still be there."""
HOUSE_FIRST, HOUSE_EVERY = 60.0, 3600.0
"""Seconds from the start to the first round of house-keeping, and between two of them."""

_log = logging.getLogger("keyturn")


class JournaledLedger:
    """Records calls in *journal*, whose folder lies in the data folder, and through it in the database of *sink*."""

    __slots__ = tuple(
        "_backoff _began _buffer _clock _closing _disk _failed_at _flushers _house _house_due _house_timer _instance "
        "_journal _keeping _left _let_go _lost _news _opened _reachable _recorded _recovered _retry _sink "
        "_sink_trouble _soon _tasks _timer _troubles _write_trouble".split()
    )
    keeps = True

    def __init__(
        self,
        journal: Journal,
        sink: Sink,
        clock: Clock,
        keeping: Keeping | None = None,
        *,
        let_go: Callable[[], None] | None = None,
        left: Sequence[Journal] = (),
    ) -> None:
        self._journal = journal
        self._sink = sink
        self._clock = clock
        self._keeping = keeping or Keeping()
        self._let_go = let_go
        """Ends the sink where there is no loop to close it on."""
        self._left = left
        """Journals of processes that are gone, in data folders of their own: taken in at the start."""
        self._instance = ""
        self._began = 0
        """When this process opened the journal, Unix milliseconds."""
        self._opened = False
        self._recovered = False
        """What earlier processes left behind is in the database."""
        self._buffer: list[bytes] = []
        """Lines that are not in the journal yet."""
        self._soon = False
        """They will be at the end of the loop's turn."""
        self._failed_at: float | None = None
        """When the journal last refused a line; None while it takes them."""
        self._reachable = True
        self._lost = 0
        self._recorded = 0
        self._write_trouble = ""
        self._sink_trouble = ""
        self._troubles = Troubles(clock)
        self._backoff = LEAST_BACKOFF
        self._news = asyncio.Event()
        self._timer: TimerHandle | None = None
        self._retry: TimerHandle | None = None
        self._flushers: list[asyncio.Future[None]] = []
        self._house_timer: TimerHandle | None = None
        self._house_due = False
        self._house: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False
        self._disk = DiskSync(journal, self._refused, _refusal) if self._keeping.durable else None

    @property
    def sink(self) -> Sink:
        return self._sink

    async def open(self) -> None:
        """Take in what an earlier process left behind. Raises StoreError; a database that is only away does not keep
        the ledger from opening, unless there are budgets."""
        try:
            self._journal.open()
            self._instance = instance_of(self._journal.folder.parent)
        except OSError as error:
            raise StoreError(
                f"{self._journal.folder}: {_reason(error)}; make it writable, or choose another --data"
            ) from error
        self._closing, self._recovered = False, False
        self._began = int(self._clock.wall() * 1000)
        try:
            await self._hand_over()
        except StoreAway as error:
            if self._keeping.budgeted:
                await self._give_back()
                raise
            self._away(error)
        except OSError as error:
            await self._give_back()
            where = error.filename or self._journal.folder
            raise StoreError(f"{where}: {_reason(error)}; mend it, or move it away") from error
        except BaseException:
            await self._give_back()
            raise
        self._opened = True
        self._tasks = [asyncio.create_task(self._work(), name="keyturn ledger")]
        if self._disk is not None:
            self._tasks.append(asyncio.create_task(self._disk.work(), name="keyturn ledger sync"))
        self._house_in(HOUSE_FIRST)
        if not self._recovered:
            self._arm(self._backoff)

    def intend(self, line: bytes | bytearray, shared: Shared | None = None, *, paying: bool) -> Awaitable[None] | None:
        journal = self._journal
        try:
            if shared is not None and shared.told_in is not journal.page:
                journal.tell(shared)
            journal.write(line)
        except ValueError:
            self._buffer.append(bytes(line) if shared is None else shared.whole(line))
            if not self._spill():
                self._buffer.pop()
                if paying:
                    raise _refusal() from None
                return None
        else:
            self._recorded += 1
            if self._timer is None:
                self._expect()
        return None if self._disk is None else self._disk.synced(paying=paying)

    def finish(self, line: bytes | bytearray, shared: Shared | None = None) -> None:
        journal = self._journal
        try:
            if shared is not None and shared.told_in is not journal.page:
                journal.tell(shared)
            journal.write(line)
        except ValueError:
            self._note(bytes(line) if shared is None else shared.whole(line))
            return
        self._recorded += 1
        if self._timer is None:
            self._expect()
        if self._disk is not None:
            self._disk.wake()

    def ended(self, row: CallRow) -> None:
        self.finish(line_of(row))

    async def flush(self) -> None:
        """Raises StoreError when what was recorded cannot be handed over just now."""
        if not self._spill():
            raise StoreAway(self._write_trouble)
        if self._closing or not self._tasks or self._tasks[0].done():
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._flushers.append(done)
        self._news.set()
        await done

    async def spent(self, month: str) -> Mapping[str, int]:
        try:
            return await self._sink.spent(month)
        except StoreAway:
            if self._keeping.budgeted:
                raise
            return {}

    async def add_spent(self, month: str, spent: Mapping[str, int], source: str) -> None:
        """Take over what was spent before there was a ledger; the same *source* again changes nothing. Raises
        StoreError."""
        await self._sink.add_spent(month, spent, source)

    async def usage(self, query: UsageQuery) -> Sequence[UsageRow]:
        return await self._sink.usage(query)

    async def story(self, call: str) -> CallStory | None:
        return await self._sink.story(call)

    async def prune(self, keep_days: float) -> int:
        self._journal.rotate()
        await self.flush()
        now = int(self._clock.wall() * 1000)
        return await self._sink.keep_house(now, max(keep_days, LEAST_KEPT), self._keeping.responses_days)

    def standing(self) -> Standing:
        return Standing(
            self._sink.name,
            self._failed_at is None,
            self._reachable,
            self._journal.waiting,
            self._lost + self._journal.gone,
            self._write_trouble or self._sink_trouble,
            self._recorded,
        )

    async def close(self) -> None:
        """Hand over what is left, as far as the database takes it; the rest stays in the journal for the next start.
        Again changes nothing."""
        if self._closing:
            return
        self._closing = True
        if not self._opened:
            self._journal.close()
            return
        for timer in (self._timer, self._retry, self._house_timer):
            if timer is not None:
                timer.cancel()
        self._news.set()
        if self._disk is not None:
            self._disk.end()
        try:
            if self._tasks:
                await asyncio.wait(self._tasks)
            if self._house is not None:
                self._house.cancel()  # it is in whole steps
                await asyncio.wait([self._house])
            self._spill(again=True)
            await self._round()
            if self._journal.waiting or self._buffer:
                _log.warning(
                    "the ledger is closed with %d bytes in its journal: %s", self._journal.waiting, self._trouble()
                )
        finally:
            for late in (*self._tasks, *self._flushers, *(() if self._house is None else (self._house,))):
                late.cancel()  # only when this is cancelled itself
            self._tasks, self._flushers = [], []
            await self._give_back()

    def abandon(self) -> None:
        """Without a loop to close it on: write down what is buffered, and let go. The next start hands it over."""
        self._closing = True
        self._spill(again=True)
        self._journal.close()
        if self._let_go is not None:
            self._let_go()

    async def _give_back(self) -> None:
        self._closing = True
        self._journal.close()
        await self._sink.close()

    # --- the journal -------------------------------------------------------------------------------------------------

    def _note(self, line: bytes) -> None:
        """Write *line* at the end of the loop's turn, with what comes before it."""
        if self._failed_at is not None and len(self._buffer) >= MOST_KEPT:
            self._lost += 1
            return
        self._buffer.append(line)
        self._journal.hold()
        if self._soon:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._spill()
            return
        self._soon = True
        loop.call_soon(self._end_of_turn)

    def _end_of_turn(self) -> None:
        self._soon = False
        if self._spill() and self._disk is not None:
            self._disk.wake()

    def _spill(self, *, again: bool = False) -> bool:
        """Write the buffered lines; False when they could not be. *again*: also when that failed a moment ago."""
        if not self._buffer and (self._failed_at is None or not again):
            return True
        if self._failed_at is not None and not again and self._clock.mono() < self._failed_at + RETRY:
            return False
        data = b"".join(self._buffer) or b"\n"  # an empty line, to see whether it can be written again
        try:
            self._journal.append(data)
        except OSError as error:
            if isinstance(error, Broken):
                left = data[error.written :].splitlines(keepends=True)
                self._recorded += len(self._buffer) - len(left)
                self._buffer = left
                self._expect()
            self._refused(error)
            return False
        self._recorded += len(self._buffer)
        self._buffer.clear()
        if self._failed_at is not None:
            self._failed_at, self._write_trouble = None, ""
            self._troubles.over("journal", "the ledger records calls again")
        self._expect()
        return True

    def _refused(self, error: OSError) -> None:
        """The journal could not be written."""
        self._journal.hold()
        self._failed_at = self._clock.mono()
        self._write_trouble = (
            f"the ledger's journal in {self._journal.folder} cannot be written ({_reason(error)}): "
            f"{'bring its database back, or raise it' if isinstance(error, Full) else 'make room, or make it writable'}"
            "; meanwhile calls are not recorded, and those with a budget are refused"
        )
        self._troubles.say("journal", self._write_trouble)
        if self._retry is None and self._tasks and not self._closing:
            with suppress(RuntimeError):  # no loop runs, so that nobody is there to try again for
                self._retry = self._clock.call_at(self._failed_at + RETRY, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        self._spill(again=True)

    # --- the database ------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        """Hand over whatever is new, until the ledger is closed."""
        while not self._closing:
            await self._news.wait()
            self._news.clear()
            if not self._closing:
                await self._round()

    async def _round(self) -> None:
        waiting, self._flushers = self._flushers, []
        trouble: StoreError | None = None
        try:
            await self._hand_over()
            await self._keep_house()
        except asyncio.CancelledError:
            for done in waiting:
                done.cancel()
            raise
        except Exception as error:
            trouble = error if isinstance(error, StoreError) else StoreError(_unforeseen(error))
            self._away(trouble)
        else:
            self._reached()
        for done in waiting:
            if not done.done():
                done.set_result(None) if trouble is None else done.set_exception(trouble)

    async def _hand_over(self) -> None:
        """Have the database take in all that is in the journal. Raises StoreError, OSError."""
        if not self._recovered:
            await self._sink.open()
            for journal in self._left:
                await self._take_in(journal)
        await self._drain(self._journal, self._instance)
        if not self._recovered:
            await self._sink.give_up(self._instance, self._began)
            self._recovered = True

    async def _take_in(self, journal: Journal) -> None:
        """Hand over the journal of a process that is gone, and give up what it had under way."""
        with journal.alone() as alone:
            if not alone or not journal.folder.is_dir():
                return
            journal.open()
            instance = instance_of(journal.folder.parent)
            await self._drain(journal, instance)
            await self._sink.give_up(instance, self._began)
            journal.close()

    async def _drain(self, journal: Journal, instance: str) -> None:
        """Hand over what is in *journal* now. What is written meanwhile has to wait, so that batches stay large."""
        until = journal.taken + journal.waiting
        while journal.taken < until and (batch := journal.take(BATCH)) is not None:
            try:
                await self._apply(batch.lines, instance, batch.segment.names)
            except BaseException:
                journal.again(batch)
                raise
            journal.applied(batch)

    async def _apply(self, lines: Sequence[bytes], instance: str, names: Names) -> None:
        if not lines:
            return
        try:
            await self._sink.apply(lines, instance, names)
        except RowsRefused as error:
            if len(lines) == 1:
                self._lost += 1
                self._troubles.say("row", f"the ledger cannot take a row, which is left out: {error}")
                return
            half = len(lines) // 2
            await self._apply(lines[:half], instance, names)
            await self._apply(lines[half:], instance, names)

    async def _keep_house(self) -> None:
        """Drop what is too old, once in a while. What the journal would hand over again must not be among it."""
        if not self._house_due:
            return
        self._journal.rotate()
        await self._hand_over()
        if self._closing:
            return
        self._house_due = False
        self._house_in(HOUSE_EVERY)
        if self._house is None or self._house.done():
            self._house = asyncio.create_task(self._clean(), name="keyturn ledger house")

    def _house_in(self, seconds: float) -> None:
        """Have house be kept in so many seconds, also when there are no calls; later while the database is away."""
        self._house_timer = self._clock.call_at(self._clock.mono() + seconds, self._house_is_due)

    def _house_is_due(self) -> None:
        self._house_due = True
        self._news.set()

    async def _clean(self) -> None:
        """Beside the writer: a round may take long, and rows must not wait for it."""
        now = int(self._clock.wall() * 1000)
        try:
            await self._sink.keep_house(now, max(self._keeping.keep_days, LEAST_KEPT), self._keeping.responses_days)
        except StoreError as error:
            _log.warning("old rows of the ledger stay until the next hour: %s", error)

    def _expect(self) -> None:
        """Something was written: have the database visited soon, unless it is away."""
        if self._reachable:
            self._arm(PACE)

    def _arm(self, seconds: float) -> None:
        """Have the database visited in so many seconds, unless a visit is due."""
        if self._timer is None and self._tasks and not self._closing:
            with suppress(RuntimeError):  # no loop runs: the next start hands over what was written
                self._timer = self._clock.call_at(self._clock.mono() + seconds, self._due)

    def _due(self) -> None:
        self._timer = None
        self._news.set()

    def _reached(self) -> None:
        if not self._reachable:
            self._troubles.over("database", "the ledger's database takes rows again")
        self._reachable, self._sink_trouble, self._backoff = True, "", LEAST_BACKOFF
        if self._journal.unread:
            self._arm(PACE)

    def _away(self, error: Exception) -> None:
        """The database took nothing; it is asked again after a while."""
        self._reachable = False
        where = self._journal.folder
        self._sink_trouble = f"the ledger's database cannot be written, and rows wait in {where}: {error}"
        self._troubles.say("database", self._sink_trouble)
        self._arm(self._backoff)
        self._backoff = min(self._backoff * 2, MOST_BACKOFF)

    def _trouble(self) -> str:
        return self._write_trouble or self._sink_trouble or "they are taken in at the next start"


def _refusal() -> LimiterUnavailable:
    return LimiterUnavailable(
        "this call has a budget, and what it costs cannot be recorded just now; ask again in a moment",
        retry_after=PATIENCE,
    )


def _unforeseen(error: Exception) -> str:
    """What went wrong, without the words of a driver: they may hold an address with its password."""
    return _reason(error) if isinstance(error, OSError) else f"an error that was not foreseen ({type(error).__name__})"


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
