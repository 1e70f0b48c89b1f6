"""One run of a tool as an HTTP answer in the shape of OpenAI's chat completions: whole, streamed, or an error."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from keyturn.core import Facts, Meaning, Outcome, Redactor, Rules, Secret, ToolReply, Usage, classify
from keyturn.wire import write_event

from .cli_moments import seconds_until_stated
from .cli_readers import Claude, Codex, Gemini, Plain, Reader

OUTPUTS = {
    "codex_jsonl": lambda: Codex(whole=False),
    "claude_json": lambda: Claude(whole=True),
    "claude_stream_json": lambda: Claude(whole=False),
    "gemini_json": lambda: Gemini(whole=True),
    "gemini_stream_json": lambda: Gemini(whole=False),
    "text": Plain,
}
"""The ways to print that `Tool.output` may name -> who reads them."""

STATUSES: dict[Meaning, int] = {
    "rate_limited": 429,
    "daily_quota": 429,
    "insufficient_credit": 402,
    "invalid_key": 401,
    "forbidden": 403,
    "not_found": 404,
    "context_length": 400,
    "content_filter": 400,
    "bad_request": 400,
    "overloaded": 529,
    "timeout": 504,
}
"""The status that stands for what a tool put into words. What is not here is a 502: the tool itself failed."""
BROKEN = 502
LIMITS = frozenset({"rate_limited", "daily_quota", "overloaded"})
LOGGED_OUT = (
    "not logged in",
    "please run /login",
    "missing environment variable",
    "set an auth method",
    "invalid auth method",
    "log out and sign in",
)
"""Nobody has logged in yet: it is tried again in a few minutes, unlike a key that was refused for good."""
SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
MOST_WORDS = 2000
MOST_CHARACTERS = 100_000
"""Of text in one event of a stream."""
GEMINI_LOGGED_OUT = 41
"""The exit code of Gemini CLI without a login."""
HTTP_CODES = range(144, 256)
"""Exit codes of Gemini CLI that are an HTTP status modulo 256: 400 is 144, 503 is 247."""


class Asked(NamedTuple):
    """What an interpreter has to know of the call and of the tool."""

    program: str
    """As people know it: the provider's name."""
    model: str
    stream: bool
    output: str
    rules: Rules
    environ: Mapping[str, str]


class ToolAnswer:
    """The `Interpreter` of one run."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._reader: Reader = OUTPUTS[asked.output]()
        self._begun = False
        """A part of a streamed answer was handed out: from here on a failure is an event."""
        self._created = 0

    def feed(self, data: bytes, now: float) -> bytes:
        """Content as it comes, when the client wants a stream and the tool tells it piece by piece."""
        text = self._reader.read(data)
        if not text or not self._asked.stream:
            return b""
        return b"".join(self._spoken(text, now))

    def end(self, code: int, stderr: bytes, now: float) -> ToolReply:
        """A success needs both: exit code 0, and the tool's own word where it gives one."""
        reader = self._reader
        reader.close()
        if code != 0 or not reader.ok:
            return self._failed(code, stderr, now)
        if not self._asked.stream:
            return ToolReply(200, {"content-type": "application/json"}, self._whole(now))
        rest = [] if self._begun else list(self._spoken(reader.text, now))
        rest.append(self._chunk([_choice({}, reader.stop)]))
        if reader.usage is not None:
            rest.append(self._chunk([], reader.usage))
        rest.append(write_event(b"[DONE]"))
        return ToolReply(200, {"content-type": "text/event-stream"}, b"".join(rest))

    def _spoken(self, text: str, now: float) -> Iterator[bytes]:
        """*text* as events, with the role before the first."""
        if not self._begun:
            self._begun, self._created = True, int(now)
            yield self._chunk([_choice({"role": "assistant", "content": ""})])
        for at in range(0, len(text), MOST_CHARACTERS):
            yield self._chunk([_choice({"content": text[at : at + MOST_CHARACTERS]})])

    def _chunk(self, choices: list[dict[str, Any]], usage: Usage | None = None) -> bytes:
        chunk = {**self._head("chat.completion.chunk"), "choices": choices}
        if usage is not None:
            chunk["usage"] = _usage(usage)
        return write_event(msgspec.json.encode(chunk))

    def _whole(self, now: float) -> bytes:
        self._created = int(now)
        reader = self._reader
        message = {"role": "assistant", "content": reader.text}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reader.stop}
        usage = _usage(reader.usage) if reader.usage is not None else None
        return msgspec.json.encode({**self._head("chat.completion"), "choices": [choice], "usage": usage})

    def _head(self, kind: str) -> dict[str, Any]:
        identity = self._reader.id or f"{self._created:x}"
        return {
            "id": f"chatcmpl-{identity}",
            "object": kind,
            "created": self._created,
            "model": self._asked.model,
        }

    def _failed(self, code: int, stderr: bytes, now: float) -> ToolReply:
        """The tool's own words as an error that says, by its status and its text, what they mean."""
        reader = self._reader
        own = reader.complaint(stderr)
        words = own or _words(stderr)
        garbage = code == 0 and not own
        if garbage:  # what it printed is the model's, and must not be taken for the tool's own word
            words = f"its output is no {self._asked.output}; see `cmd` and `output` of it in config/models.yaml"
        message = self._without_secrets(f"{self._asked.program} {_ended(code, garbage)}: {words[:MOST_WORDS]}")
        error: dict[str, Any] = {"message": message, "type": "tool_error", "param": None, "code": None}
        judged = classify(Facts(None, {}, _body(error), now, rules=self._asked.rules))
        status = BROKEN if garbage else _status(reader.status, code, words, judged)
        headers = {"content-type": "application/json"}
        if status == 429 or judged.meaning in LIMITS:
            wait = seconds_until_stated(words, now)
            if wait is not None:
                headers["retry-after"] = str(math.ceil(wait))
                error["retry_after"] = math.ceil(wait)  # inside a stream there are no headers
        body = _body(error)
        return ToolReply(status, headers, write_event(body) if self._begun else body)

    def _without_secrets(self, text: str) -> str:
        values = [value for name, value in self._asked.environ.items() if SECRET_NAME.search(name) and value]
        return Redactor(map(Secret, values)).text(text)


def _choice(delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": finish}


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.total,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


def _body(error: dict[str, Any]) -> bytes:
    return msgspec.json.encode({"error": error})


def _words(stderr: bytes) -> str:
    """The last of what was said on stderr: the reason stands at the end of it."""
    text = stderr.decode("utf-8", "replace").strip()
    return text[-MOST_WORDS:] or "it gave no reason"


def _ended(code: int, garbage: bool) -> str:
    if garbage:
        return "gave no answer that could be read"
    if code < 0:
        return f"was ended by signal {-code}"
    return f"failed (exit code {code})" if code else "failed"


def _status(stated: int | None, code: int, words: str, judged: Outcome) -> int:
    """What it states itself, what its exit code stands for, then what its words mean."""
    lower = words.lower()
    if stated is not None and stated >= 400:
        return stated
    if code == GEMINI_LOGGED_OUT or any(phrase in lower for phrase in LOGGED_OUT):
        return STATUSES["invalid_key"]
    if code in HTTP_CODES:
        return code + 256
    if judged.status is not None and judged.status >= 400:
        return judged.status
    return STATUSES.get(judged.meaning, BROKEN)
