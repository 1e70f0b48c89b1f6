"""Deltas written as a Responses stream, events in the order that OpenAI's SDK expects; and a whole answer likewise."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from keyturn.core import (
    Answer,
    Boundary,
    Cited,
    Delta,
    Foreign,
    ForeignPart,
    Media,
    Part,
    Ping,
    Reasoning,
    ReasoningDelta,
    Refusal,
    RefusalDelta,
    Signature,
    Signed,
    Started,
    Stopped,
    StopReason,
    Text,
    TextDelta,
    ToolDelta,
    ToolEnded,
    ToolStarted,
    ToolUse,
    Usage,
    Used,
)

from .dialect import Context
from .jsontext import clean
from .responses_object import annotation, compact, echoed, response_object
from .responses_open import Call, Message, OpenMessage, Sink, Thoughts
from .responses_parse import DIALECT
from .signatures import marked_redacted, pack
from .tools import ToolName, names_of

_PING = b": ping\n\n"


class _Logprobs(msgspec.Struct):
    content: list[msgspec.Raw] | None = None


_read_logprobs = msgspec.json.Decoder(_Logprobs).decode


class ResponsesWriter:
    """Writes the first choice. Items open with their first delta and are numbered in that order."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._echo = echoed(context.call.members)
        self._names = names_of(context.call.members.get("tools", b""))
        self._sink = Sink(context.id)
        self._open: Message | Thoughts | None = None
        self._calls: dict[int, Call] = {}
        self._model = context.model
        self._begun = False
        self._usage: Usage | None = None
        self._stop: StopReason | None = None
        self._same: Mapping[str, object] = {}

    def go_on(
        self, number: int, items: list[object], response: Mapping[str, object], message: OpenMessage | None
    ) -> None:
        """The client has the beginning of the response: events below *number*, *items* by output index, None for the
        one that is open, *message*. What *response*, as it was told, says of itself stays."""
        self._begun, self._same = True, response
        self._sink.number, self._sink.items = number, items
        if message is not None:
            self._open = Message.going_on(self._sink, message)

    def write(self, deltas: Iterable[Delta]) -> bytes:
        """The events for *deltas*; may be empty."""
        for delta in deltas:
            kind = type(delta)
            if kind is TextDelta:
                self._text(delta)  # type: ignore[arg-type]
            elif kind is ToolDelta:
                self._more(delta)  # type: ignore[arg-type]
            elif kind is Used:
                self._usage = delta.usage  # type: ignore[union-attr]
            elif kind is Started:
                self._start(delta)  # type: ignore[arg-type]
            elif kind is Ping:
                self._sink.events.append(_PING)
            elif not delta.choice:  # type: ignore[union-attr]
                self._take(delta)
        return self._sink.taken()

    def end(self) -> bytes:
        """The last events; the response in the very last is whole."""
        self._begin()
        self._close_all("stop")
        body = self.body()
        self._sink.emit(f"response.{body['status']}", response=body)
        return self._sink.taken()

    def body(self, tier: str = "") -> dict[str, object]:
        """The response, when all is written."""
        stop = self._stop or "stop"
        items = [item for item in self._sink.items if item is not None]
        told = response_object(self._context, self._echo, self._model, items, self._usage, stop, tier)
        return {**told, **self._same} if self._same else told

    def _start(self, delta: Started) -> None:
        self._model = self._model if self._begun else delta.model or self._model
        self._usage = self._usage or delta.usage
        self._begin()

    def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        body = response_object(self._context, self._echo, self._model)
        self._sink.emit("response.created", response=body)
        self._sink.emit("response.in_progress", response=body)

    def _text(self, delta: TextDelta) -> None:
        if delta.choice or not (delta.text or delta.logprobs):
            return
        held = self._open
        if type(held) is not Message:
            held = self._message()
        held.text(_sound(delta.text), _listed(delta.logprobs))

    def _more(self, delta: ToolDelta) -> None:
        call = self._calls.get(delta.index)
        if call is not None and not delta.choice:
            call.more(_sound(delta.arguments))

    def _take(self, delta: Delta) -> None:
        self._begin()
        if isinstance(delta, ReasoningDelta):
            if delta.text:
                self._thoughts().think(_sound(delta.text), delta.summary)
        elif isinstance(delta, RefusalDelta):
            if delta.text:
                held = self._open
                (held if isinstance(held, Message) else self._message()).refuse(_sound(delta.text))
        elif isinstance(delta, Signed):
            self._sign(delta.signature, delta.redacted)
        elif isinstance(delta, Cited):
            if isinstance(self._open, Message):
                self._open.cite(annotation(delta.citation, self._open.length))
        elif isinstance(delta, ToolStarted):
            self._call(delta)
        elif isinstance(delta, ToolEnded):
            if call := self._calls.pop(delta.index, None):
                call.close()
        elif isinstance(delta, ForeignPart):
            self._foreign(delta.part)
        else:
            self._pause(delta)

    def _pause(self, delta: Delta) -> None:
        if isinstance(delta, Boundary):
            if isinstance(self._open, Message):
                self._open.close_part()
            else:
                self._close()
        elif isinstance(delta, Stopped):
            self._stop = delta.stop
            self._close_all(delta.stop)

    def _message(self) -> Message:
        self._begin()
        self._close()
        self._open = Message(self._sink)
        return self._open

    def _thoughts(self) -> Thoughts:
        if not isinstance(self._open, Thoughts):
            self._close()
            self._open = Thoughts(self._sink)
        return self._open

    def _sign(self, signature: Signature, redacted: bool = False) -> None:
        """Close the thoughts that are open with *signature*, or write it as thoughts without text.

        Anthropic's redacted thinking is marked, since its data go back into another place than a signature.
        """
        thoughts = self._thoughts()
        if redacted and thoughts.empty:
            signature = marked_redacted(signature)
        thoughts.encrypted = pack(signature)
        self._close()

    def _call(self, delta: ToolStarted) -> None:
        if delta.signature is not None:
            self._sign(delta.signature)
        self._close()
        named = self._names.get(delta.name, ToolName(delta.name, "", delta.free))
        if delta.namespace:
            named = ToolName(delta.name, delta.namespace, delta.free)
        wrapped = named.free and not delta.free
        self._calls[delta.index] = Call(self._sink, delta.id, named, wrapped)

    def _foreign(self, part: Foreign) -> None:
        if part.dialect == DIALECT:
            self._close()
            self._sink.whole(msgspec.Raw(compact(part.raw)))

    def _close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def _close_all(self, stop: StopReason) -> None:
        """Close what is open, in the order of opening; what was cut off says so."""
        status = "incomplete" if stop in ("length", "content_filter") else "completed"
        held = [*([self._open] if self._open else []), *self._calls.values()]
        for item in sorted(held, key=lambda each: each.index):
            item.close(status)
        self._open = None
        self._calls.clear()


def write_answer(answer: Answer, context: Context) -> bytes:
    """The whole Response object: what a stream of the same answer ends with."""
    writer = ResponsesWriter(context)
    writer.write([Started(answer.id, answer.model, answer.usage)])
    for choice in answer.choices[:1]:
        writer.write(_deltas(choice.parts, choice.logprobs))
        writer.write([Stopped(choice.stop or "stop")])
    if answer.usage is not None:
        writer.write([Used(answer.usage)])
    return msgspec.json.encode(writer.body(answer.tier))


def _deltas(parts: tuple[Part, ...], logprobs: bytes) -> Iterator[Delta]:
    """A whole answer as if it came in a stream."""
    for number, part in enumerate(parts):
        if isinstance(part, Text):
            yield TextDelta(part.text, logprobs=logprobs)
            logprobs = b""
            yield from map(Cited, part.citations)
            yield from (Signed(each) for each in (part.signature,) if each is not None)
            yield Boundary()
        elif isinstance(part, Reasoning):
            yield ReasoningDelta(part.text, summary=part.summary)
            if part.signature is not None:
                yield Signed(part.signature, 0, part.redacted, part.id)
            elif not _goes_on(part, parts[number + 1 : number + 2]):
                yield Boundary()
        elif isinstance(part, ToolUse):
            yield ToolStarted(number, part.id, part.name, 0, part.free, part.namespace, part.signature)
            yield ToolDelta(number, part.arguments)
            yield ToolEnded(number)
        elif isinstance(part, Refusal):
            yield RefusalDelta(part.text)
            yield Boundary()
        elif isinstance(part, Foreign):
            yield ForeignPart(part)
        elif isinstance(part, Media) and part.kind == "image" and part.data:
            item = {"type": "image_generation_call", "id": f"ig_{number}", "status": "completed", "result": part.data}
            yield ForeignPart(Foreign(DIALECT, "image_generation_call", msgspec.json.encode(item)))


def _goes_on(part: Reasoning, following: tuple[Part, ...]) -> bool:
    """Whether *following* belongs to the same thoughts: their summary, or a call that bears their signature."""
    for each in following:
        if isinstance(each, Reasoning):
            return bool(part.id) and part.id == each.id
        return isinstance(each, ToolUse) and each.signature is not None
    return False


def _listed(logprobs: bytes) -> list[msgspec.Raw]:
    """Logprobs in the shape of OpenAI Chat as a list, the shape of Responses."""
    if not logprobs:
        return []
    try:
        return _read_logprobs(compact(logprobs)).content or []
    except (ValueError, RecursionError):
        return []


def _sound(text: str) -> str:
    """*text* as UTF-8 can hold it."""
    return text if text.isascii() else clean(text)
