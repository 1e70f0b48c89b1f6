"""The legacy completions of OpenAI, as clients speak them: a prompt in, a text out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from keyturn.core import (
    Answer,
    Call,
    Choice,
    Delta,
    Message,
    Ping,
    Request,
    Started,
    Stopped,
    Text,
    TextDelta,
    Usage,
    Used,
)
from keyturn.errors import Untranslatable

from .chat import watch
from .chat_request import others, sampling
from .chat_values import FINISHES, read_json, usage_of
from .dialect import Context, Dialect
from .fields import Fields, body_of, refuse
from .jsontext import read_object
from .openai_chat import read_max_output, read_model, read_stream, read_timeout, read_wants_usage
from .openai_errors import error_body, error_event
from .openai_reply import read_reply

DIALECT = "openai_completions"

_READ = frozenset(
    """model prompt max_tokens temperature top_p stop seed presence_penalty frequency_penalty n logprobs echo suffix
    user stream stream_options""".split()
)
_STOPPED = {"tool_calls": "stop"}
_encode = msgspec.json.encode


def parse_completions(body: bytes, headers: Mapping[str, str]) -> Call:
    """The Call of a `POST /v1/completions`; *headers* have lower case names. Raises BadRequest."""
    members = read_object(body)
    prompt = members.get("prompt", b"null")
    if prompt in (b"null", b'""', b"[]"):
        refuse("prompt", "is missing. Send a string.")
    return Call(
        DIALECT,
        "completions",
        read_model(members),
        members,
        len(body),
        stream=read_stream(members),
        wants_usage=read_wants_usage(members),
        max_output=read_max_output(members),
        text_bytes=len(prompt),
        timeout=read_timeout(headers),
    )


def read_request(call: Call) -> Request:
    """The prompt as what a user says. Raises BadRequest, and Untranslatable for what only a completion can be told."""
    body = Fields(body_of(call))
    for name in ("suffix", "echo"):
        if body.get(name):
            raise Untranslatable(f"`{name}` has no counterpart in a chat, which this model answers in.", param=name)
    logprobs = body.whole("logprobs")
    return Request(
        DIALECT,
        call.model,
        (Message("user", (Text(_prompt(body)),)),),
        max_output=call.max_output,
        **sampling(body),
        logprobs=logprobs is not None,
        top_logprobs=logprobs,
        user=body.text("user"),
        stream=call.stream,
        wants_usage=call.wants_usage,
        others=others(call, _READ),
    )


def _prompt(body: Fields) -> str:
    prompt = body.get("prompt")
    if isinstance(prompt, list):
        if len(prompt) > 1 and isinstance(prompt[0], str):
            refuse("prompt", f"holds {len(prompt)} prompts; this model answers one at a time. Send them one by one.")
        prompt = prompt[0] if prompt else None
    if isinstance(prompt, (int, list)):
        refuse("prompt", "holds tokens, which mean something else to each model. Send text.")
    if not isinstance(prompt, str) or not prompt:
        refuse("prompt", "must be a string that is not empty.")
    return prompt


def write_answer(answer: Answer, context: Context) -> bytes:
    """The body of a text completion. Thinking and calls have no place in it."""
    body: dict[str, object] = {
        "id": f"cmpl-{context.id}",
        "object": "text_completion",
        "created": answer.created or context.created,
        "model": answer.model or context.model,
        "choices": [_written(index, choice) for index, choice in enumerate(answer.choices)],
    }
    if answer.usage is not None:
        body["usage"] = usage_of(answer.usage)
    return _encode(body)


def _written(index: int, choice: Choice) -> dict[str, object]:
    finish = FINISHES[choice.stop or "stop"]
    return {
        "text": "".join(part.text for part in choice.parts if isinstance(part, Text)),
        "index": index,
        "logprobs": _logprobs(choice.logprobs, 0)[0] if choice.logprobs else None,
        "finish_reason": _STOPPED.get(finish, finish),
    }


def _logprobs(chat: bytes, offset: int) -> tuple[dict[str, object] | None, int]:
    """Log probabilities in the shape of completions, and where the text behind them begins. *chat* has them in the
    shape of a chat; the first token stands at *offset* of the text."""
    found = read_json(chat)
    content = found.get("content") if isinstance(found, dict) else None
    if not isinstance(content, list):
        return None, offset
    tokens = [each for each in content if isinstance(each, dict) and isinstance(each.get("token"), str)]
    offsets = []
    for each in tokens:
        offsets.append(offset)
        offset += len(each["token"])
    return {
        "tokens": [each["token"] for each in tokens],
        "token_logprobs": [each.get("logprob") for each in tokens],
        "top_logprobs": [_most_likely(each.get("top_logprobs")) for each in tokens],
        "text_offset": offsets,
    }, offset


def _most_likely(given: object) -> dict[str, Any]:
    likely = [each for each in given if isinstance(each, dict)] if isinstance(given, list) else []
    return {each["token"]: each.get("logprob") for each in likely if isinstance(each.get("token"), str)}


class CompletionWriter:
    """Writes one streamed text completion. The usage is told only to who asked for it."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._head = b""
        self._tail = b',"usage":null}\n\n' if context.call.wants_usage else b"}\n\n"
        self._ended: dict[int, bool] = {}
        self._offsets: dict[int, int] = {}
        self._usage: Usage | None = None

    def write(self, deltas: Iterable[Delta]) -> bytes:
        """The chunks for *deltas*."""
        out: list[bytes] = []
        for delta in deltas:
            match delta:
                case TextDelta():
                    self._text(delta, out)
                case Ping():
                    out.append(b": ping\n\n")
                case Started():
                    self._usage = delta.usage or self._usage
                    self._name(delta.model, delta.created)
                case Used():
                    self._usage = delta.usage
                case Stopped():
                    self._stop(delta.choice, FINISHES[delta.stop], out)
        return b"".join(out)

    def end(self) -> bytes:
        """The end of choices that were not told to stop, the usage, and the mark of the end."""
        out: list[bytes] = []
        self._ended.setdefault(0, False)
        for index in list(self._ended):
            self._stop(index, "stop", out)
        if self._context.call.wants_usage and self._usage is not None:
            out.append(self._head + b'"choices":[],"usage":' + _encode(usage_of(self._usage)) + b"}\n\n")
        out.append(b"data: [DONE]\n\n")
        return b"".join(out)

    def _name(self, model: str = "", created: int | None = None) -> None:
        context = self._context
        lead: dict[str, object] = {"id": f"cmpl-{context.id}", "object": "text_completion"}
        lead |= {"created": created or context.created, "model": model or context.model}
        self._head = b"data: " + _encode(lead)[:-1] + b","

    def _text(self, delta: TextDelta, out: list[bytes]) -> None:
        self._ended.setdefault(delta.choice, False)
        logprobs = None
        if delta.logprobs:
            logprobs, self._offsets[delta.choice] = _logprobs(delta.logprobs, self._offsets.get(delta.choice, 0))
        self._say(delta.choice, delta.text, logprobs, None, out)

    def _stop(self, index: int, finish: str, out: list[bytes]) -> None:
        if not self._ended.get(index):
            self._ended[index] = True
            self._say(index, "", None, _STOPPED.get(finish, finish), out)

    def _say(self, index: int, text: str, logprobs: object, finish: str | None, out: list[bytes]) -> None:
        if not self._head:
            self._name()
        choice = {"text": text, "index": index, "logprobs": logprobs, "finish_reason": finish}
        out.append(self._head + b'"choices":[' + _encode(choice) + b"]" + self._tail)


COMPLETIONS = Dialect(
    DIALECT,
    read_request=read_request,
    write_answer=write_answer,
    writer=CompletionWriter,
    error_body=error_body,
    error_event=error_event,
    read_reply=read_reply,
    watch=watch,
)
"""Only clients speak it; upstreams that serve it are relayed as they are."""
