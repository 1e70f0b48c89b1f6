"""What every dialect provides, and what its readers and writers are told: the seam of all translations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from keyturn.core import Answer, Call, Delta, Kind, Origin, Reply, Request, Usage
from keyturn.errors import KeyturnError


class Context(NamedTuple):
    """What writing an answer needs to know beside what the upstream said."""

    call: Call
    """The client's request: what it asked for is echoed by some dialects."""
    id: str
    """Letters and digits that are unique to the call; ids are made of it (`chatcmpl-…`, `msg_…`, `resp_…`)."""
    created: int
    """Unix seconds."""
    model: str
    """The model's name, for upstreams that do not say."""
    input_tokens: int = 0
    """Our estimate, for dialects that state the input before the upstream does."""


class Target(NamedTuple):
    """What the upstream of one attempt takes. Dialects read of it what concerns them."""

    model: str
    origin: Origin
    """Whose signatures it takes back."""
    max_output: int = 0
    """Its largest output in tokens, 0 when not known; where the dialect requires `max_tokens`, its default."""
    sampling: bool = True
    """It takes `temperature`, `top_p` and `top_k`."""
    thinking: str = "effort"
    """How it is told to think: `effort` (a level), `budget` (tokens), `none` (not at all)."""
    mid_system: bool = False
    """It takes system messages in the middle of a conversation."""
    cache_marks: bool = False
    """An OpenAI Chat or Responses server that takes `prompt_cache_breakpoint`."""
    schemas: bool = True
    """It takes a JSON Schema for its answer (and for tools, as JSON Schema and not as a dialect's older form)."""
    prefill: str = ""
    """How it is told to go on with an answer that has begun, which is the last turn: `turn` (that is enough), `prefix`
    (the turn says so), `final` (the request says so), as vLLM has it. Empty: it cannot, or nobody knows."""
    signed_calls: bool = False
    """Gemini: it refuses tool calls of earlier turns without a signature."""


class StreamReader(Protocol):
    """Reads an upstream's stream, chunk by chunk, into deltas. What it tells does not depend on the chunks."""

    done: bool
    """The terminal event was seen: nothing more counts."""
    finished: bool
    """Every choice has stopped: the answer is complete even if no terminal event follows."""
    error: bytes | None
    """The JSON of an error event, to classify; nothing after it counts."""

    def feed(self, chunk: bytes) -> list[Delta]:
        """What *chunk* completes. Raises TransportError `too_large` for an event that is too large."""
        ...

    def end(self) -> list[Delta]:
        """At the end of the bytes: what a last event without its blank line says."""
        ...


class StreamWriter(Protocol):
    """Writes deltas as a client's stream: events in the exact order that its SDK expects."""

    def write(self, deltas: Iterable[Delta]) -> bytes:
        """The events for *deltas*; may be empty."""
        ...

    def end(self) -> bytes:
        """The last events. Called once, and only when the answer is complete."""
        ...


class AnswerStream(Protocol):
    """A stream on its way to a client, as it came or translated: what dispatch reads of it."""

    started: bool
    """Output or a terminal event has been seen."""
    usage: Usage | None
    tail: bytes
    """After `end()`: what is still to be relayed."""
    relayed_bytes: int
    """Grows with each output."""
    signatures: list[str]
    """Values of the reasoning signatures that went by, as the upstream gave them."""

    @property
    def finished(self) -> bool:
        """Every choice has stopped."""
        ...

    @property
    def done(self) -> bool:
        """The terminal event was seen: nothing more counts."""
        ...

    @property
    def error(self) -> bytes | None:
        """The JSON of an error event, to classify."""
        ...

    @property
    def output_bytes(self) -> int:
        """Bytes of output, an estimate for answers whose usage never comes."""
        ...

    def feed(self, chunk: bytes) -> bytes:
        """What to relay now; may be empty."""
        ...

    def end(self) -> bool:
        """At the end of the bytes: True when the answer is complete, False when it was cut or failed."""
        ...


ErrorWriter = Callable[[KeyturnError, str, Sequence[Mapping[str, object]]], bytes]
"""An error, the call's id and its attempts in brief -> bytes."""


class Dialect(NamedTuple):
    """One wire format, both ways. What a dialect is not spoken in (legacy completions upstream) is None."""

    name: str
    read_request: Callable[[Call], Request]
    """The whole request. Raises BadRequest that names the field."""
    write_answer: Callable[[Answer, Context], bytes]
    writer: Callable[[Context], StreamWriter]
    error_body: ErrorWriter
    error_event: ErrorWriter
    """The same as the last event of a stream."""
    write_request: Callable[[Request, Target, list[str]], dict[str, object]] | None = None
    """The members of an upstream's body, ready to encode (`msgspec.Raw` for JSON text). What is dropped on the way goes
    into the list. Raises Untranslatable for what the client must not lose."""
    read_answer: Callable[[bytes, Origin], Answer | bytes | None] | None = None
    """The whole answer; the body of an error to classify; None for garbage. Never raises."""
    reader: Callable[[Origin], StreamReader] | None = None
    read_reply: Callable[[bytes, Kind], Reply | bytes | None] | None = None
    """The same as `read_answer`, as far as relaying needs it."""
    watch: Callable[[Call], AnswerStream] | None = None
    """Reads a stream that is relayed as it comes."""
