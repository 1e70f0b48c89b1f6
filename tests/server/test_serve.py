"""A server process: ready, told to stop, draining, gone."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from keyturn.server import bind, url_of

from .fakes import CHAT, KEY

ROOT = Path(__file__).parents[2]
STREAM = CHAT.replace(b"groq/x", b"stream")


class Process:
    """One server and where it listens."""

    def __init__(self, process: subprocess.Popen[str], data: Path) -> None:
        self.process = process
        self.data = data
        self.lines: list[str] = []
        while not (self.lines and self.lines[-1].startswith("ready ")):
            line = self._line()
            assert line, self.lines
        self.url = self.lines[-1].removeprefix("ready ")

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.lines.append(line.strip())
        return line

    def wait_for(self, text: str) -> None:
        while text not in self._line():
            pass

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=20)

    def ask(self, path: str = "/v1/chat/completions", body: bytes | None = CHAT) -> tuple[int, bytes]:
        connection = self.connect()
        connection.request("POST" if body else "GET", path, body, {"authorization": f"Bearer {KEY}"})
        response = connection.getresponse()
        answer = response.status, response.read()
        connection.close()
        return answer

    def end(self) -> int:
        return self.process.wait(20)


@contextmanager
def server(data: Path, seconds: float = 0.0, grace: float = 0.0) -> Iterator[Process]:
    command = [sys.executable, "-m", "tests.server.serving", str(data), str(seconds), str(grace)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            yield Process(process, data)
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_an_idle_server_with_code_0(tmp_path: Path, number: signal.Signals) -> None:
    with server(tmp_path, grace=60.0 if number == signal.SIGINT else 0.0) as running:  # Ctrl-C has no grace
        published = json.loads((tmp_path / "gateway.json").read_bytes())
        assert published == {"pid": running.process.pid, "url": running.url}
        assert running.ask() == (200, b'{"late": true}')
        running.process.send_signal(number)
        running.wait_for("stopped")
        assert running.end() == 0
        assert not any("leaving" in line for line in running.lines)
    assert not (tmp_path / "gateway.json").exists()
    assert not (tmp_path / "admin.key").exists()


@pytest.mark.realtime
def test_running_answers_finish_and_new_calls_get_503(tmp_path: Path) -> None:
    with server(tmp_path, 0.5) as running:
        plain = running.connect()  # asked before the stream, so it is under way when that begins to answer
        plain.request("POST", "/v1/chat/completions", CHAT, {"authorization": f"Bearer {KEY}"})
        stream = running.connect()
        stream.request("POST", "/v1/chat/completions", STREAM, {"authorization": f"Bearer {KEY}"})
        response = stream.getresponse()
        running.process.send_signal(signal.SIGTERM)
        running.wait_for("stopping: ")
        assert running.ask()[0] == 503
        assert running.ask("/readyz", None)[0] == 503
        assert response.read() == b"data: 1\n\ndata: [DONE]\n\n"
        stream.close()
        late = plain.getresponse()
        assert (late.status, late.read()) == (200, b'{"late": true}')
        plain.close()
        assert running.end() == 0


@pytest.mark.realtime
def test_in_its_grace_it_takes_calls_but_says_that_it_is_not_ready(tmp_path: Path) -> None:
    with server(tmp_path, 0.0, 60.0) as running:
        running.process.send_signal(signal.SIGTERM)
        running.wait_for("leaving: calls are still taken for 60 s")
        status, told = running.ask("/readyz", None)
        assert (status, json.loads(told)["status"]) == (503, "shutting down")
        assert running.ask() == (200, b'{"late": true}')
        running.process.send_signal(signal.SIGTERM)
        running.wait_for("stopped")
        assert running.end() == 0


@pytest.mark.realtime
def test_a_second_signal_stops_at_once_and_clients_are_told(tmp_path: Path) -> None:
    with server(tmp_path, 60.0) as running:
        plain = running.connect()  # asked before the stream, so it is under way when that begins to answer
        plain.request("POST", "/v1/chat/completions", CHAT, {"authorization": f"Bearer {KEY}"})
        stream = running.connect()
        stream.request("POST", "/v1/chat/completions", STREAM, {"authorization": f"Bearer {KEY}"})
        response = stream.getresponse()
        assert response.read(9) == b"data: 1\n\n"
        running.process.send_signal(signal.SIGTERM)
        running.wait_for("stopping: ")
        running.process.send_signal(signal.SIGTERM)
        rest = response.read()
        assert b"upstream_interrupted" in rest
        assert b"[DONE]" not in rest
        stream.close()
        assert plain.getresponse().status == 503
        plain.close()
        assert running.end() == 0


@pytest.mark.parametrize(
    ("host", "url"), [("127.0.0.1", "http://127.0.0.1:"), ("0.0.0.0", "http://127.0.0.1:"), ("::1", "http://[::1]:")]
)
@pytest.mark.realtime
def test_the_url_is_one_that_this_machine_reaches(host: str, url: str) -> None:
    with bind(host, 0) as sock:
        assert url_of(sock).startswith(url)
