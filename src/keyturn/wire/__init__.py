"""Bytes on the wire to and from calls, replies and stream events. Pure; one file per dialect and direction."""

from typing import TYPE_CHECKING

from .bridge import (
    Translation,
    count_body,
    dialect,
    model_page,
    models_page,
    signed_calls,
    thin,
    translate_embeddings,
    translated,
    watched,
    with_call_ids,
    write_embeddings,
)
from .conversation import SHORTEST_CACHED, conversation_of
from .dialect import AnswerStream, Context, Dialect, StreamReader, StreamWriter, Target
from .openai_chat import parse_chat, parse_embeddings, render
from .openai_errors import error_body, error_event, error_headers, upstream_message
from .openai_reply import model_body, model_row, models_body, read_reply
from .openai_stream import ChatStream
from .parsing import (
    parse_completions,
    parse_count,
    parse_count_tokens,
    parse_embed,
    parse_generate,
    parse_input_tokens,
    parse_messages,
    parse_responses,
)
from .passing import OPERATIONS, PASSED_ON, BytesWatch, parse_passed_on, read_passed_on, render_form
from .signatures import MARK, MARK_INSIDE, accepted, pack, unpack
from .sse import Event, Splitter, read_event, split, write_event
from .usage import read_usage

if TYPE_CHECKING:
    from .responses_kept import AnswerWatch, going_on, is_id, items_of, read_kept, told_items, told_response

__all__ = [
    "MARK",
    "MARK_INSIDE",
    "OPERATIONS",
    "PASSED_ON",
    "SHORTEST_CACHED",
    "AnswerStream",
    "AnswerWatch",
    "BytesWatch",
    "ChatStream",
    "Context",
    "Dialect",
    "Event",
    "Splitter",
    "StreamReader",
    "StreamWriter",
    "Target",
    "Translation",
    "accepted",
    "conversation_of",
    "count_body",
    "dialect",
    "error_body",
    "error_event",
    "error_headers",
    "going_on",
    "is_id",
    "items_of",
    "model_body",
    "model_page",
    "model_row",
    "models_body",
    "models_page",
    "pack",
    "parse_chat",
    "parse_completions",
    "parse_count",
    "parse_count_tokens",
    "parse_embed",
    "parse_embeddings",
    "parse_generate",
    "parse_input_tokens",
    "parse_messages",
    "parse_passed_on",
    "parse_responses",
    "read_event",
    "read_kept",
    "read_passed_on",
    "read_reply",
    "read_usage",
    "render",
    "render_form",
    "signed_calls",
    "split",
    "thin",
    "told_items",
    "told_response",
    "translate_embeddings",
    "translated",
    "unpack",
    "upstream_message",
    "watched",
    "with_call_ids",
    "write_embeddings",
    "write_event",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import responses_kept  # only who keeps responses needs it

    return getattr(responses_kept, name)
