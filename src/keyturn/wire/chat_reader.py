"""An upstream's OpenAI Chat stream, read into deltas; as all the servers bend it that call themselves compatible."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from keyturn.core import (
    Cited,
    Delta,
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
    ToolStarted,
    Usage,
    Used,
)

from .chat_messages import google_signature, thoughts
from .chat_reasoning import signature_of, text_of
from .chat_values import arguments_in, citations_in, created_in, read_json, stop_of, text_in, unwrap
from .sse import Event
from .streaming import MAX_EVENT, EventReader
from .usage import read_usage

_FIELD = re.compile(rb"^(?::|data|event|id|retry)", re.M)
"""How a line of an event begins; any other text in a stream, a proxy's page for instance, tells of a failure."""
_LEAD = b"data: {"
_PAST = len(b"data: ")
_MOST_INDEX = 4096


class _Tool:
    """A call under way. *position* is None until its name is known: then it has begun."""

    __slots__ = ("free", "held", "id", "name", "position", "signature")

    def __init__(self, call_id: str) -> None:
        self.id = call_id
        self.name = ""
        self.free = False
        self.held: list[str] = []
        self.position: int | None = None
        self.signature: Signature | None = None


class _Tools:
    """The calls of one choice. Not every server numbers them: some send whole calls, some number all of them 0."""

    __slots__ = ("_by_id", "_index", "_last", "_numbered", "_origin", "started")

    def __init__(self, index: int, origin: Origin) -> None:
        self._index = index
        self._origin = origin
        self._numbered: dict[int, _Tool] = {}
        self._by_id: dict[str, _Tool] = {}
        """The first call of each id."""
        self._last: _Tool | None = None
        self.started = 0

    def take(self, item: dict[str, Any], out: list[Delta]) -> None:
        """One entry of `tool_calls`."""
        custom = item.get("custom")
        inner = custom if isinstance(custom, dict) else item.get("function")
        inner = inner if isinstance(inner, dict) else {}
        name = text_in(inner, "name")
        tool = self._find(item.get("index"), text_in(item, "id"), name)
        if name and not tool.name:
            tool.name = name
            tool.free = inner is custom
        if value := google_signature(item):
            tool.signature = Signature(value, "gemini", self._origin)
            if tool.position is not None:
                out.append(Signed(tool.signature, self._index))
        fragment = text_in(inner, "input") if tool.free else arguments_in(inner.get("arguments"))
        if tool.position is None:
            tool.held.append(fragment)
            if tool.name:
                self._start(tool, out)
        elif fragment:
            out.append(ToolDelta(tool.position, fragment, self._index))

    def _start(self, tool: _Tool, out: list[Delta]) -> None:
        tool.position = self.started
        self.started += 1
        out.append(ToolStarted(tool.position, tool.id, tool.name, self._index, tool.free, signature=tool.signature))
        if held := "".join(tool.held):
            out.append(ToolDelta(tool.position, held, self._index))

    def _find(self, index: object, call_id: str, name: str) -> _Tool:
        number = int(index) if isinstance(index, (int, float)) and 0 <= index < _MOST_INDEX else None
        if number is not None:
            tool = self._numbered.get(number)
        elif call_id:
            tool = self._by_id.get(call_id)
        else:
            tool = None if name and (self._last is None or self._last.name) else self._last
        if tool is None or _is_another(tool, call_id, name):
            tool = _Tool(call_id)
            if number is not None:
                self._numbered[number] = tool
        elif not tool.id:
            tool.id = call_id
        if call_id:
            self._by_id.setdefault(call_id, tool)
        self._last = tool
        return tool


def _is_another(tool: _Tool, call_id: str, name: str) -> bool:
    """Whether what comes under the number of *tool* begins another call: its id tells, or else its name."""
    if not name or not tool.name:
        return False
    return call_id != tool.id if call_id and tool.id else name != tool.name


class ChatReader(EventReader):
    """Reads one answer. Whether every choice has stopped is judged by those that have been seen."""

    def __init__(self, origin: Origin) -> None:
        super().__init__()
        self._origin = origin
        self._started = False
        self._spoke = False
        self._usage: Usage | None = None
        self._tools: dict[int, _Tools] = {}
        self._stopped: dict[int, bool] = {}
        """By choice."""

    def feed(self, chunk: bytes) -> list[Delta]:
        if self._over or self._splitter.rest or not _is_usual(chunk) or len(chunk) > MAX_EVENT:
            return super().feed(chunk)
        out: list[Delta] = []
        self.take("", chunk[_PAST:], out)
        return out

    def _read(self, events: Iterable[bytes], out: list[Delta]) -> None:
        for raw in events:
            if _is_usual(raw):
                self.take("", raw[_PAST:], out)
            else:
                super()._read((raw,), out)
            if self.done or self.error is not None:
                self._over = True
                return

    def bare(self, event: Event, raw: bytes, out: list[Delta]) -> None:
        text = raw.strip()
        if text[:1] in (b"{", b"["):  # an error body under the wrong content type, or a line of NDJSON
            self.take(event.name, text, out)
        elif event.name == "error":
            self.fail(_as_error(b""))
        elif self._spoke and text and not _FIELD.search(raw):
            self.fail(_as_error(text))
        elif text[:1] == b":":
            out.append(Ping())

    def take(self, name: str, data: bytes, out: list[Delta]) -> None:
        if name == "error":
            self.fail(_as_error(data))
            return
        chunk = unwrap(read_json(data))
        if not isinstance(chunk, dict):
            return
        groq = chunk.get("x_groq")
        groq = groq if isinstance(groq, dict) else {}
        if chunk.get("error") or "error" in (chunk.get("object"), chunk.get("type")):
            self.fail(data.strip())
            return
        if failure := groq.get("error"):
            self.fail(msgspec.json.encode({"error": failure}))
            return
        choices = chunk.get("choices")
        if "detail" in chunk and choices is None:  # FastAPI servers
            self.fail(data.strip())
            return
        if not self._started:
            self._started = True
            out.append(Started(text_in(chunk, "id"), text_in(chunk, "model"), created=created_in(chunk)))
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                self._choice(choice, out)
        given = chunk.get("usage") or groq.get("usage")
        usage = read_usage(given) if given else None
        if usage is not None and usage != self._usage:
            self._usage = usage
            out.append(Used(usage))

    def _choice(self, choice: dict[str, Any], out: list[Delta]) -> None:
        given = choice.get("index")
        index = given if type(given) is int and 0 <= given < _MOST_INDEX else 0
        if self._stopped.setdefault(index, False):
            return
        delta = choice.get("delta") or choice.get("message")  # Perplexity
        logprobs = choice.get("logprobs")
        told = msgspec.json.encode(logprobs) if isinstance(logprobs, dict) else b""
        if isinstance(delta, dict):
            self._delta(delta, index, told, out)
        elif text := text_in(choice, "text"):  # legacy completions
            out.append(TextDelta(text, index, told))
            self._spoke = True
        finish = choice.get("finish_reason")
        if finish:
            tools = self._tools.get(index)
            out.append(Stopped(stop_of(finish, tools.started if tools else 0), index))
            self._stopped[index] = self._spoke = True
            self.finished = all(self._stopped.values())

    def _delta(self, delta: dict[str, Any], index: int, logprobs: bytes, out: list[Delta]) -> None:
        before = len(out)
        get = delta.get
        if (plain := get("reasoning_content") or get("reasoning")) or get("reasoning_details"):
            self._thinking(get("reasoning_details"), plain, index, out)
        content = get("content")
        if type(content) is str:
            if content or logprobs:
                out.append(TextDelta(content, index, logprobs))
        elif isinstance(content, list):  # Mistral
            _parts(content, index, logprobs, out)
        if len(delta) > 2 or "content" not in delta:
            if refusal := text_in(delta, "refusal"):
                out.append(RefusalDelta(refusal, index))
            if calls := get("tool_calls"):
                self._calls(calls, index, out)
            if legacy := get("function_call"):
                self._calls([{"index": 0, "function": legacy}], index, out)
            if annotations := get("annotations"):
                out.extend(Cited(citation, index) for citation in citations_in(annotations))
        self._spoke = self._spoke or len(out) > before

    def _calls(self, calls: object, index: int, out: list[Delta]) -> None:
        tools = self._tools.get(index)
        if tools is None:
            tools = self._tools[index] = _Tools(index, self._origin)
        for item in calls if isinstance(calls, list) else ():
            if isinstance(item, dict):
                tools.take(item, out)

    def _thinking(self, details: object, plain: object, index: int, out: list[Delta]) -> None:
        """OpenRouter says the same twice, in details and plainly; others say it plainly only."""
        signed: list[Delta] = []
        told = False
        for detail in details if isinstance(details, list) else ():
            if not isinstance(detail, dict):
                continue
            if text := text_of(detail):
                told = True
                signed.append(ReasoningDelta(text, index))
            signature = signature_of(detail, self._sign)
            if signature is not None:
                hidden = detail.get("type") == "reasoning.encrypted"
                signed.append(Signed(signature, index, hidden, text_in(detail, "id")))
        if isinstance(plain, str) and plain and not told:
            out.append(ReasoningDelta(plain, index))
        out += signed

    def _sign(self, value: str, dialect: str) -> Signature:
        return Signature(value, dialect, self._origin)


def _is_usual(raw: bytes) -> bool:
    """Whether *raw* is just one event of one line that can hold an object, as nearly every chunk is."""
    return raw.startswith(_LEAD) and raw.find(b"\n") == len(raw) - 2 and raw[-1] == 10 and raw.find(b"\r") < 0


def _parts(content: list[Any], index: int, logprobs: bytes, out: list[Delta]) -> None:
    for part in content:
        if not isinstance(part, dict):
            continue
        if text := text_in(part, "text"):
            out.append(TextDelta(text, index, logprobs))
        elif text := thoughts(part.get("thinking")):
            out.append(ReasoningDelta(text, index))


def _as_error(data: bytes) -> bytes:
    """*data* when it is a JSON object, else an error object that quotes it."""
    if isinstance(read_json(data), dict):
        return data
    text = (data or b"the upstream sent an error event without data").decode("utf-8", "replace")
    return json.dumps({"error": {"message": text}}).encode()
