"""Log lines: what they say, and what they never hold."""

from __future__ import annotations

import io
import json
import logging

import pytest

from keyturn.core import Redactor, Secret, Usage
from keyturn.dispatch import Alarm, Cooled
from keyturn.telemetry import redact_libraries
from keyturn.telemetry.logs import LONGEST, Lines

from .events import CALL_ID, SECRET, attempt, ended, served

WALL = 1_772_452_800.25
REDACTOR = Redactor([Secret(SECRET)])
CONSOLE = Lines(REDACTOR)
AS_JSON = Lines(REDACTOR, as_json=True)


def test_RTE_06_a_call_is_one_line_with_every_attempt() -> None:
    line = CONSOLE.line(served(), WALL)
    assert line[9:] == (
        f"{CALL_ID} groq/llama 200 500 ms 12+40 tokens"
        " | groq → llama → groq-1:9f3a1c → rate_limited 429 → 38 ms (Rate limit reached)"
        " | groq → llama → groq-2:aaaaaa → ok → 420 ms"
    )


def test_as_json_a_call_is_one_object() -> None:
    row = json.loads(AS_JSON.line(served(), WALL))
    assert (row["time"], row["event"], row["call"]) == ("2026-03-02T12:00:00.250Z", "call", CALL_ID)
    assert (row["route"], row["status"], row["ms"]) == ("groq/llama", 200, 500.0)
    assert row["tokens"] == {"input": 12, "output": 40, "exact": True}
    assert [each["meaning"] for each in row["attempts"]] == ["rate_limited", "ok"]
    assert row["attempts"][1]["first_token_ms"] == 60.0


def test_a_call_that_was_refused_says_why() -> None:
    event = ended(route="", status=400, code="bad_request", refusals=["broken JSON at 1"], unread=True)
    assert CONSOLE.line(event, WALL)[9:] == f"{CALL_ID} - 400 bad_request 500 ms | broken JSON at 1"


def test_waiting_notes_and_estimates_are_told() -> None:
    event = ended(attempt(usage=Usage(5, 6, exact=False)), waited=0.2, notes=["dropped logprobs"])
    line = CONSOLE.line(event, WALL)
    assert "waited 200 ms" in line
    assert "~5+6 tokens" in line
    assert line.endswith("| dropped logprobs")


def test_cooldowns_alarms_and_notes_have_lines_of_their_own() -> None:
    cooled = Cooled("groq", "groq-1:9f3a1c", "llama", "rate_limited", 10.0)
    assert CONSOLE.line(cooled, WALL)[9:] == "groq-1:9f3a1c rests for 10 s on llama: rate_limited"
    disabled = Cooled("groq", "groq-1:9f3a1c", "", "disabled", float("inf"))
    assert CONSOLE.line(disabled, WALL)[9:] == "groq-1:9f3a1c is out of use: disabled"
    assert json.loads(AS_JSON.line(disabled, WALL))["seconds"] is None
    assert CONSOLE.line(Alarm("all keys of groq answer 401"), WALL)[9:] == "ALARM: all keys of groq answer 401"
    assert json.loads(AS_JSON.note("started", WALL))["text"] == "started"


@pytest.mark.parametrize("lines", [CONSOLE, AS_JSON])
def test_no_field_lets_a_secret_or_a_line_break_through(lines: Lines) -> None:
    evil = f"a\n{SECRET}\x1b[31m\x00\u2028"
    bad = attempt(evil, evil, provider=evil, model=evil, detail=evil)
    for event in (
        ended(bad, route=evil, code=evil, notes=[evil]),
        ended(route=evil, refusals=[evil]),
        Cooled("groq", evil, evil, evil, 1.0),
        Alarm(evil),
    ):
        line = lines.line(event, WALL)
        assert SECRET not in line
        assert not set(line) & set("\n\r\x1b\x00\u2028")


def test_a_long_field_is_cut_after_it_was_redacted() -> None:
    line = CONSOLE.line(ended(route="x" * (LONGEST - 10) + SECRET + "x" * 5000), WALL)
    assert len(line) < LONGEST + 200
    assert SECRET[:6] not in line


def test_what_libraries_log_is_redacted_tracebacks_included() -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    out = io.StringIO()
    try:
        redact_libraries(REDACTOR, out)
        try:
            raise ValueError(f"bad key {SECRET}")
        except ValueError:
            logging.getLogger("some.library").exception("sending %s failed", SECRET)
        logging.getLogger("some.library").info("not worth a line")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
        logging.getLogger("uvicorn").setLevel(logging.NOTSET)
    assert SECRET not in out.getvalue()
    assert "ValueError: bad key ***" in out.getvalue()
    assert "not worth" not in out.getvalue()
