"""What a translated stream chunk costs, beside decoding and encoding that chunk with msgspec, in every direction."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import msgspec

from keyturn.core import Call, Origin
from keyturn.wire import Context, translated

CHUNKS = 1000
ROUNDS = 20
ORIGIN = Origin("bench", "m", "g")
TEXT = " How many keys"


def _event(data: dict[str, Any], *, named: bool = False, end: str = "\n\n") -> bytes:
    """One event as a provider sends it; *named*: with an `event:` line too."""
    line = f"data: {json.dumps(data, separators=(',', ':'))}{end}"
    return (f"event: {data['type']}\n{line}" if named else line).encode()


def _chat(delta: dict[str, str]) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1772452800, "model": "m"}
    return _event({**head, "choices": [choice]})


def _item(kind: str, **members: Any) -> bytes:
    return _event({"type": f"response.{kind}", "sequence_number": 3, "output_index": 0, **members}, named=True)


_RESPONSE = {"id": "resp_1", "object": "response", "created_at": 1772452800, "status": "in_progress", "model": "m"}
_ITEM = {"id": "msg_1", "type": "message", "status": "in_progress", "role": "assistant", "content": []}
_PART = {"type": "output_text", "text": "", "annotations": []}
_MESSAGE: dict[str, Any] = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": []}
_TOKENS = {"promptTokenCount": 9, "candidatesTokenCount": 3, "totalTokenCount": 12}
_CANDIDATE = {"content": {"parts": [{"text": TEXT}], "role": "model"}, "index": 0}

OPENINGS = {
    "openai_chat": [_chat({"role": "assistant", "content": ""})],
    "openai_responses": [
        _item("created", response={**_RESPONSE, "output": []}),
        _item("output_item.added", item=_ITEM),
        _item("content_part.added", item_id="msg_1", content_index=0, part=_PART),
    ],
    "anthropic": [
        _event({"type": "message_start", "message": {**_MESSAGE, "usage": {"input_tokens": 9}}}, named=True),
        _event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}, named=True),
    ],
    "gemini": [],
}
"""What comes before the text."""
CHUNK = {
    "openai_chat": _chat({"content": TEXT}),
    "openai_responses": _item("output_text.delta", item_id="msg_1", content_index=0, delta=TEXT, logprobs=[]),
    "anthropic": _event(
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": TEXT}}, named=True
    ),
    "gemini": _event(
        {"candidates": [_CANDIDATE], "usageMetadata": _TOKENS, "modelVersion": "m", "responseId": "r1"}, end="\r\n\r\n"
    ),
}
"""The text, piece by piece, as each provider sends it."""


def measure() -> dict[str, float]:
    """`from → to` -> how many times decoding and encoding a chunk its translation costs."""
    ratios = {}
    for upstream, chunk in CHUNK.items():
        data = chunk.partition(b"data: ")[2].strip()
        for client in CHUNK:
            if client != upstream:
                plain = lambda data=data: msgspec.json.encode(msgspec.json.decode(data))  # noqa: E731
                ratios[f"{upstream} → {client}"] = _ratio(_translation(upstream, client, chunk), plain)
    return ratios


def _translation(upstream: str, client: str, chunk: bytes) -> Callable[[], object]:
    """What translates one chunk more of a stream that has begun."""
    stream = translated(upstream, ORIGIN, Context(Call(client, "chat", "m", {}, 0), "c1", 1772452800, "m", 9))
    for opening in OPENINGS[upstream]:
        stream.feed(opening)
    if TEXT.encode() not in stream.feed(chunk):
        raise SystemExit(f"{upstream} → {client}: the chunk's text did not come out")
    return lambda: stream.feed(chunk)


def _ratio(work: Callable[[], object], beside: Callable[[], object]) -> float:
    """CPU time of *work* over that of *beside*: the best of a few rounds each, in turn."""
    best = {work: float("inf"), beside: float("inf")}
    for _ in range(ROUNDS):
        for each in best:
            started = time.process_time()
            for _ in range(CHUNKS):
                each()
            best[each] = min(best[each], time.process_time() - started)
    return best[work] / best[beside]
