"""How answers are put on the wire in the format of OpenAI's Responses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from . import signatures
from .answers import Answer
from .reply import Reply, error_of, event
from .shapes import call_id

_ECHOED: dict[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "store": True,
    "temperature": 1.0,
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
    "metadata": {},
}
"""What an answer repeats of its request, with what stands there otherwise."""


def response(reply: Reply) -> dict[str, Any]:
    """A whole answer."""
    return _response(reply, _items(reply))


def stream(reply: Reply) -> Iterator[bytes]:
    """The events of a streamed answer."""
    for number, (name, members) in enumerate(_events(reply)):
        yield event({"type": name, "sequence_number": number} | members, name)


def error_events(reply: Reply, body: bytes, status: int, sent: int) -> bytes:
    """An error inside a stream: the answer fails when the server does, else there is an `error` event."""
    error = error_of(body)
    code, told = error.get("code") or error.get("type"), error.get("message") or str(error)
    if status >= 500:
        failed = _response(reply, [], "failed") | {"error": {"code": "server_error", "message": told}}
        name = "response.failed"
        return event({"type": name, "sequence_number": sent, "response": failed}, name)
    row = {"type": "error", "sequence_number": sent, "code": code, "message": told, "param": error.get("param")}
    return event(row, "error")


def count(reply: Reply) -> dict[str, Any]:
    """The answer of `/responses/input_tokens`."""
    return {"object": "response.input_tokens", "input_tokens": reply.question.tokens}


def _response(reply: Reply, output: list[dict[str, Any]], status: str = "") -> dict[str, Any]:
    body, answer = reply.question.more, reply.answer
    short = answer is not None and answer.finish == "length"
    status = status or ("incomplete" if short else "completed")
    wanted = (body.get("text") or {}).get("format") or {"type": "text"}
    reasoning = {"effort": None, "summary": None} | (body.get("reasoning") or {})
    whole = {
        "id": f"resp_{reply.id}",
        "object": "response",
        "created_at": reply.created,
        "status": status,
        "completed_at": reply.created if status == "completed" else None,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "model": reply.model,
        "output": output,
        "reasoning": reasoning,
        "text": {"format": wanted, "verbosity": (body.get("text") or {}).get("verbosity") or "medium"},
    }
    echoed = {name: otherwise if body.get(name) is None else body[name] for name, otherwise in _ECHOED.items()}
    return whole | echoed | {"usage": _usage(reply) if status in ("completed", "incomplete") and reply.told else None}


def _usage(reply: Reply) -> dict[str, Any]:
    counts = reply.counts
    return {
        "input_tokens": counts.input,
        "input_tokens_details": {"cached_tokens": counts.cached, "cache_write_tokens": counts.written},
        "output_tokens": counts.output,
        "output_tokens_details": {"reasoning_tokens": counts.reasoning},
        "total_tokens": counts.input + counts.output,
    }


def _items(reply: Reply) -> list[dict[str, Any]]:
    answer = reply.answer or Answer()
    items: list[dict[str, Any]] = []
    if answer.reasoning:
        summary = [{"type": "summary_text", "text": answer.thought}] if reply.question.shown else []
        item: dict[str, Any] = {"id": f"rs_{reply.id}", "type": "reasoning", "summary": summary}
        if "reasoning.encrypted_content" in (reply.question.more.get("include") or []):
            item["encrypted_content"] = signatures.encrypted(reply.persona.name, reply.owner, answer.thought)
        items.append(item)
    if answer.pieces:
        status = "incomplete" if answer.finish == "length" else "completed"
        part = {"type": "output_text", "text": answer.text, "annotations": [], "logprobs": []}
        head = {"id": f"msg_{reply.id}", "type": "message", "status": status, "role": "assistant"}
        items.append(head | {"content": [part]})
    for number, call in enumerate(answer.tools):
        kind, short, member = "function_call", "fc", "arguments"
        if call.free:
            kind, short, member = "custom_tool_call", "ctc", "input"
        row = {"id": f"{short}_{reply.id}_{number}", "type": kind, "status": "completed", member: call.arguments}
        named = {"call_id": f"call_{call_id(reply, 0, number)}", "name": call.name}
        items.append(row | named | ({"namespace": call.namespace} if call.namespace else {}))
    return items


def _events(reply: Reply) -> Iterator[tuple[str, dict[str, Any]]]:
    answer = reply.answer or Answer()
    begun = _response(reply, [], "in_progress")
    yield "response.created", {"response": begun}
    yield "response.in_progress", {"response": begun}
    items = _items(reply)
    for index, item in enumerate(items):
        empty: dict[str, Any] = {name: "" for name in ("arguments", "input") if name in item}
        empty |= {name: [] for name in ("summary", "content") if name in item}
        opened = item | empty | ({"status": "in_progress"} if "status" in item else {})
        yield "response.output_item.added", {"output_index": index, "item": opened}
        place = {"item_id": item["id"], "output_index": index}
        if item["type"] == "reasoning":
            yield from _reasoning(item, place, answer)
        elif item["type"] == "message":
            yield from _message(item["content"][0], place | {"content_index": 0}, answer)
        else:
            yield from _call(item, place)
        yield "response.output_item.done", {"output_index": index, "item": item}
    whole = _response(reply, items)
    yield f"response.{whole['status']}", {"response": whole}


def _reasoning(item: Mapping[str, Any], place: dict[str, Any], answer: Answer) -> Iterator[tuple[str, dict[str, Any]]]:
    head = "response.reasoning_summary"
    for number, part in enumerate(item["summary"]):
        at = place | {"summary_index": number}
        yield f"{head}_part.added", at | {"part": part | {"text": ""}}
        for piece in answer.reasoning:
            yield f"{head}_text.delta", at | {"delta": piece}
        yield f"{head}_text.done", at | {"text": part["text"]}
        yield f"{head}_part.done", at | {"part": part}


def _message(part: dict[str, Any], at: dict[str, Any], answer: Answer) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "response.content_part.added", at | {"part": part | {"text": ""}}
    for piece in answer.pieces:
        yield "response.output_text.delta", at | {"delta": piece, "logprobs": []}
    yield "response.output_text.done", at | {"text": part["text"], "logprobs": []}
    yield "response.content_part.done", at | {"part": part}


def _call(item: Mapping[str, Any], place: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    free = item["type"] == "custom_tool_call"
    member = "input" if free else "arguments"
    head = "response.custom_tool_call_input" if free else "response.function_call_arguments"
    half = len(item[member]) // 2
    for piece in filter(None, (item[member][:half], item[member][half:])):
        yield f"{head}.delta", place | {"delta": piece}
    yield f"{head}.done", place | {member: item[member]} | ({} if free else {"name": item["name"]})
