"""OpenAI Chat Completions as a dialect, both ways."""

from __future__ import annotations

from keyturn.core import Call

from .chat_answer import read_answer, write_answer
from .chat_messages import DIALECT
from .chat_reader import ChatReader
from .chat_rendering import write_request
from .chat_request import read_request
from .chat_writer import ChatWriter
from .dialect import AnswerStream, Dialect
from .jsontext import loose
from .openai_errors import error_body, error_event
from .openai_reply import read_reply
from .openai_stream import ChatStream


def watch(call: Call) -> AnswerStream:
    """Reads a stream that is relayed; usage goes only to a client that asked for it."""
    n = loose(call.members.get("n", b"1"))
    choices = n if isinstance(n, int) and n > 0 else 1
    return ChatStream(drop_usage=not call.wants_usage, choices=choices)


CHAT = Dialect(
    DIALECT,
    read_request=read_request,
    write_answer=write_answer,
    writer=ChatWriter,
    error_body=error_body,
    error_event=error_event,
    write_request=write_request,
    read_answer=read_answer,
    reader=ChatReader,
    read_reply=read_reply,
    watch=watch,
)
