"""`keyturn top`: drawn once, drawn again and again, in any window, with a gateway that comes and goes."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from keyturn.cli.screen import FIXED_LINES, Screen, bar, drawn, head, key_rows, print_once, route_rows
from keyturn.cli.top import refresh
from keyturn.config import DataFolder
from keyturn.errors import KeyturnError

from .conftest import KEYTURN, Terminal

QUOTA = {
    "metric": "requests",
    "window": "day",
    "capacity": 3000,
    "used": 1210,
    "free": 1790,
    "resets_in_s": 72_000.0,
    "resets_at": "2026-11-29T08:00:00Z",
}


def route(name: str = "senior_dev", now: int | None = 12, **more: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "route": name,
        "kind": "role",
        "deployments": ["groq/m"],
        "now": {"requests": now, "tokens": 48_000},
        "in_60_s": {"requests": 42, "tokens": 96_000},
        "returns": None,
        "waiting": {"calls": 0, "expected_s": 0.0},
        "day_quotas": [QUOTA],
        "own": [],
    }
    return row | more


def key(number: int, state: str = "free", **more: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "provider": "groq",
        "model": "llama-3.1-8b-instant",
        "key": f"groq-{number}:9f3a1c",
        "state": state,
        "why": "" if state == "free" else "rate_limited",
        "returns_in_s": None if state == "free" else 21.4,
        "returns_at": None if state == "free" else "2026-11-28T12:00:21Z",
        "now": {"requests": 12, "tokens": None},
        "in_60_s": {"requests": 12, "tokens": None},
        "used_share": 0.4,
        "active": 0,
        "day_quotas": [],
    }
    return row | more


def told(**more: Any) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "object": "headroom",
        "at": "2026-11-28T12:00:00Z",
        "in_s": 60.0,
        "call": {"tokens": 100, "output": None},
        "live": {"store": "memory", "reachable": True, "replicas": 1},
        "waiting": 2,
        "routes": [route(), route("fast", None, waiting={"calls": 2, "expected_s": 3.5})],
        "routes_left_out": 0,
        "own": [],
        "keys": [key(1), key(2, "cooling")],
        "keys_left_out": 0,
        "minute": {"senior_dev": {"calls": 41, "errors": 1}},
        "status": {"version": "1.2", "pid": 77, "ready": None, "draining": False, "inflight": 3, "waiting": 2},
    }
    return answer | more


def picture(answer: dict[str, Any] | None, trouble: str = "", width: int = 160, height: int = 40) -> list[str]:
    """The lines of a screen of that size."""
    console = Console(width=width, height=height, file=io.StringIO(), force_terminal=False)
    console.print(drawn(answer, trouble, width, height))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined, no-any-return]


def test_a_row_says_what_fits_what_waits_and_when_keys_return() -> None:
    rows = route_rows(told())
    assert rows[0][:4] == ("senior_dev", "12", "42", "48,000")
    assert rows[0][6:] == ("1,790 of 3,000 requests, whole 08:00 UTC (20 h)", "41 calls, 1 failed")
    assert rows[1][1] == "any"
    assert rows[1][4] == "2, 3.5 s"
    away = route(
        now=0, returns={"in_s": 12.3, "at": "2026-11-28T12:00:12Z", "why": "requests limit of 30 a minute reached"}
    )
    assert route_rows(told(routes=[away]))[0][5] == "in 12 s: 30 requests a minute"
    first, second = key_rows(told())
    assert first[:4] == ("groq-2:9f3a1c", "llama-3.1-8b-instant", "cooling: rate_limited", "####......  40 %")
    assert (first[6], second[6]) == ("in 21 s", ""), "those that are away stand first"
    assert head(told()).startswith("Keyturn 1.2, process 77: 3 under way, 2 waiting, 41 in the last minute, 1 failed")


@pytest.mark.parametrize(("share", "cells"), [(0.0, 0), (0.001, 1), (0.5, 5), (1.0, 10), (1.7, 10)])
def test_a_bar_is_never_empty_for_what_is_used_and_never_longer_than_it_is(share: float, cells: int) -> None:
    assert bar(share).count("#") == cells
    assert len(bar(share).partition(" ")[0]) == 10


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 130, 200])
@pytest.mark.parametrize("height", [6, 24, 60])
def test_every_window_shows_what_it_has_room_for(width: int, height: int) -> None:
    many = told(routes=[route(f"route-{each}") for each in range(50)], keys=[key(each) for each in range(300)])
    lines = picture(many, "", width, height)
    assert all(len(line) <= width for line in lines)
    assert len(lines) <= max(height, FIXED_LINES + 6)
    assert any(line.startswith("ROUTE") for line in lines)
    assert sum("route-" in line for line in lines) >= 3
    assert ("RETURNS" in " ".join(lines)) == (width >= 50)


@pytest.mark.parametrize("width", [60, 80, 96, 110, 120])
def test_figures_and_names_stay_whole_beside_long_reasons(width: int) -> None:
    why = "requests limit of 3 a minute reached"
    away = route("groq/openai/gpt-oss-20b", 1_000, returns={"in_s": 12.3, "at": "2026-11-28T12:00:12Z", "why": why})
    limited = key(1, "limited", why=why, model="openai/gpt-oss-20b-with-a-long-name", day_quotas=[QUOTA, QUOTA])
    lines = picture(told(routes=[away], keys=[limited]), width=width)
    assert all(len(line) <= width for line in lines)
    first = next(line for line in lines if line.startswith("groq/openai"))
    assert " 1,000 " in first
    assert " 42 " in first
    assert "groq-1:9f3a1c" in "".join(lines)
    assert ("in 12 s" in first) == (width >= 80)
    assert any("limited" in line for line in lines)
    assert not any("limit of" in line for line in lines)


def test_one_call_is_no_calls() -> None:
    rows = route_rows(told(minute={"senior_dev": {"calls": 1, "errors": 0}}))
    assert rows[0][7] == "1 call"


def test_without_a_key_it_says_who_answers_and_how_to_add_one(terminal: Terminal) -> None:
    result = terminal.run("top")
    assert result.exit_code == 0
    assert "No key is configured: demo/echo" in result.stdout
    assert "keyturn keys add" in result.stdout
    assert any("keyturn keys add" in line for line in picture(told(demo=["demo/echo"], routes=[], keys=[])))


def test_what_is_wrong_stands_above_the_last_figures() -> None:
    lines = picture(told(), "the gateway does not answer; trying again")
    assert lines[0] == "the gateway does not answer; trying again"
    assert any("senior_dev" in line for line in lines)
    assert picture(None, "gone") == ["gone", "q: leave"]


def test_names_are_no_markup() -> None:
    lines = picture(told(routes=[route("[bold]odd[/bold]")]))
    assert any(line.startswith("[bold]odd[/bold]") for line in lines)


def test_no_name_steers_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A client asks for any model that it likes, and the owner's terminal shows it."""
    odd = told(keys=[key(1, model="m\x1b]0;mine\x07\x9b2J\nx")])
    print_once(odd)
    for shown in (capsys.readouterr().out, "\n".join(picture(odd))):
        assert "m\ufffd]0;mine\ufffd\ufffd2J\ufffdx" in shown
        assert not {"\x1b", "\x07", "\x9b"} & set(shown)


def test_it_goes_on_while_the_gateway_is_away_and_ends_when_somebody_leaves() -> None:
    answers: list[Any] = [told(), KeyturnError("no gateway is running"), told(waiting=9)]
    seen: list[tuple[int | None, str]] = []

    def ask() -> dict[str, Any]:
        answer = answers[len(seen)]
        if isinstance(answer, KeyturnError):
            raise answer
        return dict(answer)

    def show(answer: dict[str, Any] | None, trouble: str) -> None:
        seen.append((None if answer is None else answer["waiting"], trouble))

    pauses: list[float] = []

    def pause(seconds: float) -> bool:
        pauses.append(seconds)
        return len(seen) == 3

    refresh(ask, show, pause, iter([0.0, 0.1, 2.0, 2.1, 4.0, 5.0]).__next__)
    assert seen == [(2, ""), (2, "no gateway is running; trying again"), (9, "")]
    assert pauses == [1.0, 1.0, 5.0], "what takes long to look at is looked at less often"


def test_the_terminal_is_given_back() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, height=30, _environ={"TERM": "xterm"})
    with Screen(console) as screen:
        screen.show(told(), "")
    assert out.getvalue().startswith("\x1b[?1049h")
    assert "\x1b[?1049l" in out.getvalue()


def test_printed_once_it_has_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    live = {"store": "redis", "reachable": False, "replicas": 3}
    print_once(told(routes_left_out=4, keys_left_out=7, live=live))
    said = capsys.readouterr().out
    for part in (
        "senior_dev",
        "groq-1:9f3a1c",
        "Not shown: 4 routes, 7 keys",
        "cannot be reached",
        "calls of 100 tokens",
    ):
        assert part in said


def test_without_a_gateway_it_says_what_it_shows(terminal: Terminal) -> None:
    nobody = "http://127.0.0.1:9/v1"
    terminal.set(GROQ_API_KEY_1="gsk_planted_1", LIMITS_GROQ="rpm=7", GROQ_CHAT_MODEL="m", GROQ_API_BASE=nobody)
    result = terminal.run("top")
    assert result.exit_code == 0
    assert "No gateway is running" in result.stderr
    assert "the configuration alone, as if nothing was used" in result.stderr
    assert [line.split()[:3] for line in result.stdout.splitlines() if line.startswith("groq/m")] == [
        ["groq/m", "7", "7"]
    ]
    assert "planted" not in result.output
    rows = json.loads(terminal.run("top", "--json", "--route", "groq/m", "--tokens", "50").stdout)
    assert (rows["routes"][0]["now"]["requests"], rows["call"]["tokens"]) == (7, 50)
    unknown = terminal.run("top", "--once", "--route", "xai/grok")
    assert (unknown.exit_code, unknown.stdout) == (1, "")
    assert "XAI_API_KEY" in unknown.stderr


class _Answering(BaseHTTPRequestHandler):
    """A gateway as `top` sees it: it answers once, then it is gone."""

    def do_GET(self) -> None:
        body = json.dumps(told()).encode()
        first = self.path == "/admin/headroom" and not self.server.seen  # type: ignore[attr-defined]
        self.server.seen.append((self.path, self.headers["x-keyturn-admin"]))  # type: ignore[attr-defined]
        self.send_response(200 if first else 503)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Nothing is to be seen of it."""


@pytest.mark.realtime
@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo terminal")
def test_it_watches_a_running_gateway_until_q(tmp_path: Path) -> None:
    import pty

    server = HTTPServer(("127.0.0.1", 0), _Answering)
    server.seen = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    folder = DataFolder(tmp_path / ".cache")
    folder.lock()
    try:
        admin = folder.new_admin_key()
        folder.publish(f"http://127.0.0.1:{server.server_port}")
        leader, follower = pty.openpty()
        process = subprocess.Popen(
            [*KEYTURN, "top"], cwd=tmp_path, env={"TERM": "xterm"}, stdin=follower, stdout=follower
        )
        os.close(follower)
        said = b""
        while b"senior_dev" not in said:
            said += os.read(leader, 4096)
        os.write(leader, b"q")
        assert process.wait(20) == 0
        os.close(leader)
        assert server.seen[0] == ("/admin/headroom", admin.reveal())  # type: ignore[attr-defined]
    finally:
        folder.release()
        server.shutdown()
        thread.join()
        server.server_close()
