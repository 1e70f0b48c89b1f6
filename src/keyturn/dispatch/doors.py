"""From an HTTP request to a call: which dialect and kind a door speaks. Used by the server and in-process clients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, get_args

from keyturn.core import Call, CallerClass, Kind
from keyturn.errors import BadRequest
from keyturn.providers import nearest
from keyturn.wire import (
    parse_chat,
    parse_completions,
    parse_count,
    parse_count_tokens,
    parse_embed,
    parse_embeddings,
    parse_generate,
    parse_input_tokens,
    parse_messages,
    parse_passed_on,
    parse_responses,
)

Door = Literal[
    "chat",
    "completions",
    "embeddings",
    "responses",
    "messages",
    "gemini",
    "images",
    "audio",
    "moderations",
    "rerank",
    "input_tokens",
    "count_tokens",
]
"""Where calls come in. `gemini` is all of `models/<model>:<method>`; the last two count tokens."""
DOORS: frozenset[str] = frozenset(get_args(Door))
GEMINI_METHODS = ("generateContent", "streamGenerateContent", "countTokens", "embedContent", "batchEmbedContents")

CLASSES: tuple[str, ...] = get_args(CallerClass)

Headers = Mapping[str, str]


def read_call(door: str, body: bytes, headers: Headers, argument: str = "", query: str = "") -> Call:
    """The call that *body* asks for; header names are lower case. Raises BadRequest.

    *argument* is what the path says beside the door: `<model>:<method>` of Gemini, `generations` of images. *query*
    is its query string, of which Gemini's `alt=sse` matters.
    """
    if door == "chat":
        call = parse_chat(body, headers)
    elif door == "embeddings":
        call = parse_embeddings(body, headers)
    else:
        call = _RARER[door](body, headers, argument, query)
    if "cache-control" in headers:
        call.cache_control = headers["cache-control"].lower()
    if "x-keyturn-class" in headers:
        call.stated_class = _stated_class(headers["x-keyturn-class"])
    if "x-keyturn-commit-after" in headers:
        call.commit_after = _commit_after(headers["x-keyturn-commit-after"])
    if "x-keyturn-on-cut" in headers:
        call.on_cut = _on_cut(headers["x-keyturn-on-cut"])
    return call


def _stated_class(given: str) -> bytes:
    said = given.strip().lower()
    if said not in CLASSES:
        near = nearest(said, CLASSES)
        meant = f"; did you mean {near}?" if near else ""
        raise BadRequest(f"`x-keyturn-class` must be one of {', '.join(CLASSES)}{meant}", param="x-keyturn-class")
    return said.encode()


def _on_cut(given: str) -> str:
    said = given.strip().lower()
    if said not in ("continue", "error"):
        raise BadRequest("`x-keyturn-on-cut` must be continue or error.", param="x-keyturn-on-cut")
    return said


def _commit_after(text: str) -> float:
    """`x-keyturn-commit-after` in seconds; infinite for `off`. Raises BadRequest."""
    try:
        seconds = float("inf") if text.strip().lower() == "off" else float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0.0:
        raise BadRequest(
            "`x-keyturn-commit-after` must be a number of seconds from 0, such as 10, or off",
            param="x-keyturn-commit-after",
        )
    return seconds


def _gemini(body: bytes, headers: Headers, argument: str, query: str) -> Call:
    model, _, method = argument.rpartition(":")
    if method == "countTokens":
        return parse_count_tokens(body, headers, model)
    if method in ("embedContent", "batchEmbedContents"):
        call = parse_embed(body, headers, model, batch=method == "batchEmbedContents")
        call.path = method
        return call
    stream = method == "streamGenerateContent"
    return parse_generate(body, headers, model, stream=stream, array=stream and "alt=sse" not in query.split("&"))


def _bare(parse: Callable[[bytes, Headers], Call]) -> Callable[[bytes, Headers, str, str], Call]:
    """*parse*, of a door whose path says nothing more."""
    return lambda body, headers, argument, query: parse(body, headers)


def _passed_on(kind: Kind) -> Callable[[bytes, Headers, str, str], Call]:
    def read(body: bytes, headers: Headers, argument: str, query: str) -> Call:
        return parse_passed_on(kind, f"/{kind}/{argument}" if argument else f"/{kind}", body, headers)

    return read


_RARER: dict[str, Callable[[bytes, Headers, str, str], Call]] = {
    "completions": _bare(parse_completions),
    "responses": _bare(parse_responses),
    "messages": _bare(parse_messages),
    "gemini": _gemini,
    "images": _passed_on("images"),
    "audio": _passed_on("audio"),
    "moderations": _passed_on("moderations"),
    "rerank": _passed_on("rerank"),
    "input_tokens": _bare(parse_input_tokens),
    "count_tokens": _bare(parse_count),
}
