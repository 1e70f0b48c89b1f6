"""A real gateway that is killed and started again: what it knew a moment before, it still knows."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from keyturn.dispatch import SystemClock, draw
from keyturn.simulator import KeyRule, Simulator
from tests.support.serving import KEYTURN, PATIENCE, Served, ask, simulate, start, wait_until_ready

MODEL = "groq/llama-3.1-8b-instant"
KEYS = {"groq": {"gsk_revoked": KeyRule(state="invalid_key"), "gsk_good": KeyRule(), "gsk_other": KeyRule()}}


def chat(served: Served) -> int:
    headers = {"authorization": f"Bearer {served.caller_key}"}
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
    return int(ask(served.url, "POST", "/v1/chat/completions", headers=headers, body=body).status)


def used(served: Served) -> int:
    rows = served.admin("GET", "keys")
    return sum(limit["used"] for row in rows for limit in row["limits"] if limit["metric"] == "requests")


def marks(path: Path) -> int:
    """How many marks are on the disk."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=PATIENCE)) as file:
        return int(file.execute("SELECT count(*) FROM live_state WHERE kind = 'mark'").fetchone()[0])


def test_a_gateway_killed_at_once_after_its_answers_forgets_none_of_them(tmp_path: Path) -> None:
    with simulate(Simulator(SystemClock(), draw, keys=KEYS)) as upstreams:
        environ = {
            "GROQ_API_KEY_1": "gsk_revoked",
            "GROQ_API_KEY_2": "gsk_good",
            "GROQ_API_KEY_3": "gsk_other",
            "GROQ_API_BASE": f"{upstreams.url}/groq/v1",
            "LIMITS_GROQ": "rpd=6",
        }
        published = tmp_path / ".cache" / "gateway.json"
        log = tmp_path / "log.txt"

        def where() -> str:
            return str(json.loads(published.read_bytes())["url"])

        def begun(process: Any) -> Served:
            return Served(tmp_path, wait_until_ready(process, log, where, "/healthz"))

        command = [str(KEYTURN), "serve", "--port", "0"]
        with start(command, log, environ, cwd=tmp_path) as process:
            served = begun(process)
            assert [chat(served) for _ in range(10)] == [200] * 10
            assert served.states()["groq-1"] == "invalid"
            before = used(served)
            assert before >= 10
            until = time.monotonic() + PATIENCE
            while not marks(tmp_path / ".cache" / "state.sqlite"):  # they are written behind the answers
                assert time.monotonic() < until
            process.kill()
            process.wait()
        published.unlink()
        with start(command, log, environ, cwd=tmp_path) as process:
            served = begun(process)
            assert served.states()["groq-1"] == "invalid"
            assert used(served) >= before
            assert chat(served) == 429, "the day's quota of every key is used up"
            process.terminate()
            assert process.wait(20) == 0
    asked = [each for each in upstreams.seen() if each.key == "gsk_revoked" and each.kind != "models"]
    assert len(asked) <= 1, "the revoked key was not asked again"
