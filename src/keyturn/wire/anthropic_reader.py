"""Anthropic's event stream read into deltas."""

from __future__ import annotations

from typing import Any

import msgspec

from keyturn.core import (
    Boundary,
    Cited,
    Delta,
    Foreign,
    ForeignPart,
    Origin,
    Ping,
    ReasoningDelta,
    RefusalDelta,
    Signature,
    Signed,
    Started,
    Stopped,
    TextDelta,
    ToolDelta,
    ToolEnded,
    ToolStarted,
    Used,
)

from .anthropic_blocks import DIALECT, STOPS, encode, merge_usage, read_citation, string
from .jsontext import loose
from .sse import split
from .streaming import MAX_EVENT, EventReader


class _Words(msgspec.Struct, gc=False):
    """The `delta` of a `content_block_delta`, as far as it is plain text."""

    type: str
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None


class _Event(msgspec.Struct, gc=False):
    type: str
    index: int = 0
    delta: _Words | None = None


_USUAL = b"event: content_block_delta\ndata: {"
_USUAL_END = len(_USUAL) - 1
_read_event = msgspec.json.Decoder(_Event).decode


class _Block:
    """A content block that is open. *call* is the number of a tool call, *given* the block as it began."""

    __slots__ = ("call", "cited", "given", "kind", "pieces", "since", "spoke")

    def __init__(self, kind: str, given: dict[str, Any], call: int, since: int) -> None:
        self.kind = kind
        self.given = given
        self.call = call
        self.since = since
        """Characters of the answer before it."""
        self.spoke = False
        self.cited: list[dict[str, Any]] = []
        self.pieces: list[str] = []
        """The input of a tool that Anthropic itself runs."""


class AnthropicReader(EventReader):
    """Reads `message_start`, the content blocks, `message_delta` and `message_stop`; other events are passed over.

    Blocks of Anthropic's own tools come whole. Citations come at the end of their text. A block that was cut, as
    `max_tokens` does to a tool call, has no end.
    """

    def __init__(self, origin: Origin, max_event: int = MAX_EVENT) -> None:
        super().__init__(max_event)
        self._origin = origin
        self._blocks: dict[int, _Block] = {}
        self._calls = 0
        self._chars = 0
        self._usage: dict[str, Any] = {}

    def feed(self, chunk: bytes) -> list[Delta]:
        """What *chunk* completes. Raises TransportError `too_large`."""
        out: list[Delta] = []
        block = b"" if self._over else self._splitter.feed(chunk)
        if b"\r" in block:
            self._read(split(block), out)
            return out
        for piece in block.split(b"\n\n"):  # nearly every event is the same two lines: read in the fewest steps
            if piece.startswith(_USUAL) and piece.find(b"\n", _USUAL_END) < 0:
                self.take("content_block_delta", piece[_USUAL_END:], out)
            elif piece:
                self._read((piece,), out)
            if self._over:
                break
        return out

    def take(self, name: str, data: bytes, out: list[Delta]) -> None:
        """Read one event."""
        try:
            event = _read_event(data)
        except (ValueError, RecursionError):
            self._take_loose(name, data, out)
            return
        if event.type != "content_block_delta" or event.delta is None:
            self._take_loose(name, data, out)
            return
        block = self._blocks.get(event.index)
        words = event.delta
        if words.type == "text_delta" and (block is None or block.kind == "text"):
            if words.text:
                self._chars += len(words.text)
                out.append(TextDelta(words.text))
        elif words.type == "input_json_delta" and block is not None and block.kind == "tool_use":
            if words.partial_json:
                block.spoke = True
                out.append(ToolDelta(block.call, words.partial_json))
        elif words.type == "thinking_delta" and (block is None or block.kind == "thinking"):
            if words.thinking:
                out.append(ReasoningDelta(words.thinking))
        else:
            self._take_loose(name, data, out)

    def _take_loose(self, name: str, data: bytes, out: list[Delta]) -> None:
        """Read an event that is rare, or not quite of the documented shape."""
        event = loose(data)
        if not isinstance(event, dict):
            if name == "error":
                self.fail(encode({"type": "error", "error": {"message": data.decode("utf-8", "replace")}}))
            return
        kind = event.get("type") or name
        if name == "error" or kind == "error" or event.get("error"):
            self.fail(data)
        elif kind == "message_start":
            self._start(event.get("message"), out)
        elif kind == "ping":
            out.append(Ping())
        elif kind == "content_block_start":
            self._open(_index(event), event.get("content_block"), out)
        elif kind == "content_block_delta":
            self._extend(self._blocks.get(_index(event)), event.get("delta"), out)
        elif kind == "content_block_stop":
            self._close(self._blocks.pop(_index(event), None), out)
        elif kind == "message_delta":
            self._stop(event, out)
        elif kind == "message_stop":
            self.finished = self.done = True

    def _start(self, message: object, out: list[Delta]) -> None:
        given = message if isinstance(message, dict) else {}
        usage = merge_usage(self._usage, given.get("usage"))
        out.append(Started(string(given.get("id")), string(given.get("model")), usage))

    def _open(self, index: int, given: object, out: list[Delta]) -> None:
        if not isinstance(given, dict) or not isinstance(kind := given.get("type"), str):
            return
        block = self._blocks[index] = _Block(kind, given, self._calls, self._chars)
        if kind == "tool_use":
            self._calls += 1
            out.append(ToolStarted(block.call, string(given.get("id")), string(given.get("name"))))
        elif kind == "redacted_thinking":
            if value := string(given.get("data")):
                out.append(Signed(Signature(value, DIALECT, self._origin), redacted=True))
        elif kind in ("text", "thinking"):
            self._extend(block, {**given, "type": f"{kind}_delta"}, out)
            if value := string(given.get("signature")):
                out.append(Signed(Signature(value, DIALECT, self._origin)))
            cited = given.get("citations")
            block.cited += [each for each in cited if isinstance(each, dict)] if isinstance(cited, list) else ()

    def _extend(self, block: _Block | None, delta: object, out: list[Delta]) -> None:
        if not isinstance(delta, dict):
            return
        kind = delta.get("type")
        if block is not None and block.kind not in _OWN:
            _grow(block, delta)
        elif kind == "text_delta" and (text := string(delta.get("text"))):
            self._chars += len(text)
            out.append(TextDelta(text))
        elif kind == "thinking_delta" and (text := string(delta.get("thinking"))):
            out.append(ReasoningDelta(text))
        elif kind == "signature_delta" and (value := string(delta.get("signature"))):
            out.append(Signed(Signature(value, DIALECT, self._origin)))
        elif block is None:
            return
        elif kind == "input_json_delta" and block.kind == "tool_use":
            if text := string(delta.get("partial_json")):
                block.spoke = True
                out.append(ToolDelta(block.call, text))
        elif kind == "citations_delta" and isinstance(cited := delta.get("citation"), dict):
            block.cited.append(cited)

    def _close(self, block: _Block | None, out: list[Delta]) -> None:
        if block is None:
            return
        out += [Cited(read_citation(each, block.since, self._chars)) for each in block.cited]
        if block.kind == "tool_use":
            if not block.spoke:  # some servers state the whole input at the start
                given = block.given.get("input")
                out.append(ToolDelta(block.call, encode(given if isinstance(given, dict) else {}).decode()))
            out.append(ToolEnded(block.call))
        elif block.kind not in _OWN:
            if block.pieces:
                given = loose("".join(block.pieces).encode("utf-8", "replace"))
                block.given["input"] = given if isinstance(given, dict) else {}
            out.append(ForeignPart(Foreign(DIALECT, string(block.kind), encode(block.given))))
        else:
            out.append(Boundary())

    def _stop(self, event: dict[str, Any], out: list[Delta]) -> None:
        if (usage := merge_usage(self._usage, event.get("usage"))) is not None:
            out.append(Used(usage))
        delta = event.get("delta")
        if not isinstance(delta, dict) or not isinstance(reason := delta.get("stop_reason"), str) or self.finished:
            return
        for block in self._blocks.values():
            out += [Cited(read_citation(each, block.since, self._chars)) for each in block.cited]
        self._blocks.clear()
        details = delta.get("stop_details")
        if reason == "refusal" and isinstance(details, dict) and (why := string(details.get("explanation"))):
            out.append(RefusalDelta(why))
        out.append(Stopped(STOPS.get(reason, "other"), 0, string(delta.get("stop_sequence"))))
        self.finished = True


_OWN = ("text", "thinking", "redacted_thinking", "tool_use")
"""Blocks that have a neutral counterpart."""


def _grow(block: _Block, delta: dict[str, Any]) -> None:
    """Take a delta into a block that only Anthropic knows: input in fragments, other members as they are."""
    if delta.get("type") == "input_json_delta":
        block.pieces.append(string(delta.get("partial_json")))
        return
    block.given.update((name, value) for name, value in delta.items() if name != "type")


def _index(event: dict[str, Any]) -> int:
    index = event.get("index")
    return int(index) if isinstance(index, (int, float)) and abs(index) < _MOST_BLOCKS else 0


_MOST_BLOCKS = 1_000_000
