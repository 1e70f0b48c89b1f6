"""Deltas written as Anthropic's event stream: blocks one after another, in the order that its SDKs expect."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import msgspec

from keyturn.core import (
    Boundary,
    Cited,
    Delta,
    Foreign,
    ForeignPart,
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
    Usage,
    Used,
)

from .anthropic_blocks import DIALECT, encode, quote, stop_details, stop_reason, tool_id, write_usage
from .dialect import Context
from .jsontext import loose
from .signatures import pack
from .tools import flat_name

_PING = b'event: ping\ndata: {"type":"ping"}\n\n'
_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
_EARLY_PING = b": ping\n\n"
"""Before `message_start`, which the SDKs expect to be first."""
_PART_GAP = "\n\n"
_HEAD = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":'
_WORDS = {"text": b'"text_delta","text":', "thinking": b'"thinking_delta","thinking":'}
_FREE_START, _FREE_END = '{"input":"', '"}'
"""Around the plain text of a free tool, which Anthropic has not: its input is an object of one string."""


class _Held:
    """What waits for the open call to end: a delta, and when it starts a call what has come of that since."""

    __slots__ = ("delta", "more")

    def __init__(self, delta: Delta) -> None:
        self.delta = delta
        self.more: list[ToolDelta | ToolEnded] = []


class AnthropicWriter:
    """Writes the first choice. What does not belong to the tool call that is open waits until that one has ended.

    Signatures that are not of a thinking block (Gemini signs texts and calls) travel in an empty thinking block, and
    only before the first call, since clients hold what follows a call to be calls. Citations and parts of other
    dialects are left out: a client would send them back, and Anthropic refuses what it has not made itself.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._out: list[bytes] = []
        self._begun = False
        self._kind = ""
        """Of the open block: text, thinking, tool_use; empty when none is open."""
        self._index = -1
        self._head = b""
        """The open block's `content_block_delta` up to its words."""
        self._gap = False
        """The thinking block that is open goes on with a new part."""
        self._tool: ToolStarted | None = None
        self._calls = 0
        self._held: deque[_Held] = deque()
        self._waiting: dict[int, _Held] = {}
        """The calls among what is held, by index: the latest of each."""
        self._refusal: list[str] = []
        self._stopped: Stopped | None = None
        self._usage: Usage | None = None

    def go_on(self, index: int, kind: str, usage: Usage | None) -> None:
        """The client has the beginning of the message, up to block *index*; *kind* is that block's if it is open."""
        self._begun = True
        self._index, self._kind, self._usage = index, kind, usage
        self._head = _HEAD % index + _WORDS.get(kind, b"")

    def write(self, deltas: Iterable[Delta]) -> bytes:
        """The events for *deltas*."""
        for delta in deltas:
            kind = type(delta)
            if kind is TextDelta and self._kind == "text":
                self._say(delta.text, delta.choice)  # type: ignore[union-attr]
            elif kind is Ping:
                self._out.append(_PING if self._begun else _EARLY_PING)
            elif kind is Used:
                self._usage = delta.usage  # type: ignore[union-attr]
            elif kind is Started:
                self._begin(delta)  # type: ignore[arg-type]
            elif getattr(delta, "choice", 0):
                continue
            elif kind is Stopped:
                self._stopped = delta  # type: ignore[assignment]
                self._settle_all()
            elif self._tool is None:
                self._take(delta)
            elif kind is ToolDelta and delta.index == self._tool.index:  # type: ignore[union-attr]
                self._argue(delta.arguments)  # type: ignore[union-attr]
            elif kind is ToolEnded and delta.index == self._tool.index:  # type: ignore[union-attr]
                self._settle()
            else:
                self._hold(delta)
        return self._flush()

    def end(self) -> bytes:
        """The rest of the calls that had no end, `message_delta` and `message_stop`."""
        self._settle_all()
        self._begin(None)
        self._close()
        stopped = self._stopped or Stopped("stop")
        refused = bool(self._refusal) or stopped.stop == "content_filter"
        reason = stop_reason(stopped.stop, tools=self._calls > 0, refused=refused)
        delta: dict[str, object] = {
            "stop_reason": reason,
            "stop_sequence": stopped.stop_sequence if reason == "stop_sequence" else None,
        }
        if details := stop_details(reason, "".join(self._refusal)):
            delta["stop_details"] = details
        usage = write_usage(self._usage or Usage(self._context.input_tokens))
        self._put("message_delta", {"type": "message_delta", "delta": delta, "usage": usage})
        self._out.append(_STOP)
        return self._flush()

    def _hold(self, delta: Delta) -> None:
        """Keep *delta* until the open call has ended; what belongs to a call that waits, with that."""
        if isinstance(delta, (ToolDelta, ToolEnded)):
            if (waiting := self._waiting.get(delta.index)) is not None:
                waiting.more.append(delta)
            return
        held = _Held(delta)
        self._held.append(held)
        if isinstance(delta, ToolStarted):
            self._waiting[delta.index] = held

    def _settle(self) -> None:
        """The open call has ended: what waited for that comes next, up to a call that has not."""
        self._close()
        while self._held and self._tool is None:
            held = self._held.popleft()
            self._take(held.delta)
            if not isinstance(held.delta, ToolStarted):
                continue
            if self._waiting.get(held.delta.index) is held:
                del self._waiting[held.delta.index]
            for each in held.more:
                if isinstance(each, ToolEnded):
                    self._close()
                    break
                self._argue(each.arguments)

    def _settle_all(self) -> None:
        """No call goes on."""
        while self._tool is not None or self._held:
            self._settle()

    def _take(self, delta: Delta) -> None:
        """Write what belongs to no call that is open."""
        match delta:
            case TextDelta(text=text) if text:
                self._ensure("text")
                self._say(text, 0)
            case RefusalDelta(text=text) if text:
                self._ensure("text")
                self._refusal.append(text)
                self._say(text, 0)
            case ReasoningDelta(text=text) if text:
                self._ensure("thinking")
                self._say(_PART_GAP + text if self._gap else text, 0)
                self._gap = False
            case Signed(signature=signature):
                self._sign(signature, delta.redacted)
            case Cited(citation=citation) if citation.dialect == DIALECT and citation.raw:
                self._ensure("text")
                self._add({"type": "citations_delta", "citation": msgspec.Raw(citation.raw)})
            case ToolStarted():
                self._call(delta)
            case ForeignPart(part=Foreign(dialect="anthropic") as part):
                self._foreign(part)
            case Boundary():
                self._gap = self._kind == "thinking"  # its signature may still come
                if self._kind == "text":
                    self._close()

    def _say(self, text: str, choice: int) -> None:
        if text and not choice:
            self._out.append(self._head + quote(text) + b"}}\n\n")

    def _begin(self, started: Started | None) -> None:
        if self._begun:
            return
        self._begun = True
        usage = (started and started.usage) or Usage(self._context.input_tokens)
        self._usage = self._usage or usage
        message: dict[str, object] = {
            "id": f"msg_{self._context.id}",
            "type": "message",
            "role": "assistant",
            "model": (started and started.model) or self._context.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": write_usage(usage),
        }
        self._put("message_start", {"type": "message_start", "message": message})

    def _ensure(self, kind: str) -> None:
        """Have a block of *kind* open, text or thinking."""
        if self._kind == kind:
            return
        empty = {"text": ""} if kind == "text" else {"thinking": "", "signature": ""}
        self._open(kind, {"type": kind, **empty})

    def _open(self, kind: str, block: object) -> None:
        self._begin(None)
        self._close()
        self._index += 1
        self._kind = kind
        start = {"type": "content_block_start", "index": self._index, "content_block": block}
        self._put("content_block_start", start)
        self._head = _HEAD % self._index + _WORDS.get(kind, b'"input_json_delta","partial_json":')

    def _add(self, delta: dict[str, object]) -> None:
        self._put("content_block_delta", {"type": "content_block_delta", "index": self._index, "delta": delta})

    def _close(self) -> None:
        """End the block that is open, if one is."""
        if not self._kind:
            return
        if self._tool is not None and self._tool.free:
            self._out.append(self._head + quote(_FREE_END) + b"}}\n\n")
        self._put("content_block_stop", {"type": "content_block_stop", "index": self._index})
        self._kind = ""
        self._tool = None
        self._gap = False

    def _sign(self, signature: Signature, redacted: bool) -> None:
        """Sign the thinking block that is open, and end it; else write a block for the signature alone."""
        hidden = redacted and (self._kind != "thinking" or signature.dialect == DIALECT)
        if hidden:
            self._open("redacted_thinking", {"type": "redacted_thinking", "data": pack(signature)})
        elif self._kind == "thinking" or not self._calls:
            self._ensure("thinking")
            self._add({"type": "signature_delta", "signature": pack(signature)})
        else:
            return
        self._close()

    def _call(self, started: ToolStarted) -> None:
        if started.signature is not None and (self._kind == "thinking" or not self._calls):
            self._sign(started.signature, False)
        name = flat_name(started.name, started.namespace)
        identity = tool_id(started.id) or f"call_{self._context.id}_{self._calls}"
        self._open("tool_use", {"type": "tool_use", "id": identity, "name": name, "input": {}})
        self._calls += 1
        self._tool = started
        self._out.append(self._head + b'""}}\n\n')
        if started.free:
            self._say(_FREE_START, 0)

    def _argue(self, arguments: str) -> None:
        """More of the open call's input."""
        assert self._tool is not None
        if self._tool.free:
            arguments = quote(arguments)[1:-1].decode()
        self._say(arguments, 0)

    def _foreign(self, part: Foreign) -> None:
        block = loose(part.raw)
        if not isinstance(block, dict):
            return
        if block.get("type") != "server_tool_use":
            self._open("foreign", block)
        else:
            self._open("foreign", {**block, "input": {}})
            self._out.append(self._head + b'""}}\n\n')
            self._say(encode(block.get("input") or {}).decode(), 0)
        self._close()

    def _put(self, name: str, event: dict[str, object]) -> None:
        self._out.append(b"event: " + name.encode() + b"\ndata: " + encode(event) + b"\n\n")

    def _flush(self) -> bytes:
        out = b"".join(self._out)
        self._out.clear()
        return out
