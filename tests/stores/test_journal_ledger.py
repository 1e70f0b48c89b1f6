"""The ledger over a journal, in virtual time: a database that comes and goes, a full disk, a process that dies."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import msgspec
import pytest

from keyturn.errors import LimiterUnavailable, StoreAway, StoreError
from keyturn.stores import Journal, JournaledLedger, Keeping
from keyturn.stores.journaled import BATCH
from keyturn.stores.lines import Names, line_of
from tests.support import virtual
from tests.support.ledger_rows import began, ended, lines, over
from tests.support.ledger_sink import Database

AWAY = StoreAway("the database is away")


def ledger(folder: Path, sink: Database, most: int = 1 << 20, **keeping: Any) -> JournaledLedger:
    return JournaledLedger(
        Journal(folder / "journal", most=most),
        sink,
        virtual.VirtualClock(),
        Keeping(**{"budgeted": False, **keeping}),
    )


async def later(seconds: float) -> None:
    clock = virtual.VirtualClock()
    await clock.sleep_until(clock.mono() + seconds)


def test_a_row_is_in_the_journal_at_once_and_in_the_database_soon(tmp_path: Path) -> None:
    async def main() -> None:
        sink = Database()
        kept = ledger(tmp_path, sink)
        await kept.open()
        row = began("a")
        assert kept.intend(line_of(row), paying=True) is None
        assert in_journal(tmp_path) == lines(row)
        kept.finish(line_of(over(row)))
        kept.ended(ended("c"))
        assert in_journal(tmp_path) == lines(row, over(row), ended("c"))
        assert sink.taken == []
        await later(0.6)
        assert sink.taken == lines(row, over(row), ended("c"))
        assert (kept.standing().waiting_bytes, kept.standing().recorded) == (0, 3)
        await kept.close()
        await kept.close()
        assert not sink.opened
        assert list((tmp_path / "journal").iterdir()) == []

    virtual.run(main)


def in_journal(folder: Path) -> list[bytes]:
    files = sorted((folder / "journal").iterdir())
    return [line for file in files for line in file.read_bytes().rstrip(b"\0").split(b"\n") if line]


def test_flush_makes_everything_available(tmp_path: Path) -> None:
    async def main() -> None:
        sink = Database()
        kept = ledger(tmp_path, sink)
        await kept.open()
        kept.finish(line_of(over(began("a"))))
        await kept.flush()
        assert sink.taken == lines(over(began("a")))
        await kept.flush()
        await kept.close()

    virtual.run(main)


def test_a_database_that_is_away_keeps_nobody_waiting_and_loses_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        sink = Database()
        kept = ledger(tmp_path, sink)
        await kept.open()
        sink.away = AWAY
        rows = [began(str(number)) for number in range(5000)]
        for row in rows:
            assert kept.intend(line_of(row), paying=True) is None
        await later(60.0)
        standing = kept.standing()
        assert (standing.reachable, standing.writable, standing.lost) == (False, True, 0)
        assert "away" in standing.trouble
        assert standing.waiting_bytes == sum(len(line) + 1 for line in lines(*rows))
        assert 8 <= len(sink.asked) <= 12  # 0.5, 1, 2, 4, 8, then every 10 s
        with pytest.raises(StoreAway):
            await kept.flush()
        sink.away = None
        await later(11.0)
        assert sink.taken == lines(*rows)
        assert max(sink.asked) <= BATCH
        assert kept.standing()._replace(recorded=0) == ("sqlite", True, True, 0, 0, "", 0)
        await kept.close()

    with caplog.at_level(logging.WARNING, "keyturn"):
        virtual.run(main)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) <= 4
    assert said[-1] == "the ledger's database takes rows again"


def test_whatever_goes_wrong_in_a_database_is_tried_again(tmp_path: Path) -> None:
    async def main() -> None:
        sink = Database()
        kept = ledger(tmp_path, sink)
        await kept.open()
        sink.away = TypeError("a mistake in a driver of postgresql://user:s3cret@host")
        kept.finish(line_of(over(began("a"))))
        await later(5.0)
        assert "TypeError" in kept.standing().trouble
        assert "s3cret" not in kept.standing().trouble
        sink.away = None
        await later(11.0)
        assert sink.taken == lines(over(began("a")))
        await kept.close()

    virtual.run(main)


def test_rows_that_no_database_takes_are_left_out_alone(tmp_path: Path) -> None:
    async def main() -> None:
        sink = Database()
        kept = ledger(tmp_path, sink)
        await kept.open()
        rows = [over(began(f"row-{number}-")) for number in range(100)]
        sink.refuses = b"row-57-"
        for row in rows:
            kept.finish(line_of(row))
        await kept.flush()
        assert sink.taken == lines(*rows[:57], *rows[58:])
        assert (kept.standing().lost, kept.standing().reachable) == (1, True)
        assert len(sink.asked) < 20
        await kept.close()

    virtual.run(main)


def test_the_next_start_takes_in_what_the_dead_process_left_behind(tmp_path: Path) -> None:
    async def main() -> None:
        sink = Database()
        dead = ledger(tmp_path, sink)
        await dead.open()
        sink.away = AWAY
        rows = [began("a"), over(began("b"))]
        dead.intend(line_of(rows[0]), paying=False)
        dead.finish(line_of(rows[1]))
        await later(0.3)
        sink.away = None
        await killed()
        kept = ledger(tmp_path, sink)
        await kept.open()
        assert sink.taken == lines(*rows)
        [first, second] = sink.given_up
        assert first[0] == second[0] == (tmp_path / "instance").read_text().strip()
        assert second[1] == int(virtual.VirtualClock().wall() * 1000)
        assert list((tmp_path / "journal").iterdir()) == []
        await kept.close()

    virtual.run(main)


def test_the_journals_of_workers_that_are_gone_are_taken_in_as_theirs(tmp_path: Path) -> None:
    async def main() -> None:
        sink = Database()
        worker = ledger(tmp_path / "workers" / "3", sink)
        await worker.open()
        worker.intend(line_of(began("theirs")), paying=True)
        await killed()
        sink.given_up.clear()
        left = [Journal(tmp_path / "workers" / str(number) / "journal", most=1 << 20) for number in (3, 4)]
        own = Journal(tmp_path / "journal", most=1 << 20)
        kept = JournaledLedger(own, sink, virtual.VirtualClock(), Keeping(), left=left)
        sink.away = AWAY
        with pytest.raises(StoreAway):
            await kept.open()
        sink.away = None
        await kept.open()
        assert sink.taken == lines(began("theirs"))
        ids = [(folder / "instance").read_text().strip() for folder in (tmp_path / "workers" / "3", tmp_path)]
        assert [instance for instance, _ in sink.given_up] == ids
        assert ids[0] != ids[1]
        assert remains(left[0]) == []
        assert not (tmp_path / "workers" / "4").exists()
        await kept.close()

    virtual.run(main)


def remains(journal: Journal) -> list[Path]:
    return list(journal.folder.iterdir())


async def killed() -> None:
    """The tasks of the ledger die with their process."""
    for task in asyncio.all_tasks():
        if task.get_name().startswith("keyturn ledger"):
            task.cancel()
    await asyncio.sleep(0)


@pytest.mark.parametrize("budgeted", [True, False])
def test_a_database_that_is_away_at_the_start(tmp_path: Path, budgeted: bool) -> None:
    """With budgets it must be known what was spent; without, rows wait, and attempts are given up when it is back."""

    async def main() -> None:
        sink = Database()
        sink.away = AWAY
        kept = ledger(tmp_path, sink, budgeted=budgeted)
        if budgeted:
            with pytest.raises(StoreAway):
                await kept.open()
            return
        await kept.open()
        start = int(virtual.VirtualClock().wall() * 1000)
        assert await kept.spent("2026-03") == {}
        kept.intend(line_of(began("a")), paying=False)
        await later(30.0)
        assert sink.given_up == []
        sink.away = None
        await later(11.0)
        assert sink.taken == lines(began("a"))
        assert [before for _, before in sink.given_up] == [start]
        assert await kept.spent("2026-03") == {"caller/default": 3}
        await kept.close()

    virtual.run(main)


def test_a_schema_of_a_newer_program_ends_the_start(tmp_path: Path) -> None:
    async def main() -> None:
        sink = Database()
        sink.away = StoreError("made by a newer Keyturn")
        with pytest.raises(StoreError, match="newer"):
            await ledger(tmp_path, sink).open()
        sink.away = None
        kept = ledger(tmp_path, sink)
        await kept.open()
        await kept.close()

    virtual.run(main)


class Disk:
    """Stands for `os.write`: while *full* nothing is written, or so many bytes of it."""

    def __init__(self) -> None:
        self.full = False
        self.room = 0
        self.reason = errno.ENOSPC
        self._write = os.write

    def write(self, descriptor: int, data: bytes) -> int:
        if self.full and not self.room:
            raise OSError(self.reason, os.strerror(self.reason))
        if self.full:
            data, self.room = data[: self.room], 0
        return self._write(descriptor, data)


def no_space_ahead(*_: object) -> None:
    raise OSError(errno.EOPNOTSUPP, "Operation not supported")


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    made = Disk()
    monkeypatch.setattr(os, "write", made.write)
    monkeypatch.setattr(os, "posix_fallocate", no_space_ahead)
    return made


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("room", [0, 40])
def test_a_full_disk_refuses_who_pays_and_lets_others_go_on(
    tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture, reason: int, room: int
) -> None:
    async def main() -> None:
        sink = Database()
        kept = ledger(tmp_path, sink)
        await kept.open()
        open_before = began("before")
        kept.intend(line_of(open_before), paying=True)
        disk.full, disk.room, disk.reason = True, room, reason
        for number in range(50):
            with pytest.raises(LimiterUnavailable) as refused:
                kept.intend(line_of(began(f"paid-{number}")), paying=True)
            assert refused.value.retry_after == 2.0
            assert kept.intend(line_of(began(f"free-{number}")), paying=False) is None
            await later(0.1)
        kept.finish(line_of(over(open_before)))
        kept.ended(ended("c"))
        await later(5.0)
        standing = kept.standing()
        assert (standing.writable, standing.reachable, standing.lost) == (False, True, 0)
        assert os.strerror(reason) in standing.trouble or "No space" in standing.trouble
        with pytest.raises(StoreAway):
            await kept.flush()
        disk.full = False
        await later(2.0)
        assert kept.standing().writable
        assert kept.intend(line_of(began("after")), paying=True) is None
        await kept.flush()
        assert set(sink.taken) == set(lines(open_before, over(open_before), ended("c"), began("after")))
        assert kept.standing().trouble == ""
        await kept.close()

    with caplog.at_level(logging.ERROR, "keyturn"):
        virtual.run(main)
    assert 1 <= len(caplog.records) <= 2


def test_a_write_that_breaks_off_and_fills_the_journal_is_taken_in_all_the_same(tmp_path: Path, disk: Disk) -> None:
    async def main() -> None:
        sink = Database()
        first, second = over(began("a")), over(began("b"))
        kept = ledger(tmp_path, sink, most=len(line_of(first)))
        await kept.open()
        disk.full, disk.room = True, len(line_of(first)) + 10
        kept.finish(line_of(first))
        kept.finish(line_of(second))
        await later(0.1)
        assert not kept.standing().writable
        disk.full = False
        await later(5.0)
        assert kept.standing().writable
        await kept.flush()
        assert sink.taken == lines(first, second)
        await kept.close()

    virtual.run(main)


def test_a_disk_that_has_room_again_is_found_without_a_call(tmp_path: Path, disk: Disk) -> None:
    async def main() -> None:
        sink = Database()
        kept = ledger(tmp_path, sink)
        await kept.open()
        disk.full = True
        assert kept.intend(line_of(began("a")), paying=False) is None
        await later(3.0)
        assert not kept.standing().writable
        disk.full = False
        await later(1.1)
        assert kept.standing().writable
        await kept.flush()
        assert sink.taken == []
        await kept.close()

    virtual.run(main)


def test_what_is_written_meanwhile_waits_for_the_next_visit(tmp_path: Path) -> None:
    """Else a busy gateway would hand over every row by itself."""

    async def main() -> None:
        sink = Database()
        kept = ledger(tmp_path, sink)
        await kept.open()
        taken = sink.apply

        async def apply(lines: Sequence[bytes], instance: str, names: Names | None = None) -> None:
            kept.ended(ended(f"meanwhile-{len(sink.asked)}"))
            await asyncio.sleep(0)
            await taken(lines, instance, names)

        sink.apply = apply  # type: ignore[method-assign]
        kept.ended(ended("first"))
        await later(5.0)
        assert 8 <= len(sink.asked) <= 11
        await kept.close()

    virtual.run(main)


def test_what_waits_in_memory_is_bounded_and_what_is_lost_is_counted(tmp_path: Path, disk: Disk) -> None:
    async def main() -> None:
        sink = Database()
        kept = ledger(tmp_path, sink)
        await kept.open()
        disk.full = True
        for number in range(12_000):
            kept.ended(ended(str(number)))
            if number % 100 == 0:
                await asyncio.sleep(0)
        assert kept.standing().lost == 2000
        disk.full = False
        await later(2.0)
        assert len(sink.taken) == 10_000
        await kept.close()

    virtual.run(main)


def test_more_than_may_wait_is_as_a_full_disk(tmp_path: Path) -> None:
    async def main() -> None:
        sink = Database()
        kept = ledger(tmp_path, sink)
        await kept.open()
        sink.away = AWAY
        number = 0
        while kept.standing().writable:
            kept.intend(line_of(began(str(number))), paying=False)
            number += 1
        with pytest.raises(LimiterUnavailable):
            kept.intend(line_of(began("paid")), paying=True)
        assert "bytes wait, LEDGER_MOST_SPOOLED is 1,048,576): bring its database back" in kept.standing().trouble
        sink.away = None
        await later(15.0)
        assert kept.standing().writable or kept.intend(line_of(began("paid")), paying=True) is None
        assert len(sink.taken) == number - 1
        await kept.close()

    virtual.run(main)


def test_durable_waits_for_the_disk_once_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(descriptor))

    async def main() -> None:
        kept = ledger(tmp_path, Database(), durable=True)
        await kept.open()
        synced.clear()
        waiting = [kept.intend(line_of(began(str(number))), paying=True) for number in range(50)]
        assert all(each is not None for each in waiting)
        assert synced == []
        for each in waiting:
            assert each is not None
            await each
        assert len(synced) == 2  # the file, and that it is in its folder
        kept.finish(line_of(over(began("1"))))
        await virtual.idle()
        assert len(synced) == 4
        await kept.close()

    virtual.run(main)


def test_durable_refuses_who_pays_when_the_disk_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    async def main() -> None:
        kept = ledger(tmp_path, Database(), durable=True)
        await kept.open()
        monkeypatch.setattr(os, "fsync", broken)
        paid = kept.intend(line_of(began("a")), paying=True)
        free = kept.intend(line_of(began("b")), paying=False)
        assert paid is not None
        assert free is not None
        with pytest.raises(LimiterUnavailable):
            await paid
        await free
        await kept.close()

    virtual.run(main)


def test_a_cancelled_waiter_leaves_the_others_alone(tmp_path: Path) -> None:
    async def main() -> None:
        sink = Database()
        kept = ledger(tmp_path, sink, durable=True)
        await kept.open()
        sink.gate = asyncio.Event()
        kept.finish(line_of(over(began("a"))))
        waiting = [asyncio.ensure_future(kept.flush()) for _ in range(3)]
        await virtual.idle()
        waiting[0].cancel()
        await virtual.idle()
        sink.gate.set()
        await waiting[1]
        await waiting[2]
        assert waiting[0].cancelled()
        first, second = kept.intend(line_of(began("b")), paying=True), kept.intend(line_of(began("c")), paying=True)
        assert isinstance(first, asyncio.Future)
        assert second is not None
        first.cancel()
        await second
        await kept.close()

    virtual.run(main)


def test_without_a_loop_rows_are_written_at_once(tmp_path: Path) -> None:
    sink = Database()

    async def main() -> JournaledLedger:
        kept = ledger(tmp_path, sink)
        await kept.open()
        kept.finish(line_of(over(began("a"))))
        await killed()
        return kept

    kept = virtual.run(main)
    kept.finish(line_of(over(began("b"))))
    assert in_journal(tmp_path) == lines(over(began("a")), over(began("b")))
    kept.abandon()
    assert in_journal(tmp_path) == lines(over(began("a")), over(began("b")))


def test_half_a_character_does_not_keep_a_row_out(tmp_path: Path) -> None:
    async def main() -> None:
        sink = Database()
        kept = ledger(tmp_path, sink)
        await kept.open()
        kept.ended(ended("c", notes=["half \ud83d", "whole 🙂"]))
        await kept.flush()
        assert msgspec.json.decode(sink.taken[0])[-1] == ["half ?", "whole 🙂"]
        await kept.close()

    virtual.run(main)


@pytest.mark.parametrize("calls", [True, False])
def test_house_is_kept_once_an_hour_also_while_there_are_no_calls(tmp_path: Path, calls: bool) -> None:
    async def main() -> None:
        sink = Database()
        kept = ledger(tmp_path, sink)
        await kept.open()
        for number in range(130):
            if calls:
                kept.ended(ended(str(number)))
            await later(60.0)
        assert sink.houses == 3
        await kept.close()

    virtual.run(main)


def test_house_is_kept_when_the_database_is_back(tmp_path: Path) -> None:
    async def main() -> None:
        sink = Database()
        kept = ledger(tmp_path, sink)
        await kept.open()
        sink.away = AWAY
        kept.ended(ended("a"))
        await later(300.0)
        assert sink.houses == 0
        sink.away = None
        await later(20.0)
        assert sink.houses == 1
        await kept.close()

    virtual.run(main)


def test_no_house_is_kept_once_the_end_has_begun(tmp_path: Path) -> None:
    async def main() -> None:
        sink = Database()
        kept = ledger(tmp_path, sink)
        await kept.open()
        sink.gate = asyncio.Event()
        await later(59.95)
        kept.ended(ended("a"))
        await later(1.0)
        closing = asyncio.ensure_future(kept.close())
        await later(1.0)
        sink.gate.set()
        await closing
        assert sink.houses == 0

    virtual.run(main)


def test_a_close_that_is_broken_off_leaves_no_task_and_nobody_waiting(tmp_path: Path) -> None:
    async def main() -> None:
        sink = Database()
        kept = ledger(tmp_path, sink)
        await kept.open()
        sink.gate = asyncio.Event()
        kept.ended(ended("a"))
        await later(1.0)
        asking = asyncio.ensure_future(kept.flush())
        await later(1.0)
        closing = asyncio.ensure_future(kept.close())
        await later(1.0)
        closing.cancel()
        await asyncio.wait([closing, asking])
        assert asking.cancelled()
        assert in_journal(tmp_path) == lines(ended("a"))

    virtual.run(main)


def test_the_journal_of_a_worker_that_still_ends_is_left_to_it(tmp_path: Path) -> None:
    async def main() -> None:
        sink = Database()
        worker = ledger(tmp_path / "workers" / "3", sink)
        await worker.open()
        sink.away = AWAY
        worker.intend(line_of(began("theirs")), paying=True)
        sink.away = None
        busy = [True]
        place = tmp_path / "workers" / "3" / "journal"
        left = [Journal(place, most=1 << 20, alone=lambda: nullcontext(not busy[0]))]
        kept = JournaledLedger(Journal(tmp_path / "journal", most=1 << 20), sink, virtual.VirtualClock(), left=left)
        sink.given_up.clear()
        await kept.open()
        assert len(sink.given_up) == 1
        assert remains(left[0]) != []
        worker.finish(line_of(over(began("theirs"))))
        await worker.close()
        assert sink.taken == lines(began("theirs"), over(began("theirs")))
        await kept.close()

    virtual.run(main)


def test_a_ledger_that_was_never_opened_is_closed_without_a_trace(tmp_path: Path) -> None:
    async def main() -> None:
        sink = Database()
        await ledger(tmp_path, sink).close()
        assert not sink.opened

    virtual.run(main)
    assert list(tmp_path.iterdir()) == []


def test_trouble_that_comes_and_goes_is_not_told_each_time(
    tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        kept = ledger(tmp_path, Database())
        await kept.open()
        for _ in range(20):
            disk.full = not disk.full
            kept.ended(ended("c"))
            await later(1.1)
        await kept.close()

    with caplog.at_level(logging.WARNING, "keyturn"):
        virtual.run(main)
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


def test_a_data_folder_that_cannot_be_written_ends_the_start(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "journal").write_text("a file in the place of the folder")
        with pytest.raises(StoreError, match="journal"):
            await ledger(tmp_path, Database()).open()

    virtual.run(main)
