"""A streamed OpenAI-shaped answer, read as it is relayed: has it started, is it finished, did it fail, what did it use.

Once output has started, an event is parsed only when it holds one of a few words that matter. Inside a JSON string
every quote is escaped, so `"error"` with its quotes is never something that a model wrote.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from keyturn.core import Usage
from keyturn.errors import TransportError

from .jsontext import loose
from .sse import Splitter, read_event, split
from .usage import read_usage

_DONE = b"[DONE]"
_FIELD = re.compile(rb"^(?::|data|event|id|retry)", re.M)
"""How a line of an event begins; any other text in a stream, a proxy's page for instance, tells of a failure."""
_NULL = (b":null", b": null")
NEWLINE = 10
_OFTEN_NULL = (b'"finish_reason"', b'"usage"')
_BARE = b'{"content":""}'
_SPEAKING = (
    "content",
    "reasoning_content",  # DeepSeek and many servers
    "reasoning",  # OpenRouter, Groq, Ollama
    "reasoning_details",
    "refusal",
    "tool_calls",
    "function_call",
    "audio",
)
"""Members of a delta that are output as soon as they are not empty."""
_LABELS = frozenset({"type", "format", "role"})
"""Members inside those that name a kind and say nothing."""


class _Choice(msgspec.Struct):
    delta: msgspec.Raw


class _Envelope(msgspec.Struct):
    choices: list[_Choice]


_read_envelope = msgspec.json.Decoder(_Envelope).decode


class ChatStream:
    """Reads one answer chunk by chunk. Pure; what it tells does not depend on how the bytes were chunked.

    *drop_usage*: the usage-only event (empty `choices`, with usage) is not relayed, because the client did not ask for
    it. *choices*: how many were asked for; each has to finish. An error event is not relayed either, and nothing behind
    it or behind `[DONE]` is.
    """

    __slots__ = (
        "_choices",
        "_drop_usage",
        "_ended",
        "_events",
        "_max_event",
        "_over",
        "_overhead",
        "_splitter",
        "done",
        "error",
        "finished",
        "relayed_bytes",
        "signatures",
        "started",
        "tail",
        "usage",
    )

    def __init__(self, *, drop_usage: bool, choices: int = 1, max_event: int = 8 << 20) -> None:
        self._drop_usage = drop_usage
        self._max_event = max_event
        self._splitter = Splitter(max_event)
        self._over = False
        self.relayed_bytes = 0
        """Bytes of the events that carried output: grows with each."""
        self._events = 0
        self._overhead = 0
        self.started = False
        """Content, reasoning, a refusal, a tool call or a terminal event has been seen."""
        self.finished = False
        """The finish reason of every choice, or `[DONE]`, has been seen."""
        self._choices = choices
        self._ended: set[object] = set()
        """The indexes of the choices that are finished."""
        self.done = False
        self.error: bytes | None = None
        """The JSON of an error event, to classify."""
        self.usage: Usage | None = None
        """From the last event that carried it."""
        self.tail = b""
        """After `end()`: a last event that came whole but for its blank line, completed, to be relayed."""
        self.signatures: list[str] = []
        """Empty: OpenAI Chat has no signatures that only their maker takes back."""

    @property
    def output_bytes(self) -> int:
        """Bytes of output relayed, an estimate for answers whose usage never comes. Comments do not move it."""
        return max(0, self.relayed_bytes - self._events * self._overhead)

    def feed(self, chunk: bytes) -> bytes:
        """The events that are complete now, to be relayed as they came; empty when none is.

        Raises TransportError `too_large` for an event above *max_event* bytes.
        """
        if self._over:
            return b""
        if self.started and self._is_usual(chunk):
            self.relayed_bytes += len(chunk)
            self._events += 1
            return chunk
        try:
            block = self._splitter.feed(chunk)
        except TransportError:
            relayed = self._sift(self._splitter.before)
            if self.done or self.error is not None:  # what follows is nobody's concern
                return relayed
            raise
        if not block:
            return b""
        if self.started and (events := _objects(block)) and _is_plain(block):
            self.relayed_bytes += len(block)
            self._events += events
            return block
        return self._sift(block)

    def _is_usual(self, chunk: bytes) -> bool:
        """Whether *chunk* is just one event of one JSON object on one line that cannot finish, fail or carry usage.

        Nearly every chunk is: what `_objects` and `_is_plain` find out for any block, in the fewest steps.
        """
        find, starts, size = chunk.find, chunk.startswith, len(chunk)
        if find(b"\n") != size - 2 or not starts(b"data: {") or chunk[size - 1] != NEWLINE or size > self._max_event:
            return False
        if self._splitter.rest or find(b'"delta"') < 0 or find(b'"error"') >= 0:
            return False
        at = find(b'"usage"')
        if at >= 0 and (not starts(_NULL, at + 7) or find(b'"usage"', at + 7) >= 0):
            return False
        at = find(b'"finish_reason"')
        return at < 0 or (starts(_NULL, at + 15) and find(b'"finish_reason"', at + 15) < 0)

    def end(self) -> bool:
        """At the end of the bytes: True when the answer is complete, False when it was cut or failed."""
        rest = bytes(self._splitter.rest)
        if rest and not self._over:
            whole = _is_whole(rest)
            if self._read(rest) and whole and self.finished:
                self.tail = rest.rstrip(b"\r\n") + b"\n\n"
        self._over = True
        return self.finished and self.error is None

    def _sift(self, block: bytes) -> bytes:
        relayed = []
        for event in split(block):
            if self.started and _objects(event) and _is_plain(event):
                self.relayed_bytes += len(event)
                self._events += 1
                relayed.append(event)
            elif self._read(event):
                relayed.append(event)
            if self._over:
                break
        return b"".join(relayed)

    def _read(self, raw: bytes) -> bool:
        """Takes in one event. Whether it is to be relayed."""
        event = read_event(raw)
        data = _bare_json(raw, event.data)
        if event.name == "error":
            return self._fail(_as_error(data))
        foreign = self.started and not _FIELD.search(raw) and bool(raw.strip())
        if data is None:
            return not foreign or self._fail(_as_error(raw.strip()))
        if data.strip() == _DONE:
            self.started = self.finished = self.done = self._over = True
            return True
        chunk = loose(data)
        if isinstance(chunk, list) and len(chunk) == 1:
            chunk = chunk[0]  # Gemini wraps its errors so
        if not isinstance(chunk, dict):
            return not foreign or self._fail(_as_error(raw.strip()))
        return self._read_chunk(chunk, raw, data)

    def _read_chunk(self, chunk: dict[str, Any], raw: bytes, data: bytes) -> bool:
        groq = chunk.get("x_groq")
        groq = groq if isinstance(groq, dict) else {}
        usage = read_usage(chunk.get("usage")) or read_usage(groq.get("usage"))
        self.usage = usage or self.usage
        if chunk.get("error") or _is_error(chunk):
            return self._fail(data)
        if failure := groq.get("error"):
            return self._fail(json.dumps({"error": failure}).encode())
        choices = chunk.get("choices")
        if choices == []:
            return not (self._drop_usage and usage)
        speaks = False
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                speaks = _speaks(choice) or speaks
                if choice.get("finish_reason"):
                    self._ended.add(str(choice.get("index")))
                    speaks = True
        if speaks and not self._overhead:
            self._overhead = _overhead(raw, data)
        if speaks:
            self.relayed_bytes += len(raw)
            self._events += 1
        self.finished = self.finished or len(self._ended) >= self._choices
        self.started = self.started or speaks
        return True

    def _fail(self, error: bytes) -> bool:
        self.error = error
        self._over = True
        return False


def _is_error(chunk: dict[str, Any]) -> bool:
    """An error that is not under `error`: Mistral's `{"object": "error"}`, `{"detail": …}` of FastAPI servers."""
    return "error" in (chunk.get("object"), chunk.get("type")) or ("detail" in chunk and "choices" not in chunk)


def _objects(block: bytes) -> int:
    """How many events *block* is, when each is one line with one JSON object, as usual; else 0."""
    if not block.startswith((b"data: {", b"data:{")):
        return 0
    lines = block.count(b"\n")
    events = 1 if lines == 2 else block.count(b"\n\ndata: {") + 1
    return events if lines == 2 * events else 0


def _is_plain(block: bytes) -> bool:
    """Whether no object in *block* can finish, fail or carry usage.

    An unusual spelling of `null` only costs a look at the event. `find`, not `in`: it is twice as fast.
    """
    find = block.find
    if find(b'"error"') >= 0 or find(b'"detail"') >= 0:
        return False
    for name in _OFTEN_NULL:
        at = find(name)
        while at >= 0:
            at += len(name)
            if not block.startswith(_NULL, at):
                return False
            at = find(name, at)
    return True


def _is_whole(raw: bytes) -> bool:
    data = read_event(raw).data
    return data is not None and (data.strip() == _DONE or loose(data) is not None)


def _bare_json(raw: bytes, data: bytes | None) -> bytes | None:
    """JSON without `data:`, an error body under the wrong content type or a line of NDJSON; else *data*."""
    if data is None:
        text = raw.strip()
        return text if text[:1] in (b"{", b"[") else None
    return next((line for line in raw.splitlines() if line[:1] == b"{"), data)


def _as_error(data: bytes | None) -> bytes:
    """*data* when it is a JSON object, else an error object that quotes it."""
    if data and isinstance(loose(data), dict):
        return data
    text = (data or b"the upstream sent an error event without data").decode("utf-8", "replace")
    return json.dumps({"error": {"message": text}}).encode()


def _speaks(choice: dict[str, Any]) -> bool:
    """Whether a choice carries output; `text` is that of the legacy completions, `message` of Perplexity."""
    if choice.get("text"):
        return True
    delta = choice.get("delta") or choice.get("message")
    return isinstance(delta, dict) and any(_says(delta[name]) for name in _SPEAKING if name in delta)


def _says(value: object, levels: int = 5) -> bool:
    """Whether any text is in *value*: Mistral's thinking is lists of objects, OpenRouter's details may be empty."""
    if isinstance(value, str):
        return bool(value)
    if isinstance(value, list):
        return levels > 0 and any(_says(item, levels - 1) for item in value)
    if isinstance(value, dict):
        return levels > 0 and any(_says(item, levels - 1) for name, item in value.items() if name not in _LABELS)
    return False


def _overhead(raw: bytes, data: bytes) -> int:
    """How long an event of this stream is around its output."""
    try:
        choices = _read_envelope(data).choices
    except (ValueError, RecursionError):
        return len(raw)
    return len(raw) - sum(len(bytes(choice.delta)) for choice in choices) + len(_BARE)
