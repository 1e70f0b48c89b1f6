"""Event streams of any dialect: a base for readers that translate, and one for watches over what is relayed."""

from __future__ import annotations

from collections.abc import Iterable

from keyturn.core import Delta, Usage
from keyturn.errors import TransportError

from .jsontext import loose
from .sse import Event, Splitter, read_event, split

MAX_EVENT = 8 << 20
_DONE = b"[DONE]"


class EventReader:
    """Cuts a stream into events and has `take` read each. What is said does not depend on how bytes were chunked."""

    def __init__(self, max_event: int = MAX_EVENT) -> None:
        self._splitter = Splitter(max_event)
        self._over = False
        self.done = False
        self.finished = False
        self.error: bytes | None = None

    def take(self, name: str, data: bytes, out: list[Delta]) -> None:
        """Read one event: append what it says to *out*, set `finished` and `done`, or call `fail`."""
        raise NotImplementedError

    def feed(self, chunk: bytes) -> list[Delta]:
        """What *chunk* completes. Raises TransportError `too_large`."""
        out: list[Delta] = []
        if not self._over:
            try:
                block = self._splitter.feed(chunk)
            except TransportError:
                self._read(split(self._splitter.before), out)
                if self.done or self.error is not None:  # what follows is nobody's concern
                    return out
                raise
            if block and not self._read_usual(block, out):
                self._read(split(block), out)
        return out

    def end(self) -> list[Delta]:
        """What a last event without its blank line says, if it came whole."""
        out: list[Delta] = []
        rest = bytes(self._splitter.rest)
        if rest.strip() and not self._over:
            data = read_event(rest).data
            if data is not None and (data.strip() == _DONE or loose(data) is not None):
                self._read([rest], out)
            elif loose(rest) is not None:  # a plain JSON error where a stream was promised
                self.fail(rest.strip())
        self._over = True
        return out

    def fail(self, error: bytes) -> None:
        """The upstream reports an error: *error* is its JSON. Nothing more counts."""
        self.error = error
        self._over = True

    def _read_usual(self, block: bytes, out: list[Delta]) -> bool:
        """Read *block* in the fewest steps, if it is one event as nearly all are: `data:`, or `event:` and `data:`,
        a line each that end alike."""
        newline = b"\r\n" if block.endswith(b"\r\n\r\n") else b"\n"
        at, name, gap = 0, "", len(newline)
        if block.startswith(b"event: "):
            at = block.find(newline) + gap
            name = block[7 : at - gap].decode("utf-8", "replace")
        end = len(block) - 2 * gap
        if not block.startswith(b"data: {", at) or block.find(b"\n", at) != end + gap - 1:
            return False
        self.take(name, block[at + 6 : end], out)
        self._over = self._over or self.done or self.error is not None
        return True

    def _read(self, events: Iterable[bytes], out: list[Delta]) -> None:
        for raw in events:
            event = read_event(raw)
            if event.data is None:
                self.bare(event, raw, out)
            elif event.data.strip() == _DONE:
                self.finished = self.done = True
            else:
                self.take(event.name, event.data, out)
            if self.done or self.error is not None:
                self._over = True
                return

    def bare(self, event: Event, raw: bytes, out: list[Delta]) -> None:
        """A piece without data: a comment, blank lines, or an error body under the wrong content type."""
        text = raw.strip()
        if text[:1] in (b"{", b"["):
            self.take("", text, out)


class StreamWatch:
    """Relays a stream as it comes and notices its start, its end, its errors and its usage.

    A subclass names in *marks* the words of events that matter; once output has started, what holds none of them is
    passed on unread. `take` reads the others.
    """

    marks: tuple[bytes, ...] = ()

    def __init__(self, max_event: int = MAX_EVENT) -> None:
        self._splitter = Splitter(max_event)
        self._over = False
        self.relayed_bytes = 0
        self.started = False
        self.finished = False
        self.done = False
        self.error: bytes | None = None
        self.usage: Usage | None = None
        self.tail = b""
        self.signatures: list[str] = []

    def take(self, name: str, data: bytes) -> bool:
        """Read one event; whether it is output. Sets `finished`, `done`, `usage`, or calls `fail`."""
        raise NotImplementedError

    @property
    def output_bytes(self) -> int:
        """Bytes of output relayed: those of the events, of which a part is their envelope."""
        return self.relayed_bytes // 3

    def feed(self, chunk: bytes) -> bytes:
        """The events that are complete now, as they came. Raises TransportError `too_large`."""
        if self._over:
            return b""
        try:
            block = self._splitter.feed(chunk)
        except TransportError:
            relayed = self._sift(self._splitter.before)
            if self.done or self.error is not None:
                return relayed
            raise
        if not block:
            return b""
        if self.started and not any(mark in block for mark in self.marks):
            self.relayed_bytes += len(block)
            return block
        return self._sift(block)

    def _sift(self, block: bytes) -> bytes:
        relayed = []
        for event in split(block):
            if self._relays(event):
                relayed.append(event)
            if self.done or self.error is not None:
                self._over = True
                break
        return b"".join(relayed)

    def end(self) -> bool:
        """At the end of the bytes: True when the answer is complete, False when it was cut or failed."""
        rest = bytes(self._splitter.rest)
        if rest.strip() and not self._over:
            data = read_event(rest).data
            whole = data is not None and loose(data) is not None
            if (whole or loose(rest) is not None) and self._relays(rest) and self.finished:
                self.tail = rest.rstrip(b"\r\n") + b"\n\n"
        self._over = True
        return self.finished and self.error is None

    def fail(self, error: bytes) -> None:
        """The upstream reports an error: *error* is its JSON. It is not relayed, and nothing more counts."""
        self.error = error
        self._over = True

    def _relays(self, raw: bytes) -> bool:
        """Take in one event; whether it is to be relayed."""
        event = read_event(raw)
        data = event.data
        if data is None:
            text = raw.strip()
            if text[:1] not in (b"{", b"["):
                return True
            data = text
        if self.take(event.name, data):
            self.started = True
            self.relayed_bytes += len(raw)
        return self.error is None
