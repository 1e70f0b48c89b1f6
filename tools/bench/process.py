"""Servers under measurement: started on a core of their own, asked for their CPU time and memory, ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).parents[2]
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]


def pin(pid: int, core: int) -> None:
    """Keeps a process on one core, where the system can do that and there are two."""
    if hasattr(os, "sched_setaffinity") and len(CORES) > 1:
        os.sched_setaffinity(pid, {core})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A server process on the second core, ready when it answers /healthz."""

    def __init__(self, command: Sequence[str], port: int, **environ: str) -> None:
        self.port = port
        self.folder = tempfile.TemporaryDirectory(prefix="keyturn-bench-")
        self._log = Path(self.folder.name, "log").open("wb")  # noqa: SIM115 - open as long as the server runs
        clean = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            command,
            cwd=self.folder.name,
            env={**clean, "HOME": self.folder.name, "PYTHONPATH": str(ROOT), **environ},
            stdout=self._log,
            stderr=self._log,
            preexec_fn=lambda: pin(0, CORES[-1]),
        )
        self.ready_after = self._wait()

    def _wait(self) -> float:
        request = f"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1:{self.port}\r\nconnection: close\r\n\r\n".encode()
        while time.monotonic() < self.started + 60 and self.process.poll() is None:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 5) as probe:
                    probe.sendall(request)
                    if b" 200 " in probe.recv(100):
                        return time.monotonic() - self.started
            except OSError:
                pass
            time.sleep(0.005)
        text = Path(self.folder.name, "log").read_text()[-2000:]
        self.__exit__(None, None, None)
        raise SystemExit(f"the server did not come up:\n{text}")

    def cpu_seconds(self) -> float:
        """User and system time so far, to 10 ms; not a number where there is no /proc."""
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return float("nan")
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def switch(self) -> None:
        self.process.send_signal(signal.SIGUSR1)

    def resident_mb(self) -> float:
        """Resident memory in MB (10⁶ bytes)."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024 / 1e6
        return float("nan")

    def __enter__(self) -> Server:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.close()
        self.folder.cleanup()


def relay(upstream_port: int) -> Server:
    port = free_port()
    return Server([sys.executable, "-m", "tools.bench.relay", str(port), str(upstream_port)], port)


def keyturn(upstream_port: int, *, switched: bool = False, **environ: str) -> Server:
    """The gateway as it comes: one key, one provider, its own defaults but what *environ* says. *switched*: `switch`
    has it record nothing, and again has it record."""
    port = free_port()
    command = (
        [sys.executable, "-m", "tools.bench.switched"] if switched else [str(Path(sys.executable).with_name("keyturn"))]
    )
    return Server(
        [*command, "serve", "--port", str(port)],
        port,
        BENCH_API_KEY="bench-upstream-key",
        BENCH_API_BASE=f"http://127.0.0.1:{upstream_port}/v1",
        PROXY_API_KEY="bench-caller-key",
        **environ,
    )
