"""Calls of the Messages API parsed, its lists of models, and our errors in its shape."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from anthropic.types import ModelInfo

from keyturn.core import Call
from keyturn.errors import BadRequest, Capacity, DeadlineExceeded, KeyturnError, ModelNotFound, TooLarge
from keyturn.wire.anthropic import ANTHROPIC, count_body, model_entry, models_page, parse_count, parse_messages

BODY: dict[str, object] = {"model": "claude-x", "max_tokens": 10, "messages": [{"role": "user", "content": "Hi"}]}


def parse(**members: object) -> Call:
    return parse_messages(json.dumps({**BODY, **members}).encode(), {})


def test_a_plain_call() -> None:
    call = parse(stream=True)
    assert (call.dialect, call.kind, call.model, call.stream, call.max_output) == (
        "anthropic",
        "chat",
        "claude-x",
        True,
        10,
    )
    assert (call.needs, call.media, call.conversation) == (frozenset(), 0, "")
    assert call.text_bytes == len(call.members["messages"])


def test_what_a_prompt_needs() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 1000}}
    call = parse(
        messages=[{"role": "user", "content": [image]}],
        tools=[{"name": "t", "input_schema": {}}],
        system="Be brief.",
        output_config={"format": {"type": "json_schema", "schema": {}}},
    )
    assert call.needs == {"vision", "tools", "json"}
    assert call.media == 1
    sizes = sum(len(call.members[name]) for name in ("messages", "tools", "system", "output_config"))
    assert call.text_bytes == sizes - 1000


def test_a_document_needs_no_eyes_and_no_tools_are_none() -> None:
    document = {"type": "document", "source": {"type": "url", "url": "https://x.example/a.pdf"}}
    call = parse(messages=[{"role": "user", "content": [document]}], tools=[], output_config={"effort": "low"})
    assert (call.needs, call.media) == (frozenset(), 1)


def test_headers_and_the_conversation() -> None:
    body = json.dumps({**BODY, "metadata": {"user_id": "u1"}}).encode()
    headers = {"anthropic-version": "2023-06-01", "anthropic-beta": "a,b", "authorization": "x"}
    call = parse_messages(body, {**headers, "x-request-timeout-ms": "2500"})
    assert call.headers == {"anthropic-version": "2023-06-01", "anthropic-beta": "a,b"}
    assert (call.timeout, call.conversation) == (2.5, "u1")
    assert parse_messages(body, {"x-claude-code-session-id": "s9"}).conversation == "s9"
    assert parse(metadata="odd").conversation == ""


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": ["Hi"]}, "messages"),
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": "10"}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"model": None}, "model"),
        ({"stream": "yes"}, "stream"),
    ],
)
def test_calls_that_nobody_could_answer(members: dict[str, object], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(**members)
    assert caught.value.param == param
    assert param in caught.value.message


def test_counting_needs_no_max_tokens() -> None:
    body = json.dumps({name: value for name, value in BODY.items() if name != "max_tokens"}).encode()
    call = parse_count(body, {})
    assert (call.kind, call.max_output) == ("count", None)
    assert ANTHROPIC.read_request(call).max_output is None
    assert json.loads(count_body(7)) == {"input_tokens": 7}


def test_models() -> None:
    page = json.loads(models_page([("a/b", "a", 0), ("c", "d", 1_700_000_000)]))
    assert [ModelInfo.model_validate(row).id for row in page["data"]] == ["a/b", "c"]
    assert (page["has_more"], page["first_id"], page["last_id"]) == (False, "a/b", "c")
    assert page["data"][1]["created_at"] == "2023-11-14T22:13:20Z"
    assert json.loads(models_page([])) == {"data": [], "has_more": False, "first_id": None, "last_id": None}
    assert json.loads(model_entry("c", "d", 1_700_000_000)) == page["data"][1]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (BadRequest("no"), "invalid_request_error"),
        (ModelNotFound("no"), "not_found_error"),
        (TooLarge("no"), "request_too_large"),
        (Capacity("no"), "rate_limit_error"),
        (DeadlineExceeded("no"), "timeout_error"),
        (KeyturnError("no"), "api_error"),
    ],
)
def test_errors(error: KeyturnError, kind: str) -> None:
    body = json.loads(ANTHROPIC.error_body(error, "c1", [{"provider": "p"}]))
    assert body["type"] == "error"
    assert (body["error"]["type"], body["error"]["message"]) == (kind, "no")
    assert body["request_id"] == "c1"
    assert body["error"]["details"] == {
        "code": error.code,
        "param": None,
        "keyturn": {"call": "c1", "attempts": [{"provider": "p"}]},
    }


def test_the_error_event() -> None:
    event = ANTHROPIC.error_event(Capacity("later"), "c1", [])
    assert event.startswith(b'event: error\ndata: {"type":"error"')
    assert event.endswith(b"\n\n")


@pytest.mark.parametrize("parse", [parse_messages, parse_count])
def test_garbage_is_a_bad_request(parse: Callable[[bytes, dict[str, str]], Call]) -> None:
    for body in (b"", b"[]", b"{", b'{"model":"m","messages":[{}],"max_tokens":1e999}'[:-1]):
        with pytest.raises(BadRequest):
            parse(body, {})
