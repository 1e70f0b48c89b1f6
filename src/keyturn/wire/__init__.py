"""Bytes on the wire to and from calls, replies and stream events. Pure; one file per dialect and direction."""

from .openai_chat import parse_chat, parse_embeddings, render
from .openai_errors import error_body, error_event, error_headers
from .openai_reply import model_body, model_row, models_body, read_reply
from .openai_stream import ChatStream
from .sse import Event, Splitter, read_event, split, write_event
from .usage import read_usage

__all__ = [
    "ChatStream",
    "Event",
    "Splitter",
    "error_body",
    "error_event",
    "error_headers",
    "model_body",
    "model_row",
    "models_body",
    "parse_chat",
    "parse_embeddings",
    "read_event",
    "read_reply",
    "read_usage",
    "render",
    "split",
    "write_event",
]
