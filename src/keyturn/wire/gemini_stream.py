"""Gemini's streams: read from upstreams, written for clients as events or as one JSON array."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from keyturn.core import (
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
    StopReason,
    TextDelta,
    ToolDelta,
    ToolEnded,
    ToolStarted,
    Usage,
    Used,
)

from . import gemini_shapes as shapes
from .dialect import Context
from .gemini_answer import shows_thoughts, write_call, write_thought
from .gemini_fields import DIALECT
from .gemini_shapes import encoded
from .gemini_signatures import pack_bytes
from .jsontext import loose
from .signatures import marked_redacted
from .streaming import MAX_EVENT, EventReader
from .tools import flat_name


class GeminiReader(EventReader):
    """Reads a stream of events, or the JSON array that the API sends without `alt=sse`.

    Nothing marks its end: it is finished when each candidate that was seen has its `finishReason`.
    """

    def __init__(self, origin: Origin, max_event: int = MAX_EVENT) -> None:
        super().__init__(max_event)
        self._origin = origin
        self._started = False
        self._usage: Usage | None = None
        self._open: set[int] = set()
        self._stopped: set[int] = set()
        self._calls: dict[int, int] = {}
        self._texts: dict[int, list[str]] = {}
        self._grounding: dict[int, object] = {}
        """The latest of each choice: chunks repeat what was told before, and add to it."""
        self._cited: set[tuple[int, object]] = set()

    def take(self, name: str, data: bytes, out: list[Delta]) -> None:
        """Read one chunk."""
        chunk = shapes.read_chunk(data)
        if chunk is None:
            return
        if chunk.error:
            self.fail(data)
            return
        if not self._started:
            self._started = True
            out.append(Started(chunk.responseId or "", chunk.modelVersion or ""))
        for candidate in chunk.candidates or ():
            self._candidate(candidate, out)
        if chunk.blocked and 0 not in self._stopped:
            self._stopped.add(0)
            out.append(Stopped("content_filter"))
        usage = shapes.read_used(chunk.usageMetadata)
        if usage is not None and usage != self._usage:
            self._usage = usage
            out.append(Used(usage))
        self.finished = bool(self._stopped) and not self._open

    def end(self) -> list[Delta]:
        """What the last event says, or all of an array."""
        rest = bytes(self._splitter.rest).strip()
        if rest[:1] != b"[" or self._over:
            return super().end()
        out: list[Delta] = []
        items = loose(rest)
        for item in items if isinstance(items, list) else ():
            if self.error is None:
                self.take("", encoded(item), out)
        self._over = True
        return out

    def _candidate(self, candidate: shapes.Candidate, out: list[Delta]) -> None:
        choice = shapes.index_of(candidate)
        if choice in self._stopped:
            return
        self._open.add(choice)
        logprobs = b""
        if candidate.logprobsResult is not None:
            logprobs = shapes.read_logprobs(candidate.logprobsResult)
        content = candidate.content
        if content is not None and content.parts:
            for part in content.parts:
                if self._part(part, choice, logprobs, out):
                    logprobs = b""
        if logprobs:
            out.append(TextDelta("", choice, logprobs))
        if shapes.cites(candidate.groundingMetadata):
            self._grounding[choice] = candidate.groundingMetadata
        if candidate.finishReason:
            self._cite(choice, out)
            self._open.discard(choice)
            self._stopped.add(choice)
            out.append(Stopped(shapes.stop_of(candidate.finishReason, choice in self._calls), choice))

    def _cite(self, choice: int, out: list[Delta]) -> None:
        """Tell what the text so far rests on, once."""
        grounding = self._grounding.pop(choice, None)
        if grounding is None:
            return
        for citation in shapes.read_citations(grounding, "".join(self._texts.get(choice, ()))):
            key = (choice, citation)
            if key not in self._cited:
                self._cited.add(key)
                out.append(Cited(citation, choice))

    def _part(self, part: shapes.Part, choice: int, logprobs: bytes, out: list[Delta]) -> bool:
        """Append what *part* says; whether it took the *logprobs*."""
        signature = Signature(part.thoughtSignature, DIALECT, self._origin) if part.thoughtSignature else None
        text = part.text
        if text:
            if part.thought:
                out.append(ReasoningDelta(text, choice))
            else:
                out.append(TextDelta(text, choice, logprobs))
                self._texts.setdefault(choice, []).append(text)
            if signature is not None:
                out.append(Signed(signature, choice))
            return not part.thought
        if (call := part.functionCall) is not None:
            self._cite(choice, out)  # its text ends here
            index = self._calls.get(choice, 0)
            self._calls[choice] = index + 1
            out.append(ToolStarted(index, call.id or "", call.name or "", choice, signature=signature))
            out.append(ToolDelta(index, shapes.args_of(call), choice))
            out.append(ToolEnded(index, choice))
        elif (blob := part.inlineData) is not None:
            raw = encoded({"inlineData": {"mimeType": blob.mimeType or "", "data": blob.data or ""}})
            out.append(ForeignPart(Foreign(DIALECT, "inlineData", raw), choice))
        elif (foreign := part.foreign()) is not None:
            out.append(ForeignPart(Foreign(DIALECT, *foreign), choice))
        elif signature is not None:
            out.append(Signed(signature, choice))
        return False


class _Call:
    """A call of a tool that is still being told."""

    __slots__ = ("arguments", "ended", "id", "name", "signature")

    def __init__(self, started: ToolStarted, identity: str) -> None:
        self.id = identity
        self.name = flat_name(started.name, started.namespace)
        self.signature = started.signature
        self.arguments: list[str] = []
        self.ended = False

    def part(self) -> dict[str, Any]:
        self.ended = True
        signed = {"thoughtSignature": pack_bytes(self.signature)} if self.signature is not None else {}
        return write_call(self.id, self.name, "".join(self.arguments), signed)


class GeminiWriter:
    """Writes a stream for a client: new parts as they come, calls of tools whole, and at the end why it stopped.

    The form is that of `context.call`: events, or with `array` the elements of one JSON array.
    """

    def __init__(self, context: Context) -> None:
        self._array = context.call.form == "array"
        self._id = context.id
        self._model = context.model
        self._shown = shows_thoughts(context.call)
        self._begun = False
        self._tail = b""
        """What follows the text in a chunk that holds nothing else."""
        self._usage: Usage | None = None
        self._calls: dict[tuple[int, int], _Call] = {}
        self._count = 0
        self._stops: dict[int, StopReason] = {}
        self._cited: dict[int, list[Cited]] = {}
        self._texts: dict[int, list[str]] = {}
        self._after: dict[int, object] = {}
        """By choice: what a signature that comes now would sign: a call, or True for a thought."""

    def go_on(self, identity: str, model: str) -> None:
        """The client has the beginning of the answer, in chunks of these names."""
        self._id, self._model, self._begun = identity or self._id, model or self._model, True

    def write(self, deltas: Iterable[Delta]) -> bytes:
        """The chunks for *deltas*: neighbouring parts of one choice share one."""
        if isinstance(deltas, list) and len(deltas) == 1 and type(deltas[0]) is TextDelta:
            only = deltas[0]
            if only.text and not only.choice and not self._array:
                self._spoken(only)
                return self._just(only.text)
        written = b""
        parts: list[dict[str, Any]] = []
        choice = 0
        for delta in deltas:
            kind = type(delta)
            if kind is TextDelta or kind is ReasoningDelta or kind is RefusalDelta:
                part = self._spoken(delta)  # type: ignore[arg-type]
            elif isinstance(delta, Ping):
                written += b"\r\n"  # the official SDK fails on comments, and passes over blank lines
                continue
            elif isinstance(delta, Started):
                self._model, self._tail = delta.model or self._model, b""
                self._usage = delta.usage or self._usage
                continue
            elif isinstance(delta, Used):
                self._usage = delta.usage
                continue
            else:
                part = self._part(delta)
            if part is None:
                continue
            if delta.choice != choice and parts:  # type: ignore[union-attr]
                written += self._chunk([_candidate(choice, parts)])
                parts = []
            choice = delta.choice  # type: ignore[union-attr]
            parts += part
        return written + self._chunk([_candidate(choice, parts)]) if parts else written

    def end(self) -> bytes:
        """The last chunk of each choice, with `finishReason` and usage."""
        written = b""
        for choice in sorted({*self._stops, *(choice for choice, _ in self._calls)} or {0}):
            parts = self._rest(choice)
            candidate = _candidate(choice, parts or [{"text": ""}])
            candidate["finishReason"] = shapes.FINISHES.get(self._stops.get(choice), "STOP")
            if cited := self._cited.get(choice):
                text = "".join(self._texts.get(choice, ()))
                candidate["groundingMetadata"] = shapes.write_citations([each.citation for each in cited], text)
            written += self._chunk([candidate], self._usage)
        return written + b"]" if self._array else written

    def _just(self, text: str) -> bytes:
        """The chunk of a piece of text, put together from what all of them share."""
        if not self._tail:
            named = encoded({"modelVersion": self._model, "responseId": self._id})
            self._tail = b'}],"role":"model"},"index":0}],' + named[1:] + b"\r\n\r\n"
        return b'data: {"candidates":[{"content":{"parts":[{"text":' + encoded(text) + self._tail

    def _spoken(self, delta: TextDelta | ReasoningDelta | RefusalDelta) -> list[dict[str, Any]] | None:
        if isinstance(delta, ReasoningDelta):
            self._after[delta.choice] = True
            return [{"text": delta.text, "thought": True}] if delta.text and self._shown else None
        self._after.pop(delta.choice, None)
        if not delta.text:
            return None
        self._texts.setdefault(delta.choice, []).append(delta.text)
        return [{"text": delta.text}]

    def _part(self, delta: Delta) -> list[dict[str, Any]] | None:
        """The parts for an event that is not just more text."""
        if isinstance(delta, ToolStarted):
            identity = delta.id
            if not identity:
                identity = f"call_{self._id}_{self._count}"
                self._count += 1
            call = self._calls[delta.choice, delta.index] = _Call(delta, identity)
            self._after[delta.choice] = call
        elif isinstance(delta, ToolDelta):
            if (open_call := self._calls.get((delta.choice, delta.index))) is not None:
                open_call.arguments.append(delta.arguments)
        elif isinstance(delta, ToolEnded):
            ended = self._calls.pop((delta.choice, delta.index), None)
            return [ended.part()] if ended is not None else None
        elif isinstance(delta, Signed):
            return self._signed(delta)
        elif isinstance(delta, Stopped):
            self._stops.setdefault(delta.choice, delta.stop)
            return self._rest(delta.choice) or None
        elif isinstance(delta, Cited):
            self._cited.setdefault(delta.choice, []).append(delta)
        elif isinstance(delta, ForeignPart) and delta.part.dialect == DIALECT:
            part = loose(delta.part.raw)
            return [part] if isinstance(part, dict) else None
        return None

    def _signed(self, delta: Signed) -> list[dict[str, Any]] | None:
        after = self._after.get(delta.choice)
        if isinstance(after, _Call) and not after.ended and after.signature is None:
            after.signature = delta.signature
            return None
        if delta.signature.dialect == DIALECT and after is not True:
            return [{"text": "", "thoughtSignature": pack_bytes(delta.signature)}]
        hidden = after is True and not self._shown and delta.signature.dialect != DIALECT
        signature = marked_redacted(delta.signature) if delta.redacted else delta.signature
        part = None if hidden else write_thought("", signature, self._shown)
        return [part] if part is not None else None

    def _rest(self, choice: int) -> list[dict[str, Any]]:
        """The calls of *choice* whose end was not told."""
        keys = [key for key in self._calls if key[0] == choice]
        return [self._calls.pop(key).part() for key in keys]

    def _chunk(self, candidates: list[dict[str, Any]], usage: Usage | None = None) -> bytes:
        body: dict[str, Any] = {"candidates": candidates}
        if usage is not None:
            body["usageMetadata"] = shapes.used_of(usage)
        body["modelVersion"] = self._model
        body["responseId"] = self._id
        text = encoded(body)
        if not self._array:
            return b"data: " + text + b"\r\n\r\n"
        lead, self._begun = b",\r\n" if self._begun else b"[", True
        return lead + text


def _candidate(choice: int, parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {"content": {"parts": parts, "role": "model"}, "index": choice}
