"""parse_chat, parse_embeddings and render: the thin view, the teaching refusals, values as they were written."""

from __future__ import annotations

import json
from typing import Any

import pytest

from keyturn.errors import BadRequest
from keyturn.wire import parse_chat, parse_embeddings, render

from .golden_files import golden

HI = [{"role": "user", "content": "Hi"}]


def body(**members: Any) -> bytes:
    return json.dumps({"model": "groq/llama", "messages": HI, **members}).encode()


def refused(given: bytes, headers: dict[str, str] | None = None) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        parse_chat(given, headers or {})
    return caught.value


def refused_embeddings(given: bytes) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        parse_embeddings(given, {})
    return caught.value


# --- the view -------------------------------------------------------------------------------------------------------


def test_the_view_of_a_plain_call() -> None:
    given = body()
    call = parse_chat(given, {})
    assert (call.dialect, call.kind, call.model, call.size) == ("openai_chat", "chat", "groq/llama", len(given))
    assert call.members == {"model": b'"groq/llama"', "messages": json.dumps(HI).encode()}
    assert (call.stream, call.wants_usage, call.max_output, call.timeout) == (False, False, None, None)
    assert (call.needs, call.media) == (frozenset(), 0)
    assert call.text_bytes == len(json.dumps(HI))


def test_the_view_of_a_rich_call() -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    shape = {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    messages = [{"role": "user", "content": [image]}]
    call = parse_chat(
        body(
            messages=messages,
            tools=tools,
            response_format=shape,
            stream=True,
            stream_options={"include_usage": True},
            max_tokens=10,
            max_completion_tokens=20,
        ),
        {"x-request-timeout-ms": "1500"},
    )
    assert call.needs == {"tools", "vision", "json"}
    assert (call.stream, call.wants_usage, call.max_output, call.media, call.timeout) == (True, True, 20, 1, 1.5)
    assert call.text_bytes == sum(len(json.dumps(part)) for part in (messages, tools, shape))


@pytest.mark.parametrize("absent", [{"tools": []}, {"tools": None}, {"response_format": {"type": "text"}}])
def test_empty_members_need_nothing(absent: dict[str, Any]) -> None:
    assert parse_chat(body(**absent), {}).needs == frozenset()


@pytest.mark.parametrize(
    "nulls",
    [{"stream": None}, {"stream": False}, {"stream_options": None}, {"stream_options": {"include_usage": False}}],
)
def test_null_and_false_ask_for_nothing(nulls: dict[str, Any]) -> None:
    call = parse_chat(body(**nulls), {})
    assert not call.stream
    assert not call.wants_usage


@pytest.mark.parametrize(
    ("given", "bound"),
    [("64", 64), ("64.0", 64), ("1e3", 1000), ("-1", None), ("0", None), ("null", None), ("1e999", 1 << 31)],
)
def test_max_output(given: str, bound: int | None) -> None:
    raw = b'{"model":"m","messages":[{}],"max_tokens":' + given.encode() + b"}"
    assert parse_chat(raw, {}).max_output == bound


@pytest.mark.parametrize("name", ["gpt-4o", "groq/llama-3.3", "deepseek/deepseek-r1-0528:free", "a@b+c_d.e", "x" * 200])
def test_names_of_models(name: str) -> None:
    assert parse_chat(body(model=name), {}).model == name


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "param", "remedy"),
    [
        ({"model": None}, "model", "GET /v1/models"),
        ({"model": ""}, "model", "GET /v1/models"),
        ({"model": 4}, "model", "must be a string"),
        ({"model": "../etc"}, "model", "letters, digits"),
        ({"model": "a/../b"}, "model", "no `..`"),
        ({"model": "a//b"}, "model", "`//` or `/./`"),
        ({"model": "a%2fb"}, "model", "letters, digits"),
        ({"model": "a\\b"}, "model", "letters, digits"),
        ({"model": "a b"}, "model", "letters, digits"),
        ({"model": "a\n"}, "model", "letters, digits"),
        ({"model": "x" * 201}, "model", "at most 200"),
        ({"messages": None}, "messages", "is missing"),
        ({"messages": []}, "messages", "at least one message"),
        ({"messages": "Hi"}, "messages", "must be a list"),
        ({"messages": {}}, "messages", "must be a list"),
        ({"messages": ["Hi"]}, "messages", "must be a list of objects"),
        ({"stream": "true"}, "stream", "true or false"),
        ({"stream": 1}, "stream", "true or false"),
        ({"stream_options": True}, "stream_options", "must be an object"),
        ({"max_tokens": "9"}, "max_tokens", "whole number"),
        ({"max_tokens": True}, "max_tokens", "whole number"),
        ({"max_completion_tokens": 10**40}, "max_completion_tokens", "whole number"),
    ],
)
def test_a_refusal_names_the_member_and_the_remedy(members: dict[str, Any], param: str, remedy: str) -> None:
    error = refused(body(**members))
    assert error.param == param
    assert error.message.startswith(f"`{param}` ")
    assert remedy in error.message


def test_missing_members() -> None:
    assert refused(b'{"messages":[{}]}').param == "model"
    assert refused(b'{"model":"m"}').param == "messages"


def test_blanks_inside_an_empty_list() -> None:
    assert "is empty" in refused(b'{"model":"m","messages":[ \n ]}').message


def test_a_long_name_is_not_echoed_whole() -> None:
    assert len(refused(body(model="%" * 10_000)).message) < 400


@pytest.mark.parametrize("given", ["", "soon", "0", "-5", "inf", "nan"])
def test_a_deadline_that_is_none(given: str) -> None:
    error = refused(body(), {"x-request-timeout-ms": given})
    assert error.param == "x-request-timeout-ms"
    assert "milliseconds" in error.message


# --- embeddings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "text_bytes"),
    [('"word"', 6), ('["a", "bc"]', 11), ("[1, 2, 3]", 12), ("[[1,2],[3]]", 12), ('[ "a" ]', 7)],
)
def test_inputs_of_embeddings(given: str, text_bytes: int) -> None:
    call = parse_embeddings(f'{{"model":"m","input":{given},"dimensions":8}}'.encode(), {"x-request-timeout-ms": "20"})
    assert (call.kind, call.model, call.text_bytes, call.timeout) == ("embeddings", "m", text_bytes, 0.02)
    assert call.members["dimensions"] == b"8"


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("null", "is missing"),
        ('""', "is empty"),
        ("[]", "is empty"),
        ("3", "must be a string"),
        ("{}", "must be a string"),
        ("true", "must be a string"),
        ("[null]", "must be a string"),
        ("[{}]", "must be a string"),
    ],
)
def test_inputs_that_are_none(given: str, problem: str) -> None:
    error = refused_embeddings(f'{{"model":"m","input":{given}}}'.encode())
    assert error.param == "input"
    assert problem in error.message


def test_embeddings_need_a_model_and_an_input() -> None:
    assert refused_embeddings(b'{"input":"a"}').param == "model"
    assert refused_embeddings(b'{"model":"m"}').param == "input"


# --- rendering ------------------------------------------------------------------------------------------------------


def test_every_value_stays_as_it_was_written() -> None:
    call = parse_chat(golden("faithful.request.json"), {})
    notes: list[str] = []
    assert render(call, "llama-3.3-70b-versatile", notes=notes) == golden("faithful.rendered.json")
    assert notes == []


def test_what_a_provider_rejects_is_dropped_with_a_note() -> None:
    call = parse_chat(golden("adapted.request.json"), {})
    notes: list[str] = []
    rendered = render(
        call,
        "mistral-small-latest",
        drop=frozenset({"frequency_penalty", "seed"}),
        rename={"max_completion_tokens": "max_tokens"},
        notes=notes,
    )
    assert rendered == golden("adapted.rendered.json")
    assert notes == ["renamed max_completion_tokens to max_tokens", "dropped frequency_penalty"]


def test_a_name_that_is_taken_is_not_given_twice() -> None:
    call = parse_chat(body(max_tokens=5, max_completion_tokens=6), {})
    notes: list[str] = []
    rendered = render(call, "m", rename={"max_completion_tokens": "max_tokens"}, notes=notes)
    assert json.loads(rendered) == {"model": "m", "messages": HI, "max_tokens": 5}
    assert notes == ["dropped max_completion_tokens"]


def test_usage_is_asked_for_beside_the_other_stream_options() -> None:
    call = parse_chat(golden("usage.request.json"), {})
    notes: list[str] = []
    assert render(call, "gpt-4o", include_usage=True, notes=notes) == golden("usage.rendered.json")
    assert notes == []


@pytest.mark.parametrize("options", [{}, {"stream_options": None}])
def test_usage_is_asked_for_where_no_options_were(options: dict[str, Any]) -> None:
    rendered = render(parse_chat(body(stream=True, **options), {}), "m", include_usage=True, notes=[])
    assert json.loads(rendered)["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("options", [{}, {"stream_options": {"include_usage": True}}])
def test_usage_is_not_asked_for_where_the_member_is_rejected(options: dict[str, Any]) -> None:
    call = parse_chat(body(stream=True, **options), {})
    rendered = render(call, "m", drop=("stream_options",), include_usage=True, notes=[])
    assert "stream_options" not in json.loads(rendered)


def test_a_rendered_embedding() -> None:
    call = parse_embeddings(golden("embeddings.request.json"), {})
    assert render(call, "text-embedding-3-small", notes=[]) == golden("embeddings.rendered.json")


def test_a_model_name_and_a_member_name_are_escaped() -> None:
    call = parse_chat(b'{"model":"m","messages":[{}],"a\\"b":1}', {})
    assert json.loads(render(call, 'x"y', notes=[])) == {"model": 'x"y', "messages": [{}], 'a"b': 1}
