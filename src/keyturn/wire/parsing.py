"""Requests of the dialects that are loaded when they are first spoken, each parsed into a Call."""

from __future__ import annotations

from collections.abc import Mapping

from keyturn.core import Call

Headers = Mapping[str, str]


def parse_completions(body: bytes, headers: Headers) -> Call:
    """The Call of a `POST /v1/completions`. Raises BadRequest, as all here."""
    from .completions import parse_completions

    return parse_completions(body, headers)


def parse_responses(body: bytes, headers: Headers) -> Call:
    """The Call of a `POST /v1/responses`."""
    from .responses import parse_responses

    return parse_responses(body, headers)


def parse_input_tokens(body: bytes, headers: Headers) -> Call:
    """The Call of a `POST /v1/responses/input_tokens`."""
    from .responses import parse_input_tokens

    return parse_input_tokens(body, headers)


def parse_messages(body: bytes, headers: Headers) -> Call:
    """The Call of a `POST /v1/messages`."""
    from .anthropic import parse_messages

    return parse_messages(body, headers)


def parse_count(body: bytes, headers: Headers) -> Call:
    """The Call of a `POST /v1/messages/count_tokens`."""
    from .anthropic import parse_count

    return parse_count(body, headers)


def parse_generate(body: bytes, headers: Headers, model: str, *, stream: bool, array: bool) -> Call:
    """The Call of `:generateContent` and `:streamGenerateContent`; *array*: its stream is one JSON array."""
    from .gemini import parse_generate

    return parse_generate(body, headers, model, stream=stream, array=array)


def parse_count_tokens(body: bytes, headers: Headers, model: str) -> Call:
    """The Call of `:countTokens`."""
    from .gemini import parse_count_tokens

    return parse_count_tokens(body, headers, model)


def parse_embed(body: bytes, headers: Headers, model: str, *, batch: bool) -> Call:
    """The Call of `:embedContent` and `:batchEmbedContents`."""
    from .gemini import parse_embed

    return parse_embed(body, headers, model, batch=batch)
