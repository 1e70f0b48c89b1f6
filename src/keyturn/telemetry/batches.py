"""Takes the gateway's events and works on them in batches: figures and lines on the loop, writing in a thread.

The loop works on few events at a time and soon, while they are in the processor's cache, and keeps of them their text
alone; the thread only writes, so that it does not fight the loop for the interpreter. A log that nobody reads, a full
pipe for instance, never holds up a call: at most 10,000 events wait, those beyond are counted and given up. Of
calls that are to be recorded or exported, at most 64 MiB wait: those beyond are not, and are counted too.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple, Protocol, TextIO

from keyturn.dispatch import CallEnded, Event, Gateway

from .logs import Lines
from .metrics import Labels, Metrics
from .pressure import room_gauges, strain_gauges, strain_totals
from .requests import LARGEST_PART, Recordings
from .stores import price_of, store_gauges, store_totals

FLUSH_EVERY = 0.2
"""Seconds that a line may wait to be written."""
MOST_WAITING = 10_000
MOST_HELD = 64 * 1024 * 1024
"""Bytes of calls that wait to be recorded or exported."""
SLICE = 32
"""Events that are worked on together: a quarter of a millisecond."""
CLOSE_PATIENCE = 2.0
"""Seconds that closing waits for a log that does not take its lines."""

_log = logging.getLogger("keyturn.telemetry")

Happened = tuple[float, Event | str]
"""When (Unix seconds), and what: an event, or a note in prose."""


class Batch(NamedTuple):
    """What the thread is handed: a text of so many lines, and the calls to record."""

    text: str
    lines: int
    calls: list[tuple[float, CallEnded]]


class Exporting(Protocol):
    """Who else wants to know of calls: OpenTelemetry. Works in telemetry's thread."""

    def take(self, calls: Iterable[tuple[float, CallEnded]]) -> None:
        """So many calls ended, each with the moment (Unix seconds)."""
        ...

    def close(self, patience: float) -> None:
        """Send what is left, within *patience* seconds."""
        ...


class Telemetry:
    """Everything that a gateway tells about itself. Made before its loop runs or on it; `close` when nothing is left.

    Log lines go to *out*, for people or (*as_json*) for machines. Calls are recorded into the folder *recordings*, when
    one is given, and handed to *exporting*, when there is one, which is closed with this. Without *figures* there is
    no metrics page, and nothing is counted.
    """

    def __init__(
        self,
        gateway: Gateway,
        out: TextIO,
        *,
        as_json: bool = False,
        recordings: Path | None = None,
        figures: bool = True,
        exporting: Exporting | None = None,
    ) -> None:
        self._gateway = gateway
        self._out = out
        self._lines = Lines(gateway.redactor, as_json=as_json)
        self._metrics = Metrics(self._gauges, partial(price_of, gateway)) if figures else None
        self._exporting = exporting
        self._keeps_calls = recordings is not None or exporting is not None
        self._recordings = Recordings(recordings, gateway.redactor) if recordings is not None else None
        self._recording_fails = False
        if recordings is not None:
            gateway.keep_answer = LARGEST_PART + 1
        self._pending: list[Happened] = []
        self._ready: list[str] = []
        """Lines that wait to be written."""
        self._calls: list[tuple[float, CallEnded]] = []
        self._held = 0
        self._let_go = 0
        """Bytes of all calls that the thread is done with; *_held* of all that it was to have, counted by the loop."""
        self._unkept = 0
        """Calls that were neither recorded nor exported."""
        self._accepted = 0
        self._written = 0
        self._dropped = 0
        self._lost = 0
        """Lines that the thread could not write; *_dropped* is counted by the loop."""
        self._batches: SimpleQueue[Batch | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="keyturn telemetry", daemon=True)
        self._thread.start()
        gateway.events.subscribe(self._note)

    def say(self, text: str) -> None:
        """A line of prose in the log: start, stop, what the owner should know."""
        self._accept(text)

    def metrics_page(self) -> bytes | None:
        """`/metrics`, up to this moment; None when there is none."""
        if self._metrics is None:
            return None
        self._flush()
        self._metrics.set_total("keyturn_log_lines_dropped_total", self._dropped + self._lost)
        self._metrics.set_total("keyturn_recordings_dropped_total", self._unkept)
        for name, value in store_totals(self._gateway):
            self._metrics.set_total(name, value)
        for name, labels, value in strain_totals(self._gateway):
            self._metrics.set_total(name, value, labels)
        return self._metrics.page()

    def close(self) -> bool:
        """Writes what is left. False when the log does not take it: then its lock is held, and Python cannot end."""
        self._flush()
        self._batches.put(None)
        self._thread.join(CLOSE_PATIENCE)
        if self._exporting is not None:
            self._exporting.close(CLOSE_PATIENCE)
        return not self._thread.is_alive()

    def _note(self, event: Event) -> None:
        self._accept(event)

    def _accept(self, what: Event | str) -> None:
        if self._accepted - self._written >= MOST_WAITING:
            self._dropped += 1
            if not isinstance(what, str) and self._metrics is not None:
                self._metrics.count(what)
            return
        self._accepted += 1
        self._pending.append((self._gateway.clock.wall(), what))
        if len(self._pending) == 1 and not self._ready:
            self._wake()
        elif len(self._pending) >= SLICE:
            self._digest()

    def _wake(self) -> None:
        clock = self._gateway.clock
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self._flush()  # before the loop runs and after it: there is no call to hold up
        else:
            clock.call_at(clock.mono() + FLUSH_EVERY, self._flush)

    def _digest(self) -> None:
        """Takes what is pending into the figures and makes its lines."""
        batch, self._pending = self._pending, []
        ready, lines, metrics = self._ready, self._lines, self._metrics
        for wall, what in batch:
            if isinstance(what, str):
                ready.append(lines.note(what, wall))
                continue
            ready.append(lines.line(what, wall))
            if metrics is not None:
                metrics.count(what)
            if self._keeps_calls and isinstance(what, CallEnded):
                self._keep(wall, what)

    def _keep(self, wall: float, event: CallEnded) -> None:
        """Has the thread record and export one call, unless too much waits for it."""
        size = _weight(event)
        if self._held - self._let_go + size > MOST_HELD:
            self._unkept += 1
            return
        self._held += size
        self._calls.append((wall, event))

    def _flush(self) -> None:
        """Hands the thread what there is."""
        self._digest()
        ready, self._ready = self._ready, []
        calls, self._calls = self._calls, []
        if ready:
            self._batches.put(Batch("\n".join(ready) + "\n", len(ready), calls))

    def _gauges(self) -> Iterator[tuple[str, Labels, float]]:
        gateway = self._gateway
        rows = gateway.keys()
        states = Counter((str(row["provider"]), str(row["state"])) for row in rows)
        for labels, count in states.items():
            yield "keyturn_keys", labels, count
        yield "keyturn_inflight_requests", (), gateway.inflight
        yield from room_gauges(gateway)
        for route, now, later in gateway.headroom_gauges():
            yield "keyturn_headroom_requests", (route, "now"), now
            yield "keyturn_headroom_requests", (route, "in_60_s"), later
        if gateway.generation.sharing is not None:
            entries, size = gateway.generation.sharing.figures()
            yield "keyturn_cache_entries", (), entries
            yield "keyturn_cache_bytes", (), size
        yield from store_gauges(gateway)
        yield from strain_gauges(gateway)
        yield "keyturn_upstream_connections", (), getattr(gateway.transport, "open_connections", 0)

    def _work(self) -> None:
        """The thread: writes batch after batch, until it is told to end."""
        while (batch := self._batches.get()) is not None:
            try:
                self._write(batch.text, batch.lines)
                if self._recordings is not None and batch.calls:
                    self._record(self._recordings, batch.calls)
                if self._exporting is not None:
                    self._exporting.take(batch.calls)
            except Exception:  # the log must outlive whatever one batch does to it
                _log.exception("log lines or recordings were lost")
            self._written += batch.lines
            self._let_go += sum(_weight(event) for _, event in batch.calls)

    def _write(self, text: str, lines: int = 1) -> None:
        try:
            self._out.write(text)
            self._out.flush()
        except (OSError, ValueError):
            self._lost += lines  # nobody reads the log any more

    def _record(self, recordings: Recordings, calls: list[tuple[float, CallEnded]]) -> None:
        """Says that it failed, once until it works again."""
        for wall, event in calls:
            try:
                recordings.record(event, wall, self._lines.clean)
                self._recording_fails = False
            except OSError as error:
                if not self._recording_fails:
                    self._recording_fails = True
                    self._write(self._lines.note(f"calls are not recorded: {error}", wall, "alarm") + "\n")


def _weight(event: CallEnded) -> int:
    """About how many bytes *event* keeps in memory."""
    return (event.call.size if event.call is not None else 0) + len(event.answer or b"") + 1024
