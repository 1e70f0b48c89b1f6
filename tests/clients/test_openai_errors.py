"""The typed exceptions of the official SDK: what went wrong, and whether and when it tries again."""

from __future__ import annotations

import math
from typing import Any

import openai
import pytest

from tests.support.serving import Upstreams

from .conftest import FAULTS, LIMITED, SLOW, Async, Sdk, Sync, text_of

GPT = "openai/gpt-4o"
LLAMA = "groq/llama-3.1-8b-instant"

pytestmark = pytest.mark.parametrize(
    ("kind", "way"),
    [(Sync, "http"), (Async, "http"), (Async, "in_process")],
    indirect=True,
    ids=["sync-http", "async-http", "async-in_process"],
)


def test_400_for_a_request_that_nobody_could_answer(sdk: Sdk, upstreams: Upstreams) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.call(lambda client: client.chat.completions.create(model=GPT, messages=[]))
    assert (caught.value.code, caught.value.param, caught.value.type) == (
        "bad_request",
        "messages",
        "invalid_request_error",
    )
    assert "Send at least one message" in caught.value.message
    assert caught.value.request_id
    assert upstreams.seen() == []


@pytest.mark.parametrize("stream", [False, True])
def test_400_of_the_provider_comes_as_it_was_and_is_sent_once(sdk: Sdk, upstreams: Upstreams, stream: bool) -> None:
    upstreams.script({"key": SLOW, "error": "context_length"}, *FAULTS)
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.chat(GPT, stream=stream)
    assert caught.value.code == "context_length_exceeded"
    assert caught.value.param == "messages"
    assert isinstance(caught.value.body, dict)
    assert "keyturn" not in caught.value.body
    assert len(upstreams.seen(case="context_length")) == 1


def test_401_for_a_wrong_caller_key(sdk: Sdk, upstreams: Upstreams) -> None:
    if sdk.pool is not None:
        assert sdk.chat(GPT).choices, "in process nobody is a stranger, and no key is read"
        return
    sdk.options |= {"api_key": "sk-wrong", "max_retries": 2}
    with pytest.raises(openai.AuthenticationError) as caught:
        sdk.chat(GPT)
    assert caught.value.code == "invalid_api_key"
    assert "sk-wrong" not in caught.value.message
    assert len(sdk.sent) == 1
    assert upstreams.seen() == []


def test_404_names_the_nearest(sdk: Sdk, upstreams: Upstreams) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        sdk.chat("lama-3.1-8b-instant")
    assert caught.value.code == "model_not_found"
    assert "groq/llama-3.1-8b-instant" in caught.value.message
    with pytest.raises(openai.NotFoundError, match="groq/openai/gpt-oss-20b"):
        sdk.call(lambda client: client.models.retrieve("groq/openai/gpt-oss-200b"))
    assert upstreams.seen() == []


def test_404_of_a_provider_without_a_key_names_the_variable(sdk: Sdk, upstreams: Upstreams) -> None:
    with pytest.raises(openai.NotFoundError, match="TOGETHER_API_KEY"):
        sdk.chat("together/meta-llama/Llama-3.3-70B-Instruct-Turbo")
    assert upstreams.seen() == []


def test_404_of_the_provider_comes_as_it_was(sdk: Sdk, upstreams: Upstreams) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        sdk.chat("groq/llama-gone")
    assert caught.value.body == {
        "message": "The model `llama-gone` does not exist or you do not have access to it.",
        "type": "invalid_request_error",
        "code": "model_not_found",
    }
    assert len(upstreams.seen()) == 1


def test_404_for_a_path_that_is_not_served(sdk: Sdk) -> None:
    with pytest.raises(openai.NotFoundError, match="POST /v1/chat/completions"):
        sdk.call(lambda client: client.batches.list())


def test_429_says_when_and_means_it(sdk: Sdk, upstreams: Upstreams) -> None:
    upstreams.script({"provider": "groq", "error": "rate_limited", "wait": 30, "times": 1})
    first, again = [limited(sdk, LLAMA) for _ in range(2)]
    assert 25_000 < again <= first < 33_000
    assert [each.status for each in upstreams.seen()] == [429], "the key was asked before its time"


def test_429_by_a_limit_that_its_owner_declared(sdk: Sdk, kind: type[Sdk], upstreams: Upstreams) -> None:
    model = f"mistral/{kind.__name__}"  # limits count per model, and are not cleared between tests
    assert [sdk.chat(model).choices[0].finish_reason for _ in range(2)] == ["stop", "stop"]
    assert 50_000 < limited(sdk, model) <= 61_000
    assert [each.status for each in upstreams.seen()] == [200, 200]


def limited(sdk: Sdk, model: str) -> float:
    """The milliseconds that a refusal for lack of capacity states; its two headers agree."""
    with pytest.raises(openai.RateLimitError) as caught:
        sdk.chat(model, extra_headers={"x-request-timeout-ms": "2000"})
    assert caught.value.code == "capacity"
    headers = caught.value.response.headers
    wait = float(headers["retry-after-ms"])
    assert headers["retry-after"] == str(math.ceil(wait / 1000))
    assert "x-should-retry" not in headers
    return wait


@pytest.mark.realtime
def test_429_is_waited_out_by_the_client_itself(sdk: Sdk, upstreams: Upstreams) -> None:
    upstreams.script({"provider": "groq", "error": "rate_limited", "wait": 0.7, "times": 1})
    sdk.options["max_retries"] = openai.DEFAULT_MAX_RETRIES
    soon = {"x-request-timeout-ms": "400"}  # else the gateway waits for it
    assert sdk.chat(LLAMA, extra_headers=soon).choices[0].finish_reason == "stop"
    refused, served = upstreams.seen()
    assert (refused.status, served.status) == (429, 200)
    assert served.started - refused.started >= 0.7
    assert len(sdk.sent) == 2


def test_503_without_a_usable_key_is_not_tried_again(sdk: Sdk, upstreams: Upstreams) -> None:
    sdk.options["max_retries"] = openai.DEFAULT_MAX_RETRIES
    with pytest.raises(openai.InternalServerError) as caught:
        sdk.chat("deepseek/deepseek-chat")
    assert (caught.value.status_code, caught.value.code) == (503, "no_valid_credentials")
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert [attempt["meaning"] for attempt in attempts_of(caught.value)] == ["invalid_key", "invalid_key"]
    assert len(sdk.sent) == 1
    assert [each.key for each in upstreams.seen()] == ["sk-revoked-1", "sk-revoked-2"]


def test_502_when_every_upstream_fails_lists_the_attempts(sdk: Sdk, upstreams: Upstreams) -> None:
    upstreams.script({"key": SLOW, "status": 502}, *FAULTS)
    with pytest.raises(openai.InternalServerError) as caught:
        sdk.chat(GPT)
    assert (caught.value.status_code, caught.value.code) == (502, "bad_upstream")
    assert [attempt["status"] for attempt in attempts_of(caught.value)] == [401, 429, 500, 502]
    assert LIMITED not in str(caught.value.body)


def test_504_at_the_deadline_of_the_call(sdk: Sdk, upstreams: Upstreams) -> None:
    upstreams.script({"provider": "groq", "does": "hang"})
    with pytest.raises(openai.InternalServerError) as caught:
        sdk.chat(LLAMA, extra_headers={"x-request-timeout-ms": "400"})
    assert (caught.value.status_code, caught.value.code) == (504, "deadline")
    upstreams.settled()
    assert [each.result for each in upstreams.seen()] == ["cancelled"]


def attempts_of(error: openai.APIStatusError) -> list[dict[str, Any]]:
    """What the body of an error of ours tells of the attempts."""
    assert isinstance(error.body, dict)
    found: list[dict[str, Any]] = error.body["keyturn"]["attempts"]
    return found


@pytest.mark.parametrize("does", ["reset", "end"])
def test_a_stream_that_is_cut_raises_after_what_has_come(sdk: Sdk, upstreams: Upstreams, does: str) -> None:
    upstreams.script({"key": SLOW, "does": does, "at_chunk": 4}, *FAULTS)
    with pytest.raises(openai.APIError) as caught:
        sdk.stream(GPT)
    assert caught.value.code == "upstream_interrupted"
    chunks: list[Any] = caught.value.chunks  # type: ignore[attr-defined]
    assert text_of(chunks) == "This is the"
    assert all(chunk.choices[0].finish_reason is None for chunk in chunks)
    assert [each.status for each in upstreams.seen()] == [401, 429, 500, 200], "a stream is not begun twice"
