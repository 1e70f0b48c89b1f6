"""What many lines of a journal share: told once in each file, and found again wherever the lines are read."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keyturn.errors import RowsRefused
from keyturn.stores import AttemptRow, Journal, JournaledLedger, NullLedger, Shared
from keyturn.stores.journal import TOLD_AGAIN
from keyturn.stores.lines import attempt_of, line_of, sifted, told_apart
from tests.support import virtual
from tests.support.ledger_rows import began, ended, lines, numbered, over, shared_by
from tests.support.ledger_sink import Database

NUMBERS = itertools.count()


def ledger(folder: Path, sink: Database, *, segment: int = 2000, mapped: bool = True) -> JournaledLedger:
    journal = Journal(folder / "journal", most=1 << 30, segment=segment, mapped=mapped)
    return JournaledLedger(journal, sink, virtual.VirtualClock())


def parts(number: int, callers: Sequence[str]) -> tuple[AttemptRow, AttemptRow]:
    row = began(str(number), caller=callers[number % len(callers)])
    return row, over(row)


@given(
    callers=st.lists(st.text(max_size=20), min_size=1, max_size=4, unique=True),
    segment=st.integers(300, 3000),
    whole=st.sets(st.integers(0, 29)),
    mapped=st.booleans(),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_are_the_same_however_they_share_and_whatever_the_files(
    tmp_path: Path, callers: list[str], segment: int, whole: set[int], mapped: bool
) -> None:
    """Files of all sizes, lines that are whole among the others, and a process that dies before it handed over any."""
    folder = tmp_path / str(next(NUMBERS))
    written = [row for number in range(30) for row in parts(number, callers)]
    shared: dict[tuple[str, str], Shared] = {}

    async def record() -> None:
        sink = Database()
        kept = ledger(folder, sink, segment=segment, mapped=mapped)
        await kept.open()
        for place, row in enumerate(written):
            common = shared.setdefault((row.kind, row.caller), shared_by(row))
            if place in whole:
                kept.finish(line_of(row))
            else:
                kept.finish(numbered(row, common), common)
        kept.abandon()
        assert sink.taken == []

    async def read() -> None:
        sink = Database()
        kept = ledger(folder, sink)
        await kept.open()
        assert sink.taken == lines(*written)
        await kept.close()

    virtual.run(record)
    virtual.run(read)


def test_what_is_shared_is_told_once_in_each_file(tmp_path: Path) -> None:
    async def main() -> None:
        sink = Database()
        kept = ledger(tmp_path, sink)
        await kept.open()
        row = began("0")
        shared = shared_by(row)
        for number in range(100):
            kept.intend(numbered(began(str(number)), shared), shared, paying=True)
        files = [file.read_bytes().rstrip(b"\0") for file in sorted((tmp_path / "journal").iterdir())]
        assert len(files) > 3
        assert {text.count(shared.text) for text in files} <= {1, 2}  # the first line of a file is whole
        assert sum(text.count(b'["n"') for text in files) == len(files)
        await kept.close()
        assert sink.taken == lines(*(began(str(number)) for number in range(100)))

    virtual.run(main)


def test_a_disk_without_room_has_each_line_say_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    async def main() -> None:
        sink = Database()
        kept = ledger(tmp_path, sink)
        await kept.open()
        monkeypatch.setattr(os, "posix_fallocate", full)
        row = began("a")
        shared = shared_by(row)
        kept.intend(numbered(row, shared), shared, paying=True)
        [file] = (tmp_path / "journal").iterdir()
        assert file.read_bytes() == line_of(row)
        await kept.close()
        assert sink.taken == lines(row)

    virtual.run(main)


def test_a_line_that_has_a_number_is_made_whole() -> None:
    row = over(began("a"))
    shared = shared_by(row)
    assert shared.whole(bytearray(numbered(row, shared))) == line_of(row)
    assert attempt_of(shared.whole(numbered(row, shared))) == row
    with pytest.raises(msgspec.DecodeError):
        attempt_of(numbered(row, shared))


def test_lines_of_every_form_are_rows_and_halves_of_them_are_none() -> None:
    row = over(began("a"))
    shared = shared_by(row)
    forms = [shared.told(), numbered(row, shared), line_of(row), line_of(ended("c"))]
    names: dict[bytes, bytes] = {}
    assert sifted(forms, names) == forms
    assert names == {bytes(shared.number): shared.text}
    for line in forms:
        assert sifted([line[:end] for end in range(1, len(line.rstrip()))], names) == []


def test_what_is_shared_is_told_again_later_in_a_large_file(tmp_path: Path) -> None:
    """So that a page which a power failure takes does not take it from all lines of the file."""

    async def main() -> None:
        sink = Database()
        kept = ledger(tmp_path, sink, segment=1 << 19)
        await kept.open()
        kept.ended(ended("first"))
        await asyncio.sleep(0)
        shared = shared_by(began("0"))
        for number in range(2000):
            kept.intend(numbered(began(str(number)), shared), shared, paying=True)
            if number % 100 == 0:
                await kept.flush()
        [file] = (tmp_path / "journal").iterdir()
        told = file.read_bytes().count(b'["n"')
        assert 2 <= told <= len(file.read_bytes().rstrip(b"\0")) / TOLD_AGAIN + 1
        await kept.close()
        assert sink.taken == lines(ended("first"), *(began(str(number)) for number in range(2000)))

    virtual.run(main)


def test_a_power_failure_that_took_what_was_shared_takes_what_shared_it(tmp_path: Path) -> None:
    """The page with it never came to the disk: its lines say nothing, and others of the file are read all the same."""
    row, other = over(began("a")), over(began("b", caller="other"))
    shared, common = shared_by(row), shared_by(other)
    text = bytes(len(shared.told())) + b"\n" + numbered(row, shared) + common.told() + numbered(other, common)
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "000000000007.jsonl").write_bytes(text)

    async def main() -> None:
        sink = Database()
        journal = Journal(tmp_path / "journal", most=1 << 30)
        kept = JournaledLedger(journal, sink, virtual.VirtualClock())
        await kept.open()
        assert sink.taken == lines(other)
        assert journal.torn == 2
        await kept.close()

    virtual.run(main)


@pytest.mark.parametrize("line", [b'[["a"],7]\n', b'["n",7]\n', b'["n"\n', b"[[\n", b"7\n"])
def test_what_is_no_row_is_refused(line: bytes) -> None:
    with pytest.raises(RowsRefused):
        told_apart([line], {})


def test_nothing_is_kept_of_what_is_shared_where_nothing_is_kept() -> None:
    row = began("a")
    shared = shared_by(row)
    NullLedger().intend(numbered(row, shared), shared, paying=False)
    NullLedger().finish(numbered(row, shared), shared)
    assert shared.told_in is None
