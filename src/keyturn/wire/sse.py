"""Server-sent events: cut a byte stream between events, read one event, write one.

An event ends with a blank line; a line ends with LF, CRLF or CR. Bytes are never changed, only cut, and where they
are cut does not depend on how they were chunked.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from keyturn.errors import TransportError

from .jsontext import BOM

_END = re.compile(rb"\n\n|\r\r|\n\r\n|\n\r(?=[^\n])")
"""The end of an event. LF CR at the end of what has arrived is undecided: a LF may follow and belong to it."""
_ENDS = re.compile(b"(?:" + _END.pattern + rb")[\r\n]*")
_BLANK = re.compile(rb"[\r\n]*")

_NEWLINES = b"\r\n"


class Event(NamedTuple):
    """One event's fields. *data* is None when it has none, as comments and pings do not; *retry* is in ms."""

    name: str
    data: bytes | None
    id: str | None = None
    retry: int | None = None


class Splitter:
    """Holds back the beginning of an unfinished event; linear work, however small the chunks.

    Raises TransportError `too_large` for an event of more than *max_event* bytes.
    """

    __slots__ = ("_has_cr", "_max_event", "before", "rest")

    def __init__(self, max_event: int) -> None:
        self._max_event = max_event
        self._has_cr = False
        self.rest = bytearray()
        """The unfinished event."""
        self.before = b""
        """After a refusal: the events of the same chunk that were complete before the one that is too large."""

    def feed(self, chunk: bytes) -> bytes:
        """All events that are complete now, as they came; empty when none is."""
        rest = self.rest
        if not rest and chunk.endswith((b"\n\n", b"\r\n\r\n")) and len(chunk) <= self._max_event:
            return chunk
        searched = max(0, len(rest) - 2)  # an end may have begun in the last two bytes
        lead = 0 if rest else len(chunk) - len(chunk.lstrip(_NEWLINES))
        rest += chunk
        self._has_cr = self._has_cr or b"\r" in chunk
        cut = max(lead, self._last_end(searched))
        block = bytes(rest[:cut])
        del rest[:cut]
        if cut > self._max_event:
            at = 0
            for event in split(block):
                if len(event) > self._max_event and event[0] not in _NEWLINES:
                    self._refuse(block[:at])
                at += len(event)
        if len(rest) > self._max_event:
            self._refuse(block)
        return block

    def _last_end(self, searched: int) -> int:
        """Where the last finished event ends, with the blank lines behind it; 0 when there is none."""
        rest = self.rest
        if not self._has_cr:
            found = rest.rfind(b"\n\n", searched)
            return found + 2 if found >= 0 else 0
        end = 0
        for match in _ENDS.finditer(bytes(rest[searched:])):
            end = searched + match.end()
        return end

    def _refuse(self, before: bytes) -> None:
        self.before = before
        raise TransportError("too_large", f"an event of the stream is larger than {self._max_event} bytes", sent=True)


def split(block: bytes) -> list[bytes]:
    """The events in *block*, as `Splitter.feed` returned it. Surplus blank lines are pieces of their own."""
    pieces = []
    at = 0
    while at < len(block):
        blank = _BLANK.match(block, at)
        end = blank.end() if blank else at
        if end == at:
            found = _END.search(block, at)
            end = found.end() if found else len(block)
        pieces.append(block[at:end])
        at = end
    return pieces


def read_event(raw: bytes) -> Event:
    """The fields of one event. Comments and unknown fields are passed over."""
    name, identity, retry = "", None, None
    data: list[bytes] = []
    for line in raw.removeprefix(BOM).splitlines():
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value.decode("utf-8", "replace")
        elif field == b"id" and b"\0" not in value:
            identity = value.decode("utf-8", "replace")
        elif field == b"retry" and value.isdigit() and len(value) < 10:
            retry = int(value)
    return Event(name, b"\n".join(data) if data else None, identity, retry)


def write_event(data: bytes, name: str = "") -> bytes:
    """One event; *data* may have several lines."""
    lines = [b"data: " + line for line in data.splitlines() or [b""]]
    if name:
        lines.insert(0, b"event: " + name.encode())
    return b"\n".join(lines) + b"\n\n"
