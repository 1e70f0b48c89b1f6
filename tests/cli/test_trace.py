"""`keyturn trace`: the story of one call, from the ledger and from a running gateway."""

from __future__ import annotations

import json

import pytest

from .conftest import Terminal
from .recorded_calls import BROKEN, GROQ, REFUSED, SERVED, STREAMED, attempt, call, record
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


def test_trace_knows_a_call_by_its_end(terminal: Terminal) -> None:
    record(terminal.cwd)
    assert len({each[-6:] for each in (SERVED, STREAMED, REFUSED, BROKEN)}) == 4
    for short in (SERVED[-6:], SERVED[-8:].upper(), SERVED[-17:]):
        assert terminal.run("trace", short).stdout == TOLD
    assert "No call is called ffff00" in terminal.run("trace", "ffff00").stderr


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


def test_no_name_steers_the_terminal(terminal: Terminal) -> None:
    odd = call(BROKEN, "2026-11-28 08:00:00", 404, "model_not_found", route="x\x1b[2J\r\nanswer")
    record(terminal.cwd, [odd])
    assert "x\ufffd[2J\ufffd\ufffdanswer by" in terminal.run("trace", BROKEN).stdout


def test_trace_as_json(terminal: Terminal) -> None:
    record(terminal.cwd)
    told = json.loads(terminal.run("trace", SERVED, "--json").stdout)
    names = "call at caller route status code ms waited_ms stream attempts refusals notes".split()
    assert list(told) == [*names, "plan", "ordered", "deadlines", "wait", "shared"]
    assert told["wait"] == {"position": None, "expected_ms": None, "actual_ms": 1500.0}
    assert told["attempts"][1] == {
        "provider": "groq",
        "model": "llama-3.1-8b-instant",
        "key": "groq-1:58816e",
        "meaning": "ok",
        "status": 200,
        "ms": 349.2,
        "detail": "",
        "resend": False,
        "pick": None,
        "content_by_ms": None,
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
    assert f"More than one call begins or ends with {SERVED[:8]}" in result.stderr
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


@pytest.mark.parametrize("word", ["", "01a21", SERVED + "00"])
def test_a_word_that_can_be_no_id_is_wrong_usage(terminal: Terminal, word: str) -> None:
    result = terminal.run("trace", word)
    assert result.exit_code == 2
    assert "at least its last 6 or its first 8 characters" in result.stderr


def test_a_running_gateway_is_asked(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = running(monkeypatch, {"story": None, "alike": False, "near": []})
    assert terminal.run("trace", SERVED).exit_code == 1
    assert gateway.asked == [("/admin/story", {"call": SERVED})]


def test_what_a_gateway_remembers_beside_the_ledger_is_told(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(terminal.cwd)
    story = json.loads(terminal.run("trace", SERVED, "--json").stdout)
    story["attempts"][0] |= {
        "pick": {"ready": 3, "load": 0.1, "active": 2, "pace_ms": 300.0},
        "content_by_ms": 60_000.0,
    }
    story |= {
        "plan": ["mistral/large", "groq/llama-3.1-8b-instant"],
        "ordered": "fastest",
        "deadlines": {"total_ms": 600_000.0, "content_ms": 30_000.0, "wait_ms": 20_000.0},
        "wait": {"position": 4, "expected_ms": 1400.0, "actual_ms": 1500.0},
        "shared": "miss",
    }
    running(monkeypatch, {"story": story, "alike": False, "near": []})
    said = terminal.run("trace", SERVED).stdout.splitlines()
    assert "waited 1.5 s for a key, at place 4 of the line, 1.4 s expected" in said
    assert said[-4:] == [
        "- planned (fastest first): mistral/large, groq/llama-3.1-8b-instant",
        "- attempt 1: groq-2:df59b9 was chosen of 3 ready keys: 10 % of its limits used, 2 calls under way, answers "
        "begin after 0.3 s; its first content was to come within 60.0 s",
        "- shared answer: miss",
        "- deadlines: 600 s in all, 30 s until its first content, 20 s waiting for a key",
    ]
