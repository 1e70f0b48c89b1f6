"""Clients of the four dialects: how each asks, what it reads, how it sends a turn back. Small, and written by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, NamedTuple

from tests.support import virtual
from tests.support.world import Answer, World

DIALECTS = ("openai_chat", "openai_responses", "anthropic", "gemini")
DOORS = {"openai_chat": "chat", "openai_responses": "responses", "anthropic": "messages", "gemini": "gemini"}
UPSTREAMS = {
    "openai_chat": "groq/llama-3.1-8b-instant",
    "openai_responses": "openai/gpt-5.1",
    "anthropic": "anthropic/claude-sonnet-4-5",
    "gemini": "gemini/gemini-3-pro",
}
"""A deployment that is asked in each dialect; OpenAI in Responses alone."""
ONLY_RESPONSES = {"OPENAI_DIALECT": "openai_responses"}
POOL = {"groq": 1, "openai": 1, "anthropic": 1, "gemini": 1}
Story = Callable[[World], Coroutine[Any, Any, None]]


def play(
    story: Story, pool: Mapping[str, Any] = POOL, *, roles: str = "", models_yaml: str = "", **options: Any
) -> None:
    """*story* in a world with *pool*, its upstreams' bodies kept; *roles* is the text below `roles:`."""

    async def main() -> None:
        files = {"roles.yaml": f"roles:\n{roles}"} if roles else {}
        files |= {"models.yaml": models_yaml} if models_yaml else {}
        environ = ONLY_RESPONSES | dict(options.pop("environ", {}))
        async with World(pool, files=files, environ=environ, keep_bodies=True, **options) as world:
            await story(world)

    virtual.run(main)


class Tool(NamedTuple):
    """A call of a tool that a client received."""

    id: str
    name: str
    arguments: Any
    signature: str = ""


SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def body(dialect: str, model: str, text: str = "Hello", *, tools: bool = False, **more: Any) -> dict[str, Any]:
    """A question; with *tools*, one tool `weather` is offered."""
    asked: dict[str, Any] = {"model": model}
    if dialect == "gemini":
        asked = {"contents": [{"role": "user", "parts": [{"text": text}]}]}
        if tools:
            declared = {"name": "weather", "description": "Weather", "parametersJsonSchema": SCHEMA}
            asked["tools"] = [{"functionDeclarations": [declared]}]
    elif dialect == "anthropic":
        asked |= {"max_tokens": 2000, "messages": [{"role": "user", "content": text}]}
        if tools:
            asked["tools"] = [{"name": "weather", "description": "Weather", "input_schema": SCHEMA}]
    elif dialect == "openai_responses":
        asked |= {"input": [{"role": "user", "content": text}]}
        if tools:
            asked["tools"] = [{"type": "function", "name": "weather", "parameters": SCHEMA}]
    else:
        asked |= {"messages": [{"role": "user", "content": text}]}
        if tools:
            asked["tools"] = [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}]
    return asked | more


async def ask(
    world: World,
    dialect: str,
    model: str,
    given: str | Mapping[str, Any] = "Hello",
    *,
    stream: bool = False,
    array: bool = False,
    headers: Mapping[str, str] | None = None,
    timeout: float | None = None,
) -> Answer:
    """One call of a client of *dialect*: a text, or a whole body. *array*: Gemini's stream without `alt=sse`."""
    asked = body(dialect, model, given) if isinstance(given, str) else dict(given)
    if dialect == "gemini":
        method = "streamGenerateContent" if stream else "generateContent"
        query = "alt=sse" if stream and not array else ""
        return await world.send("gemini", asked, timeout, argument=f"{model}:{method}", query=query, headers=headers)
    return await world.send(DOORS[dialect], asked | {"stream": stream}, timeout, headers=headers)


def events(answer: Answer) -> list[dict[str, Any]]:
    """The JSON of each event of a stream, `[DONE]` and pings left out."""
    if answer.headers["content-type"].startswith("application/json"):
        return list(answer.json())
    rows = []
    for block in answer.body.replace(b"\r\n", b"\n").decode().split("\n\n"):
        data = [line[6:] for line in block.split("\n") if line.startswith("data: ")]
        if data and data[0] != "[DONE]":
            rows.append(json.loads("\n".join(data)))
    return [row for row in rows if row.get("type") != "ping"]


_ENDS = ("response.completed", "response.incomplete")


def _whole(dialect: str, answer: Answer) -> dict[str, Any]:
    """The answer as its client holds it in the end: for streams, put together from the events."""
    if answer.body.lstrip()[:1] == b"{":
        return dict(answer.json())
    rows = events(answer)
    if dialect == "gemini":
        parts = [part for row in rows for part in row["candidates"][0].get("content", {}).get("parts", [])]
        return {"candidates": [{"content": {"parts": parts}}], "usageMetadata": rows[-1].get("usageMetadata")}
    if dialect == "openai_responses":
        return dict(
            next(row["response"] for row in rows if row["type"] in ("response.completed", "response.incomplete"))
        )
    return _anthropic(rows) if dialect == "anthropic" else _chat(rows)


def _anthropic(rows: list[dict[str, Any]]) -> dict[str, Any]:
    message: dict[str, Any] = {}
    for row in rows:
        if row["type"] == "message_start":
            message = row["message"]
        elif row["type"] == "content_block_start":
            message["content"].append(row["content_block"] | {"json": ""})
        elif row["type"] == "content_block_delta":
            block, delta = message["content"][row["index"]], row["delta"]
            name = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}.get(
                delta["type"]
            )
            if name:
                block[name] += delta[name]
            elif delta["type"] == "input_json_delta":
                block["json"] += delta["partial_json"]
        elif row["type"] == "message_delta":
            message |= row["delta"]
            message["usage"] = message.get("usage", {}) | row.get("usage", {})
    for block in message["content"]:
        written = block.pop("json")
        if block["type"] == "tool_use":
            block["input"] = json.loads(written or "{}")
    return message


def _chat(rows: list[dict[str, Any]]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": ""}
    calls: dict[int, dict[str, Any]] = {}
    for row in rows:
        delta = row["choices"][0]["delta"] if row.get("choices") else {}
        message["content"] += delta.get("content") or ""
        for each in delta.get("tool_calls", ()):
            known = calls.setdefault(each["index"], each)
            if known is not each:
                known["function"]["arguments"] += each["function"]["arguments"]
    if calls:
        message["tool_calls"] = [{k: v for k, v in call.items() if k != "index"} for call in calls.values()]
    return {"choices": [{"message": message}], "usage": next((r["usage"] for r in rows if r.get("usage")), None)}


def turn(dialect: str, answer: Answer) -> list[dict[str, Any]]:
    """The model's turn, as the client puts it into its history."""
    whole = _whole(dialect, answer)
    if dialect == "openai_responses":
        return list(whole["output"])
    if dialect == "anthropic":
        return [{"role": "assistant", "content": whole["content"]}]
    if dialect == "gemini":
        parts = [part for part in whole["candidates"][0]["content"]["parts"] if part != {"text": ""}]
        return [{"parts": parts, "role": "model"}]  # in this order Google's own library writes it
    return [whole["choices"][0]["message"]]


def said(dialect: str, answer: Answer) -> str:
    """The text of a good answer, plain or streamed."""
    whole = ""
    for row in turn(dialect, answer):
        if dialect == "openai_chat":
            whole += row["content"] or ""
        elif dialect == "gemini":
            whole += "".join(part.get("text", "") for part in row["parts"] if not part.get("thought"))
        else:
            whole += "".join(part.get("text", "") for part in row.get("content") or ())
    return whole


def calls(dialect: str, answer: Answer) -> list[Tool]:
    """The tools that a good answer calls, with the signature that the client sees on them."""
    found = []
    for row in turn(dialect, answer):
        if dialect == "openai_chat":
            for call in row.get("tool_calls", ()):
                signed = call.get("extra_content", {}).get("google", {}).get("thought_signature", "")
                named = call["function"]
                found.append(Tool(call["id"], named["name"], json.loads(named["arguments"]), signed))
        elif dialect == "openai_responses" and row["type"] == "function_call":
            found.append(Tool(row["call_id"], row["name"], json.loads(row["arguments"])))
        elif dialect == "anthropic":
            found += [Tool(b["id"], b["name"], b["input"]) for b in row["content"] if b["type"] == "tool_use"]
        elif dialect == "gemini":
            for part in row["parts"]:
                if call := part.get("functionCall"):
                    found.append(Tool(call.get("id", ""), call["name"], call["args"], part.get("thoughtSignature", "")))
    return found


def results(dialect: str, made: list[Tool], text: str = "22 degrees") -> list[dict[str, Any]]:
    """What the tools answered, as the client sends it."""
    if dialect == "openai_chat":
        return [{"role": "tool", "tool_call_id": each.id, "content": text} for each in made]
    if dialect == "openai_responses":
        return [{"type": "function_call_output", "call_id": each.id, "output": text} for each in made]
    if dialect == "anthropic":
        rows = [{"type": "tool_result", "tool_use_id": each.id, "content": text} for each in made]
        return [{"role": "user", "content": rows}]
    parts = [
        {"functionResponse": {"name": each.name, "response": {"output": text}} | ({"id": each.id} if each.id else {})}
        for each in made
    ]
    return [{"role": "user", "parts": [{"functionResponse": part["functionResponse"]} for part in parts]}]


HISTORY = {"openai_chat": "messages", "openai_responses": "input", "anthropic": "messages", "gemini": "contents"}


def followed(dialect: str, asked: Mapping[str, Any], answer: Answer, text: str = "22 degrees") -> dict[str, Any]:
    """*asked* with the model's turn and the results of its tools: the next request of a loop."""
    more = [*turn(dialect, answer), *results(dialect, calls(dialect, answer), text)]
    return {**asked, HISTORY[dialect]: [*asked[HISTORY[dialect]], *more]}


class Refusal(NamedTuple):
    """What a client reads of an error."""

    status: int
    message: str
    kind: str
    code: str = ""
    param: str = ""


def refusal(dialect: str, answer: Answer) -> Refusal:
    """The error of *answer*, which must be in the envelope of *dialect*."""
    return _refusal(dialect, answer.json(), answer.status)


def _refusal(dialect: str, told: Mapping[str, Any], status: int) -> Refusal:
    error = told["error"]
    if dialect == "anthropic":
        assert told["type"] == "error", told
        return Refusal(status, error["message"], error["type"])
    if dialect == "gemini":
        assert isinstance(error["code"], int), told
        return Refusal(status, error["message"], error["status"])
    assert {"message", "type", "param", "code"} <= error.keys(), told
    return Refusal(status, error["message"], error["type"], error["code"], error["param"] or "")


def assert_whole(dialect: str, answer: Answer) -> None:
    """A stream that ends the way its dialect ends."""
    assert answer.status == 200, answer.body
    rows, text = events(answer), answer.body.replace(b"\r\n", b"\n").decode()
    match dialect:
        case "openai_chat":
            assert text.endswith("data: [DONE]\n\n"), text[-300:]
            assert any(row["choices"] and row["choices"][0]["finish_reason"] for row in rows)
        case "openai_responses":
            assert rows[-1]["type"] == "response.completed", rows[-1]
            assert [row["sequence_number"] for row in rows] == list(range(len(rows)))
        case "anthropic":
            assert [row["type"] for row in rows[-2:]] == ["message_delta", "message_stop"]
        case _:
            assert rows[-1]["candidates"][0]["finishReason"], rows[-1]
    assert '"error":{' not in text, text


def assert_cut(dialect: str, answer: Answer) -> Refusal:
    """A stream that ends with the error event of its dialect, and without any mark of an end."""
    assert answer.status == 200
    rows, text = events(answer), answer.body.decode()
    last = rows[-1]
    for mark in ("[DONE]", "message_stop", "response.completed", "response.incomplete", "message_delta"):
        assert mark not in text, text[-500:]
    assert not any(row.get("candidates", [{}])[0].get("finishReason") for row in rows if "candidates" in row)
    assert not any(choice["finish_reason"] for row in rows for choice in row.get("choices", ()))
    if dialect == "openai_responses":
        if last["type"] == "error":
            return Refusal(200, last["message"], "error", last["code"])
        assert last["type"] == "response.failed", last
        return Refusal(200, last["response"]["error"]["message"], "failed", last["response"]["error"]["code"])
    if dialect == "anthropic":
        assert "event: error\n" in text
        assert last["type"] == "error"
    return _refusal(dialect, last, 200)
