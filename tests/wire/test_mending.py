"""Answers that go on elsewhere, without any gateway: the request for the rest, its text, and where a stream stands."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyturn.core import Candidate, Credential, Deployment, Message, Origin, Request, Text, Usage
from keyturn.errors import Untranslatable
from keyturn.providers import CATALOG, Asking, goes_on, prepare
from keyturn.wire import CALL, FRAME, IDLE, TEXT, Context, GoingOn, Target, Told, begun_with, dialect, parse_chat
from keyturn.wire.overlap import LONGEST, Overlap

ORIGIN = Origin("somebody", "m", "")
ASKED = Request("openai_chat", "m", (Message("user", (Text("Hi"),)),), stream=True)


def call_of(**members: Any) -> Any:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True, **members}
    return parse_chat(json.dumps(body).encode(), {})


# --- the request ----------------------------------------------------------------------------------------------------


def test_the_text_so_far_becomes_the_last_turn_and_is_taken_off_the_bound() -> None:
    begun = begun_with(Request("openai_chat", "m", ASKED.messages, max_output=100), "x" * 80)
    assert begun.messages[-1] == Message("assistant", (Text("x" * 80),))
    assert (begun.max_output, begun.begun) == (80, True)
    assert begun_with(Request("openai_chat", "m", ASKED.messages, max_output=100), "x" * 4000).max_output == 16
    assert begun_with(Request("openai_chat", "m", ASKED.messages, max_output=7), "x" * 4000).max_output == 7
    assert begun_with(ASKED, "x").max_output is None


def test_a_beginning_of_the_clients_own_is_one_with_it() -> None:
    asked = Request("anthropic", "m", (*ASKED.messages, Message("assistant", (Text("I am"),))), max_output=100)
    begun = begun_with(asked, " well")
    assert begun.messages[-1] == Message("assistant", (Text("I am well"),))
    assert begun.max_output == 99


@pytest.mark.parametrize(
    ("into", "prefill", "last"),
    [
        ("openai_chat", "turn", {"role": "assistant", "content": "I am"}),
        ("openai_chat", "prefix", {"role": "assistant", "content": "I am", "prefix": True}),
        ("openai_chat", "final", {"role": "assistant", "content": "I am"}),
        ("anthropic", "turn", {"role": "assistant", "content": [{"type": "text", "text": "I am"}]}),
        ("gemini", "turn", {"role": "model", "parts": [{"text": "I am"}]}),
    ],
)
def test_each_upstream_is_told_in_its_own_words(into: str, prefill: str, last: dict[str, Any]) -> None:
    write = dialect(into).write_request
    assert write is not None
    body = write(begun_with(ASKED, "I am"), Target("m", ORIGIN, prefill=prefill), [])
    turns: Any = body["contents" if into == "gemini" else "messages"]
    assert json.loads(json.dumps(turns[-1])) == last
    finals = {"continue_final_message": True, "add_generation_prompt": False}
    assert {name: body[name] for name in finals if name in body} == (finals if prefill == "final" else {})


@pytest.mark.parametrize("into", ["openai_chat", "anthropic", "gemini", "openai_responses"])
def test_who_cannot_be_told_so_is_not_asked(into: str) -> None:
    write = dialect(into).write_request
    assert write is not None
    with pytest.raises(Untranslatable, match="cannot be told to go on"):
        write(begun_with(ASKED, "I am"), Target("m", ORIGIN), [])


def test_deepseek_goes_on_at_another_address() -> None:
    provider = CATALOG["deepseek"]
    candidate = Candidate(Deployment("deepseek", "deepseek-chat"), Credential.of("deepseek", "sk-1"))
    how = Asking("openai_chat", relayed=True, anew=True)
    request: Any = prepare(provider, call_of(), candidate, [], how, lambda: begun_with(ASKED, "I am"))
    assert request.url == "https://api.deepseek.com/beta/chat/completions"
    assert json.loads(request.body)["messages"][-1] == {"role": "assistant", "content": "I am", "prefix": True}
    assert prepare(provider, call_of(), candidate, []).url == "https://api.deepseek.com/chat/completions"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("provider", "model", "spoken", "able"),
    [
        ("anthropic", "claude-sonnet-4-5", "anthropic", True),
        ("anthropic", "claude-opus-4-6", "anthropic", False),
        ("anthropic", "claude-fable-5", "anthropic", False),
        ("gemini", "gemini-3-pro", "gemini", True),
        ("gemini", "gemma-3-27b-it", "gemini", False),
        ("openai", "gpt-4o", "openai_chat", False),
        ("groq", "llama-3.3-70b-versatile", "openai_chat", True),
        ("groq", "openai/gpt-oss-120b", "openai_chat", False),
        ("openrouter", "anthropic/claude-sonnet-4.5", "openai_chat", True),
        ("openrouter", "anthropic/claude-sonnet-4.5", "openai_responses", False),
        ("openrouter", "anthropic/claude-opus-4.6", "openai_chat", False),
        ("openrouter", "openai/gpt-4o", "openai_chat", False),
        ("deepseek", "deepseek-reasoner", "openai_chat", False),
        ("vllm", "anything", "openai_chat", True),
        ("claude_code", "sonnet", "openai_chat", False),
        ("cerebras", "llama3.1-8b", "openai_chat", False),
    ],
)
def test_the_catalog_says_who_can(provider: str, model: str, spoken: str, able: bool) -> None:
    assert goes_on(CATALOG[provider], spoken, model, ASKED) == able


def test_a_model_that_is_to_think_cannot_but_for_gemini() -> None:
    thinking = dialect("openai_chat").read_request(call_of(reasoning_effort="high"))
    assert not goes_on(CATALOG["anthropic"], "anthropic", "claude-sonnet-4-5", thinking)
    assert goes_on(CATALOG["gemini"], "gemini", "gemini-2.5-flash", thinking)
    at_rest = dialect("openai_chat").read_request(call_of(reasoning_effort="none"))
    assert goes_on(CATALOG["anthropic"], "anthropic", "claude-sonnet-4-5", at_rest)


# --- words said again -----------------------------------------------------------------------------------------------


def rest(before: str, said: str, blank: str = "", *, size: int = 3) -> tuple[str, bool]:
    overlap = Overlap(before, blank)
    pieces = [overlap.feed(said[at : at + size]) for at in range(0, len(said), size)]
    return "".join(pieces) + overlap.end(), overlap.anew


FOX = "The quick brown fox jumps over"


@pytest.mark.parametrize(
    ("before", "said", "new"),
    [
        (FOX, " the lazy dog", " the lazy dog"),
        (FOX, "fox jumps over the lazy dog", " the lazy dog"),
        (FOX, FOX + " the lazy dog", " the lazy dog"),
        (FOX, "over the lazy dog", "over the lazy dog"),  # too little to be sure
        ("bo", "ok", "ok"),
        ("ha ha ha ha ha ha ", "ha ha ha ha", "ha ha ha ha"),
        ("| ---------- | ---------- ", "| ---------- |", "| ---------- |"),
        ("", "Hello", "Hello"),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 100])
def test_words_said_again_are_left_out(before: str, said: str, new: str, size: int) -> None:
    assert rest(before, said, size=size) == (new, False)


def test_white_space_that_was_not_shown_is_not_said_twice() -> None:
    assert rest("Hello \n", "\nworld", " \n")[0] == "world"
    assert rest("Hello ", "world", " ")[0] == "world"
    assert rest("Hello ", " world", " ")[0] == "world"


def test_a_model_that_begins_anew_is_found_out() -> None:
    long = " ".join(f"word{number}" for number in range(100))
    assert len(long) > LONGEST
    assert rest(long, long[:200]) == ("", True)
    assert rest(FOX + " the lazy dog and the cat", FOX + " the sleeping hound") == ("", True)


@given(before=st.text(st.sampled_from("ab \n"), max_size=60), said=st.text(st.sampled_from("ab \n"), max_size=60))
@settings(max_examples=200, deadline=None)
def test_whatever_is_said_only_its_own_beginning_is_left_out(before: str, said: str) -> None:
    for size in (1, 7):
        new, anew = rest(before, said, size=size)
        assert anew or said.endswith(new)
        assert anew or before.endswith(said[: len(said) - len(new)])
    assert rest(before, said, size=1) == rest(before, said, size=100)


# --- streams --------------------------------------------------------------------------------------------------------


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    body = {"id": "c-1", "created": 5, "model": "m", "choices": [choice], **more}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def told_of(*events: bytes, most: int = 1000) -> Told:
    told = Told(call_of(), most)
    for event in events:
        told.look(event)
        told.took(event)
    return told


def test_events_are_told_apart() -> None:
    told = Told(call_of(), 1000)
    nameless = chunk({"tool_calls": [{"index": 0, "id": "x"}]})
    assert [
        told.look(event)
        for event in (b": ping\n\n", chunk({"role": "assistant", "content": ""}), chunk({"content": "a"}), nameless)
    ] == [IDLE, FRAME, TEXT, CALL]
    assert told.look(chunk({"content": "", "tool_calls": None})) == FRAME
    assert told.look(chunk({}, "stop")) == FRAME
    assert told.ends


def test_the_rest_bears_the_names_that_the_client_has_seen_and_the_sum_of_the_usage() -> None:
    told = told_of(chunk({"role": "assistant", "content": ""}), chunk({"content": "Hello "}))
    context = Context(call_of(stream_options={"include_usage": True}), "abc", 9, "other")
    stream = GoingOn("openai_chat", ORIGIN, context, told, "Hello", Usage(10, 2))
    piece = stream.feed(chunk({"role": "assistant", "content": ""}) + chunk({"content": " wor"}))
    used = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}
    piece += stream.feed(chunk({"content": "ld"}) + chunk({}, "stop", usage=used) + b"data: [DONE]\n\n")
    rows = [json.loads(row[6:]) for row in piece.split(b"\n\n") if row and row != b"data: [DONE]"]
    assert {(row["id"], row["created"], row["model"]) for row in rows} == {("c-1", 5, "m")}
    assert "".join(row["choices"][0]["delta"].get("content", "") for row in rows if row["choices"]) == "world"
    assert not any("role" in row["choices"][0]["delta"] for row in rows if row["choices"])
    assert (rows[-1]["usage"]["prompt_tokens"], rows[-1]["usage"]["completion_tokens"]) == (22, 5)
    assert stream.usage == Usage(12, 3)
    assert stream.done


def test_a_model_that_begins_anew_gives_an_error_and_no_text() -> None:
    text = "This is how a longer answer begins, word for word. " * 8
    told = told_of(chunk({"role": "assistant", "content": ""}), chunk({"content": text}))
    stream = GoingOn("openai_chat", ORIGIN, Context(call_of(), "abc", 9, "m"), told, text.rstrip(), None)
    assert stream.feed(chunk({"content": text[:60]})) == b""
    assert stream.error is not None
    assert b"began anew" in stream.error
    assert stream.feed(chunk({}, "stop") + b"data: [DONE]\n\n") == b""
    assert not stream.end()


def test_no_more_of_a_text_is_kept_than_may_be_gone_on_with() -> None:
    told = told_of(*(chunk({"content": "x" * 50}) for _ in range(100)), most=200)
    assert len(told.text) == 200
    assert told.size == 5000
    assert "more than 200 characters" in told.barred


def test_what_bars_going_on() -> None:
    logprobs = {"content": [{"token": "a", "logprob": -0.1, "bytes": None, "top_logprobs": []}]}
    likely = chunk({"content": "a"}).replace(
        b'"finish_reason"', b'"logprobs": ' + json.dumps(logprobs).encode() + b', "finish_reason"'
    )
    assert told_of(chunk({"content": "a"})).barred == ""
    assert told_of(chunk({"refusal": "no"})).barred == "a refusal was told"
    assert told_of(likely).barred == "log probabilities were told"
    second = chunk({"content": "b"}).replace(b'"index": 0', b'"index": 1')
    assert told_of(second).barred == "there are several answers"
