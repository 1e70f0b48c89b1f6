"""Writes a tool's files, each with a backup and a note of what was written, and takes that back.

The note, `<file>.keyturn`, tells for each write the SHA-256 of what was written and the backup of what was there.
Writing again over what we wrote adds no backup: to undo is to have the file as it was before us.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from .connect_edits import edited
from .connect_parts import FileEdit, Unfit
from .entry import Failure


class Outcome(NamedTuple):
    """What became of one file: `written`, `unchanged`, `restored`, `removed` or `nothing to undo`."""

    path: Path
    state: str
    backup: Path | None = None


@dataclass(slots=True)
class Write:
    """One write: the hash of what it made, the name of the backup and the mode of what was there before."""

    after: str
    backup: str | None
    mode: int | None


class Prepared(NamedTuple):
    """An edit that can be made: the file behind all links, its bytes before and after."""

    edit: FileEdit
    file: Path
    before: bytes | None
    after: bytes


def prepare(edit: FileEdit) -> Prepared:
    """The edit worked out, nothing written. Raises Failure with the place in the file that is in the way."""
    file = edit.path.resolve()
    before = file.read_bytes() if file.exists() else None
    try:
        after = edited(edit.form, edit.initial.encode() if not (before or b"").strip() else before or b"", edit.changes)
    except Unfit as error:
        raise Failure(f"{file}:{error.line}: {error.why}. Nothing was written.") from error
    return Prepared(edit, file, before, after)


def write(prepared: Sequence[Prepared], stamp: str) -> list[Outcome]:
    """Makes the edits, each file whole or not at all; *stamp* names the backups. Raises Failure."""
    from keyturn.config import sole_writer

    outcomes = []
    for each in prepared:
        each.file.parent.mkdir(parents=True, exist_ok=True)
        with sole_writer(each.file.parent):
            if (each.file.read_bytes() if each.file.exists() else None) != each.before:
                raise Failure(f"{each.file}: was changed by somebody else meanwhile; run this again")
            outcomes.append(_write(each, stamp))
    return outcomes


def _write(prepared: Prepared, stamp: str) -> Outcome:
    from keyturn.config import back_up, write_private, write_whole

    edit, file, before, after = prepared
    if before == after:
        if edit.secret and file.stat().st_mode & 0o077:
            file.chmod(0o600)
        return Outcome(edit.path, "unchanged")
    writes, backup = _writes(file), None
    if writes and before is not None and writes[-1].after == _hash(before):
        writes[-1].after = _hash(after)
    else:
        backup = None if before is None else back_up(file, before, stamp)
        mode = None if before is None else file.stat().st_mode & 0o777
        writes.append(Write(_hash(after), backup.name if backup else None, mode))
    write_private(_note(file), json.dumps([asdict(each) for each in writes]).encode())
    write_whole(file, after, None if before is not None and not edit.secret else 0o600)
    return Outcome(edit.path, "written", backup)


def undo(paths: Sequence[Path], stamp: str, *, force: bool) -> list[Outcome]:
    """Takes the last write of each file back. Raises Failure, and nothing is done, when one was changed since."""
    from keyturn.config import sole_writer

    if not force:
        for path in paths:
            _refuse_changed(path.resolve())
    outcomes = []
    for path in paths:
        if not _writes(path.resolve()):
            outcomes.append(Outcome(path, "nothing to undo"))
            continue
        with sole_writer(path.resolve().parent):
            outcomes.append(_undo(path, stamp))
    return outcomes


def _refuse_changed(file: Path) -> None:
    writes = _writes(file)
    if not writes:
        return
    now, before = file.read_bytes() if file.exists() else None, _before(file, writes[-1])
    if now != before and (now is None or _hash(now) != writes[-1].after):
        kept = f"{file.name} was not there before" if before is None else f"the backup is {writes[-1].backup}"
        raise Failure(
            f"{file}: was changed since Keyturn wrote it, so nothing was undone; {kept}. "
            "--force restores it all the same, with a backup of what it holds now."
        )


def _undo(path: Path, stamp: str) -> Outcome:
    from keyturn.config import back_up, write_private, write_whole

    file = path.resolve()
    writes = _writes(file)
    last = writes.pop()
    now, before = file.read_bytes() if file.exists() else None, _before(file, last)
    kept = back_up(file, now, stamp) if now not in (None, before) and _hash(now or b"") != last.after else None
    if before is not None:
        write_whole(file, before, last.mode or 0o600)
    else:
        file.unlink(missing_ok=True)
    if writes:
        write_private(_note(file), json.dumps([asdict(each) for each in writes]).encode())
    else:
        _note(file).unlink(missing_ok=True)
    if last.backup is not None:  # the file holds it now
        with contextlib.suppress(FileNotFoundError):
            file.with_name(last.backup).unlink()
    return Outcome(path, "removed" if before is None else "restored", kept)


def _before(file: Path, write: Write) -> bytes | None:
    return None if write.backup is None else file.with_name(write.backup).read_bytes()


def _writes(file: Path) -> list[Write]:
    """What we wrote, oldest first; a note that is not ours counts as none."""
    try:
        return [Write(**each) for each in json.loads(_note(file).read_bytes())]
    except (FileNotFoundError, ValueError, TypeError):
        return []


def _note(file: Path) -> Path:
    return file.with_name(f"{file.name}.keyturn")


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
