"""What the simulator refuses in each wire format as the provider does, and what its streams and faults look like."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from keyturn.simulator import PERSONAS, Fault, KeyRule, Simulator
from keyturn.simulator.personas import CASES, row_of
from tests.support import asgi, virtual

PNG = b"\x89PNG\r\n\x1a\n" + bytes(60)
DATA = base64.b64encode(PNG).decode()
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
HEADERS = (("anthropic-version", "2023-06-01"),)
MESSAGES = "/anthropic/v1/messages"
RESPONSES = "/openai/v1/responses"
CHAT = "/openai/v1/chat/completions"
FLASH = "/gemini/v1beta/models/gemini-2.5-flash:"
THREE = "/gemini/v1beta/models/gemini-3-flash:"


# What is refused


def ask(path: str, body: Any, *, key: str = "k1", headers: Any = HEADERS, calls: int = 1, **options: Any) -> asgi.Reply:
    """The last of *calls* replies of a fresh simulator."""

    async def main() -> asgi.Reply:
        simulator = Simulator(virtual.VirtualClock(), virtual.seeded(1), **options)
        for _ in range(calls):
            reply = await asgi.call(simulator, "POST", path, json=body, key=key, headers=headers)
        return reply

    return virtual.run(main)


def say(*blocks: Any, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": list(blocks)}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


USE = {"type": "tool_use", "id": "t1", "name": "weather", "input": {}}
THOUGHT = {"type": "thinking", "thinking": "a", "signature": "b"}
DONE = {"type": "tool_result", "tool_use_id": "t1", "content": "21"}
TOOLS = [{"name": "weather", "input_schema": SCHEMA}]
HELLO = {"role": "user", "content": "Hello"}


def image(mime: str = "image/png", data: str = DATA) -> dict[str, Any]:
    return {"type": "image", "source": {"type": "base64", "media_type": mime, "data": data}}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"max_tokens": None}, "max_tokens: Field required"),
        ({"seed": 1}, "seed: Extra inputs are not permitted"),
        ({"messages": [say(text("a"), role="tool")]}, 'Unexpected role "tool"'),
        ({"messages": [say(text(""))]}, "text content blocks must be non-empty"),
        ({"messages": [{"role": "user", "content": ""}]}, "must have non-empty content"),
        ({"messages": [HELLO, say(USE, role="assistant"), HELLO]}, "`tool_use` ids were found without"),
        ({"messages": [HELLO, say(USE, role="assistant"), say(text("a"), DONE)]}, "`tool_use` ids were found without"),
        ({"messages": [HELLO, say(USE, role="assistant")]}, "`tool_use` ids were found without"),
        ({"messages": [say(DONE)]}, "unexpected `tool_use_id`"),
        ({"messages": [HELLO, say(USE | {"id": "a.b"}, role="assistant"), say(DONE)]}, "should match pattern"),
        ({"messages": [HELLO, say(USE | {"input": "x"}, role="assistant"), say(DONE)]}, "valid dictionary"),
        ({"messages": [say(image("image/bmp"))]}, "media_type: Input should be 'image/jpeg'"),
        ({"messages": [say(image(data="?"))]}, "Invalid base64 data"),
        ({"messages": [HELLO, say(text("a"), role="assistant")]}, "prefill"),
        ({"thinking": {"type": "enabled", "budget_tokens": 5}}, "greater than or equal to 1024"),
        ({"thinking": {"type": "enabled", "budget_tokens": 5000}}, "`max_tokens` must be greater"),
        ({"thinking": {"type": "adaptive"}, "tools": TOOLS, "tool_choice": {"type": "any"}}, "tool_choice forces"),
        ({"tool_choice": {"type": "auto"}}, "while providing tools"),
        ({"tools": [{"type": "function", "function": {}}]}, "Input tag 'function' found using 'type'"),
        ({"tools": [TOOLS[0] | {"parameters": {}}]}, "tools.0.custom.parameters: Extra inputs"),
        ({"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}, "'additionalProperties' must be"),
        ({"messages": [say(*[text("a") | {"cache_control": {"type": "ephemeral"}}] * 5)]}, "maximum of 4 blocks"),
        (
            {
                "messages": [
                    HELLO,
                    say({"type": "thinking", "thinking": "a", "signature": "b"}, role="assistant"),
                    HELLO,
                ]
            },
            "Invalid `signature` in `thinking` block",
        ),
        (
            {
                "model": "claude-sonnet-4-5",
                "max_tokens": 4000,
                "thinking": {"type": "enabled", "budget_tokens": 2000},
                "messages": [HELLO, say(USE, role="assistant"), say(DONE)],
            },
            "Expected `thinking` or `redacted_thinking`",
        ),
    ],
)
def test_what_anthropic_refuses(more: dict[str, Any], words: str) -> None:
    body = {"model": "claude-opus-4-6", "max_tokens": 2000, "messages": [HELLO]} | more
    reply = ask(MESSAGES, {name: value for name, value in body.items() if value is not None})
    assert reply.status == 400, reply.body
    assert reply.json()["type"] == "error"
    assert reply.json()["error"]["type"] == "invalid_request_error"
    assert words in reply.json()["error"]["message"]


def test_anthropics_versions_and_keys() -> None:
    body = {"model": "claude-opus-4-6", "max_tokens": 9, "messages": [HELLO], "temperature": 1}
    assert "anthropic-version: header is required" in ask(MESSAGES, body, headers=()).body.decode()
    assert ask(MESSAGES, body).status == 200
    assert ask(MESSAGES, body, headers=[("anthropic-version", "2026-10-21")]).status == 400
    assert ask(MESSAGES, body, key="", headers=[*HEADERS, ("x-api-key", "k")]).status == 200
    nobody = ask(MESSAGES, body, key="")
    assert (nobody.status, nobody.json()["error"]["type"]) == (401, "authentication_error")
    refused = ask(MESSAGES, body, keys={"anthropic": {}})
    assert refused.json()["error"] == {"type": "authentication_error", "message": "invalid x-api-key"}


CALL = {"role": "model", "parts": [{"functionCall": {"name": "weather", "args": {}}}]}
ANSWER = {"role": "user", "parts": [{"functionResponse": {"name": "weather", "response": {"result": "21"}}}]}
HI = {"role": "user", "parts": [{"text": "Hello"}]}
DUMMY = "skip_thought_signature_validator"


def signed(signature: str) -> dict[str, Any]:
    return {"role": "model", "parts": [CALL["parts"][0] | {"thoughtSignature": signature}]}  # type: ignore[operator]


@pytest.mark.parametrize(
    ("path", "more", "words"),
    [
        (FLASH, {"foo": 1}, 'Unknown name "foo": Cannot find field.'),
        (FLASH, {"generationConfig": {"foo": 1}}, "Unknown name \"foo\" at 'generation_config': Cannot find field."),
        (
            FLASH,
            {"contents": [{"role": "user", "parts": [{"text": "a", "type": "text"}]}]},
            "at 'contents[0].parts[0]'",
        ),
        (FLASH, {"contents": [{"role": "assistant", "parts": [{"text": "a"}]}]}, "valid role: user, model"),
        (FLASH, {"contents": []}, "contents is not specified"),
        (FLASH, {"contents": [HI, CALL]}, "number of function response parts"),
        (FLASH, {"contents": [HI, CALL, HI]}, "number of function response parts"),
        (FLASH, {"contents": [HI, ANSWER]}, "immediately after a function call turn"),
        (FLASH, {"contents": [CALL, ANSWER]}, "immediately after a user turn"),
        (
            FLASH,
            {"contents": [HI, CALL, {"parts": [{"functionResponse": {"name": "weather", "response": "21"}}]}]},
            "google.protobuf.Struct",
        ),
        (
            FLASH,
            {"contents": [{"parts": [{"inlineData": {"mimeType": "image/gif", "data": DATA}}]}]},
            "Unsupported MIME",
        ),
        (FLASH, {"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": "?"}}]}]}, "Base64 decoding"),
        (FLASH, {"generationConfig": {"thinkingConfig": {"thinkingLevel": "LOW"}}}, "level is not supported"),
        (THREE, {"generationConfig": {"thinkingConfig": {"thinkingBudget": 9}}}, "budget is not supported"),
        (
            THREE,
            {"generationConfig": {"thinkingConfig": {"thinkingBudget": 9, "thinkingLevel": "LOW"}}},
            "only set only one",
        ),
        (THREE, {"contents": [HI, CALL, ANSWER]}, "missing a thought_signature"),
        (THREE, {"contents": [HI, signed("c2ltLWdlbWluaQ=="), ANSWER]}, "Corrupted thought signature."),
        (
            FLASH,
            {"tools": [{"functionDeclarations": [{"name": "a", "parameters": {"$schema": "x"}}]}]},
            "at 'tools[0].function_declarations[0].parameters'",
        ),
        (FLASH, {"toolConfig": {"functionCallingConfig": {"mode": "ANY"}}}, "no function declarations"),
    ],
)
def test_what_gemini_refuses(path: str, more: dict[str, Any], words: str) -> None:
    reply = ask(f"{path}generateContent", {"contents": [HI]} | more)
    assert reply.status == 400, reply.body
    error = reply.json()["error"]
    assert (error["code"], error["status"]) == (400, "INVALID_ARGUMENT")
    assert words in error["message"]


def test_what_gemini_takes() -> None:
    config = {"max_output_tokens": 3, "thinking_config": {"include_thoughts": True}}
    assert ask(f"{FLASH}generateContent", {"contents": [HI], "generation_config": config}).status == 200
    for dummy in (DUMMY, base64.b64encode(DUMMY.encode()).decode()):
        assert ask(f"{THREE}generateContent", {"contents": [HI, signed(dummy), ANSWER]}).status == 200
    earlier = {"contents": [HI, CALL, ANSWER, {"role": "model", "parts": [{"text": "21"}]}, HI]}
    assert ask(f"{THREE}generateContent", earlier).status == 200, "only the current turn must be signed"
    assert ask(f"{FLASH}generateContent?key=k1", {"contents": [HI]}, key="").status == 200
    assert ask(f"{FLASH}generateContent", {"contents": [HI]}, key="").json()["error"]["status"] == "PERMISSION_DENIED"
    host = [("host", "generativelanguage.googleapis.com")]
    assert ask("/v1/models/gemini-2.5-flash:generateContent", {"contents": [HI]}, headers=host).status == 200


FUNCTION = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "21"}


@pytest.mark.parametrize(
    ("more", "words", "code"),
    [
        ({"messages": []}, "Unknown parameter: 'messages'.", "unknown_parameter"),
        ({"max_output_tokens": 5}, "Expected a value >= 16", None),
        ({"input": [OUTPUT]}, "No tool call found for function call output", None),
        ({"input": [FUNCTION]}, "No tool output found for function call c1", None),
        ({"input": [{"type": "nothing"}]}, "Invalid value: 'nothing'", None),
        ({"input": [say(text("a"))]}, "Supported values are: 'input_text'", None),
        ({"input": [say({"type": "input_text", "text": "a"}, role="assistant")]}, "'output_text' and 'refusal'", None),
        ({"input": [say({"type": "input_image", "image_url": {"url": "x"}})]}, "got an object instead", None),
        ({"input": [say({"type": "input_image", "image_url": "data:image/png;base64,?"})]}, "valid URL", None),
        (
            {"tools": [{"type": "function", "function": {"name": "a"}}]},
            "Missing required parameter: 'tools[0].name'",
            None,
        ),
        ({"tool_choice": {"type": "function", "function": {"name": "a"}}}, "'tool_choice.name'", None),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "'text.format.name'", None),
        ({"store": "yes"}, "expected a boolean", None),
        ({"previous_response_id": "resp_1"}, "not found", "previous_response_not_found"),
        (
            {
                "input": [
                    {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAA"},
                    FUNCTION,
                    OUTPUT,
                ]
            },
            "could not be verified",
            "invalid_encrypted_content",
        ),
    ],
)
def test_what_responses_refuse(more: dict[str, Any], words: str, code: str | None) -> None:
    reply = ask(RESPONSES, {"model": "gpt-4o", "input": "Hello"} | more)
    assert reply.status == 400, reply.body
    assert reply.json()["error"]["type"] == "invalid_request_error"
    assert reply.json()["error"]["code"] == code
    assert words in reply.json()["error"]["message"]


ASSISTANT = {
    "role": "assistant",
    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}],
}
TOOL = {"role": "tool", "tool_call_id": "c1", "content": "21"}
PICTURE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{DATA}"}}


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([HELLO, ASSISTANT, HELLO], "must be followed by tool messages"),
        ([HELLO, ASSISTANT], "must be followed by tool messages"),
        ([HELLO, TOOL], "must be a response to a preceeding message"),
        ([HELLO, ASSISTANT, TOOL | {"content": [PICTURE]}], "only allowed for messages with role 'user'"),
        ([say({"type": "image_url", "image_url": {"url": "data:image/png;base64,?"}})], "base64-encoded data URL"),
    ],
)
def test_what_chat_refuses(messages: list[Any], words: str) -> None:
    reply = ask(CHAT, {"model": "gpt-4o", "messages": messages})
    assert reply.status == 400
    assert words in reply.json()["error"]["message"]


# Streams, faults and limits


def blocks(reply: asgi.Reply, blank: bytes = b"\n\n") -> list[bytes]:
    return [block for block in reply.body.split(blank) if block]


CLAUDE = {"model": "claude-opus-4-6", "max_tokens": 200, "messages": [HELLO], "stream": True}
GPT = {"model": "gpt-4o", "input": "Hello", "stream": True}


def test_the_order_of_anthropics_events() -> None:
    reply = ask(MESSAGES, CLAUDE)
    names = [block.split(b"\n")[0].removeprefix(b"event: ").decode() for block in blocks(reply)]
    assert [event["type"] for event in reply.events()] == names
    deltas = ["content_block_delta"] * names.count("content_block_delta")
    block = ["content_block_start", *deltas, "content_block_stop"]
    assert names == ["message_start", *block, "ping", "message_delta", "message_stop"]


def test_geminis_streams_are_events_with_crlf_or_one_array() -> None:
    events = ask(f"{FLASH}streamGenerateContent?alt=sse", {"contents": [HI]})
    parsed = [json.loads(block.removeprefix(b"data: ")) for block in blocks(events, b"\r\n\r\n")]
    array = ask(f"{FLASH}streamGenerateContent", {"contents": [HI]})
    assert array.headers["content-type"].startswith("application/json")
    assert array.json() == parsed
    assert [chunk["candidates"][0].get("finishReason") for chunk in parsed] == [None] * (len(parsed) - 1) + ["STOP"]


STREAMS: dict[str, tuple[str, Any, bytes]] = {
    "anthropic": (MESSAGES, CLAUDE, b"event: error\ndata: "),
    "openai_responses": (RESPONSES, GPT, b"event: error\ndata: "),
    "gemini": (f"{FLASH}streamGenerateContent?alt=sse", {"contents": [HI]}, b'data: {"error":'),
}


@pytest.mark.parametrize("dialect", STREAMS)
def test_faults_within_streams(dialect: str) -> None:
    path, body, opening = STREAMS[dialect]
    blank = b"\r\n\r\n" if dialect == "gemini" else b"\n\n"
    whole = ask(path, body)
    limited = ask(path, body, faults=[Fault(dialect=dialect, error="rate_limited", at_chunk=2)])
    assert blocks(limited, blank)[:2] == blocks(whole, blank)[:2]
    assert len(blocks(limited, blank)) == 3
    assert blocks(limited, blank)[2].startswith(opening)
    cut = ask(path, body, faults=[Fault(does="end", at_chunk=2, inside="event")])
    assert whole.body.startswith(cut.body)
    for quirk in ("bytewise", "pings", "crlf", "no_done", "no_usage", "empty", "gzip"):
        changed = ask(path, body, faults=[Fault(quirks=frozenset({quirk}))])
        assert changed.status == 200
        if quirk == "no_usage":
            assert b"okens" not in changed.body.replace(b"max_output_tokens", b"").replace(b"max_tokens", b"")
        elif quirk in ("bytewise", "crlf"):
            assert changed.body.replace(b"\r\n", b"\n") == whole.body.replace(b"\r\n", b"\n")


def test_a_response_fails_when_the_server_does() -> None:
    events = ask(RESPONSES, GPT, faults=[Fault(status=500, at_chunk=3)]).events()
    assert [event["sequence_number"] for event in events] == [0, 1, 2, 3]
    assert events[-1]["type"] == "response.failed"
    assert events[-1]["response"]["error"]["code"] == "server_error"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 429, 500, 503, 529])
@pytest.mark.parametrize("dialect", STREAMS)
def test_every_status_in_the_formats_own_envelope(dialect: str, status: int) -> None:
    path, body, _ = STREAMS[dialect]
    reply = ask(path, body, faults=[Fault(status=status)])
    assert reply.status == status
    if dialect == "openai_responses" and status == 408:
        assert reply.body == b"upstream request timeout", "said by what stands in front of it"
        return
    error = reply.json()["error"]
    if dialect == "anthropic":
        assert error["type"].endswith(("_error", "_request_error"))
        assert reply.json()["request_id"]
    elif dialect == "gemini":
        assert error["code"] == status
        assert error["status"].isupper()
    else:
        assert {"message", "type", "param", "code"} == error.keys()


@pytest.mark.parametrize("case", sorted(CASES))
def test_every_case_in_googles_and_anthropics_own_envelopes(case: str) -> None:
    for dialect in ("anthropic", "gemini"):
        path, body, _ = STREAMS[dialect]
        reply = ask(path, body, faults=[Fault(error=case)])
        assert reply.status == row_of(PERSONAS[dialect], case, dialect).status >= 400
        assert reply.json()["error"].keys() >= ({"type", "message"} if dialect == "anthropic" else {"code", "status"})


@pytest.mark.parametrize("dialect", STREAMS)
def test_limits_and_the_log_know_the_other_formats(dialect: str) -> None:
    path, body, _ = STREAMS[dialect]

    async def main() -> Any:
        provider = path.split("/")[1]
        rules = {provider: {"k1": KeyRule(rpm=1)}}
        simulator = Simulator(virtual.VirtualClock(), virtual.seeded(1), keys=rules)
        for _ in range(2):
            await asgi.call(simulator, "POST", path, json=body, key="k1", headers=HEADERS)
        return simulator.log

    first, second = virtual.run(main)
    assert (first.kind, first.dialect, first.stream, first.status) == ("chat", dialect, True, 200)
    assert first.model in ("claude-opus-4-6", "gpt-4o", "gemini-2.5-flash")
    assert first.input_tokens == 5
    assert first.output_tokens > 0
    assert (second.status, second.result) == (429, "limited")


@pytest.mark.parametrize("provider", ["openai", "groq", "gemini", "mistral"])
def test_a_prompt_seen_before_is_half_from_a_cache(provider: str) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "word " * 60}]}
    first, second = (ask(f"/{provider}/v1/chat/completions", body, calls=calls).json()["usage"] for calls in (1, 2))
    assert first["prompt_tokens_details"]["cached_tokens"] == 0
    assert second["prompt_tokens_details"]["cached_tokens"] == second["prompt_tokens"] // 2


def test_geminis_other_endpoint_carries_signatures_too() -> None:
    path = "/gemini/v1beta/openai/chat/completions"
    tools = [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}]
    body = {"model": "gemini-3-flash", "messages": [HELLO | {"content": "use the tool"}], "tools": tools}
    call = ask(path, body).json()["choices"][0]["message"]["tool_calls"][0]
    answered = {"role": "tool", "tool_call_id": call["id"], "content": "21"}

    def again(**more: Any) -> asgi.Reply:
        turn = {"role": "assistant", "tool_calls": [call | more]}
        return ask(path, body | {"messages": [HELLO, turn, answered]})

    assert again().status == 200
    assert "missing a thought_signature" in again(extra_content=None).json()[0]["error"]["message"]
    wrong = {"google": {"thought_signature": "c2lt"}}
    assert "Corrupted" in again(extra_content=wrong).json()[0]["error"]["message"]
