"""A streamed Responses answer of an upstream: read into deltas, or watched while it is relayed as it comes."""

from __future__ import annotations

from typing import Any

import msgspec

from keyturn.core import (
    Boundary,
    Call,
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

from .responses_answer import citations, decoded, error_of, objects_in, seconds, stop_of, text_in, thoughts
from .responses_input import read_citation
from .responses_parse import DIALECT
from .streaming import MAX_EVENT, EventReader, StreamWatch
from .usage import read_usage

_TERMINAL = ("response.completed", "response.incomplete")
_SUMMARY = ("response.reasoning_summary_text.delta", "response.reasoning_summary.delta")
_THINKING = ("response.reasoning_text.delta", "response.reasoning.delta")
_ARGUMENTS = ("response.function_call_arguments.delta", "response.custom_tool_call_input.delta")
_CALLS = ("function_call", "custom_tool_call")
_SPEAKING = frozenset(
    ("response.output_text.delta", "response.refusal.delta", *_SUMMARY, *_THINKING, *_ARGUMENTS, *_TERMINAL)
)
_NO_LOGPROBS = (msgspec.Raw(b"[]"), msgspec.Raw(b"null"))
_GAP = "\n\n"
"""Between the parts of a summary."""


class _Event(msgspec.Struct, gc=False):
    """The members of all events that are read, in the types that are documented."""

    type: str | None = None
    delta: str | None = None
    output_index: int | None = None
    content_index: int | None = None
    summary_index: int | None = None
    item_id: str | None = None
    logprobs: msgspec.Raw = msgspec.Raw(b"")
    item: msgspec.Raw = msgspec.Raw(b"")
    response: msgspec.Raw = msgspec.Raw(b"")
    annotation: msgspec.Raw = msgspec.Raw(b"")
    error: msgspec.Raw = msgspec.Raw(b"")


_read = msgspec.json.Decoder(_Event).decode


def _event(data: bytes) -> _Event | None:
    """The event, also where members are of other types than documented; None for what is no object."""
    try:
        if not data.isascii():
            data.decode()  # slices are passed over unread, so msgspec does not notice broken UTF-8
        return _read(data)
    except (ValueError, RecursionError):
        given = decoded(data)
    if not isinstance(given, dict):
        return None
    event = _Event()
    for name in ("type", "delta", "item_id"):
        setattr(event, name, text_in(given, name) or None)
    for name in ("output_index", "content_index", "summary_index"):
        if type(given.get(name)) in (int, float):
            setattr(event, name, given[name])
    for name in ("logprobs", "item", "response", "annotation", "error"):
        if given.get(name) is not None:
            setattr(event, name, msgspec.Raw(msgspec.json.encode(given[name])))
    return event


def _inside(raw: msgspec.Raw) -> dict[str, Any]:
    """An object inside an event; empty when it is none."""
    found = decoded(bytes(raw)) if raw else None
    return found if isinstance(found, dict) else {}


class ResponsesReader(EventReader):
    """Reads the events of OpenAI and of servers that send fewer: text or arguments that only a `done` tells count."""

    def __init__(self, origin: Origin, max_event: int = MAX_EVENT) -> None:
        super().__init__(max_event)
        self._origin = origin
        self._tools: dict[object, int] = {}
        """The index of each call by its output index and by its item's id."""
        self._calls = 0
        self._spoken: set[object] = set()
        """The output indexes of items that have told something by deltas."""
        self._last: object = self
        self._cited = False
        self._begun = False

    def take(self, name: str, data: bytes, out: list[Delta]) -> None:
        event = _event(data)
        if event is None:
            return
        kind = event.type or name
        delta = event.delta
        if delta:
            if event.output_index != self._last:
                self._last = event.output_index
                self._spoken.add(event.output_index)
            if kind == "response.output_text.delta":
                raw = event.logprobs
                logprobs = b'{"content":%b}' % bytes(raw) if raw and raw not in _NO_LOGPROBS else b""
                out.append(TextDelta(delta, 0, logprobs))
            elif kind in _ARGUMENTS:
                self._arguments(event, delta, out)
            elif kind in _SUMMARY:
                out.append(ReasoningDelta(delta))
            elif kind in _THINKING:
                out.append(ReasoningDelta(delta, summary=False))
            elif kind == "response.refusal.delta":
                out.append(RefusalDelta(delta))
            return
        self._rare(kind, event, data, out)

    def _rare(self, kind: str, event: _Event, data: bytes, out: list[Delta]) -> None:
        """The events that frame the deltas."""
        if kind in ("response.output_item.added", "response.output_item.done"):
            item = _inside(event.item)
            if kind.endswith("added"):
                self._added(event, item, out)
            else:
                self._finished_item(event, item, out)
        elif kind == "response.content_part.added":
            if event.content_index:
                out.append(Boundary())
        elif kind == "response.reasoning_summary_part.added":
            if event.summary_index:
                out.append(ReasoningDelta(_GAP))
        elif kind == "response.output_text.annotation.added":
            self._cited = True
            out.append(Cited(read_citation(_inside(event.annotation))))
        elif kind in ("response.created", "response.in_progress", "response.queued"):
            self._start(_inside(event.response), out)
        elif kind in _TERMINAL:
            self._stop(kind, _inside(event.response), out)
        elif kind == "response.failed":
            self.fail(error_of({**_inside(event.response), "status": "failed"}) or data)
        elif kind == "error" or (event.error and not event.type):
            self.fail(_reported(data))
        elif kind in ("keepalive", "ping"):
            out.append(Ping())

    def _start(self, response: dict[str, Any], out: list[Delta]) -> None:
        if self._begun:
            return
        self._begun = True
        created = seconds(response.get("created_at"))
        out.append(Started(text_in(response, "id"), text_in(response, "model"), created=created))

    def _added(self, event: _Event, item: dict[str, Any], out: list[Delta]) -> None:
        self._cited = False
        if item.get("type") in _CALLS:
            self._call(event, item, out)

    def _call(self, event: _Event, item: dict[str, Any], out: list[Delta]) -> int:
        index = self._calls
        self._calls += 1
        self._tools[event.output_index] = index
        if name := text_in(item, "id"):
            self._tools[name] = index
        call_id = text_in(item, "call_id", "id")
        free = item.get("type") == "custom_tool_call"
        out.append(ToolStarted(index, call_id, text_in(item, "name"), 0, free, text_in(item, "namespace")))
        return index

    def _arguments(self, event: _Event, delta: str, out: list[Delta]) -> None:
        index = self._tools.get(event.item_id)
        if index is None:
            index = self._tools.get(event.output_index)
        if index is not None:
            out.append(ToolDelta(index, delta))

    def _finished_item(self, event: _Event, item: dict[str, Any], out: list[Delta]) -> None:
        kind = text_in(item, "type")
        told = event.output_index in self._spoken
        if kind in _CALLS:
            index = self._tools.get(event.output_index)
            if index is None:
                index = self._call(event, item, out)
            arguments = text_in(item, "arguments", "input")
            if arguments and not told:
                out.append(ToolDelta(index, arguments))
            out.append(ToolEnded(index))
        elif kind == "message":
            self._finished_message(item, told, out)
            out.append(Boundary())
        elif kind == "reasoning":
            self._finished_reasoning(item, told, out)
            out.append(Boundary())
        elif kind:
            out.append(ForeignPart(Foreign(DIALECT, kind, msgspec.json.encode(item))))
        self._spoken.discard(event.output_index)  # servers that number nothing: the next item is another one
        self._last = self
        if event.output_index is None:
            self._tools.pop(None, None)

    def _finished_message(self, item: dict[str, Any], told: bool, out: list[Delta]) -> None:
        for part in objects_in(item.get("content")):
            if not told and (text := text_in(part, "text")):
                out.append(TextDelta(text))
            if not told and (text := text_in(part, "refusal")):
                out.append(RefusalDelta(text))
            if not self._cited:
                out.extend(map(Cited, citations(part)))

    def _finished_reasoning(self, item: dict[str, Any], told: bool, out: list[Delta]) -> None:
        if not told:
            for name in ("content", "summary"):
                if text := thoughts(item, name):
                    out.append(ReasoningDelta(text, summary=name == "summary"))
                    told = True
        if encrypted := text_in(item, "encrypted_content"):
            out.append(Signed(Signature(encrypted, DIALECT, self._origin), 0, not told, text_in(item, "id")))

    def _stop(self, kind: str, response: dict[str, Any], out: list[Delta]) -> None:
        self._start(response, out)
        if usage := read_usage(response.get("usage")):
            out.append(Used(usage))
        status = {"status": kind.rpartition(".")[2]}
        called = self._calls > 0 or any(item.get("type") in _CALLS for item in objects_in(response.get("output")))
        out.append(Stopped(stop_of({**response, **status}, called)))
        self.finished = self.done = True


def _reported(data: bytes) -> bytes:
    """An error event as `{"error": …}`."""
    given = decoded(data)
    if not isinstance(given, dict):
        return data
    return error_of({**given, "type": "error"}) or data


class ResponsesWatch(StreamWatch):
    """Watches a Responses stream that is relayed as it comes: deltas are passed on unread."""

    marks = (b'"response"', b'"error"', b"event: error", b"encrypted_content", b"[DONE]")

    def take(self, name: str, data: bytes) -> bool:
        if data.strip() == b"[DONE]":
            self.finished = self.done = True
            return True
        event = _event(data)
        if event is None:
            return False
        kind = event.type or name
        if kind == "response.failed":
            self.fail(error_of({**_inside(event.response), "status": "failed"}) or data)
        elif kind == "error" or (event.error and not event.type):
            self.fail(_reported(data))
        elif kind in _TERMINAL:
            self.usage = read_usage(_inside(event.response).get("usage")) or self.usage
            self.finished = self.done = True
        elif kind == "response.output_item.done":
            item = _inside(event.item)
            if encrypted := text_in(item, "encrypted_content"):
                self.signatures.append(encrypted)
            return bool(item)
        elif kind == "response.output_item.added":
            return _inside(event.item).get("type") in _CALLS
        return kind in _SPEAKING


def watch(call: Call) -> ResponsesWatch:
    """What reads a Responses stream on its way to *call*'s client."""
    return ResponsesWatch()
