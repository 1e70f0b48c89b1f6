"""The journal by itself: what was written is handed out again in order, whole lines only, whatever broke off where."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keyturn.stores.journal import Broken, Full, Journal, sync, written_in
from tests.support.ledger_rows import began, ended, lines, over

ROOM = 1 << 30


@pytest.fixture(params=[True, False], ids=["mapped", "plain"], autouse=True)
def mapped(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Every test runs with files in memory, and with files that are written to by system calls."""
    monkeypatch.setattr(MAPPED, "on", request.param)
    return bool(request.param)


class MAPPED:
    on = True


def journal(folder: Path, *, most: int = ROOM, segment: int = 1 << 22, mapped: bool | None = None) -> Journal:
    made = Journal(folder / "journal", most=most, segment=segment, mapped=MAPPED.on if mapped is None else mapped)
    made.open()
    return made


def text(*numbers: int) -> bytes:
    return b"".join(line + b"\n" for line in rows(*numbers))


def rows(*numbers: int) -> list[bytes]:
    return [lines(ended(f"{number}", notes=["]", "ü"]))[0] for number in numbers]


def fits(log: Journal, data: bytes) -> bool:
    """Whether *data* could be written without asking the system."""
    try:
        log.write(data)
    except ValueError:
        return False
    return True


def drain(log: Journal, most: int = 100) -> list[bytes]:
    """All that is handed out, each batch taken by the database."""
    found: list[bytes] = []
    while (batch := log.take(most)) is not None:
        assert len(batch.lines) <= most
        found += [line.rstrip(b"\n") for line in batch.lines]
        log.applied(batch)
    return found


def files(log: Journal) -> list[str]:
    return sorted(path.name for path in log.folder.iterdir())


def test_lines_come_out_in_order_and_files_go_when_they_are_done_with(tmp_path: Path) -> None:
    log = journal(tmp_path, segment=600)
    for number in range(40):
        log.append(text(number))
    assert len(files(log)) >= 5
    assert log.waiting == len(text(*range(40)))
    assert drain(log, 3) == rows(*range(40))
    assert log.waiting == 0
    assert len(files(log)) <= 1
    log.append(text(40))
    assert drain(log) == rows(40)
    log.close()
    assert files(log) == []


def test_the_files_are_private(tmp_path: Path) -> None:
    log = journal(tmp_path)
    log.append(text(1))
    assert stat.S_IMODE(log.folder.stat().st_mode) == 0o700
    assert [stat.S_IMODE(path.stat().st_mode) for path in log.folder.iterdir()] == [0o600]


def test_what_was_not_taken_is_handed_out_again(tmp_path: Path) -> None:
    log = journal(tmp_path)
    log.append(text(1, 2, 3))
    batch = log.take(2)
    assert batch is not None
    log.again(batch)
    assert drain(log) == rows(1, 2, 3)


def test_the_next_process_finds_what_was_left_and_writes_a_file_of_its_own(tmp_path: Path) -> None:
    dead = journal(tmp_path)
    dead.append(text(1, 2))
    log = journal(tmp_path)
    assert log.waiting == len(text(1, 2))
    log.append(text(3))
    assert len(files(log)) == 2
    assert drain(log) == rows(1, 2, 3)
    log.close()
    assert files(log) == []


def test_at_most_so_much_waits(tmp_path: Path) -> None:
    log = journal(tmp_path, most=300)
    number = 0
    while log.waiting < 300:
        log.append(text(number))
        number += 1
    with pytest.raises(Full):
        log.append(text(number))
    assert 300 <= log.waiting < 600
    drain(log)
    log.append(text(100))
    assert drain(log) == rows(100)


def test_a_file_that_somebody_removed_is_left_out(tmp_path: Path) -> None:
    log = journal(tmp_path)
    log.append(text(1))
    next(log.folder.iterdir()).unlink()
    assert drain(log) == []
    assert log.gone == 1
    log.append(text(2))
    assert drain(log) == rows(2)


def test_lines_that_do_not_fit_into_one_reading(tmp_path: Path) -> None:
    log = journal(tmp_path)
    long = [lines(ended(str(number), notes=["x" * 700_000]))[0] for number in range(3)]
    log.append(b"".join(line + b"\n" for line in long))
    assert drain(log) == long


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_file_cut_at_any_byte_loses_no_more_than_its_torn_line(tmp_path: Path, data: st.DataObject) -> None:
    whole = text(*range(6))
    cut = data.draw(st.integers(0, len(whole)))
    tail = data.draw(st.sampled_from([b"", b"\0" * 40, b'["f","']))
    folder = tmp_path / str(next(NUMBERS)) / "journal"
    folder.mkdir(parents=True)
    (folder / "000000000001.jsonl").write_bytes(whole[:cut] + tail)
    log = journal(folder.parent)
    log.append(text(9))
    found = drain(log, data.draw(st.integers(1, 4)))
    complete = [line for number, line in enumerate(rows(*range(6))) if len(text(*range(number + 1))) <= cut]
    missing_newline = [line for number, line in enumerate(rows(*range(6))) if len(text(*range(number + 1))) == cut + 1]
    assert found == [*complete, *(missing_newline if not tail else []), *rows(9)]


NUMBERS = iter(range(1_000_000))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stops=st.lists(st.integers(0, 700), min_size=1, max_size=6))
def test_a_write_that_breaks_off_anywhere_loses_and_doubles_nothing(tmp_path: Path, stops: list[int]) -> None:
    """Each number says after how many bytes the disk is full; the rest is written again later."""
    log = journal(tmp_path / str(next(NUMBERS)), mapped=False)
    real = os.write
    wanted: list[bytes] = []
    number = 0
    left = b""
    with pytest.MonkeyPatch.context() as patch:
        for stop in stops:
            patch.setattr(os, "write", short(real, stop))
            left += text(number, number + 1)
            wanted += rows(number, number + 1)
            number += 2
            try:
                log.append(left)
                left = b""
            except Broken as error:
                left = left[error.written :]
            except OSError:
                pass
        patch.setattr(os, "write", real)
        log.append(left + text(number))
    found = drain(log)
    unique = list(dict.fromkeys(found))
    assert unique == [*wanted, *rows(number)]
    assert len(found) - len(unique) <= len(stops)  # a line that lacked its newline alone comes twice


def short(write: Callable[[int, bytes], int], stop: int) -> Callable[[int, bytes], int]:
    def full_after(descriptor: int, data: bytes) -> int:
        if stop == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[:stop])

    return full_after


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
@pytest.mark.parametrize("room", [1, 700, 1000, 1024])
def test_a_disk_that_is_really_full_in_the_middle_of_a_line(tmp_path: Path, room: int) -> None:
    """The kernel refuses what is beyond *room* bytes of a file, as a full disk does."""
    import resource

    log = journal(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    number, left = 0, b""
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        while not left:
            try:
                log.append(text(number))
                number += 1
            except Broken as error:
                left = text(number)[error.written :]
            except OSError:
                left = text(number)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert sum(path.stat().st_size for path in log.folder.iterdir()) == room
    log.append(left)
    assert list(dict.fromkeys(drain(log))) == rows(*range(number + 1))


def test_a_process_that_dies_leaves_zero_bytes_behind_that_are_no_lines(tmp_path: Path, mapped: bool) -> None:
    dead = journal(tmp_path, segment=5000)
    dead.append(text(1, 2))
    [file] = dead.folder.iterdir()
    assert file.stat().st_size == (5000 if mapped else len(text(1, 2)))
    assert written_in(file) == len(text(1, 2))
    log = journal(tmp_path)
    assert (log.waiting, drain(log), log.torn) == (len(text(1, 2)), rows(1, 2), 0)


@pytest.mark.parametrize("torn", [1, 40])
def test_a_process_that_dies_in_the_middle_of_a_line_loses_that_alone(tmp_path: Path, torn: int) -> None:
    dead = journal(tmp_path, segment=5000)
    dead.append(text(1) + text(2)[:torn])
    log = journal(tmp_path)
    log.append(text(3))
    assert (drain(log), log.torn) == (rows(1, 3), 1)


def test_a_file_that_is_closed_is_as_long_as_what_is_in_it(tmp_path: Path) -> None:
    log = journal(tmp_path, segment=5000)
    log.append(text(1))
    log.rotate()
    [file] = log.folder.iterdir()
    assert file.stat().st_size == len(text(1))
    log.append(text(2))
    assert drain(log) == rows(1, 2)


@given(sizes=st.lists(st.integers(0, 900), min_size=1, max_size=30), segment=st.integers(100, 1500))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lines_of_all_sizes_over_many_files(tmp_path: Path, sizes: list[int], segment: int) -> None:
    """Those that are larger than a file is meant to be among them; what is read in between is not read again."""
    log = journal(tmp_path / str(next(NUMBERS)), segment=segment)
    written = [lines(ended(str(number), notes=["x" * size]))[0] for number, size in enumerate(sizes)]
    found = []
    for number, line in enumerate(written):
        log.append(line + b"\n")
        if number % 3 == 2:
            found += drain(log, 2)
    assert found + drain(log) == written
    assert log.waiting == 0
    log.close()
    assert files(log) == []


def test_without_space_ahead_each_line_is_written_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    log = journal(tmp_path)
    log.append(text(1))
    assert [path.stat().st_size for path in log.folder.iterdir()] == [len(text(1))]
    assert not fits(log, text(2))
    assert drain(log) == rows(1)


def test_what_needs_nothing_of_the_system_is_put_at_once(tmp_path: Path, mapped: bool) -> None:
    log = journal(tmp_path, segment=700, most=2000)
    assert not fits(log, text(1))
    log.append(text(1))
    number = 2
    while fits(log, text(number)):
        number += 1
    assert (number > 2) == mapped
    log.append(text(number))
    assert drain(log) == rows(*range(1, number + 1))


def test_while_lines_wait_none_overtakes_them(tmp_path: Path, mapped: bool) -> None:
    log = journal(tmp_path)
    log.append(text(1))
    log.hold()
    assert not fits(log, text(3))
    log.append(text(2))
    assert fits(log, text(3)) == mapped
    assert drain(log) == rows(*((1, 2, 3) if mapped else (1, 2)))


def test_rows_of_every_kind_are_whole(tmp_path: Path) -> None:
    """What is looked at for torn lines is not taken for one."""
    row = began("a")
    folder = tmp_path / "journal"
    folder.mkdir()
    kinds = lines(row, over(row, cost=None), ended("c", status=503, refusals=["x"]))
    (folder / "000000000007.jsonl").write_bytes(b"".join(line + b"\n" for line in [*kinds, b"[]", b"{}", b"7"]))
    log = journal(tmp_path)
    assert drain(log) == kinds
    assert log.torn == 3


def test_what_is_safe_on_the_disk_is_told(tmp_path: Path) -> None:
    log = journal(tmp_path)
    log.append(text(1))
    [(segment, size)] = log.unsynced()
    sync(segment.path)
    segment.synced = size
    assert log.unsynced() == []
    log.append(text(2))
    assert [size for _, size in log.unsynced()] == [len(text(1, 2))]
    sync(tmp_path / "gone")


def test_a_line_is_plain_json(tmp_path: Path) -> None:
    log = journal(tmp_path)
    log.append(text(1))
    assert [msgspec.json.decode(line)[0] for line in drain(log)] == ["c"]
