"""The wire formats that are spoken: how each reads requests, and puts answers, streams and their errors into words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from . import (
    anthropic_requests,
    anthropic_shapes,
    chat_requests,
    gemini_requests,
    gemini_shapes,
    other_shapes,
    responses_requests,
    responses_shapes,
    shapes,
)
from .answers import Question
from .checks import Asking
from .reply import Reply
from .routes import Route

Read = Callable[[Mapping[str, Any], Asking], Question]


class Dialect(NamedTuple):
    """One wire format of answers to prompts. *fail* gets the error's body, its status and how many events went out."""

    read: Read
    plain: Callable[[Reply], Any]
    stream: Callable[[Reply], Iterator[bytes]]
    fail: Callable[[Reply, bytes, int, int], bytes]
    counted: Callable[[Reply], Any] | None = None
    ends: tuple[bytes, ...] = ()
    """How its terminal mark begins."""


DIALECTS: dict[str, Dialect] = {
    "openai_chat": Dialect(
        chat_requests.read_chat, shapes.completion, shapes.stream, shapes.error_events, None, (shapes.DONE,)
    ),
    "openai_completions": Dialect(
        chat_requests.read_completion,
        shapes.text_completion,
        shapes.text_stream,
        shapes.error_events,
        None,
        (shapes.DONE,),
    ),
    "openai_responses": Dialect(
        responses_requests.read_responses,
        responses_shapes.response,
        responses_shapes.stream,
        responses_shapes.error_events,
        responses_shapes.count,
        (b"event: response.completed", b"event: response.incomplete"),
    ),
    "anthropic": Dialect(
        anthropic_requests.read_messages,
        anthropic_shapes.message,
        anthropic_shapes.stream,
        anthropic_shapes.error_events,
        anthropic_shapes.count,
        (b"event: message_stop",),
    ),
    "gemini": Dialect(
        gemini_requests.read_generate,
        gemini_shapes.content,
        gemini_shapes.stream,
        gemini_shapes.error_events,
        gemini_shapes.count,
    ),
}

PING = b": ping\n\n"


def ping_of(route: Route, number: int) -> bytes:
    """What says before event *number* that somebody is still there."""
    if route.dialect == "anthropic" and number:
        return anthropic_shapes.PING
    return PING if route.events else b" "


def reader(route: Route) -> Read:
    """What reads the requests of an endpoint."""
    if route.kind == "embeddings":
        return gemini_requests.read_embeddings if route.dialect == "gemini" else chat_requests.read_embeddings
    return DIALECTS[route.dialect].read if route.dialect in DIALECTS else other_shapes.read


def whole(route: Route, reply: Reply) -> Any:
    """A whole answer: JSON, or text."""
    if route.kind == "embeddings":
        return gemini_shapes.embeddings(reply) if route.dialect == "gemini" else shapes.embeddings(reply)
    if route.dialect not in DIALECTS:
        return other_shapes.ANSWERS[route.action](reply)
    dialect = DIALECTS[route.dialect]
    return dialect.counted(reply) if route.kind == "count" and dialect.counted else dialect.plain(reply)
