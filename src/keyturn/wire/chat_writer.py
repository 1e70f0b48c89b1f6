"""Deltas written as an OpenAI Chat stream for a client: chunks in the order that OpenAI's SDKs expect."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from keyturn.core import (
    Boundary,
    Cited,
    Delta,
    Ping,
    Reasoning,
    ReasoningDelta,
    RefusalDelta,
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

from .chat_reasoning import detail
from .chat_values import FINISHES, annotation, free_tools, is_legacy, unwrapped, usage_of
from .dialect import Context
from .signatures import pack
from .tools import flat_name

_encode = msgspec.json.encode
_CLOSE = b'},"logprobs":null,"finish_reason":null}]'
_PING = b": ping\n\n"
_DONE = b"data: [DONE]\n\n"


class _Choice:
    """What has been written of one choice."""

    __slots__ = (
        "calls",
        "details",
        "ended",
        "gap",
        "head",
        "held",
        "last",
        "newest",
        "part",
        "said",
        "sources",
        "thought",
    )

    def __init__(self, index: int) -> None:
        self.head = b'"choices":[{"index":%d,"delta":{' % index
        self.calls: dict[int, bool] = {}
        """Calls by index: whether it is one of a free tool."""
        self.newest = 0
        """The highest index of a call."""
        self.held: dict[int, list[str]] = {}
        """Arguments of calls that have to be whole before they can be written."""
        self.sources: list[object] = []
        """Told at the end, all at once: OpenAI's SDK cannot put together lists without an `index`."""
        self.thought: list[str] = []
        """Thinking since the last signature."""
        self.details = 0
        self.said = 0
        """Characters of text so far, and where the current part of it began."""
        self.part = 0
        self.last: type[Delta] | None = None
        self.gap = False
        """The part of thinking before is complete; more of it is another one."""
        self.ended = False


class ChatWriter:
    """Writes one answer. The usage is told only to who asked for it."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._head = b""
        self._tail = b',"usage":null}\n\n' if context.call.wants_usage else b"}\n\n"
        self._close = _CLOSE + self._tail
        self._free = free_tools(context.call)
        self._legacy = is_legacy(context.call)
        self._choices: dict[int, _Choice] = {}
        self._usage: Usage | None = None

    def go_on(self, identity: str, model: str, created: int, said: int) -> None:
        """The client has the beginning of the first choice, *said* characters of text, in chunks of these names."""
        self._name(model, created)
        if identity:
            self._head = self._head.replace(_encode(f"chatcmpl-{self._context.id}"), _encode(identity), 1)
        choice = self._choices[0] = _Choice(0)
        choice.said = said

    def write(self, deltas: Iterable[Delta]) -> bytes:
        """The chunks for *deltas*."""
        out: list[bytes] = []
        for delta in deltas:
            kind = type(delta)
            if kind is TextDelta:
                self._text(delta, out)  # type: ignore[arg-type]
            elif kind is Ping:
                out.append(_PING)
            elif kind is Started:
                self._start(delta, out)  # type: ignore[arg-type]
            elif kind is Used:
                self._usage = delta.usage  # type: ignore[union-attr]
            else:
                self._other(delta, out)
        return b"".join(out)

    def end(self) -> bytes:
        """The end of choices that were not told to stop, the usage, and the mark of the end."""
        out: list[bytes] = []
        self._choice(0, out)
        for index, choice in self._choices.items():
            if not choice.ended:
                self._stop(Stopped("tool_calls" if choice.calls else "stop", index), choice, out)
        if self._context.call.wants_usage and self._usage is not None:
            out.append(self._head + b'"choices":[],"usage":' + _encode(usage_of(self._usage)) + b"}\n\n")
        out.append(_DONE)
        return b"".join(out)

    def _start(self, delta: Started, out: list[bytes]) -> None:
        self._usage = delta.usage or self._usage
        if not self._head:
            self._name(delta.model, delta.created)
        self._choice(0, out)

    def _name(self, model: str = "", created: int | None = None) -> None:
        context = self._context
        self._head = (
            b'data: {"id":'
            + _encode(f"chatcmpl-{context.id}")
            + b',"object":"chat.completion.chunk","created":%d,"model":' % (created or context.created)
            + _encode(model or context.model)
            + b","
        )

    def _choice(self, index: int, out: list[bytes]) -> _Choice:
        """The choice; a new one begins by telling its role."""
        choice = self._choices.get(index)
        if choice is None:
            if not self._head:
                self._name()
            choice = self._choices[index] = _Choice(index)
            out.append(self._head + choice.head + b'"role":"assistant","content":"","refusal":null' + self._close)
        return choice

    def _text(self, delta: TextDelta, out: list[bytes]) -> None:
        choice = self._choices.get(delta.choice) or self._choice(delta.choice, out)
        choice.last = TextDelta
        choice.said += len(delta.text)
        piece = self._head + choice.head + b'"content":' + _encode(delta.text)
        if delta.logprobs:
            out.append(piece + b'},"logprobs":' + delta.logprobs + b',"finish_reason":null}]' + self._tail)
        else:
            out.append(piece + self._close)

    def _say(self, choice: _Choice, member: bytes, value: object, out: list[bytes]) -> None:
        out.append(self._head + choice.head + member + _encode(value) + self._close)

    def _other(self, delta: Delta, out: list[bytes]) -> None:
        choice = self._choice(delta.choice, out)  # type: ignore[union-attr]
        match delta:
            case ReasoningDelta():
                self._think(delta, choice, out)
            case RefusalDelta():
                self._say(choice, b'"refusal":', delta.text, out)
            case Signed():
                self._sign(delta, choice, out)
                return
            case ToolStarted():
                self._tool(delta, choice, out)
            case ToolDelta():
                self._arguments(delta, choice, out)
            case ToolEnded():
                self._release(delta.index, choice, out)
                return
            case Cited():
                if delta.citation.url:
                    choice.sources.append(annotation(delta.citation, choice.part, choice.said))
                return
            case Boundary():
                choice.part = choice.said
                choice.gap = choice.last is ReasoningDelta
                return
            case Stopped():
                if not choice.ended:
                    self._stop(delta, choice, out)
                return
            case _:  # what only another dialect knows
                return
        choice.last = type(delta)

    # --- thinking ---------------------------------------------------------------------------------------------------

    def _think(self, delta: ReasoningDelta, choice: _Choice, out: list[bytes]) -> None:
        lead = "\n\n" if choice.gap else ""
        choice.gap = False
        choice.thought.append(lead + delta.text if choice.thought else delta.text)
        self._say(choice, b'"reasoning_content":', lead + delta.text, out)

    def _sign(self, delta: Signed, choice: _Choice, out: list[bytes]) -> None:
        """The signature with the thinking that it signs, whole, so that a client can keep the detail as it is."""
        if delta.signature.dialect == "gemini" and choice.last is not ReasoningDelta:
            if choice.last in (ToolStarted, ToolDelta) and choice.calls:  # the text's own has no place here
                google = {"google": {"thought_signature": pack(delta.signature)}}
                self._say(choice, b'"tool_calls":', [{"index": choice.newest, "extra_content": google}], out)
            return
        text = "" if delta.redacted and choice.last is not ReasoningDelta else "".join(choice.thought)
        part = Reasoning(text, delta.signature, delta.redacted, delta.id)
        self._say(choice, b'"reasoning_details":', [detail(part, choice.details)], out)
        choice.details += 1
        choice.thought.clear()
        choice.last = ReasoningDelta
        choice.gap = True

    # --- tools ------------------------------------------------------------------------------------------------------

    def _tool(self, delta: ToolStarted, choice: _Choice, out: list[bytes]) -> None:
        name = flat_name(delta.name, delta.namespace)
        index = delta.index
        choice.newest = max(choice.newest, index)
        free = choice.calls[index] = delta.free or name in self._free
        if self._legacy:
            if index == 0:
                self._say(choice, b'"function_call":', {"name": name, "arguments": ""}, out)
            return
        call: dict[str, object] = {"index": index, "id": delta.id or f"call_{self._context.id}_{index}"}
        if free:
            call |= {"type": "custom", "custom": {"name": name, "input": ""}}
            if not delta.free:
                choice.held[index] = []
        else:
            call |= {"type": "function", "function": {"name": name, "arguments": ""}}
        if delta.signature is not None and delta.signature.dialect == "gemini":
            call["extra_content"] = {"google": {"thought_signature": pack(delta.signature)}}
        self._say(choice, b'"tool_calls":', [call], out)

    def _arguments(self, delta: ToolDelta, choice: _Choice, out: list[bytes]) -> None:
        held = choice.held.get(delta.index)
        if held is not None:
            held.append(delta.arguments)
            return
        if self._legacy:
            if delta.index == 0:
                self._say(choice, b'"function_call":', {"arguments": delta.arguments}, out)
            return
        member = b'"tool_calls":[{"index":%d,"function":{"arguments":' % delta.index
        if choice.calls.get(delta.index):
            member = b'"tool_calls":[{"index":%d,"custom":{"input":' % delta.index
        out.append(self._head + choice.head + member + _encode(delta.arguments) + b"}}]" + self._close)

    def _release(self, index: int, choice: _Choice, out: list[bytes]) -> None:
        """The input of a free tool that the upstream was asked for as the arguments of a function."""
        held = choice.held.pop(index, None)
        if held:
            call = {"index": index, "custom": {"input": unwrapped("".join(held))}}
            self._say(choice, b'"tool_calls":', [call], out)

    def _stop(self, delta: Stopped, choice: _Choice, out: list[bytes]) -> None:
        for index in list(choice.held):
            self._release(index, choice, out)
        if choice.sources:
            self._say(choice, b'"annotations":', choice.sources, out)
        choice.ended = True
        finish = FINISHES[delta.stop]
        if self._legacy and finish == "tool_calls":
            finish = "function_call"
        out.append(
            self._head + choice.head + b'},"logprobs":null,"finish_reason":"%b"}]' % finish.encode() + self._tail
        )
