"""Several worker processes behind one port, with a real Redis between them: real processes, signals and sockets."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from keyturn.dispatch import SystemClock, draw
from keyturn.simulator import Simulator
from tests.support.redis_process import RedisProcess
from tests.support.serving import KEYTURN, PATIENCE, Response, Upstreams, ask, simulate, start, wait_until_ready

MODEL = "llama-3.1-8b-instant"
CALLER_KEY = "kt-the-callers-key-0123456789"
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="several workers need a Unix system")


class Workers:
    """A gateway of several workers, and the process that keeps them."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes], upstreams: Upstreams) -> None:
        self.data = folder / ".cache"
        self.process = process
        self.upstreams = upstreams
        self._log = folder / "log.txt"
        self.url = wait_until_ready(process, self._log, self._published, "/healthz")
        self.until(lambda: len(self.pids()) == 2, "both workers listen")

    def _published(self) -> str:
        return str(json.loads((self.data / "gateway.json").read_bytes())["url"])

    @property
    def log(self) -> str:
        return self._log.read_text()

    def until(self, true: Callable[[], object], what: str) -> None:
        """Returns when *true* is."""
        ends = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < ends, f"{what}:\n{self.log}"
            time.sleep(0.02)

    def ask(self, method: str, path: str, body: Any = None) -> Response:
        return ask(self.url, method, path, headers={"authorization": f"Bearer {CALLER_KEY}"}, body=body)

    def chat(self, provider: str = "groq") -> Response:
        body = {"model": f"{provider}/{MODEL}", "messages": [{"role": "user", "content": "Hello"}]}
        return self.ask("POST", "/v1/chat/completions", body)

    def admin(self, method: str, path: str, body: Any = None) -> Any:
        key = (self.data / "admin.key").read_text().strip()
        answer = ask(self.url, method, f"/admin/{path}", headers={"x-keyturn-admin": key}, body=body)
        assert answer.status == 200, answer.body
        return answer.json()

    def pids(self) -> dict[int, int]:
        """The processes of the workers that answer, by worker."""
        return {row["worker"]: row["pid"] for row in self.admin("GET", "status")["workers"] if "pid" in row}

    def each(self, found: Callable[[], Any]) -> dict[int, Any]:
        """What *found* finds by worker: asks until both have answered. The worker that answers is told by its status,
        so that *found* is called between two answers of the same one."""
        answers: dict[int, Any] = {}

        def asked() -> bool:
            before, answer, after = self.admin("GET", "status")["pid"], found(), self.admin("GET", "status")["pid"]
            if before == after:
                answers[before] = answer
            return len(answers) == 2

        self.until(asked, "both workers are asked")
        return answers


def environ(redis: RedisProcess, upstreams: Upstreams) -> dict[str, str]:
    return {
        "REDIS_URL": redis.url,
        "REDIS_PREFIX": "workers",
        "GROQ_API_KEY_1": "gsk_key_of_the_first",
        "GROQ_API_KEY_2": "gsk_key_of_the_second",
        "GROQ_API_BASE": f"{upstreams.url}/groq/v1",
        "PROXY_API_KEY": CALLER_KEY,
        "FIVE_API_KEY": "gsk_key_of_five_calls",
        "FIVE_API_BASE": f"{upstreams.url}/groq/v1",
        "FIVE_MODELS": MODEL,
        "LIMITS_FIVE": "rpm=5",
        "TIMEOUT_QUEUE_WAIT": "0.1",
    }


class Lone:
    """A worker that this test has started as the keeper of workers does. It is not waited for until it is asked."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self._channel, theirs = socket.socketpair()
        self._channel.settimeout(PATIENCE)
        with socket.create_server(("127.0.0.1", 0)) as listening, theirs:
            self.port = int(listening.getsockname()[1])
            passed = (listening.fileno(), theirs.fileno())
            seat = ["--number", "3", "--listening", str(passed[0]), "--channel", str(passed[1])]
            self.process = subprocess.Popen(
                [str(KEYTURN), "worker", *seat],
                cwd=folder,
                env={**os.environ, **environ},
                pass_fds=passed,
                stderr=subprocess.DEVNULL,
            )

    def chat(self) -> int:
        body = {"model": f"groq/{MODEL}", "messages": [{"role": "user", "content": "Hello"}]}
        headers = {"authorization": f"Bearer {CALLER_KEY}"}
        return ask(f"http://127.0.0.1:{self.port}", "POST", "/v1/chat/completions", headers=headers, body=body).status

    def ready(self) -> None:
        """Returns when it has said so."""
        assert self._channel.recv(4)

    def leave(self) -> None:
        """As if this process had been killed."""
        self._channel.close()


@pytest.fixture(scope="module")
def lone(running: Workers, redis_server: RedisProcess, upstreams: Upstreams) -> Iterator[Lone]:
    found = Lone(running.data.parent, environ(redis_server, upstreams))
    yield found
    found.leave()
    if found.process.poll() is None:
        found.process.kill()
    found.process.wait()


@pytest.fixture(scope="module")
def upstreams() -> Iterator[Upstreams]:
    with simulate(Simulator(SystemClock(), draw, models={"groq": [MODEL]})) as found:
        yield found


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, redis_server: RedisProcess, upstreams: Upstreams
) -> Iterator[Workers]:
    folder = tmp_path_factory.mktemp("workers")
    (folder / "config").mkdir()
    (folder / "config" / "settings.toml").touch()
    command = [str(KEYTURN), "serve", "--port", "0", "--workers", "2"]
    with start(command, folder / "log.txt", environ(redis_server, upstreams), cwd=folder) as process:
        yield Workers(folder, process, upstreams)


def test_both_answer_and_the_owner_is_the_process_that_keeps_them(running: Workers) -> None:
    assert running.chat().status == 200
    assert set(running.each(lambda: None)) == set(running.pids().values())
    assert json.loads((running.data / "gateway.json").read_bytes())["pid"] == running.process.pid
    assert (running.data / "lock").read_text() == str(running.process.pid)
    assert {number: (running.data / "workers" / str(number) / "lock").read_text() for number in (1, 2)} == {
        number: str(pid) for number, pid in running.pids().items()
    }
    for number in (1, 2):
        assert f"[{number}] " in running.log
    assert CALLER_KEY not in running.log
    assert "gsk_key" not in running.log


def test_figures_are_those_of_both_whoever_is_asked(running: Workers) -> None:
    before = requests_counted(running)
    for _ in range(6):
        assert running.chat().status == 200
    counted = requests_counted(running)
    assert counted.total() - before.total() == 6
    page = running.ask("GET", "/metrics").body.decode()
    assert page.count("# TYPE keyturn_requests_total counter\n") == 1
    assert re.findall(r"keyturn_worker_up\{worker=\"(\d)\"\} (\S+)", page) == [("1", "1.0"), ("2", "1.0")]


def requests_counted(running: Workers) -> Counter[str]:
    """Calls that were answered well, by worker."""
    page = running.ask("GET", "/metrics").body.decode()
    rows = re.findall(r'^keyturn_requests_total\{worker="(\d)",.*outcome="ok".*\} (\S+)$', page, re.MULTILINE)
    found: Counter[str] = Counter()
    for number, value in rows:
        found[number] += int(float(value))
    return found


def test_a_trace_is_found_whoever_is_asked(running: Workers) -> None:
    call = running.chat().headers["x-keyturn-call"]
    for told in running.each(lambda: running.admin("POST", "trace", {"call": call})).values():
        assert told["call"] == call


def test_they_share_one_limit(running: Workers) -> None:
    with ThreadPoolExecutor(12) as callers:
        answers = Counter(answer.status for answer in callers.map(lambda _: running.chat("five"), range(12)))
    assert answers == {200: 5, 429: 7}
    used = {row["key"].partition(":")[0]: row["limits"] for row in running.admin("GET", "keys")}["five-0"]
    assert [(row["capacity"], row["used"], row["free"]) for row in used if row["metric"] == "requests"] == [(5, 5, 0)]


def test_usage_is_that_of_all(running: Workers) -> None:
    asked = {"by": "key", "since": 0, "until": 2**52}
    for _ in range(4):  # whoever is asked
        assert running.chat().status == 200
        told = running.admin("POST", "usage", asked)
        assert told["complete"] is True
        assert sum(row["attempts"] for row in told["rows"]) == requests_counted(running).total()


def test_a_key_that_is_disabled_is_so_for_both_and_again_for_a_new_worker(running: Workers) -> None:
    def states() -> dict[str, str]:
        return {row["key"].partition(":")[0]: row["state"] for row in running.admin("GET", "keys")}

    assert running.admin("POST", "keys/disable", {"key": "groq-1"})["keys"]
    assert [found["groq-1"] for found in running.each(states).values()] == ["disabled", "disabled"]
    assert running.admin("POST", "keys/enable", {"key": "groq-1"})["keys"]
    assert [found["groq-1"] for found in running.each(states).values()] == ["healthy", "healthy"]
    running.admin("POST", "reload", {})
    running.until(lambda: len(reloads(running)) >= 2, "both have read the files again")
    assert [found["groq-1"] for found in running.each(states).values()] == ["healthy", "healthy"], "also by a reload"


def reloads(running: Workers) -> set[str]:
    return set(re.findall(r"^\[(\d)\] \S+ the configuration was read again", running.log, re.MULTILINE))


def test_sighup_reaches_both(running: Workers) -> None:
    settings = running.data.parent / "config" / "settings.toml"
    settings.write_text("[server]\nmax_connections = 500\n")
    running.process.send_signal(signal.SIGHUP)
    said = "server.max_connections is heeded at the next start"
    running.until(lambda: len(re.findall(rf"^\[[12]\] .*{said}", running.log, re.MULTILINE)) == 2, "both say so")


def test_a_worker_that_is_killed_is_started_again_while_the_other_answers(running: Workers, lone: Lone) -> None:
    """The worker of the next test starts meanwhile."""
    before = running.pids()
    os.kill(before[1], signal.SIGKILL)
    running.until(lambda: "worker 1 was ended by SIGKILL; it is started again" in running.log, "its end is seen")
    assert running.chat().status == 200
    running.until(lambda: len(running.pids()) == 2, "it is back")
    after = running.pids()
    assert (after[2], after[1] != before[1]) == (before[2], True)
    assert running.process.poll() is None


def test_a_worker_whose_keeper_is_gone_ends_what_it_answers_and_leaves_the_port_free(
    running: Workers, lone: Lone
) -> None:
    with slow_upstream(running.upstreams), ThreadPoolExecutor(1) as callers:
        lone.ready()
        answer = callers.submit(lone.chat)
        running.until(lambda: running.upstreams.running() == 1, "a call is under way")
        lone.leave()
        assert answer.result() == 200
        assert lone.process.wait(PATIENCE) == 0
    with socket.create_server(("127.0.0.1", lone.port)):
        pass


def test_sigterm_lets_running_answers_end(running: Workers) -> None:
    """Last, for it ends them."""
    with slow_upstream(running.upstreams), ThreadPoolExecutor(1) as callers:
        answer = callers.submit(running.chat)
        running.until(lambda: running.admin("GET", "status")["inflight"] == 1, "a call is under way, whoever has it")
        running.process.terminate()
        assert running.process.wait(PATIENCE) == 0, running.log
        assert answer.result().status == 200
    for number in (1, 2):
        assert f"[{number}] " in running.log.rpartition("stopping all workers")[2]
    assert not (running.data / "gateway.json").exists()
    assert not (running.data / "admin.key").exists()
    with socket.create_server(("127.0.0.1", urlsplit(running.url).port)):
        pass


@contextmanager
def slow_upstream(upstreams: Upstreams) -> Iterator[None]:
    """Chats take long enough to find them under way."""
    upstreams.script({"provider": "groq", "kind": "chat", "latency": 0.3})
    try:
        yield
    finally:
        upstreams.script()
