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
    from .beginning import begun_with
    from .responses_kept import AnswerWatch, going_on, is_id, items_of, read_kept, told_items, told_response
    from .resuming import GoingOn, added
    from .told import CALL, FRAME, IDLE, TEXT, Told
    from .whole import faults_of

__all__ = [
    "CALL",
    "FRAME",
    "IDLE",
    "MARK",
    "MARK_INSIDE",
    "OPERATIONS",
    "PASSED_ON",
    "SHORTEST_CACHED",
    "TEXT",
    "AnswerStream",
    "AnswerWatch",
    "BytesWatch",
    "ChatStream",
    "Context",
    "Dialect",
    "Event",
    "GoingOn",
    "Splitter",
    "StreamReader",
    "StreamWriter",
    "Target",
    "Told",
    "Translation",
    "accepted",
    "added",
    "begun_with",
    "conversation_of",
    "count_body",
    "dialect",
    "error_body",
    "error_event",
    "error_headers",
    "faults_of",
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


_MENDING = frozenset({"CALL", "FRAME", "IDLE", "TEXT", "GoingOn", "Told", "added", "begun_with", "faults_of"})
"""What only streams need that are held back or go on elsewhere; of the rest, who keeps responses needs all."""


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _MENDING:
        from . import beginning, resuming, told, whole

        home: object = next(each for each in (told, resuming, beginning, whole) if hasattr(each, name))
        return getattr(home, name)
    from . import responses_kept

    return getattr(responses_kept, name)
