"""What tools print, read into the text of an answer, its usage, and whether they call it a success."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import Any

import msgspec

from keyturn.core import Usage

_MOST_TOKENS = 1_000_000_000
_MOST_TRIES = 20
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_STOPS = {"max_tokens": "length", "model_context_window_exceeded": "length", "refusal": "content_filter"}
"""Claude's stop reasons -> OpenAI's; every other one is `stop`."""


class Reader(ABC):
    """Reads stdout as it comes. Its members hold what was said; they are complete after `close`."""

    def __init__(self) -> None:
        self.ok = False
        """The tool itself says that this is a whole answer; its exit code has to say so as well."""
        self.text = ""
        """The whole answer."""
        self.usage: Usage | None = None
        self.stop = "stop"
        self.id = ""
        self.error = ""
        """What it says went wrong, in its own words."""
        self.status: int | None = None
        """The HTTP status that it says it got."""

    @abstractmethod
    def read(self, data: bytes) -> str:
        """Takes in more of stdout; the text of the answer that is new, when this tool tells it piece by piece."""

    @abstractmethod
    def close(self) -> None:
        """Everything was read."""

    def complaint(self, stderr: bytes) -> str:
        """What a tool that failed said went wrong. Most say it on stdout, where it was read."""
        return self.error


class Plain(Reader):
    """A tool without a format: all that it prints is the answer, without colours."""

    def __init__(self) -> None:
        super().__init__()
        self._printed = bytearray()

    def read(self, data: bytes) -> str:
        self._printed += data
        return ""

    def close(self) -> None:
        self.text = _COLOURS.sub("", self._printed.decode("utf-8", "replace")).rstrip("\r\n")
        self.ok = bool(self.text.strip())


class Documents(Reader):
    """JSON objects: a line each or, with *whole*, one that fills the output. Lines that are none are passed over."""

    def __init__(self, *, whole: bool) -> None:
        super().__init__()
        self._whole = whole
        self._rest = bytearray()

    def read(self, data: bytes) -> str:
        self._rest += data
        if self._whole or b"\n" not in data:
            return ""
        *lines, self._rest = self._rest.split(b"\n")
        return "".join(map(self._read_line, lines))

    def close(self) -> None:
        document = decode(self._rest)
        documents = document if isinstance(document, list) else [document]
        if document is None:
            documents = [decode(line) for line in self._rest.split(b"\n")] if self._whole else []
        for each in documents:
            if isinstance(each, dict):
                self.take(each)
        self._rest.clear()

    def _read_line(self, line: bytearray) -> str:
        document = decode(line)
        return self.take(document) if isinstance(document, dict) else ""

    @abstractmethod
    def take(self, document: dict[str, Any]) -> str:
        """Takes in one object; the new text in it."""


class Codex(Documents):
    """`codex exec --json`. The last message of the agent is the answer; items of type `error` are mere warnings."""

    def take(self, document: dict[str, Any]) -> str:
        kind = document.get("type")
        item = table(document.get("item"))
        if kind == "thread.started":
            self.id = string(document.get("thread_id"))
        elif kind == "item.completed" and item.get("type") == "agent_message":
            self.text = string(item.get("text"))
        elif kind == "turn.completed":
            self.ok = bool(self.text)
            spent = table(document.get("usage"))
            self.usage = counted(
                spent.get("input_tokens"),
                spent.get("output_tokens"),
                spent.get("cached_input_tokens"),
                spent.get("reasoning_output_tokens"),
            )
        elif kind == "turn.failed":
            self.ok = False
            self.error = string(table(document.get("error")).get("message")) or self.error or "the turn failed"
        elif kind == "error":  # a warning so far: it says the same of a connection that it tries again
            self.error = string(document.get("message"))
        return ""


class Claude(Documents):
    """`claude -p --output-format json` or `stream-json`. `subtype` says success even of failures: it is not read."""

    def __init__(self, *, whole: bool) -> None:
        super().__init__(whole=whole)
        self._limit = ""

    def take(self, document: dict[str, Any]) -> str:
        kind = document.get("type")
        if kind == "stream_event" and document.get("parent_tool_use_id") is None:
            return self._event(table(document.get("event")))
        if kind == "result":
            self._result(document)
        return ""

    def _event(self, event: dict[str, Any]) -> str:
        """An event as Anthropic's API streams it."""
        kind, delta = event.get("type"), table(event.get("delta"))
        if kind == "content_block_delta" and delta.get("type") == "text_delta":
            return string(delta.get("text"))
        if kind == "message_start":
            self.id = string(table(event.get("message")).get("id"))
        if kind == "message_delta":
            self._stopped(delta.get("stop_reason"))
        return ""

    def _result(self, document: dict[str, Any]) -> None:
        said = string(document.get("result"))
        self.ok = document.get("is_error") is False and isinstance(document.get("result"), str)
        self.text = said if self.ok else ""
        self.error = "" if self.ok else said or string(document.get("subtype"))
        status = document.get("api_error_status")
        self.status = status if type(status) is int else None
        self.id = self.id or string(document.get("session_id"))
        self._stopped(document.get("stop_reason"))
        spent = table(document.get("usage"))
        cached, made = spent.get("cache_read_input_tokens"), spent.get("cache_creation_input_tokens")
        self.usage = counted(
            whole(spent.get("input_tokens")) + whole(cached) + whole(made), spent.get("output_tokens"), cached
        )

    def _stopped(self, reason: object) -> None:
        if isinstance(reason, str):
            self.stop = _STOPS.get(reason, "stop")


class Gemini(Documents):
    """`gemini -o json` or `stream-json`. Its failures come on stderr, among other text, or as events."""

    def __init__(self, *, whole: bool) -> None:
        super().__init__(whole=whole)
        self._pieces: list[str] = []

    def take(self, document: dict[str, Any]) -> str:
        kind = document.get("type")
        if kind == "message" and document.get("role") == "assistant":
            piece = string(document.get("content"))
            self._pieces.append(piece)
            return piece
        if kind == "init":
            self.id = string(document.get("session_id"))
        elif kind == "result":
            self.ok = document.get("status") == "success"
            self.text = "".join(self._pieces)
            spent = table(document.get("stats"))
            inputs, total = whole(spent.get("input_tokens")), whole(spent.get("total_tokens"))
            outputs = max(whole(spent.get("output_tokens")), total - inputs)
            self.usage = counted(inputs, outputs, spent.get("cached"))
            self._failed(document)
        elif kind == "error" and document.get("severity") != "warning":
            self.error = string(document.get("message"))
        elif kind is None:
            self._answered(document)
        return ""

    def complaint(self, stderr: bytes) -> str:
        """On stderr its error is a JSON object that begins a line, behind warnings and a stack trace."""
        text = b"\n" + stderr
        at = len(text)
        for _ in range(_MOST_TRIES):
            at = text.rfind(b"\n{", 0, at)
            if self.error or at < 0:
                break
            if isinstance(found := decode(text[at:]), dict):
                self._failed(found)
        return self.error

    def _answered(self, document: dict[str, Any]) -> None:
        """The one object of `-o json`."""
        self.id = string(document.get("session_id"))
        self.ok = isinstance(document.get("response"), str) and not document.get("error")
        self.text = string(document.get("response"))
        models = table(table(document.get("stats")).get("models")).values()
        spent = [table(table(model).get("tokens")) for model in models]
        inputs = sum(whole(each.get("prompt")) for each in spent)
        thoughts = sum(whole(each.get("thoughts")) for each in spent)
        outputs = sum(whole(each.get("candidates")) for each in spent) + thoughts
        self.usage = counted(inputs, outputs, sum(whole(each.get("cached")) for each in spent), thoughts)
        self._failed(document)

    def _failed(self, document: dict[str, Any]) -> None:
        error = table(document.get("error"))
        if error:
            self.error = string(error.get("message")) or self.error
            code = error.get("code")
            self.status = code if type(code) is int and 400 <= code <= 599 else self.status


def decode(text: bytes | bytearray) -> Any:
    """The JSON value, None when it is none."""
    try:
        return msgspec.json.decode(bytes(text))
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return None


def table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def string(value: object) -> str:
    return value if isinstance(value, str) else ""


def whole(value: object) -> int:
    """A whole number of tokens; 0 for what is none."""
    return min(value, _MOST_TOKENS) if type(value) is int and value > 0 else 0


def counted(inputs: object, outputs: object, cached: object = 0, reasoning: object = 0) -> Usage | None:
    """The Usage; None when nothing is told."""
    prompt, output = whole(inputs), whole(outputs)
    if not prompt and not output:
        return None
    return Usage(prompt, output, min(whole(cached), prompt), min(whole(reasoning), output))
