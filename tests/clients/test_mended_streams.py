"""Streams that break off behind the official SDKs, which must see one answer that goes on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from keyturn.dispatch import SystemClock, draw
from keyturn.simulator import KeyRule, Simulator
from tests.support.serving import Upstreams, simulate

from .conftest import options_of, say
from .in_process import InProcess

LLAMA = "groq/llama-3.1-8b-instant"
HELLO = "This is the Keyturn simulator (groq/llama-3.1-8b-instant): … You said: Hello"
CALL = '[say: I will look.] [call: weather {"city": "Rome"}]'
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[InProcess, Upstreams]]:
    """A pool of two keys that holds calls back and goes on with texts."""
    keys = {"groq": {"gsk_one": KeyRule(), "gsk_two": KeyRule()}}
    with simulate(Simulator(SystemClock(), draw, keys=keys)) as upstreams:
        environ = {"GROQ_API_KEY_1": "gsk_one", "GROQ_API_KEY_2": "gsk_two"}
        environ |= {"GROQ_API_BASE": f"{upstreams.url}/groq/v1", "STREAM_HOLD_TOOLS": "*", "STREAM_CONTINUE": "*"}
        pool = InProcess(tmp_path_factory.mktemp("mended"), environ)
        yield pool, upstreams
        pool.close()


def cut(broken: tuple[InProcess, Upstreams], chunk: int) -> InProcess:
    """The pool, whose next stream breaks off behind so many events."""
    pool, upstreams = broken
    pool.reset()
    upstreams.script({"does": "reset", "at_chunk": chunk, "times": 1})
    upstreams.forget()
    return pool


@pytest.mark.parametrize("chunk", [4, 7])
def test_openai_puts_one_chat_completion_together(broken: tuple[InProcess, Upstreams], chunk: int) -> None:
    tool: Any = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
    pool = cut(broken, chunk)
    with openai.OpenAI(**options_of(pool, "openai", asynchronous=False)) as client:
        asked: Any = {"model": LLAMA, "messages": say(CALL), "tools": [tool]}
        with client.chat.completions.stream(**asked) as stream:
            message = stream.get_final_completion().choices[0].message
    assert message.content == "I will look."
    [called] = message.tool_calls or []
    assert (called.function.name, called.function.arguments) == ("weather", '{"city": "Rome"}')
    assert len(broken[1].seen()) == 2


def test_openai_puts_one_response_together(broken: tuple[InProcess, Upstreams]) -> None:
    pool = cut(broken, 6)
    options = options_of(pool, "openai", asynchronous=False)
    asked: Any = {"model": LLAMA, "input": "Hello", "store": False}
    with openai.OpenAI(**options) as client, client.responses.stream(**asked) as stream:
        response = stream.get_final_response()
    assert response.output_text == HELLO
    assert len(response.output) == 1
    assert len(broken[1].seen()) == 2


@pytest.mark.parametrize("chunk", [4, 7])
def test_anthropic_puts_one_message_together(broken: tuple[InProcess, Upstreams], chunk: int) -> None:
    pool = cut(broken, chunk)
    with anthropic.Anthropic(**options_of(pool, "anthropic", asynchronous=False)) as client:
        tool = {"name": "weather", "input_schema": SCHEMA}
        asked: Any = {"model": LLAMA, "max_tokens": 200, "messages": say(CALL), "tools": [tool]}
        with client.messages.stream(**asked) as stream:
            message = stream.get_final_message()
    text, called = message.content
    assert text.type == "text"
    assert text.text == "I will look."
    assert called.type == "tool_use"
    assert called.input == {"city": "Rome"}
    assert message.stop_reason == "tool_use"
    assert len(broken[1].seen()) == 2


def test_the_header_is_read(broken: tuple[InProcess, Upstreams]) -> None:
    pool = cut(broken, 5)
    with openai.OpenAI(**options_of(pool, "openai", asynchronous=False)) as client:
        asked: Any = {"model": LLAMA, "messages": say("Hello"), "stream": True}
        with pytest.raises(openai.APIError, match="interrupted"):
            list(client.chat.completions.create(**asked, extra_headers={"x-keyturn-on-cut": "error"}))
