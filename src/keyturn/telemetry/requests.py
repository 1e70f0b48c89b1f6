"""Recordings of whole calls (`--log-requests`): one private file each, redacted, bounded in size each and together.

They hold prompts and answers in clear, so they are off by default. Written by telemetry's own thread; a disk that is
full or gone costs recordings and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from keyturn.core import Call, Redactor
from keyturn.dispatch import CallEnded

from .logs import attempt_row

LARGEST_PART = 480 * 1024
"""Bytes of a request, and of an answer, that are kept: with the rest, a file stays below 1 MiB."""
LARGEST_FOLDER = 200 * 1024 * 1024
_AFTER_CLEARING = 0.9
_MARGIN = 1024
"""Longer than any secret: what is cut off a long text is redacted with this much more, so that no half of one stays."""


class Recordings:
    """The folder of recorded calls. Used from one thread."""

    def __init__(self, folder: Path, redactor: Redactor, largest_folder: int = LARGEST_FOLDER) -> None:
        self._folder = folder
        self._redactor = redactor
        self._largest = largest_folder
        self._total: int | None = None

    def record(self, event: CallEnded, wall: float, clean: Callable[[str], str]) -> None:
        """Writes one call. Raises OSError when that cannot be done."""
        if event.call is None:
            return
        trail = event.trail
        content = msgspec.json.encode(
            {
                "call": trail.call,
                "time": datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds"),
                "caller": clean(event.caller.name),
                "route": clean(trail.route),
                "kind": event.call.kind,
                "stream": trail.stream,
                "status": trail.status,
                "code": clean(trail.code),
                "ms": round(((trail.ended or trail.started) - trail.started) * 1000, 1),
                "request": self._part(_body(event.call)),
                "attempts": [attempt_row(attempt, clean) for attempt in trail.attempts],
                "refusals": [clean(text) for text in trail.refusals],
                "notes": [clean(text) for text in trail.notes],
                "answer": self._part(event.answer or b""),
            }
        )
        day = datetime.fromtimestamp(wall, UTC).date()
        self._write(f"{day}-{trail.call}.json", content)

    def _part(self, raw: bytes) -> object:
        """*raw* redacted and bounded: as the JSON that it is, else as text."""
        kept = self._redactor.data(raw[: LARGEST_PART + _MARGIN])
        if len(raw) <= LARGEST_PART:
            try:
                msgspec.json.decode(kept)
                return msgspec.Raw(kept)
            except (msgspec.DecodeError, RecursionError):
                text = kept.decode(errors="replace")
        else:
            text = kept[: len(kept) - _MARGIN].decode(errors="replace")
        while len(msgspec.json.encode(text)) > LARGEST_PART:
            text = text[: len(text) * 3 // 4]
        return text

    def _write(self, name: str, content: bytes) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / name
        try:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(content)
        except FileExistsError:
            raise
        except OSError:
            path.unlink(missing_ok=True)
            raise
        if self._total is None:
            self._total = sum(size for _, size in self._files())
        else:
            self._total += len(content)
        if self._total > self._largest:
            self._clear()

    def _clear(self) -> None:
        """Removes the oldest: names begin with the day and go on with an id that is in order of time."""
        files = sorted(self._files())
        total = sum(size for _, size in files)
        for path, size in files:
            if total <= self._largest * _AFTER_CLEARING:
                break
            path.unlink(missing_ok=True)
            total -= size
        self._total = total

    def _files(self) -> list[tuple[Path, int]]:
        with os.scandir(self._folder) as entries:
            return [(Path(entry.path), entry.stat().st_size) for entry in entries if entry.name.endswith(".json")]


def _body(call: Call) -> bytes:
    """The request body, put together again from its members."""
    members = (msgspec.json.encode(name) + b":" + value for name, value in call.members.items())
    return b"{" + b",".join(members) + b"}"
