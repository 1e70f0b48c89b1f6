"""`keyturn usage`, `trace` and `stores` over PostgreSQL and Redis, without a gateway."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.postgres_server import PostgresServer
from tests.support.redis_process import RedisProcess

from .conftest import Terminal
from .recorded_calls import REFUSED, ROWS, SERVED, record
from .test_stores import checked, leave_behind
from .test_usage import ALL


@pytest.fixture
def address(terminal: Terminal, postgres: PostgresServer) -> str:
    """Of an empty database, which every command is told of."""
    url = postgres.new_database()
    terminal.set(DATABASE_URL=url)
    return url


def record_there(terminal: Terminal, url: str) -> None:
    record(terminal.cwd, ROWS, {"DATABASE_URL": url})


def test_usage_and_trace_read_from_postgresql(terminal: Terminal, address: str) -> None:
    record_there(terminal, address)
    assert not (terminal.cwd / ".cache" / "state.sqlite").exists()
    result = terminal.run("usage", *ALL, "--json")
    assert [(row["name"], row["attempts"], row["cost_nano"]) for row in json.loads(result.stdout)] == [
        ("groq/llama-3.1-8b-instant", 3, 1_204_512_310_140),
        ("gemini/gemini-3.8-flash", 1, 0),
    ]
    assert "this is read from PostgreSQL" in result.stderr
    calls = json.loads(terminal.run("usage", *ALL, "--json", "--by", "call").stdout)
    assert [row["status"] for row in calls if row["name"] == REFUSED] == [429]
    told = terminal.run("trace", SERVED[:13]).stdout
    assert "2. groq → llama-3.1-8b-instant → groq-1:58816e → ok 200 → 349 ms (24+118 tokens, $0.000011)" in told


def test_stores_over_postgresql(terminal: Terminal, address: str) -> None:
    leave_behind(terminal)
    done = terminal.run("stores", "migrate")
    assert done.stdout.startswith("PostgreSQL: schema "), done.output
    assert "of the journal of the last run were taken in" in done.stdout
    code, found = checked(terminal)
    assert (code, found["database"][0]) == (0, "ok"), found
    refused = terminal.run("stores", "backup", "copy")
    assert refused.exit_code == 1
    assert "pg_dump" in refused.stderr
    assert terminal.run("stores", "prune", "--keep-days", "30").exit_code == 0


def test_a_postgresql_that_is_away_is_told_without_its_password(terminal: Terminal) -> None:
    terminal.set(DATABASE_URL="postgresql://keyturn:planted-secret@127.0.0.1:9/ledger")
    for command in (("usage",), ("trace", SERVED), ("stores", "check"), ("stores", "migrate")):
        result = terminal.run(*command)
        assert result.exit_code == 1
        assert "127.0.0.1" in result.output
        assert "planted" not in result.output


def test_a_redis_that_is_away_is_told_without_its_password(terminal: Terminal) -> None:
    terminal.set(REDIS_URL="redis://:planted-secret@127.0.0.1:9/0")
    code, found = checked(terminal)
    assert (code, found["live state"][0]) == (1, "fail")
    assert "planted" not in str(found)


def test_a_redis_that_may_be_used_is_looked_at_and_not_joined(terminal: Terminal, tmp_path: Path) -> None:
    with RedisProcess(tmp_path, "--appendonly", "yes") as redis:
        terminal.set(REDIS_URL=redis.url)
        code, found = checked(terminal)
        assert (code, found["live state"]) == (0, ("ok", f"Redis at {redis.socket} may be used"))
        assert redis.command("DBSIZE") == b":0\r\n"
        redis.command("CONFIG", "SET", "appendonly", "no")
        code, found = checked(terminal)
        assert (code, found["live state"][0]) == (0, "warn")
        assert "append-only" in found["live state"][1]
        redis.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        code, found = checked(terminal)
        assert (code, found["live state"][0]) == (1, "fail")
        assert "noeviction" in found["live state"][1]
