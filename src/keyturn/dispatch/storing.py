"""Which stores a configuration asks for: where live state and the ledger are kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from keyturn.config import Config, DataFolder, WorkerFolder
from keyturn.core import Clock, Marks
from keyturn.errors import DataFolderInUse
from keyturn.stores import Ledger, LiveState, MemoryState, NullLedger, shared_state

from .clock import draw
from .declared import budgets

if TYPE_CHECKING:
    from keyturn.stores import SqliteFile

STATE_FILE, JOURNAL_FOLDER = "state.sqlite", "journal"
"""In the data folder."""


def live_state_of(config: Config, marks: Marks, clock: Clock) -> LiveState:
    """Counters and cooldowns: of this process, or in Redis."""
    redis = config.redis
    if redis is not None:
        return shared_state(
            redis.url,
            marks,
            clock,
            draw,
            prefix=redis.prefix,
            without=redis.without,
            least_replicas=redis.least_replicas,
        )
    return MemoryState(marks, wall_offset=clock.wall() - clock.mono())


def state_file_of(config: Config, folder: DataFolder | None) -> SqliteFile | None:
    """`state.sqlite` of a data folder of one's own: the ledger, and the snapshot of live state. Workers share it."""
    if folder is None:
        return None
    from keyturn.stores import SqliteFile

    whole = folder.whole if isinstance(folder, WorkerFolder) else folder
    return SqliteFile(whole.path / STATE_FILE, durable=config.ledger.durable == "full")


def ledger_of(config: Config, folder: DataFolder | None, clock: Clock, file: SqliteFile | None = None) -> Ledger:
    """The record of calls, in *file* or in PostgreSQL; none without a data folder of one's own.

    Who owns the whole folder also takes in what workers left behind in their parts of it.
    """
    ledger = config.ledger
    if folder is None or not ledger.enabled:
        return NullLedger()
    from keyturn.stores import Journal, JournaledLedger, Keeping

    keeping = Keeping(
        ledger.keep_days,
        config.responses.keep_days,
        ledger.durable == "full",
        next(iter(budgets(config)), None) is not None,
    )
    journal = Journal(folder.path / JOURNAL_FOLDER, most=ledger.most_spooled)
    left = [
        Journal(part.path / JOURNAL_FOLDER, most=ledger.most_spooled, alone=partial(_alone, part))
        for part in (() if isinstance(folder, WorkerFolder) else folder.parts()[1:])
    ]
    if ledger.database_url is not None:
        from keyturn.stores import PostgresSink

        sink = PostgresSink(ledger.database_url, clock)
        return JournaledLedger(journal, sink, clock, keeping, let_go=sink.let_go, left=left)
    from keyturn.stores import SqliteSink

    file = file or state_file_of(config, folder)
    assert file is not None
    return JournaledLedger(journal, SqliteSink(file), clock, keeping, let_go=file.let_go, left=left)


@contextmanager
def _alone(part: DataFolder) -> Iterator[bool]:
    """Whether no worker is still using *part*: one may outlive the process that started it, to finish its answers."""
    try:
        part.lock()
    except DataFolderInUse:
        yield False
        return
    try:
        yield True
    finally:
        part.release()
