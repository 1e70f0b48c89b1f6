"""Calls to command line tools: what is run, what it is given to read, and what it cannot take."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from keyturn.core import Candidate, Credential, Deployment, ProcessRequest
from keyturn.errors import BadRequest
from keyturn.providers import CATALOG, Provider, Tool, prepare
from keyturn.providers.cli import render_prompt
from keyturn.wire import parse_chat

CALL = {"model": "x/y", "messages": [{"role": "user", "content": "Why?"}]}


def prepared(provider: Provider | str, model: str = "some-model", **members: Any) -> tuple[ProcessRequest, list[str]]:
    row = CATALOG[provider] if isinstance(provider, str) else provider
    notes: list[str] = []
    candidate = Candidate(Deployment(row.name, model), Credential.of(row.name, ""))
    request = prepare(row, parse_chat(json.dumps({**CALL, **members}).encode(), {}), candidate, notes)
    assert isinstance(request, ProcessRequest)
    return request, notes


def prompt(*messages: dict[str, Any]) -> str:
    return prepared("codex_cli", messages=list(messages))[0].stdin.decode()


@pytest.mark.parametrize(
    ("provider", "start"),
    [
        ("codex_cli", ("codex", "exec", "--json")),
        ("claude_code", ("claude", "-p", "--output-format", "stream-json")),
        ("gemini_cli", ("gemini", "-p", "", "-o", "stream-json")),
    ],
)
def test_CLI_01_CLI_02_the_tools_are_run_with_the_prompt_on_stdin(provider: str, start: tuple[str, ...]) -> None:
    """The rows name the argv of older tools; what is run is what today's accept."""
    request, notes = prepared(provider, "model-7")
    assert request.argv[: len(start)] == start
    assert request.argv.count("model-7") == 1
    assert not any("${" in word or "Why" in word for word in request.argv)
    assert request.stdin == b"Why?"
    assert request.timeout == 300.0
    assert notes == []


def test_CLI_05_the_argv_is_what_the_configuration_says() -> None:
    tool = Tool(("mine", "--model=${MODEL}", "a b", "$HOME", "${OTHER}"), "text", {"HOME": "/h"}, timeout=7.0)
    row = Provider("mine", tool=tool)
    request, _ = prepared(row, "a;b`c` $(d)")
    assert request.argv == ("mine", "--model=a;b`c` $(d)", "a b", "$HOME", "${OTHER}")
    assert request.timeout == 7.0
    assert request.environ == {"HOME": "/h", "TZ": "UTC"}


@pytest.mark.parametrize("model", ["-m", "--dangerously-bypass", "a\nb", "a\x00b", "a\x1b[0m"])
def test_a_model_that_would_be_an_option_is_refused(model: str) -> None:
    with pytest.raises(BadRequest) as raised:
        prepared("claude_code", model)
    assert "claude would take it for an option" in raised.value.message
    assert raised.value.param == "model"


def test_what_a_tool_cannot_take_is_dropped_with_a_note() -> None:
    _, notes = prepared(
        "codex_cli", stream=True, stream_options={"include_usage": True}, temperature=0.1, max_tokens=5, stop=None
    )
    assert notes == ["dropped temperature", "dropped max_tokens"]


def test_the_environment_of_a_tool_is_not_shown() -> None:
    tool = replace(CATALOG["claude_code"].tool or Tool((), ""), environ={"ANTHROPIC_API_KEY": "sk-ant-planted"})
    row = replace(CATALOG["claude_code"], tool=tool)
    request, _ = prepared(row)
    assert request.environ["ANTHROPIC_API_KEY"] == "sk-ant-planted"
    assert "planted" not in f"{request!r} {row!r}"


def test_one_question_is_its_text() -> None:
    assert prompt({"role": "user", "content": "Warum grün?\n"}) == "Warum grün?\n"
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert prompt({"role": "user", "content": parts}) == "one\ntwo"


def test_what_the_system_says_stands_first() -> None:
    question = {"role": "user", "content": "Why?"}
    assert prompt({"role": "system", "content": "Be brief."}, question) == "Be brief.\n\nWhy?"
    assert prompt(question, {"role": "developer", "content": "In German."}) == "In German.\n\nWhy?"
    assert prompt({"role": "system", "content": "Say hello."}) == "Say hello."


def test_several_turns_are_a_labelled_transcript() -> None:
    text = prompt(
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "Because."},
        {"role": "user", "content": "Really?"},
    )
    assert text.startswith("Be brief.\n\n")
    assert text.endswith(
        '<message from="user">\nWhy?\n</message>\n\n<message from="assistant">\nBecause.\n</message>\n\n'
        '<message from="user">\nReally?\n</message>'
    )
    assert "Write the next message of the assistant" in text


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]}, "[image_url]"),
        ({"role": "user", "content": [{"type": "input_audio", "input_audio": {}}, 7, None]}, "[input_audio]"),
        ({"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}, "No."),
        (
            {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": '{"a":1}'}}]},
            '[called f with {"a":1}]',
        ),
        ({"role": "assistant", "tool_calls": [{"custom": {}}, "x"]}, "[called a tool]"),
        ({"role": "tool", "tool_call_id": "1", "content": "42"}, '<message from="tool">\n42'),
        ({"content": {"odd": True}}, "[None]"),
        ({"role": 7, "content": "seven"}, '<message from="7">'),
        ({"role": "user", "content": 12.5}, "Look:"),
    ],
)
def test_what_is_no_text_is_named_and_never_fails(message: dict[str, Any], shown: str) -> None:
    assert shown in prompt({"role": "user", "content": "Look:"}, message)


def test_messages_without_text_are_refused() -> None:
    for messages in ([{}, 1, "a", None, []], [{"role": "user", "content": " "}]):
        with pytest.raises(BadRequest, match="no text") as raised:
            prepared("codex_cli", messages=messages)
        assert raised.value.param == "messages"


def test_letters_that_no_text_can_hold_are_replaced() -> None:
    assert render_prompt(b'[{"role": "user", "content": "a\\ud800b"}]') == b"a?b"
    with pytest.raises(BadRequest, match="cannot be read"):
        render_prompt(b'[{"role": "user", "content": 1' + b"0" * 5000 + b"}]")
