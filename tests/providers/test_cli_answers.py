"""What tools print, as answers of OpenAI's shape: whole, streamed, or an error that means what the tool meant."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.core import (
    Candidate,
    Credential,
    Deployment,
    Facts,
    Outcome,
    ProcessRequest,
    Reply,
    ToolReply,
    Usage,
    classify,
)
from keyturn.providers import CATALOG, Provider, Tool, prepare
from keyturn.providers.cli_answers import OUTPUTS
from keyturn.wire import ChatStream, parse_chat, read_reply

NOW = datetime.fromisoformat("2026-11-21T05:30:20+00:00").timestamp()
ROWS = {"codex": "codex_cli", "claude": "claude_code", "gemini": "gemini_cli"}

CODEX = [
    {"type": "thread.started", "thread_id": "t-1"},
    {"type": "item.completed", "item": {"id": "0", "type": "error", "message": "Model metadata not found. 401"}},
    {"type": "turn.started"},
    {"type": "item.completed", "item": {"id": "1", "type": "reasoning", "text": "hm"}},
    {"type": "item.completed", "item": {"id": "2", "type": "agent_message", "text": "let me see"}},
    {"type": "item.completed", "item": {"id": "3", "type": "agent_message", "text": "Blue. "}},
    {
        "type": "turn.completed",
        "usage": {
            "input_tokens": 90,
            "cached_input_tokens": 40,
            "cache_write_input_tokens": 0,
            "output_tokens": 7,
            "reasoning_output_tokens": 2,
        },
    },
]
CLAUDE_RESULT = {
    "usage": {
        "output_tokens": 7,
        "input_tokens": 10,
        "cache_read_input_tokens": 40,
        "cache_creation_input_tokens": 40,
    },
    "result": "Blue. ",
    "stop_reason": "end_turn",
    "subtype": "success",
    "session_id": "s-1",
    "api_error_status": None,
    "is_error": False,
    "type": "result",
}


def event(**members: Any) -> dict[str, Any]:
    return {"type": "stream_event", "parent_tool_use_id": None, "event": members}


CLAUDE = [
    {"type": "system", "subtype": "init", "session_id": "s-1"},
    event(type="message_start", message={"id": "msg-1", "usage": {"input_tokens": 10}}),
    event(type="content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "hm"}),
    event(type="content_block_delta", index=1, delta={"type": "text_delta", "text": "Bl"}),
    event(type="content_block_delta", index=1, delta={"type": "text_delta", "text": "ue. "}),
    {**event(type="content_block_delta", delta={"type": "text_delta", "text": "no"}), "parent_tool_use_id": "t"},
    {"type": "assistant", "message": {"content": [{"type": "text", "text": "Blue. "}]}},
    event(type="message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 7}),
    CLAUDE_RESULT,
]
GEMINI = [
    {"type": "init", "session_id": "g-1", "model": "gemini-2.5-flash"},
    {"type": "message", "role": "user", "content": "what colour?"},
    {"type": "error", "severity": "warning", "message": "a loop was suspected"},
    {"type": "message", "role": "assistant", "content": "Bl", "delta": True},
    {"type": "message", "role": "assistant", "content": "ue. ", "delta": True},
    {
        "type": "result",
        "status": "success",
        "stats": {"total_tokens": 97, "input_tokens": 90, "output_tokens": 5, "cached": 40},
    },
]
GEMINI_WHOLE = {
    "session_id": "g-1",
    "response": "Blue. ",
    "stats": {
        "models": {
            "gemini-2.5-flash": {"tokens": {"prompt": 60, "candidates": 3, "cached": 40, "thoughts": 2, "total": 65}},
            "gemini-2.5-flash-lite": {"tokens": {"prompt": 30, "candidates": 2, "total": 32}},
        }
    },
}


def lines(documents: Iterable[object]) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in documents)


ANSWERS: dict[str, bytes] = {
    "codex_jsonl": lines(CODEX),
    "claude_json": json.dumps(CLAUDE_RESULT, indent=1).encode(),
    "claude_stream_json": lines(CLAUDE),
    "gemini_json": json.dumps(GEMINI_WHOLE, indent=2).encode(),
    "gemini_stream_json": lines(GEMINI),
    "text": b"\x1b[1mBlue. \x1b[0m\n",
}
USAGE = {
    "codex_jsonl": Usage(90, 7, 40, 2),
    "claude_json": Usage(90, 7, 40),
    "claude_stream_json": Usage(90, 7, 40),
    "gemini_json": Usage(90, 7, 40, 2),
    "gemini_stream_json": Usage(90, 7, 40),
    "text": None,
}


def request(output: str, *, stream: bool, **environ: str) -> ProcessRequest:
    name = ROWS.get(output.partition("_")[0], "mine")
    rules = CATALOG[name].rules if name in CATALOG else Provider("mine").rules
    row = Provider(name, rules=rules, tool=Tool(("tool",), output, environ))
    body = {"model": "x/y", "messages": [{"role": "user", "content": "Hi"}], "stream": stream}
    candidate = Candidate(Deployment(name, "some-model"), Credential.of(name, ""))
    made = prepare(row, parse_chat(json.dumps(body).encode(), {}), candidate, [])
    assert isinstance(made, ProcessRequest)
    return made


def told(
    output: str,
    printed: bytes,
    *,
    stream: bool = False,
    code: int = 0,
    stderr: bytes = b"",
    size: int = 1 << 20,
    **environ: str,
) -> tuple[bytes, ToolReply]:
    """What is streamed while the tool runs, and what it comes to in the end."""
    interpreter = request(output, stream=stream, **environ).interpreter
    streamed = b"".join(interpreter.feed(printed[at : at + size], NOW) for at in range(0, len(printed), size))
    return streamed, interpreter.end(code, stderr, NOW)


def failed(output: str, printed: bytes, code: int, stderr: bytes = b"") -> tuple[ToolReply, Outcome]:
    """A run without an answer, and what the classifier makes of it."""
    streamed, reply = told(output, printed, code=code, stderr=stderr)
    assert streamed == b""
    rules = CATALOG[ROWS[output.partition("_")[0]]].rules if output != "text" else Provider("mine").rules
    return reply, classify(Facts(reply.status, reply.headers, reply.body, NOW, rules=rules))


def test_every_way_to_print_has_an_example() -> None:
    assert set(ANSWERS) == set(OUTPUTS)
    assert {row.tool.output for row in CATALOG.values() if row.tool is not None} <= set(OUTPUTS)


@pytest.mark.parametrize("output", ANSWERS)
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_CLI_01_CLI_02_a_whole_answer(output: str, size: int) -> None:
    streamed, reply = told(output, ANSWERS[output], size=size)
    assert (streamed, reply.status, reply.headers) == (b"", 200, {"content-type": "application/json"})
    found = read_reply(reply.body, "chat")
    assert found == Reply("Blue. ", "stop", USAGE[output], "some-model")
    document = json.loads(reply.body)
    assert (document["object"], document["created"]) == ("chat.completion", int(NOW))
    assert document["id"].startswith("chatcmpl-")
    assert document["choices"][0]["message"]["role"] == "assistant"


@pytest.mark.parametrize("output", ANSWERS)
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_CLI_01_CLI_02_a_streamed_answer(output: str, size: int) -> None:
    streamed, reply = told(output, ANSWERS[output], stream=True, size=size)
    assert (reply.status, reply.headers) == (200, {"content-type": "text/event-stream"})
    assert bool(streamed) == output.endswith("stream_json")
    stream = ChatStream(drop_usage=True)
    relayed = stream.feed(streamed) + stream.feed(reply.body)
    assert stream.end()
    assert (stream.done, stream.error, stream.usage) == (True, None, USAGE[output])
    events = [block.removeprefix(b"data: ") for block in relayed.split(b"\n\n")[:-1]]
    assert events[-1] == b"[DONE]"
    chunks = [json.loads(each) for each in events[:-1]]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    choices = [chunk["choices"][0] for chunk in chunks]
    assert choices[0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(choice["delta"].get("content", "") for choice in choices) == "Blue. "
    assert [choice["finish_reason"] for choice in choices] == [None] * (len(choices) - 1) + ["stop"]


def test_a_stream_whose_pieces_never_came_is_told_whole() -> None:
    streamed, reply = told("claude_stream_json", lines(CLAUDE[:1] + CLAUDE[-1:]), stream=True)
    assert streamed == b""
    assert b'"content":"Blue. "' in reply.body


def test_a_long_text_is_told_in_several_events() -> None:
    _, reply = told("text", b"x" * 250_000, stream=True)
    assert reply.body.count(b'"content":"x') == 3
    assert ChatStream(drop_usage=False).feed(reply.body) == reply.body


@pytest.mark.parametrize(
    ("reason", "finish"), [("max_tokens", "length"), ("refusal", "content_filter"), ("stop_sequence", "stop")]
)
def test_why_claude_stopped(reason: str, finish: str) -> None:
    _, reply = told("claude_json", json.dumps({**CLAUDE_RESULT, "stop_reason": reason}).encode())
    assert json.loads(reply.body)["choices"][0]["finish_reason"] == finish


FAILURES = [
    tuple(json.loads(line).values())
    for line in Path(__file__).with_name("tool_failures.jsonl").read_text("utf-8").splitlines()
]
"""Tool, its words, the HTTP status that it states, its exit code -> what that means, and what it says on waiting."""


def printed_failure(tool: str, words: str, status: int | None, code: int) -> tuple[str, bytes, bytes]:
    """How each tool prints a failure: the kind of output, stdout, stderr."""
    if tool == "codex":
        error = [{"type": "error", "message": words}, {"type": "turn.failed", "error": {"message": words}}]
        return "codex_jsonl", lines([*CODEX[:3], *error]), b"WARNING: could not create PATH aliases\n"
    if tool == "claude":
        result = {**CLAUDE_RESULT, "is_error": True, "result": words, "api_error_status": status}
        return "claude_stream_json", lines([CLAUDE[0], result]), b""
    error_of = {"session_id": "g-1", "error": {"type": "Error", "message": words, "code": status or code}}
    return "gemini_json", b"", b"Error: {\n    at trace (file.js)\n" + json.dumps(error_of, indent=2).encode() + b"\n"


@pytest.mark.parametrize(("tool", "words", "status", "code", "meaning", "wait"), FAILURES)
def test_CLI_03_a_failure_means_what_the_tool_says(
    tool: str, words: str, status: int | None, code: int, meaning: str, wait: float | None
) -> None:
    output, printed, stderr = printed_failure(tool, words, status, code)
    reply, outcome = failed(output, printed, code, stderr)
    assert outcome.meaning == meaning, (reply, outcome)
    if meaning != "daily_quota" or tool != "gemini" or wait is not None:
        assert outcome.wait_s == wait
    assert words[:40].replace('"', '\\"') in reply.body.decode().replace("\\\\", "\\")
    assert f"(exit code {code})" in json.loads(reply.body)["error"]["message"]


def test_gemini_may_fail_as_an_event() -> None:
    failure = {"type": "result", "status": "error", "error": {"type": "Error", "message": "Too many requests"}}
    reply, outcome = failed("gemini_stream_json", lines([GEMINI[0], failure]), 173)
    assert (reply.status, outcome.meaning) == (429, "rate_limited")
    event = {"type": "error", "severity": "error", "message": "The model is overloaded."}
    _, outcome = failed("gemini_stream_json", lines([GEMINI[0], event]), 247)
    assert (outcome.meaning, outcome.message.endswith("The model is overloaded.")) == ("overloaded", True)


def test_what_nobody_has_logged_in_to_is_tried_again_soon() -> None:
    """A refused key rests for a day; a login may come at any time."""
    output, printed, _ = printed_failure("claude", "Not logged in · Please run /login", None, 1)
    _, outcome = failed(output, printed, 1)
    assert not outcome.explicit
    output, printed, _ = printed_failure("claude", "Invalid API key", None, 1)
    assert failed(output, printed, 1)[1].explicit


@pytest.mark.parametrize("output", ANSWERS)
def test_an_answer_with_a_failing_exit_code_is_none(output: str) -> None:
    reply, outcome = failed(output, ANSWERS[output], 1, b"crashed at the very end")
    assert (reply.status, outcome.meaning) == (502, "server_error")
    assert "crashed at the very end" in outcome.message


@pytest.mark.parametrize("output", [name for name in ANSWERS if name != "text"])
@pytest.mark.parametrize(
    "printed",
    [
        b"",
        b"Sure! Blue. You have hit your usage limit, 401, rate limit.\n",
        b"null\n[]\n7\n",
        b'{"type": "result"}\n',
        b'{"type": "turn.completed"}\n',
        b"[" * 100_000,
        b"\xff\xfe\x00",
        b'{"type":"item.completed","item":{"type":"agent_message","text":"no end"}}',
    ],
)
def test_CLI_03_what_is_no_answer_is_garbage_whatever_it_says(output: str, printed: bytes) -> None:
    reply, outcome = failed(output, printed, 0)
    assert (reply.status, outcome.meaning) == (502, "server_error")
    assert output in outcome.message


def test_CLI_03_a_tool_without_a_format() -> None:
    reply, outcome = failed("text", b"half an answer", 3, b"boom: something is missing\n")
    assert (reply.status, outcome.meaning) == (502, "server_error")
    assert outcome.message == "mine failed (exit code 3): boom: something is missing"
    assert failed("text", b"", 1, b"Error: rate limit exceeded, try again in 20s")[1].wait_s == 20.0
    assert failed("text", b"", -9)[1].message == "mine was ended by signal 9: it gave no reason"
    assert failed("text", b" \n", 0)[0].status == 502


def test_claude_says_success_in_its_subtype_even_when_it_failed() -> None:
    result = {**CLAUDE_RESULT, "is_error": True, "result": "API Error: broken"}
    assert result["subtype"] == "success"
    for output in ("claude_json", "claude_stream_json"):
        assert failed(output, lines([result]), 0)[0].status == 502


def test_a_failure_after_content_is_an_event_that_ends_the_stream() -> None:
    result = {**CLAUDE_RESULT, "is_error": True, "result": "You've hit your session limit · resets 8:30am (UTC)"}
    streamed, reply = told("claude_stream_json", lines([*CLAUDE[:-1], result]), stream=True, code=1)
    stream = ChatStream(drop_usage=True)
    assert b"Bl" in stream.feed(streamed)
    assert stream.feed(reply.body) == b""
    assert not stream.end()
    assert stream.error is not None
    rules = CATALOG["claude_code"].rules
    outcome = classify(Facts(None, {}, stream.error, NOW, stream=True, rules=rules))
    assert (outcome.meaning, outcome.wait_s) == ("daily_quota", 10780.0)


def test_secrets_that_a_tool_was_given_are_not_in_its_errors() -> None:
    _, reply = told("text", b"", code=1, stderr=b"bad key planted-0123456789", MY_API_KEY="planted-0123456789")
    assert b"planted" not in reply.body
    assert b"bad key ***" in reply.body


@given(
    output=st.sampled_from(sorted(OUTPUTS)),
    printed=st.binary(max_size=200)
    | st.sampled_from(sorted(ANSWERS.values())).flatmap(
        lambda whole: st.integers(0, len(whole)).map(lambda end: whole[:end])
    ),
    stderr=st.binary(max_size=200),
    code=st.integers(-20, 255),
    stream=st.booleans(),
)
def test_any_bytes_come_to_an_answer_or_an_error(
    output: str, printed: bytes, stderr: bytes, code: int, stream: bool
) -> None:
    streamed, reply = told(output, printed, code=code, stderr=stderr, stream=stream, size=50)
    assert code == 0 or reply.status >= 400
    if stream:
        reader = ChatStream(drop_usage=False)
        reader.feed(streamed)
        if streamed or reply.status == 200:
            reader.feed(reply.body)
            assert reader.end() == (reply.status == 200)
    elif reply.status == 200:
        assert isinstance(read_reply(reply.body, "chat"), Reply)
    else:
        assert json.loads(reply.body)["error"]["message"]
