"""`keyturn classify`: one object per sample, in order, whatever shape the body has."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .conftest import Terminal

MEMBERS = ["meaning", "scope", "wait_s", "retry_same", "try_other_key", "try_other_provider", "limits"]


def classified(terminal: Terminal, *args: str, input: str | None = None) -> list[dict[str, Any]]:
    result = terminal.run("classify", *args, input=input)
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_one_sample_from_options(terminal: Terminal) -> None:
    (found,) = classified(
        terminal,
        *("--provider", "groq", "--status", "429", "--headers", '{"Retry-After": "7"}'),
        *("--body", '{"error": {"message": "Rate limit reached", "code": "rate_limit_exceeded"}}'),
    )
    assert list(found) == MEMBERS
    assert (found["meaning"], found["wait_s"], found["retry_same"]) == ("rate_limited", 7.0, False)


def test_a_success_is_ok(terminal: Terminal) -> None:
    (found,) = classified(terminal, "--provider", "openai", "--status", "200", "--body", '{"choices": []}')
    assert (found["meaning"], found["scope"], found["limits"]) == ("ok", "request", {})


def test_an_unknown_provider_is_judged_by_the_general_rules(terminal: Terminal) -> None:
    (found,) = classified(terminal, "--provider", "never-heard-of", "--status", "401", "--body", "go away")
    assert found["meaning"] == "invalid_key"


def test_many_samples_in_order_with_bodies_of_every_kind(terminal: Terminal) -> None:
    error = {"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}}
    samples: list[dict[str, Any]] = [
        {"provider": "openai", "status": 401, "body": error},
        {"provider": "openai", "status": 401, "body": json.dumps(error)},
        {"provider": "openai", "status": 401, "body": [error], "headers": None, "stream": False, "now": None},
        {"provider": "openai", "status": 500, "body": None},
        {"provider": "openai", "status": 503},
        {"provider": "openai", "status": 429, "headers": {"retry-after": 3}, "body": "\ud800 <html>"},
    ]
    lines = "\n\n".join(json.dumps(sample) for sample in samples)
    found = classified(terminal, "--jsonl", "-", input=lines)
    assert [each["meaning"] for each in found] == [
        "invalid_key",
        "invalid_key",
        "invalid_key",
        "server_error",
        "overloaded",
        "rate_limited",
    ]


def test_a_file_of_samples(terminal: Terminal) -> None:
    (terminal.cwd / "samples.jsonl").write_text('{"provider": "groq", "status": 500}\n')
    (found,) = classified(terminal, "--jsonl", "samples.jsonl")
    assert found["meaning"] == "server_error"


@pytest.mark.parametrize(
    ("now", "headers"),
    [
        ("2026-03-02T12:00:00Z", {}),
        ("2026-03-02T13:00:00+01:00", {"date": "Mon, 02 Mar 2020 12:00:00 GMT"}),
        (None, {"Date": "Mon, 02 Mar 2026 12:00:00 GMT"}),
    ],
)
def test_now_is_stated_or_the_date_of_the_answer(terminal: Terminal, now: str | None, headers: dict[str, str]) -> None:
    headers = headers | {"retry-after": "Mon, 02 Mar 2026 12:00:30 GMT"}
    args = ["--provider", "openai", "--status", "429", "--headers", json.dumps(headers)]
    (found,) = classified(terminal, *args, *(["--now", now] if now else []))
    assert found["wait_s"] == 30.0


@pytest.mark.parametrize(
    "args",
    [
        ["--status", "429"],
        ["--provider", "groq"],
        ["--provider", "groq", "--status", "429", "--headers", "{"],
        ["--provider", "groq", "--status", "429", "--headers", "[1]"],
        ["--provider", "groq", "--status", "429", "--now", "yesterday"],
        ["--jsonl", "missing.jsonl"],
    ],
)
def test_wrong_usage(terminal: Terminal, args: list[str]) -> None:
    assert terminal.run("classify", *args).exit_code == 2


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"provider": "x"}', '{"provider": 1, "status": 2}', '{"provider": "x", "status": "y"}']
)
def test_a_broken_line_is_named(terminal: Terminal, line: str) -> None:
    result = terminal.run("classify", "--jsonl", "-", input=f'{{"provider": "groq", "status": 500}}\n{line}\n')
    assert result.exit_code == 2
    assert "line 2 of" in result.stderr
