"""From an HTTP request to a call: which dialect and kind a path speaks. Used by the server and in-process clients."""

from __future__ import annotations

from collections.abc import Mapping

from keyturn.core import Call, Kind
from keyturn.wire import parse_chat, parse_embeddings

MODEL_PATHS: Mapping[str, Kind] = {"/v1/chat/completions": "chat", "/v1/embeddings": "embeddings"}
"""The model endpoints that are served, each with the kind of call that it takes."""

_PARSERS = {"chat": parse_chat, "embeddings": parse_embeddings}


def read_call(kind: Kind, body: bytes, headers: Mapping[str, str]) -> Call:
    """The call that *body* asks for; header names are lower case. Raises BadRequest."""
    return _PARSERS[kind](body, headers)
