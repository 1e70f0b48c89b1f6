"""Copies what several processes log to one place: whole lines, each with the number of its worker.

Each log has a thread of its own, which reads, and writes under a lock. When nobody takes the lines, the threads wait;
then the workers' own bounds decide what is given up, and neither a call nor a signal waits.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from queue import Full, Queue

PIECE = 64 * 1024
LONGEST_LINE = 1024 * 1024
"""Bytes; what is longer is cut."""
MOST_WAITING = 1000
"""Lines of the process itself that may wait to be written."""
LAST_LINES = 5
LONGEST_KEPT = 500
"""Bytes of each of the last lines."""


class WorkerLog:
    """Lines for the descriptor *out*. JSON lines (*as_json*) get a member `worker`, others begin with `[2]`."""

    def __init__(self, out: int, *, as_json: bool = False) -> None:
        self._out = out
        self._as_json = as_json
        self._lock = threading.Lock()
        self._own: Queue[str | None] = Queue(MOST_WAITING + 1)
        self._thread = threading.Thread(target=self._write_own, name="keyturn log", daemon=True)
        self._thread.start()

    def say(self, line: str) -> None:
        """Writes a line of this process soon; gives it up when 1,000 are waiting."""
        if self._own.qsize() < MOST_WAITING:
            self._own.put_nowait(line)

    def copy(self, source: int, number: int, last: deque[bytes]) -> threading.Thread:
        """Copies from the descriptor *source* until its end, then closes it; the latest lines are kept in *last*."""
        thread = threading.Thread(target=self._copy, args=(source, number, last), name=f"log {number}", daemon=True)
        thread.start()
        return thread

    def close(self, patience: float) -> None:
        """Writes what is left, within *patience* seconds."""
        try:
            self._own.put_nowait(None)
        except Full:
            return
        self._thread.join(patience)

    def _write_own(self) -> None:
        while (line := self._own.get()) is not None:
            self._write(line.encode(errors="replace") + b"\n")

    def _copy(self, source: int, number: int, last: deque[bytes]) -> None:
        rest = b""
        try:
            while piece := os.read(source, PIECE):
                *lines, rest = (rest + piece).split(b"\n")
                if len(rest) > LONGEST_LINE:
                    lines, rest = [*lines, rest], b""
                self._pass_on(lines, number, last)
            if rest:
                self._pass_on([rest], number, last)
        except OSError:
            pass
        finally:
            os.close(source)

    def _pass_on(self, lines: list[bytes], number: int, last: deque[bytes]) -> None:
        if lines:
            last.extend(line[:LONGEST_KEPT] for line in lines[-LAST_LINES:])
            self._write(b"".join(self._marked(line, number) for line in lines))

    def _marked(self, line: bytes, number: int) -> bytes:
        if self._as_json and line.startswith(b'{"'):
            return b'{"worker":%d,%s\n' % (number, line[1:])
        return b"[%d] %s\n" % (number, line)

    def _write(self, text: bytes) -> None:
        with self._lock:
            try:
                while text:
                    text = text[os.write(self._out, text) :]
            except OSError:
                pass  # nobody reads the log any more
