"""Anthropic's event stream watched as it is relayed: has it started, is it finished, did it fail, what did it use."""

from __future__ import annotations

from typing import Any

from keyturn.core import Call

from .anthropic_answer import signature_of
from .anthropic_blocks import encode, merge_usage, string
from .jsontext import loose
from .streaming import StreamWatch

_WORDS = ("text", "thinking", "partial_json", "signature")


class AnthropicWatch(StreamWatch):
    """Output is the first words, signature, or tool call; `message_delta` with a stop reason completes the answer."""

    marks = (b"message_", b'"error"', b"event: error", b"signature", b"redacted_thinking")

    def __init__(self) -> None:
        super().__init__()
        self._usage: dict[str, Any] = {}

    def take(self, name: str, data: bytes) -> bool:
        """Read one event; whether it is output."""
        event = loose(data)
        if not isinstance(event, dict):
            if name == "error":
                self.fail(encode({"type": "error", "error": {"message": data.decode("utf-8", "replace")}}))
            return False
        kind = event.get("type") or name
        if name == "error" or kind == "error" or event.get("error"):
            self.fail(data)
            return False
        if kind == "message_start":
            message = event.get("message")
            self.usage = merge_usage(self._usage, message.get("usage") if isinstance(message, dict) else None)
        elif kind == "content_block_start":
            return self._opens(event.get("content_block"))
        elif kind == "content_block_delta":
            return self._says(event.get("delta"))
        elif kind == "message_delta":
            self.usage = merge_usage(self._usage, event.get("usage"))
            delta = event.get("delta")
            if isinstance(delta, dict) and delta.get("stop_reason"):
                self.finished = True
                return True
        elif kind == "message_stop":
            self.finished = self.done = True
            return True
        return False

    def _opens(self, block: object) -> bool:
        if not isinstance(block, dict):
            return False
        if value := signature_of(block):
            self.signatures.append(value)
        if block.get("type") in ("text", "thinking"):
            return any(block.get(name) for name in _WORDS)
        return isinstance(block.get("type"), str)

    def _says(self, delta: object) -> bool:
        if not isinstance(delta, dict):
            return False
        if value := string(delta.get("signature")):
            self.signatures.append(value)
        return any(delta.get(name) for name in _WORDS)


def watch(call: Call) -> AnthropicWatch:
    """What reads a stream that is relayed to *call* untouched."""
    return AnthropicWatch()
