"""The dialect of OpenAI Responses: its entry in the table of dialects, its errors and its token counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from keyturn.errors import KeyturnError

from .dialect import Dialect
from .jsontext import clean
from .openai_errors import error_body
from .responses_answer import read_answer, read_reply
from .responses_parse import DIALECT, parse_input_tokens, parse_responses
from .responses_request import read_request
from .responses_stream import ResponsesReader, watch
from .responses_upstream import write_request
from .responses_writer import ResponsesWriter, write_answer
from .sse import write_event

__all__ = ["RESPONSES", "count_body", "error_event", "parse_input_tokens", "parse_responses"]

_read = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def error_event(error: KeyturnError, call_id: str, attempts: Sequence[Mapping[str, object]]) -> bytes:
    """An error as the last event of a stream.

    The documented members are at the top; OpenAI's SDKs raise only on a member `error`, and take code and message from
    there.
    """
    event = {
        "type": "error",
        "code": error.code,
        "message": clean(error.message),
        "param": error.param,
        "sequence_number": 0,
        **_read(error_body(error, call_id, attempts)),
    }
    return write_event(msgspec.json.encode(event), "error")


def count_body(tokens: int) -> bytes:
    """The answer of `POST /v1/responses/input_tokens`."""
    return msgspec.json.encode({"object": "response.input_tokens", "input_tokens": tokens})


RESPONSES = Dialect(
    DIALECT,
    read_request,
    write_answer,
    ResponsesWriter,
    error_body,
    error_event,
    write_request,
    read_answer,
    ResponsesReader,
    read_reply,
    watch,
)
