"""Reading what an upstream answers, until a plain answer is whole or a stream has begun."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from keyturn.core import Answer, Reply, UpstreamResponse
from keyturn.providers import origin_of
from keyturn.wire import (
    PASSED_ON,
    AnswerStream,
    BytesWatch,
    dialect,
    read_passed_on,
    read_reply,
    signed_calls,
    thin,
    translate_embeddings,
    translated,
    watched,
    with_call_ids,
)

if TYPE_CHECKING:
    from .exchange import Exchange

LARGEST_ANSWER = 64 * 1024 * 1024
LARGEST_ERROR = 1024 * 1024
LARGEST_PAGE = 16 * 1024
"""Bytes that are looked at of what came instead of an answer."""
MOST_HELD = 4 * 1024 * 1024
"""Bytes of preamble that are held back before a stream's first content."""


def most_of(exchange: Exchange, response: UpstreamResponse) -> int:
    """How many bytes of what came are read at once, before it is looked at; 0: it is a stream, to be held."""
    if not 200 <= response.status < 300:
        return LARGEST_ERROR
    call = exchange.run.call
    if call.kind in PASSED_ON:
        exchange.media_type = response.headers.get("content-type", "application/octet-stream")
        return LARGEST_ANSWER if "json" in exchange.media_type else 0
    return 0 if call.stream else LARGEST_ANSWER


def read(exchange: Exchange, response: UpstreamResponse, body: bytes) -> tuple[str | None, bytes]:
    """Look at *body*, all that came; sets `answered`, or returns the fault and the body to classify."""
    if not 200 <= response.status < 300:
        return None, body
    call = exchange.run.call
    if call.kind == "chat" and call.dialect == "openai_chat" and exchange.how.relayed:
        exchange.body, found = body, read_reply(body, "chat")
    else:
        found = understood(exchange, body)
    if not isinstance(found, Reply):
        return ("garbage", body[:LARGEST_PAGE]) if found is None else (None, found)
    if found.empty and call.kind in ("chat", "completions"):
        return "garbage", b""
    exchange.reply, exchange.answered = found, True
    return None, b""


def understood(exchange: Exchange, body: bytes) -> Reply | bytes | None:
    """What a whole answer holds: sets `body` to what the client gets. An error to classify, None for garbage."""
    call, how = exchange.run.call, exchange.how
    spoken, candidate = dialect(how.dialect), exchange.grant.entry.candidate
    exchange.body = body
    if call.kind in PASSED_ON or call.kind == "count":
        return read_passed_on(body)
    if how.relayed or call.kind == "embeddings":
        assert spoken.read_reply is not None
        found = spoken.read_reply(body, call.kind)
        if isinstance(found, Reply) and not how.relayed:
            exchange.body = translate_embeddings(body, call, how.dialect, candidate.deployment.model)
        elif isinstance(found, Reply) and found.signatures:
            exchange.gateway.signatures.made(found.signatures, candidate)
        return found
    assert spoken.read_answer is not None
    answer = spoken.read_answer(body, origin_of(candidate))
    if not isinstance(answer, Answer):
        return answer
    reply = thin(answer)
    if not reply.empty:
        answer = with_call_ids(answer, exchange.context().id)
        exchange.gateway.signatures.called(signed_calls(answer))
        exchange.body = dialect(call.dialect).write_answer(answer, exchange.context())
    return reply


async def hold(exchange: Exchange, response: UpstreamResponse) -> tuple[str | None, bytes]:
    """Read a stream until its first content. A web page in its place is garbage."""
    call = exchange.run.call
    stream = exchange.stream = opened(exchange)
    chunks = exchange.chunks = response.chunks()
    held: list[bytes] = []
    size = 0
    opening = b""
    html = "html" in response.headers.get("content-type", "")
    async for chunk in chunks:
        if not opening:
            opening = chunk
            if (html or call.kind not in PASSED_ON) and chunk[:64].lstrip().startswith(b"<"):
                return "garbage", await _rest(opening, chunks)
        piece = stream.feed(chunk)
        if piece:
            held.append(piece)
            size += len(piece)
        if stream.error is not None or stream.started or size > MOST_HELD:
            break
    begun = stream.started  # it may have nothing to show yet: the arguments of a tool that is written whole
    complete = begun or stream.end()
    if stream.error is not None:
        return None, stream.error
    exchange.held = b"".join(held) + stream.tail
    nothing_said = stream.done and not stream.relayed_bytes
    empty = not exchange.held and not begun
    if not complete or empty or nothing_said:  # a plain answer, say, from a server that ignores `stream`
        return ("cut", b"") if held and not html else ("garbage", opening)
    exchange.answered = True
    exchange.grant.attempt.first_token = exchange.gateway.clock.mono()
    return None, b""


def opened(exchange: Exchange) -> AnswerStream:
    """What reads the stream: as it comes, into the client's dialect, or as the rest of what the client has."""
    call, how, seam = exchange.run.call, exchange.how, exchange.run.seam
    if call.kind in PASSED_ON:
        return BytesWatch()
    if seam is not None and seam.told.begun:
        return seam.stream(how.dialect, origin_of(exchange.grant.entry.candidate), exchange.context())
    if how.relayed:
        return watched(call, how.dialect)
    return translated(how.dialect, origin_of(exchange.grant.entry.candidate), exchange.context())


async def _rest(opening: bytes, chunks: AsyncIterator[bytes]) -> bytes:
    """What began with *opening*, as far as it is looked at."""
    while len(opening) < LARGEST_PAGE:
        try:
            opening += await anext(chunks)
        except StopAsyncIteration:
            break
    return opening
