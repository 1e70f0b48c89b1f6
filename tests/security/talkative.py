"""An upstream that quotes the key it was sent, in whatever words, place and moment a test asks for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from .planted import ECHOES, half_masked

Text = Callable[[str], str]
"""What is said of a key."""


def content(form: str, key: str) -> str:
    """*key* in one of the forms of ECHOES, as it stands between the quotes of a JSON string."""
    said = ECHOES[form](key)
    return said if form.startswith("JSON") else json.dumps(said)[1:-1]


def error(message: str) -> str:
    """An error as most providers shape it; *message* is the inside of a JSON string."""
    return f'{{"error": {{"message": "{message}", "type": "invalid_request_error", "param": null, "code": null}}}}'


def every_form(key: str) -> str:
    """An error with *key* in every form at once."""
    return error(" ".join(["Bad key,", json.dumps(half_masked(key))[1:-1], *(content(form, key) for form in ECHOES)]))


def plain(key: str) -> str:
    """The same as plain text."""
    return " ".join(["Bad key,", half_masked(key), *(echo(key) for echo in ECHOES.values())])


def page(key: str) -> str:
    """The same as a web page."""
    return f"<!DOCTYPE html><html><title>{key}</title><body><h1>Oops</h1>{plain(key)}</body></html>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What the upstream says. *when*: instead of an answer, as a stream's first event, or after some content of it."""

    status: int = 400
    body: Text = every_form
    media: str = "application/json"
    headers: tuple[tuple[str, Text], ...] = ()
    when: Literal["", "first event", "late event", "late text"] = ""


@dataclass(slots=True)
class Talkative:
    """The ASGI application. Lists of models and, while *words* is None, all calls are answered well."""

    words: Words | None = None
    heard: set[str] = field(default_factory=set)
    """Keys that were answered in the present words."""

    def say(self, words: Words | None) -> None:
        self.words = words
        self.heard.clear()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        given = (headers.get(name, "") for name in (b"authorization", b"x-api-key", b"x-goog-api-key"))
        key = next((value.removeprefix("Bearer ") for value in given if value), "")
        words = self.words
        if scope["path"].endswith("/models"):
            await _answer(send, 200, "application/json", (), b'{"object": "list", "data": [{"id": "small"}]}')
        elif words is None:
            await _answer(send, 200, "application/json", (), _native(scope["path"])[0])
        else:
            self.heard.add(key)
            await _speak(words, key, send, _native(scope["path"])[1])


async def _speak(words: Words, key: str, send: Any, beginning: bytes) -> None:
    said = words.body(key).encode()
    headers = [(name.encode(), value(key).encode()) for name, value in words.headers]
    if not words.when:
        await _answer(send, words.status, words.media, headers, said)
        return
    await _start(send, 200, "text/event-stream", headers)
    if words.when.startswith("late"):
        await send({"type": "http.response.body", "body": beginning, "more_body": True})
    event = said if words.when == "late text" else b"event: error\ndata: " + said + b"\n\n"
    await send({"type": "http.response.body", "body": event})


async def _answer(send: Any, status: int, media: str, headers: Any, body: bytes) -> None:
    await _start(send, status, media, [*headers, (b"content-length", b"%d" % len(body))])
    await send({"type": "http.response.body", "body": body})


async def _start(send: Any, status: int, media: str, headers: Any) -> None:
    own = [] if any(name == b"content-type" for name, _ in headers) else [(b"content-type", media.encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*own, *headers]})


_CONTENT = b'data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"Well"}}]}\n\n'
_COMPLETION = json.dumps(
    {
        "id": "c",
        "object": "chat.completion",
        "model": "small",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Well."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
    }
).encode()
_MESSAGE = json.dumps(
    {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": "small",
        "content": [{"type": "text", "text": "Well."}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 3, "output_tokens": 1},
    }
).encode()
_DELTAS = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"m","model":"small","usage":{}}}\n\n'
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta",'
    b'"text":"Well"}}\n\n'
)
_CANDIDATES = (
    b'{"candidates":[{"content":{"parts":[{"text":"Well."}],"role":"model"},"finishReason":"STOP"}],"usageMetadata":'
    b'{"promptTokenCount":3,"candidatesTokenCount":1,"totalTokenCount":4}}'
)
_CHUNK = b'data: {"candidates":[{"content":{"parts":[{"text":"Well"}],"role":"model"}}]}\r\n\r\n'


def _native(path: str) -> tuple[bytes, bytes]:
    """An answer, and the beginning of a stream, of the API that *path* is of."""
    if path.endswith("/messages"):
        return _MESSAGE, _DELTAS
    return (_CANDIDATES, _CHUNK) if "Content" in path else (_COMPLETION, _CONTENT)
