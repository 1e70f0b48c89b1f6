"""`keyturn trace`: the story of one call, from the ledger and from a running gateway."""

from __future__ import annotations

import json

import pytest

from .conftest import Terminal
from .recorded_calls import BROKEN, GROQ, REFUSED, SERVED, STREAMED, attempt, record
from .test_usage import running

TOLD = f"""\
call {SERVED}, attempts: 2
2026-11-27 09:58:55 UTC, fast by ci: 200, 412 ms
1. groq → llama-3.1-8b-instant → groq-2:df59b9 → rate_limited 429 → 61 ms: Rate limit reached
2. groq → llama-3.1-8b-instant → groq-1:58816e → ok 200 → 349 ms (24+118 tokens, $0.000011)
waited 1.5 s for a key
- temperature was left out
"""


def test_trace_tells_a_call_from_the_ledger(terminal: Terminal) -> None:
    record(terminal.cwd)
    result = terminal.run("trace", SERVED)
    assert (result.exit_code, result.stdout) == (0, TOLD)
    assert "No gateway is running" in result.stderr


def test_trace_knows_a_call_by_its_beginning(terminal: Terminal) -> None:
    record(terminal.cwd)
    for short in (SERVED[:13], SERVED[:18], f" {SERVED[:20].upper()} "):
        assert terminal.run("trace", short).stdout == TOLD


def test_trace_of_a_refused_call_of_a_stream_and_of_one_that_a_crash_ended(terminal: Terminal) -> None:
    record(terminal.cwd)
    refused = terminal.run("trace", REFUSED).stdout.splitlines()
    assert refused[0] == f"call {REFUSED}, attempts: 0"
    assert refused[1:] == [
        "2026-11-28 08:00:00 UTC, fast by ci: 429 capacity, 412 ms",
        "- groq-1:58816e: requests/minute is full",
    ]
    streamed = terminal.run("trace", STREAMED).stdout
    assert "(first token after 120 ms, about 1200+300 tokens)" in streamed
    assert "fast by ci: 200, 349 ms" in terminal.run("trace", BROKEN).stdout, "a single good attempt is all of a call"


def test_trace_tells_of_a_crashed_attempt_what_was_held_for_it(terminal: Terminal) -> None:
    crashed = attempt(
        BROKEN, 1, "2026-11-28 08:00:01", GROQ, "m", meaning="crashed", input=16, cost=494_000, exact=False, status=None
    )
    record(terminal.cwd, [crashed])
    said = terminal.run("trace", BROKEN).stdout
    assert "crashed → 349 ms (about 16+0 tokens, held $0.000494)" in said
    assert "not over: it is under way, or ended with a crash" in said


def test_trace_as_json(terminal: Terminal) -> None:
    record(terminal.cwd)
    told = json.loads(terminal.run("trace", SERVED, "--json").stdout)
    assert list(told) == "call at caller route status code ms waited_ms stream attempts refusals notes".split()
    assert told["attempts"][1] == {
        "provider": "groq",
        "model": "llama-3.1-8b-instant",
        "key": "groq-1:58816e",
        "meaning": "ok",
        "status": 200,
        "ms": 349.2,
        "detail": "",
        "resend": False,
        "at": "2026-11-27T09:58:56.000Z",
        "tier": 1,
        "role": "",
        "first_token_ms": None,
        "input": 24,
        "cached": 8,
        "output": 118,
        "reasoning": 0,
        "exact": True,
        "cost_usd": 0.00001064,
        "cost_nano": 10_640,
    }


def test_a_beginning_that_many_have_names_them(terminal: Terminal) -> None:
    record(terminal.cwd)
    result = terminal.run("trace", SERVED[:8])
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"More than one call begins with {SERVED[:8]}" in result.stderr
    assert SERVED in result.stderr
    assert STREAMED in result.stderr


def test_an_unknown_call_names_the_latest(terminal: Terminal) -> None:
    record(terminal.cwd)
    result = terminal.run("trace", "01a21c71-ffff-7fff-8fff-ffffffffffff")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "No call is called 01a21c71-ffff" in result.stderr
    assert [line.split()[0] for line in result.stderr.splitlines()[2:]] == [BROKEN, REFUSED, STREAMED, SERVED]
    for word in ("not-hexadecimal-at-all", "ffffffff-ffff"):
        assert terminal.run("trace", word).exit_code == 1


def test_an_empty_ledger_has_no_calls(terminal: Terminal) -> None:
    result = terminal.run("trace", SERVED)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "none is recorded" in result.stderr


@pytest.mark.parametrize("word", ["", "01a21c7", SERVED + "00"])
def test_a_word_that_can_be_no_id_is_wrong_usage(terminal: Terminal, word: str) -> None:
    result = terminal.run("trace", word)
    assert result.exit_code == 2
    assert "at least its first 8 characters" in result.stderr


def test_a_running_gateway_is_asked(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = running(monkeypatch, {"story": None, "alike": False, "near": []})
    assert terminal.run("trace", SERVED).exit_code == 1
    assert gateway.asked == [("/admin/story", {"call": SERVED})]
