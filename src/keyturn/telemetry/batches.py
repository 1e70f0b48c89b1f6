"""Takes the gateway's events and works on them in batches: figures on the loop, log lines and recordings in a thread.

While a call is served, telemetry costs it one entry in a list. A log that nobody reads, a full pipe for instance, never
holds up a call: at most 10,000 events wait, those beyond are counted and given up.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import TextIO

from keyturn.dispatch import CallEnded, Event, Gateway

from .logs import Lines
from .metrics import Labels, Metrics
from .requests import LARGEST_PART, Recordings

FLUSH_EVERY = 0.2
"""Seconds that an event may wait for its line."""
MOST_WAITING = 10_000
SLICE = 256
"""Lines per write. Between two writes the thread lets the loop go on."""
CLOSE_PATIENCE = 2.0
"""Seconds that closing waits for a log that does not take its lines."""

_log = logging.getLogger("keyturn.telemetry")

Happened = tuple[float, Event | str]
"""When (Unix seconds), and what: an event, or a note in prose."""


class Telemetry:
    """Everything that a gateway tells about itself. Made before its loop runs or on it; `close` when nothing is left.

    Log lines go to *out*, for people or (*as_json*) for machines. Calls are recorded into the folder *recordings*, when
    one is given.
    """

    def __init__(self, gateway: Gateway, out: TextIO, *, as_json: bool = False, recordings: Path | None = None) -> None:
        self._gateway = gateway
        self._out = out
        self._lines = Lines(gateway.redactor, as_json=as_json)
        self._metrics = Metrics(self._gauges)
        self._recordings = Recordings(recordings, gateway.redactor) if recordings is not None else None
        self._recording_fails = False
        if recordings is not None:
            gateway.keep_answer = LARGEST_PART + 1
        self._pending: list[Happened] = []
        self._accepted = 0
        self._written = 0
        self._dropped = 0
        self._lost = 0
        """Lines that the thread could not write; *_dropped* is counted by the loop."""
        self._batches: SimpleQueue[list[Happened] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="keyturn telemetry", daemon=True)
        self._thread.start()
        gateway.events.subscribe(self._note)

    def say(self, text: str) -> None:
        """A line of prose in the log: start, stop, what the owner should know."""
        self._accept(text)

    def metrics_page(self) -> bytes:
        """`/metrics`, up to this moment."""
        self._flush()
        self._metrics.set_dropped(self._dropped + self._lost)
        return self._metrics.page()

    def close(self) -> None:
        """Writes what is left, unless the log does not take it."""
        self._flush()
        self._batches.put(None)
        self._thread.join(CLOSE_PATIENCE)

    def _note(self, event: Event) -> None:
        self._accept(event)

    def _accept(self, what: Event | str) -> None:
        if self._accepted - self._written >= MOST_WAITING:
            self._dropped += 1
            if not isinstance(what, str):
                self._metrics.count(what)
            return
        self._accepted += 1
        self._pending.append((self._gateway.clock.wall(), what))
        if len(self._pending) == 1:
            self._wake()

    def _wake(self) -> None:
        clock = self._gateway.clock
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self._flush()  # before the loop runs and after it: there is no call to hold up
        else:
            clock.call_at(clock.mono() + FLUSH_EVERY, self._flush)

    def _flush(self) -> None:
        batch, self._pending = self._pending, []
        for _, what in batch:
            if not isinstance(what, str):
                self._metrics.count(what)
        if batch:
            self._batches.put(batch)

    def _gauges(self) -> Iterator[tuple[str, Labels, float]]:
        gateway = self._gateway
        rows = gateway.keys()
        states = Counter((str(row["provider"]), str(row["state"])) for row in rows)
        for labels, count in states.items():
            yield "keyturn_keys", labels, count
        yield "keyturn_inflight_requests", (), gateway.inflight
        yield "keyturn_queue_waiters", (), gateway.room.waiting

    def _work(self) -> None:
        """The thread: writes batch after batch, until it is told to end."""
        while (batch := self._batches.get()) is not None:
            for start in range(0, len(batch), SLICE):
                piece = batch[start : start + SLICE]
                try:
                    self._write(piece)
                except Exception:  # the log must outlive whatever one line does to it
                    _log.exception("log lines were lost")
                self._written += len(piece)

    def _write(self, piece: list[Happened]) -> None:
        lines = []
        for wall, what in piece:
            lines.append(self._lines.note(what, wall) if isinstance(what, str) else self._lines.line(what, wall))
            if self._recordings is not None and isinstance(what, CallEnded):
                lines += self._record(self._recordings, what, wall)
        try:
            self._out.write("\n".join(lines) + "\n")
            self._out.flush()
        except (OSError, ValueError):
            self._lost += len(lines)  # nobody reads the log any more

    def _record(self, recordings: Recordings, event: CallEnded, wall: float) -> list[str]:
        """What there is to say about it: that it failed, once until it works again."""
        try:
            recordings.record(event, wall, self._lines.clean)
        except OSError as error:
            if self._recording_fails:
                return []
            self._recording_fails = True
            return [self._lines.note(f"calls are not recorded: {error}", wall, "alarm")]
        self._recording_fails = False
        return []
