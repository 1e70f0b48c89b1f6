"""The official `anthropic` SDK in its two kinds, over HTTP and in process: text, streams, typed errors, leaving."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import pytest

from tests.support.serving import Served, Upstreams

from .conftest import EACH_WAY, assert_let_go, options_of, run, say
from .in_process import InProcess

EITHER_KIND = pytest.mark.parametrize(
    ("way", "call"),
    [("http", False), ("in_process", False), ("in_process", True)],
    indirect=True,
    ids=["sync-http", "sync-in_process", "async-in_process"],
)
LLAMA = "groq/llama-3.1-8b-instant"
HELLO = "This is the Keyturn simulator (groq/llama-3.1-8b-instant): … You said: Hello"
ASKED: dict[str, Any] = {"model": LLAMA, "max_tokens": 200, "messages": say("Hello")}
TOOL = {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
Ask = Callable[[Any], Any]
"""Is given the client and calls one of its methods; of an asynchronous client the result is awaited."""


@pytest.fixture
def call(request: pytest.FixtureRequest, gateway: Served | InProcess, upstreams: Upstreams) -> Callable[..., Any]:
    """Makes a client, of the asynchronous kind if the parameter says so, and gives it to *ask*."""

    def asked(ask: Ask, **options: Any) -> Any:
        chosen = options_of(gateway, "anthropic", asynchronous=request.param) | options
        if not request.param:
            with anthropic.Anthropic(**chosen) as client:
                found = ask(client)
                return list(found) if isinstance(found, Iterator) else found

        async def main() -> Any:
            async with anthropic.AsyncAnthropic(**chosen) as client:
                found = await ask(client)
                return [each async for each in found] if hasattr(found, "__aiter__") else found

        return run(main)

    return asked


@EITHER_KIND
def test_a_message(call: Callable[..., Any], upstreams: Upstreams) -> None:
    message = call(lambda client: client.messages.create(**ASKED, system="Be brief."))
    assert message.content[0].text == HELLO
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens > 0
    assert message._request_id
    [seen] = upstreams.seen()
    assert (seen.provider, seen.dialect, seen.status) == ("groq", "openai_chat", 200)


@EITHER_KIND
def test_a_stream(call: Callable[..., Any], upstreams: Upstreams) -> None:
    events = call(lambda client: client.messages.create(**ASKED, stream=True))
    assert [events[0].type, events[-1].type] == ["message_start", "message_stop"]
    deltas = [event.delta.text for event in events if event.type == "content_block_delta"]
    assert len(deltas) > 5
    assert "".join(deltas) == HELLO
    assert [each.result for each in upstreams.seen()] == ["served"]


@EITHER_KIND
def test_a_tool(call: Callable[..., Any]) -> None:
    messages = say('Please [call: weather {"city": "Rome"}]')
    message = call(lambda client: client.messages.create(**ASKED | {"messages": messages}, tools=[TOOL]))
    assert message.stop_reason == "tool_use"
    [used] = [block for block in message.content if block.type == "tool_use"]
    assert (used.name, used.input) == ("weather", {"city": "Rome"})


@EITHER_KIND
def test_the_answer_as_it_came(call: Callable[..., Any]) -> None:
    raw = call(lambda client: client.messages.with_raw_response.create(**ASKED))
    assert raw.headers["x-keyturn-provider"] == "groq"
    assert raw.headers["request-id"] == raw.headers["x-keyturn-call"]
    assert raw.http_response.status_code == 200


@EITHER_KIND
def test_tokens_are_counted(call: Callable[..., Any]) -> None:
    counted = call(lambda client: client.messages.count_tokens(model=LLAMA, messages=say("Hello there")))
    assert counted.input_tokens > 0


@EITHER_KIND
def test_models_are_listed(call: Callable[..., Any]) -> None:
    page = call(lambda client: client.models.retrieve(LLAMA))
    assert (page.id, page.type) == (LLAMA, "model")
    listed = call(lambda client: client.get("/v1/models", cast_to=object))
    assert LLAMA in [row["id"] for row in listed["data"]]
    assert listed["has_more"] is False


@EITHER_KIND
@pytest.mark.parametrize(
    ("members", "kind", "says"),
    [
        ({"messages": []}, anthropic.BadRequestError, "Send at least one message"),
        ({"model": "grok/nothing"}, anthropic.NotFoundError, "grok"),
    ],
)
def test_a_mistake_is_typed(call: Callable[..., Any], upstreams: Upstreams, members: Any, kind: Any, says: str) -> None:
    with pytest.raises(kind, match=says) as caught:
        call(lambda client: client.messages.create(**ASKED | members))
    assert caught.value.request_id == caught.value.response.headers["x-keyturn-call"]
    assert upstreams.seen() == []


@EITHER_KIND
def test_a_limit_is_typed_and_says_when(call: Callable[..., Any], upstreams: Upstreams) -> None:
    upstreams.script({"provider": "groq", "error": "rate_limited", "wait": 30})
    with pytest.raises(anthropic.RateLimitError) as caught:
        call(lambda client: client.messages.create(**ASKED, extra_headers={"x-request-timeout-ms": "500"}))
    assert 25 <= int(caught.value.response.headers["retry-after"]) <= 31


@EITHER_KIND
@pytest.mark.realtime
def test_the_sdk_tries_again_by_itself(call: Callable[..., Any], upstreams: Upstreams) -> None:
    upstreams.script({"provider": "groq", "status": 429, "wait": 0.7, "times": 1})
    headers = {"x-request-timeout-ms": "400"}
    message = call(lambda client: client.messages.create(**ASKED, extra_headers=headers), max_retries=2)
    assert message.content[0].text == HELLO
    assert [each.status for each in upstreams.seen()] == [429, 200]


@EITHER_KIND
def test_a_stream_that_is_cut_raises(call: Callable[..., Any], upstreams: Upstreams) -> None:
    upstreams.script({"provider": "groq", "does": "reset", "at_chunk": 6})
    with pytest.raises(anthropic.APIError, match="interrupted"):
        call(lambda client: client.messages.create(**ASKED, stream=True))


@EITHER_KIND
@pytest.mark.realtime
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_gives_up(call: Callable[..., Any], upstreams: Upstreams, stream: bool) -> None:
    upstreams.script({"provider": "groq", "does": "hang"})
    for seconds in (0.2, 1.0, 4.0):  # on a busy machine the call may not have come upstream yet
        with pytest.raises(anthropic.APITimeoutError):
            call(lambda client: client.messages.create(**ASKED, stream=stream), timeout=seconds)
        upstreams.settled()
        if upstreams.seen():
            break
    assert {each.result for each in upstreams.seen()} == {"cancelled"}  # and so is an earlier one that came late


@EACH_WAY
@pytest.mark.realtime
def test_a_stream_is_closed_early(gateway: Served | InProcess, upstreams: Upstreams) -> None:
    upstreams.script({"provider": "groq", "does": "hang", "at_chunk": 4})

    def leave() -> float:
        with anthropic.Anthropic(**options_of(gateway, "anthropic")) as client:
            with client.messages.stream(**ASKED) as stream:
                assert next(iter(stream.text_stream))
            left = time.monotonic()
            upstreams.settled()
            return left

    assert_let_go(upstreams, leave)


@EACH_WAY
def test_the_answer_in_pieces(gateway: Served | InProcess, upstreams: Upstreams) -> None:
    async def main() -> str:
        options = options_of(gateway, "anthropic", asynchronous=True)
        async with (
            anthropic.AsyncAnthropic(**options) as client,
            client.messages.with_streaming_response.create(**ASKED) as response,
        ):
            return b"".join([piece async for piece in response.iter_bytes()]).decode()

    assert HELLO in run(main)


@EACH_WAY
def test_many_at_once(gateway: Served | InProcess, upstreams: Upstreams) -> None:
    async def main() -> list[Any]:
        async with anthropic.AsyncAnthropic(**options_of(gateway, "anthropic", asynchronous=True)) as client:
            return await asyncio.gather(*(client.messages.create(**ASKED) for _ in range(20)))

    assert {message.content[0].text for message in run(main)} == {HELLO}
    assert len(upstreams.seen(status=200)) == 20
