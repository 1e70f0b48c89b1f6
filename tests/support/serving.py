"""A real gateway and a real simulator, each on a port of its own, for clients that we did not write.

with simulate(simulator) as upstreams, serve(folder, {"GROQ_API_BASE": f"{upstreams.url}/groq/v1", …}) as gateway:
    upstreams.script({"key": "gsk_broken", "status": 500})
    OpenAI(base_url=gateway.base_url, api_key=gateway.caller_key)
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import uvicorn

from keyturn.simulator import Exchange, Simulator

KEYTURN = Path(sys.executable).with_name("keyturn")
PATIENCE = 20.0
"""Seconds that a process gets to start or to end, on a machine that is busy with other things."""
SETTLING = 20.0
"""Seconds that requests under way get to end, once nobody waits for them."""
TICK = 0.01


class Response(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def ask(url: str, method: str, path: str, *, headers: Mapping[str, str] | None = None, body: Any = None) -> Response:
    """One request with *body* as JSON, on a connection of its own. Raises OSError when nobody answers."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE)
    try:
        data = None if body is None else json.dumps(body).encode()
        connection.request(method, path, data, {"content-type": "application/json", **(headers or {})})
        answer = connection.getresponse()
        return Response(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()


class Upstreams:
    """A simulator behind a port. Its log is read in this process, its script is written over HTTP."""

    def __init__(self, simulator: Simulator, url: str) -> None:
        self.simulator = simulator
        self.url = url

    def script(self, *faults: Mapping[str, Any]) -> None:
        """These faults, and no others, from now on."""
        answer = ask(self.url, "POST", "/_simulator/script", body={"clear": True, "faults": faults})
        assert answer.status == 200, answer.body

    def forget(self) -> None:
        """Empty the log. Only while nothing is under way."""
        assert self.running() == 0
        self.simulator.record.log.clear()

    def seen(self, **members: Any) -> list[Exchange]:
        """The model calls in the log with these members, in order of arrival."""
        return [each for each in self.simulator.select(**members) if each.kind != "models"]

    def running(self) -> int:
        """How many requests have not ended. Asked over HTTP, so that what has arrived before is counted."""
        return int(ask(self.url, "GET", "/_simulator/stats").json()["open"])

    def settled(self) -> None:
        """Return when no request is under way any more. Raises AssertionError when one stays."""
        until = time.monotonic() + SETTLING
        while self.running():
            assert time.monotonic() < until, f"still under way: {self.simulator.select(result='open')}"


@contextmanager
def simulate(simulator: Simulator) -> Iterator[Upstreams]:
    """*simulator* on a free port, served by a thread of this process."""
    listening = socket.create_server(("127.0.0.1", 0))
    settings = uvicorn.Config(simulator, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="simulator")
    thread.start()
    try:
        yield Upstreams(simulator, f"http://127.0.0.1:{listening.getsockname()[1]}")
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        listening.close()
    assert not thread.is_alive()


class Served:
    """A gateway at work in *folder*. *url* is its root, *base_url* what an OpenAI client wants to know."""

    def __init__(self, folder: Path, url: str) -> None:
        self.url = url
        self.base_url = f"{url}/v1"
        self.caller_key = (folder / ".cache" / "caller.key").read_text().strip()
        self._admin_key = (folder / ".cache" / "admin.key").read_text().strip()

    def admin(self, method: str, path: str, body: Any = None) -> Any:
        """What our own commands ask a running gateway."""
        answer = ask(self.url, method, f"/admin/{path}", headers={"x-keyturn-admin": self._admin_key}, body=body)
        assert answer.status == 200, answer.body
        return answer.json()

    def reset(self) -> None:
        """Clear every cooldown."""
        self.admin("POST", "keys/reset", {})

    def states(self) -> dict[str, str]:
        """The state of each key by its label: `groq-2` → `healthy`."""
        return {row["key"].partition(":")[0]: row["state"] for row in self.admin("GET", "keys")}


@contextmanager
def serve(
    folder: Path, environ: Mapping[str, str], options: Sequence[str] = (), program: Sequence[str] = (str(KEYTURN),)
) -> Iterator[Served]:
    """`keyturn serve` on a free port in *folder*; ended by SIGTERM, which it must obey with exit code 0."""
    log = folder / "log.txt"
    published = folder / ".cache" / "gateway.json"
    with start([*program, "serve", "--port", "0", *options], log, environ, cwd=folder) as process:
        yield Served(
            folder, wait_until_ready(process, log, lambda: json.loads(published.read_bytes())["url"], "/healthz")
        )
        process.terminate()
        assert process.wait(PATIENCE) == 0, log.read_text()


@contextmanager
def start(
    command: Sequence[str], log: Path, environ: Mapping[str, str], *, cwd: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that says everything into *log* and is gone afterwards."""
    with log.open("wb") as said:
        process = subprocess.Popen(command, cwd=cwd, env={**os.environ, **environ}, stdout=said, stderr=said)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def wait_until_ready(process: subprocess.Popen[bytes], log: Path, where: Callable[[], str], path: str) -> str:
    """The URL that *where* tells, once GET *path* answers 200 there; *where* raises OSError while it does not know.

    Raises AssertionError with what the process said when it ends instead or takes too long.
    """
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and not _ended(process, TICK):
        try:
            url = where()
            if ask(url, "GET", path).status == 200:
                return url
        except OSError:
            continue
    raise AssertionError(f"{process.args!r} did not get ready:\n{log.read_text()}")


def _ended(process: subprocess.Popen[bytes], within: float) -> bool:
    """Whether *process* ends within so many seconds."""
    try:
        process.wait(within)
    except subprocess.TimeoutExpired:
        return False
    return True
