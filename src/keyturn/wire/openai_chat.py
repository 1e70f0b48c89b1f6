"""OpenAI Chat Completions and Embeddings requests: parsed into a Call, rendered for one upstream."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import NoReturn

import msgspec

from keyturn.core import Call
from keyturn.errors import BadRequest

from .jsontext import read_object
from .prompt import measure

DIALECT = "openai_chat"

_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}")
_ELEMENT = re.compile(rb"\[[ \t\r\n]*(.)", re.S)
_NO_NEEDS: frozenset[str] = frozenset()
_NO_RENAMES: Mapping[str, str] = MappingProxyType({})
_MOST_OUTPUT = 1 << 31
_INPUTS = frozenset(bytes([byte]) for byte in b'"[0123456789')
"""How an element of an embedding input may begin: a string, a list of tokens, a token."""
_USAGE = b'{"include_usage":true}'

_read_str = msgspec.json.Decoder(str).decode
_read_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_write = msgspec.json.encode


def parse_chat(body: bytes, headers: Mapping[str, str]) -> Call:
    """The Call of a `POST /v1/chat/completions`; *headers* have lower case names.

    Raises BadRequest for what no upstream could answer. What routing does not need is neither read nor judged.
    """
    members = read_object(body)
    messages = _messages(members)
    prompt = measure(messages)
    text_bytes = prompt.text_bytes
    needs = list(prompt.needs)
    for name in ("tools", "functions"):
        if name in members and _first(members[name]) not in (b"", b"]"):
            needs.append("tools")
            text_bytes += len(members[name])
    if (shape := members.get("response_format")) is not None:
        text_bytes += len(shape)
        if b'"json_' in shape:
            needs.append("json")
    return Call(
        DIALECT,
        "chat",
        read_model(members),
        members,
        len(body),
        stream=read_stream(members),
        wants_usage=read_wants_usage(members),
        max_output=read_max_output(members),
        needs=frozenset(needs) if needs else _NO_NEEDS,
        text_bytes=text_bytes,
        media=prompt.media,
        timeout=read_timeout(headers),
        conversation=_text(members.get("prompt_cache_key")),
    )


def parse_embeddings(body: bytes, headers: Mapping[str, str]) -> Call:
    """The Call of a `POST /v1/embeddings`; as `parse_chat`. A token of a token list counts as four bytes of text."""
    members = read_object(body)
    given = members.get("input", b"null")
    first = _first(given)
    if given == b"null":
        _refuse("input", "is missing. Send a string or a list of strings.")
    if given == b'""' or first == b"]":
        _refuse("input", "is empty. Send at least one string that is not empty.")
    if not (first in _INPUTS or given.startswith(b'"')):
        _refuse("input", "must be a string, a list of strings or a list of tokens.")
    tokens = first not in (b"", b'"')
    return Call(
        DIALECT,
        "embeddings",
        read_model(members),
        members,
        len(body),
        text_bytes=4 * (given.count(b",") + 1) if tokens else len(given),
        timeout=read_timeout(headers),
    )


def render(
    call: Call,
    model: str | None,
    *,
    drop: Collection[str] = (),
    rename: Mapping[str, str] = _NO_RENAMES,
    include_usage: bool = False,
    notes: list[str],
) -> bytes:
    """The body for an upstream: *model* first, then the call's members in their order, every value as it was written.
    None: its dialect names the model elsewhere.

    Members in *drop* are left out, those in *rename* get the other name unless it is there already; both are told in
    *notes*. *include_usage* asks for usage in the stream, unless `stream_options` is dropped.
    """
    members = call.members
    parts = [b'{"model":', _write(model)] if model is not None else [b"{"]
    names = members.keys()
    changed = include_usage or not (names.isdisjoint(drop) and names.isdisjoint(rename))
    for name, value in members.items():
        if name == "model":
            continue
        if not changed:
            parts += (b",", _write(name), b":", value)
            continue
        if name in drop or rename.get(name) in members:
            notes.append(f"dropped {name}")
            continue
        if name in rename:
            notes.append(f"renamed {name} to {rename[name]}")
            name = rename[name]
        if include_usage and name == "stream_options":
            value = _with_usage(value)
        parts += (b",", _write(name), b":", value)
    if model is None and len(parts) > 1:
        del parts[1]  # the comma before the first member
    if include_usage and "stream_options" not in members and "stream_options" not in drop:
        parts += (b',"stream_options":', _USAGE)
    parts.append(b"}")
    return b"".join(parts)


def _with_usage(options: bytes) -> bytes:
    """`stream_options` with `include_usage` set and its other members as they were."""
    if options == b"null":
        return _USAGE
    others = _read_members(options)
    others["include_usage"] = msgspec.Raw(b"true")
    return _write(others)


def _refuse(param: str, problem: str) -> NoReturn:
    raise BadRequest(f"`{param}` {problem}", param=param)


def _first(raw: bytes) -> bytes:
    """First byte of an array's first element, `]` of an empty array, nothing of another value."""
    found = _ELEMENT.match(raw)
    return found[1] if found else b""


def _messages(members: Mapping[str, bytes]) -> bytes:
    messages = members.get("messages", b"null")
    first = _first(messages)
    if first != b"{":
        if messages == b"null":
            _refuse("messages", 'is missing. Send a list such as [{"role": "user", "content": "Hi"}].')
        if first == b"]":
            _refuse("messages", 'is empty. Send at least one message, such as {"role": "user", "content": "Hi"}.')
        _refuse("messages", 'must be a list of objects such as {"role": "user", "content": "Hi"}.')
    return messages


def _text(raw: bytes | None) -> str:
    """The string *raw*; empty for what is none."""
    return _read_str(raw) if raw is not None and raw.startswith(b'"') else ""


def read_model(members: Mapping[str, bytes]) -> str:
    """The member `model`, a plausible name. Raises BadRequest."""
    raw = members.get("model", b"null")
    if raw in (b"null", b'""'):
        _refuse("model", 'is missing. Name one; GET /v1/models lists them, and "auto" stands for the defaults.')
    if not raw.startswith(b'"'):
        _refuse("model", 'must be a string, such as "groq/llama-3.3-70b-versatile"; GET /v1/models lists them.')
    model = _read_str(raw)
    if not _MODEL.fullmatch(model) or ".." in model or "//" in model or "/./" in model:
        _refuse(
            "model",
            f"cannot be {json.dumps(model[:80])}: a name has at most 200 letters, digits and . _ : / @ + - characters, "
            "starts with a letter or digit, and has no `..`, `//` or `/./`. GET /v1/models lists the names.",
        )
    return model


def read_stream(members: Mapping[str, bytes]) -> bool:
    """The member `stream`. Raises BadRequest."""
    raw = members.get("stream")
    if raw is None or raw == b"false" or raw == b"null":
        return False
    if raw != b"true":
        _refuse("stream", "must be true or false, without quotes.")
    return True


def read_wants_usage(members: Mapping[str, bytes]) -> bool:
    """Whether `stream_options` asks for usage. Raises BadRequest."""
    raw = members.get("stream_options")
    if raw is None or raw == b"null":
        return False
    if not raw.startswith(b"{"):
        _refuse("stream_options", 'must be an object, such as {"include_usage": true}.')
    return _read_members(raw).get("include_usage") == msgspec.Raw(b"true")


def read_max_output(members: Mapping[str, bytes]) -> int | None:
    """The largest that is stated: which of the two names counts, the upstream decides. Raises BadRequest.

    Below 1 means no bound, as local servers read -1. `max_tokens` is the deprecated name.
    """
    largest: int | None = None
    for name in ("max_completion_tokens", "max_tokens"):
        raw = members.get(name)
        if raw is None or raw == b"null":
            continue
        if raw.isdigit() and len(raw) < 10 and raw != b"0":
            largest = max(largest or 0, int(raw))
            continue
        if raw[0] not in b"-0123456789" or len(raw) > 30:
            _refuse(name, "must be a whole number, such as 1024.")
        value = min(float(raw), _MOST_OUTPUT)
        if value < 1:
            return None
        largest = max(largest or 0, int(value))
    return largest


def read_timeout(headers: Mapping[str, str]) -> float | None:
    """`x-request-timeout-ms` in seconds."""
    given = headers.get("x-request-timeout-ms")
    if given is None:
        return None
    try:
        milliseconds = float(given)
    except ValueError:
        milliseconds = 0.0
    if not (milliseconds > 0 and math.isfinite(milliseconds)):
        _refuse("x-request-timeout-ms", "must be a positive number of milliseconds, such as 30000.")
    return milliseconds / 1000
