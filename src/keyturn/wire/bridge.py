"""From one dialect to another: the table of dialects, and streams that are translated on their way."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from msgspec.json import encode
from msgspec.structs import replace

from keyturn.core import (
    SPEAKING,
    Answer,
    Call,
    Delta,
    Origin,
    ReasoningDelta,
    RefusalDelta,
    Reply,
    Signature,
    Signed,
    Started,
    Text,
    TextDelta,
    ToolDelta,
    ToolStarted,
    ToolUse,
    Usage,
    Used,
)

from .dialect import AnswerStream, Context, Dialect, StreamReader, StreamWriter
from .openai_reply import model_body, models_body


@cache
def dialect(name: str) -> Dialect:
    """The dialect of that name; loaded when it is first spoken."""
    match name:
        case "openai_chat":
            from .chat import CHAT

            return CHAT
        case "openai_responses":
            from .responses import RESPONSES

            return RESPONSES
        case "anthropic":
            from .anthropic import ANTHROPIC

            return ANTHROPIC
        case "gemini":
            from .gemini import GEMINI

            return GEMINI
        case "openai_completions":
            from .completions import COMPLETIONS

            return COMPLETIONS
    raise KeyError(name)


def watched(call: Call, upstream: str) -> AnswerStream:
    """What reads a stream of *upstream* that is relayed to *call* as it comes."""
    watch = dialect(upstream).watch
    assert watch is not None, upstream
    return watch(call)


def translated(upstream: str, origin: Origin, context: Context) -> Translation:
    """What turns a stream of *upstream* into one of the dialect of the call in *context*."""
    reader = dialect(upstream).reader
    assert reader is not None, upstream
    return Translation(reader(origin), dialect(context.call.dialect).writer(context), context.id)


class Translation:
    """A stream that is read in one dialect and written in another, event by event."""

    __slots__ = (
        "_ended",
        "_id",
        "_reader",
        "_writer",
        "called",
        "output_bytes",
        "relayed_bytes",
        "signatures",
        "signed",
        "started",
        "tail",
        "usage",
    )

    def __init__(self, reader: StreamReader, writer: StreamWriter, identity: str) -> None:
        """*identity*: what ids are made of for calls of tools that the upstream gave none."""
        self._id = identity
        self._reader = reader
        self._writer = writer
        self._ended = False
        self.started = False
        self.called = False
        """A call of a tool has begun, though its writer may wait until it has all of it."""
        self.usage: Usage | None = None
        self.tail = b""
        self.relayed_bytes = 0
        self.output_bytes = 0
        self.signatures: list[str] = []
        """Empty: what is translated is signed with its maker's name."""
        self.signed: list[tuple[str, Signature]] = []
        """Calls of tools that carry a signature, by id."""

    @property
    def finished(self) -> bool:
        """Every choice has stopped."""
        return self._reader.finished

    @property
    def done(self) -> bool:
        """The terminal event was seen."""
        return self._reader.done

    @property
    def error(self) -> bytes | None:
        """The JSON of an error event."""
        return self._reader.error

    def feed(self, chunk: bytes) -> bytes:
        """The client's events for *chunk*; with the last of them, the end of its stream."""
        deltas = self._reader.feed(chunk)
        piece = self._written(deltas) if deltas else b""
        if self._reader.done and self._reader.error is None:
            piece += self._end()
        return piece

    def end(self) -> bool:
        """At the end of the bytes: whether the answer is complete; `tail` is then the end of the client's stream."""
        piece = self._written(self._reader.end())
        whole = self._reader.finished and self._reader.error is None
        if whole:
            self.tail = piece + self._end()
        return whole

    def _end(self) -> bytes:
        if self._ended:
            return b""
        closing = self._writer.end()
        if self.started:  # else nothing was said, not even that the answer is complete
            self.relayed_bytes += len(closing)
        self._ended = self.started = True
        return closing

    def _written(self, deltas: list[Delta]) -> bytes:
        for place, delta in enumerate(deltas):
            kind = type(delta)
            if kind is TextDelta or kind is ReasoningDelta or kind is RefusalDelta:
                self.output_bytes += len(delta.text)  # type: ignore[union-attr]
                self.started = self.started or bool(delta.text)  # type: ignore[union-attr]
            elif kind is ToolDelta:
                self.output_bytes += len(delta.arguments)  # type: ignore[union-attr]
            elif isinstance(delta, ToolStarted):
                self.called = True
                if not delta.id:
                    delta = deltas[place] = replace(delta, id=_call_id(self._id, delta.choice, delta.index))
                if delta.signature is not None:
                    self.signed.append((delta.id, delta.signature))
            elif kind is Used or kind is Started:
                self.usage = delta.usage or self.usage  # type: ignore[union-attr]
            if not self.started and (kind in SPEAKING[3:] or kind is Signed):
                self.started = True
        piece = self._writer.write(deltas)
        if piece and self.started:
            self.relayed_bytes += len(piece)
        return piece


def write_embeddings(call: Call, upstream: str, model: str, notes: list[str]) -> tuple[str, bytes]:
    """An embeddings call in the dialect *upstream*, where Gemini's is on either side: its method and the body.

    Raises Untranslatable for lists of tokens, which Gemini cannot read.
    """
    from .gemini_embed import gemini_to_openai, openai_to_gemini, render_embed

    if call.dialect == upstream:
        return call.path, render_embed(call, model)

    return openai_to_gemini(call, model, notes) if upstream == "gemini" else ("", gemini_to_openai(call, model, notes))


def translate_embeddings(body: bytes, call: Call, upstream: str, model: str) -> bytes:
    """The embeddings that *upstream* answered, as the client of *call* reads them."""
    from .gemini_embed import gemini_answer_to_openai, openai_answer_to_gemini

    return gemini_answer_to_openai(body, call, model) if upstream == "gemini" else openai_answer_to_gemini(body, call)


def count_body(spoken: str, tokens: int) -> bytes:
    """The answer to a question for the number of tokens, in the dialect *spoken*."""
    if spoken == "anthropic":
        from .anthropic import count_body as anthropic_body

        return anthropic_body(tokens)
    if spoken == "gemini":
        from .gemini import count_body as gemini_body

        return gemini_body(tokens)
    from .responses import count_body as responses_body

    return responses_body(tokens)


Row = tuple[str, str, int]
"""Id, provider and creation (Unix seconds) of a model."""


def models_page(spoken: str, rows: Iterable[Row]) -> bytes:
    """The list of models as clients of the dialect *spoken* read it."""
    if spoken == "anthropic":
        from .anthropic import models_page as anthropic_page

        return anthropic_page(rows)
    if spoken == "gemini":
        from .gemini import models_page as gemini_page

        return gemini_page(rows)
    return models_body(rows)


def model_page(spoken: str, row: Row) -> bytes:
    """One model, likewise."""
    if spoken == "anthropic":
        from .anthropic import model_entry as anthropic_entry

        return anthropic_entry(*row)
    if spoken == "gemini":
        from .gemini import model_entry as gemini_entry

        return encode(gemini_entry(*row))
    return model_body(*row)


def _call_id(identity: str, choice: int, index: int) -> str:
    """An id for a call of a tool that has none, the same whenever it is asked for."""
    return f"call_{identity}_{index}" if not choice else f"call_{identity}_{choice}_{index}"


def with_call_ids(answer: Answer, identity: str) -> Answer:
    """*answer* with an id for each call of a tool: older Gemini models give none."""
    if all(part.id for each in answer.choices for part in each.parts if isinstance(part, ToolUse)):
        return answer
    choices = []
    for number, each in enumerate(answer.choices):
        parts, index = [], 0
        for part in each.parts:
            if isinstance(part, ToolUse):
                part = part if part.id else replace(part, id=_call_id(identity, number, index))
                index += 1
            parts.append(part)
        choices.append(replace(each, parts=tuple(parts)))
    return replace(answer, choices=tuple(choices))


def signed_calls(answer: Answer) -> list[tuple[str, Signature]]:
    """The calls of tools in *answer* that carry a signature, by id."""
    parts = (part for choice in answer.choices for part in choice.parts)
    return [(part.id, part.signature) for part in parts if isinstance(part, ToolUse) and part.signature is not None]


def thin(answer: Answer) -> Reply:
    """*answer* as far as the gateway itself needs it."""
    if not answer.choices:
        return Reply(usage=answer.usage, model=answer.model, empty=True)
    first = answer.choices[0]
    return Reply(
        text="".join(part.text for part in first.parts if isinstance(part, Text)),
        stop=first.stop,
        usage=answer.usage,
        model=answer.model,
        tool_calls=sum(isinstance(part, ToolUse) for part in first.parts),
    )
