"""A real gateway whose PostgreSQL goes away and comes back while calls go on: all are answered and recorded."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest

from keyturn.dispatch import SystemClock
from keyturn.simulator import Simulator
from tests.support.postgres_server import PostgresServer
from tests.support.serving import KEYTURN, Served, ask, serve, simulate, start
from tools.torture.kills import kills

PATIENCE = 20.0


def call(gateway: Served) -> str:
    """Asks for an answer, which must come; the call's id."""
    body = {"model": "groq/llama-3.1-8b-instant", "messages": [{"role": "user", "content": "hello"}]}
    answer = ask(
        gateway.url,
        "POST",
        "/v1/chat/completions",
        headers={"authorization": f"Bearer {gateway.caller_key}"},
        body=body,
    )
    assert answer.status == 200, answer.body
    return answer.headers["x-keyturn-call"]


def findings(gateway: Served) -> dict[str, Any]:
    return {row["check"]: row for row in gateway.admin("POST", "stores", {"action": "check"})["findings"]}


def test_a_database_that_refuses_us_ends_the_start_with_words(postgres: PostgresServer, tmp_path: Path) -> None:
    environ = {"GROQ_API_KEY_1": "gsk_1", "DATABASE_URL": postgres.url("nowhere", password="hush-hush")}
    log = tmp_path / "log.txt"
    with start([str(KEYTURN), "serve", "--port", "0"], log, environ, cwd=tmp_path) as process:
        assert process.wait(PATIENCE) == 1
    said = log.read_text()
    assert "this database does not exist; make it with `createdb`" in said
    assert "hush-hush" not in said
    assert "Traceback" not in said


@pytest.mark.realtime
def test_calls_go_on_while_the_database_is_away_and_none_is_missing_after(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    url = postgres.new_database()
    simulator = Simulator(SystemClock(), random.Random(1).random, log_limit=1000)
    with simulate(simulator) as upstreams:
        environ = {"GROQ_API_KEY_1": "gsk_1", "GROQ_API_BASE": f"{upstreams.url}/groq/v1", "DATABASE_URL": url}
        with serve(tmp_path, environ) as gateway:
            calls = [call(gateway) for _ in range(5)]
            assert findings(gateway)["database"]["state"] == "ok"
            postgres.stop()
            try:
                calls += [call(gateway) for _ in range(10)]
                until = time.monotonic() + PATIENCE
                while (told := findings(gateway))["ledger"]["state"] != "fail":  # the writer has not come by yet
                    assert time.monotonic() < until, told
                assert "the database is away" in told["ledger"]["detail"]
                assert "PostgreSQL" in told["database"]["detail"]
                assert told["database"]["state"] == "fail"
            finally:
                postgres.start()
            calls += [call(gateway) for _ in range(5)]
            until = time.monotonic() + PATIENCE
            while findings(gateway)["ledger"]["state"] != "ok":
                assert time.monotonic() < until, findings(gateway)
            usage = gateway.admin("POST", "usage", {"by": "call", "since": 0, "until": 2**53, "most": 100})
            assert {row["name"] for row in usage["rows"]} == set(calls)
            assert all(row["attempts"] == 1 and row["status"] == 200 for row in usage["rows"])
    assert postgres.sql("SELECT count(DISTINCT call) FROM keyturn_attempts", url.rpartition("/")[2]) == str(len(calls))


def test_three_kills_under_load(postgres: PostgresServer) -> None:
    assert kills(3, seed=5, database_url=postgres.new_database()) == []
