"""What a streamed answer means to its client, read strictly and without the gateway's own readers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Meaning:
    """One answer: *whole* when its stream came to its proper end, *error* when it ended with an error event."""

    text: str = ""
    thought: str = ""
    calls: list[tuple[str, Any]] = field(default_factory=list)
    stop: str = ""
    whole: bool = False
    error: bool = False
    usage: tuple[int, int] | None = None


def rows(body: bytes) -> list[str]:
    """The data of each event; comments and blank lines left out."""
    events = body.replace(b"\r\n", b"\n").split(b"\n\n")
    found = []
    for event in events:
        lines = [line for line in event.strip(b"\n").split(b"\n") if line and not line.startswith((b":", b"event: "))]
        if lines:
            assert len(lines) == 1, event
            assert lines[0].startswith(b"data: "), event
            found.append(lines[0][6:].decode())
    return found


def meaning(door: str, body: bytes) -> Meaning:
    """Read a stream as the client of *door* does. Fails where a strict client would."""
    return {"chat": _chat, "messages": _anthropic, "responses": _responses, "gemini": _gemini}[door](body)


def _chat(body: bytes) -> Meaning:
    found, calls, ids = Meaning(), dict[int, list[str]](), set()
    for row in rows(body):
        assert not found.error, "an event behind the error"
        if row == "[DONE]":
            found.whole = True
            continue
        assert not found.whole, "an event behind the end"
        chunk = json.loads(row)
        if "error" in chunk:
            found.error = True
            continue
        ids.add(chunk["id"])
        if chunk.get("usage"):
            found.usage = (chunk["usage"]["prompt_tokens"], chunk["usage"]["completion_tokens"])
        for choice in chunk["choices"]:
            delta = choice["delta"]
            assert not found.stop, "a delta behind the finish reason"
            found.text += delta.get("content") or ""
            found.thought += delta.get("reasoning_content") or ""
            for call in delta.get("tool_calls") or ():
                function = call["function"]
                if "name" in function:
                    assert call["index"] == len(calls)
                    calls[call["index"]] = [function["name"], ""]
                calls[call["index"]][1] += function.get("arguments", "")
            found.stop = choice["finish_reason"] or found.stop
    assert len(ids) == 1, ids
    found.calls = [(name, _json(text, found)) for name, text in calls.values()]
    return found


def _anthropic(body: bytes) -> Meaning:
    found, index, kind, said, began = Meaning(), -1, "", "", False
    for row in rows(body):
        event = json.loads(row)
        name = event["type"]
        assert not found.whole, f"{name} behind the end"
        assert not found.error, f"{name} behind the error"
        if name == "error":
            found.error = True
        elif name == "message_start":
            assert not began
            began = True
        elif name == "content_block_start":
            assert not kind, "a block begins inside another"
            assert event["index"] == index + 1
            index, kind, said = event["index"], event["content_block"]["type"], ""
            if kind == "tool_use":
                found.calls.append((event["content_block"]["name"], None))
        elif name == "content_block_delta":
            assert event["index"] == index
            delta = event["delta"]
            assert {"text_delta": "text", "input_json_delta": "tool_use"}.get(delta["type"], "thinking") == kind
            said += delta.get("partial_json", "")
            found.text += delta.get("text", "")
            found.thought += delta.get("thinking", "")
        elif name == "content_block_stop":
            assert event["index"] == index
            if kind == "tool_use":
                found.calls[-1] = (found.calls[-1][0], json.loads(said))
            kind = ""
        elif name == "message_delta":
            assert not kind, "the message ends inside a block"
            found.stop = event["delta"]["stop_reason"]
            found.usage = (event["usage"].get("input_tokens", 0), event["usage"]["output_tokens"])
        elif name == "message_stop":
            found.whole = True
    return found


def _responses(body: bytes) -> Meaning:
    found, number, items = Meaning(), 0, dict[int, dict[str, Any]]()
    for row in rows(body):
        event = json.loads(row)
        name = event["type"]
        assert not found.whole, f"{name} behind the end"
        assert not found.error, f"{name} behind the error"
        if name == "error":
            found.error = True
            continue
        assert event["sequence_number"] == number, "an event is missing"
        number += 1
        if name == "response.output_item.added":
            assert event["output_index"] == len(items)
            items[event["output_index"]] = {**event["item"], "said": "", "done": False}
        elif name in ("response.output_text.delta", "response.function_call_arguments.delta"):
            item = items[event["output_index"]]
            assert item["id"] == event["item_id"]
            assert not item["done"]
            item["said"] += event["delta"]
        elif name == "response.output_text.done":
            assert items[event["output_index"]]["said"].endswith(event["text"])
        elif name == "response.output_item.done":
            items[event["output_index"]]["done"] = True
        elif name == "response.completed":
            output = event["response"]["output"]
            assert all(item["done"] for item in items.values())
            assert [item["id"] for item in output] == [item["id"] for item in items.values()]
            said = [part["text"] for item in output if item["type"] == "message" for part in item["content"]]
            assert "".join(said) == "".join(item["said"] for item in items.values() if item["type"] == "message")
            usage = event["response"]["usage"]
            found.usage = (usage["input_tokens"], usage["output_tokens"])
            found.whole, found.stop = True, "completed"
    found.text = "".join(item["said"] for item in items.values() if item["type"] == "message")
    calls = [item for item in items.values() if item["type"] == "function_call"]
    found.calls = [(item["name"], _json(item["said"], found)) for item in calls]
    return found


def _gemini(body: bytes) -> Meaning:
    found = Meaning()
    chunks = json.loads(body) if body.lstrip()[:1] == b"[" else [json.loads(row) for row in rows(body)]
    for chunk in chunks:
        assert not found.error, "a chunk behind the error"
        if "error" in chunk:
            found.error = True
            continue
        for candidate in chunk.get("candidates", ()):
            assert not found.stop, "a chunk behind the finish reason"
            for part in candidate["content"]["parts"]:
                if "functionCall" in part:
                    found.calls.append((part["functionCall"]["name"], part["functionCall"]["args"]))
                elif part.get("thought"):
                    found.thought += part["text"]
                else:
                    found.text += part.get("text", "")
            found.stop = candidate.get("finishReason") or found.stop
        used = chunk.get("usageMetadata")
        if used:
            found.usage = (used["promptTokenCount"], used.get("candidatesTokenCount", 0))
    found.whole = bool(found.stop) and not found.error
    return found


def _json(text: str, found: Meaning) -> Any:
    """The arguments of a call: of an answer that was cut perhaps a part of them."""
    try:
        return json.loads(text)
    except ValueError:
        assert not found.whole
        return text
