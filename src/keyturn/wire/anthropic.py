"""Anthropic's Messages: calls parsed, models listed, and the dialect as a whole."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import msgspec

from keyturn.core import Call

from .anthropic_answer import read_answer, read_reply, write_answer
from .anthropic_blocks import DIALECT, encode
from .anthropic_errors import error_body, error_event
from .anthropic_reader import AnthropicReader
from .anthropic_request import read_request
from .anthropic_upstream import write_request
from .anthropic_watch import watch
from .anthropic_writer import AnthropicWriter
from .dialect import Dialect
from .fields import refuse
from .jsontext import loose, read_object
from .openai_chat import read_model, read_stream, read_timeout
from .prompt import _inline_bytes

_PASSED_ON = ("anthropic-version", "anthropic-beta")
_SOURCE = re.compile(rb'"source"[ \t\r\n]*:[ \t\r\n]*\{')
_IMAGE = b'"image"'
_ELEMENT = re.compile(rb"\[[ \t\r\n]*([^ \t\r\n])")
_MOST_OUTPUT = 1 << 31
_NO_NEEDS: frozenset[str] = frozenset()


def parse_messages(body: bytes, headers: Mapping[str, str]) -> Call:
    """The Call of a `POST /v1/messages`; *headers* have lower case names.

    Raises BadRequest for what no upstream could answer. What routing does not need is neither read nor judged.
    """
    members = read_object(body)
    return _call("chat", body, members, headers, _max_tokens(members))


def parse_count(body: bytes, headers: Mapping[str, str]) -> Call:
    """The Call of a `POST /v1/messages/count_tokens`, which needs no `max_tokens`. As `parse_messages`."""
    return _call("count", body, read_object(body), headers, None)


def _call(
    kind: str, body: bytes, members: dict[str, bytes], headers: Mapping[str, str], max_output: int | None
) -> Call:
    messages = _messages(members)
    text_bytes = len(messages) + len(members.get("system", b""))
    media = len(_SOURCE.findall(messages)) if b'"source"' in messages else 0
    if media and b'"base64"' in messages:
        text_bytes -= _inline_bytes(messages)
    needs = []
    if media and _IMAGE in messages:
        needs.append("vision")
    if _first(members.get("tools", b"")) not in (b"", b"]"):
        needs.append("tools")
        text_bytes += len(members["tools"])
    config = members.get("output_config", b"")
    if b'"json_schema"' in config:
        needs.append("json")
        text_bytes += len(config)
    return Call(
        DIALECT,
        "count" if kind == "count" else "chat",
        read_model(members),
        members,
        len(body),
        stream=read_stream(members),
        max_output=max_output,
        needs=frozenset(needs) if needs else _NO_NEEDS,
        text_bytes=text_bytes,
        media=media,
        timeout=read_timeout(headers),
        headers={name: headers[name] for name in _PASSED_ON if name in headers},
        conversation=headers.get("x-claude-code-session-id", "") or _user(members.get("metadata", b"")),
    )


def _first(raw: bytes) -> bytes:
    """First byte of an array's first element, `]` of an empty array, nothing of another value."""
    found = _ELEMENT.match(raw)
    return found[1] if found else b""


def _messages(members: Mapping[str, bytes]) -> bytes:
    messages = members.get("messages", b"null")
    if messages == b"null":
        refuse("messages", 'is missing. Send a list such as [{"role": "user", "content": "Hi"}].')
    first = _first(messages)
    if first == b"]":
        refuse("messages", 'is empty. Send at least one message, such as {"role": "user", "content": "Hi"}.')
    if first != b"{":
        refuse("messages", 'must be a list of objects such as {"role": "user", "content": "Hi"}.')
    return messages


def _max_tokens(members: Mapping[str, bytes]) -> int:
    """`max_tokens`; 0 only fills the prompt cache."""
    raw = members.get("max_tokens", b"null")
    if raw == b"null":
        refuse("max_tokens", "is missing. Send the largest answer that you want in tokens, such as 1024.")
    if raw[0] not in b"0123456789" or len(raw) > 30:
        refuse("max_tokens", "must be a whole number of tokens from 0, such as 1024.")
    return int(min(float(raw), _MOST_OUTPUT))


def _user(metadata: bytes) -> str:
    """`metadata.user_id`, or nothing: whether it is well formed, `read_request` judges."""
    given = loose(metadata) if metadata else None
    user = given.get("user_id") if isinstance(given, dict) else None
    return user if isinstance(user, str) else ""


def models_page(rows: Iterable[tuple[str, str, int]]) -> bytes:
    """The answer of `GET /v1/models` for rows of (id, provider, created); all models on one page."""
    data = [_entry(model, created) for model, _, created in rows]
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return msgspec.json.encode({"data": data, "has_more": False, "first_id": first, "last_id": last})


def model_entry(model: str, provider: str, created: int) -> bytes:
    """The answer of `GET /v1/models/{id}`. *created* is in Unix seconds."""
    return msgspec.json.encode(_entry(model, created))


def _entry(model: str, created: int) -> dict[str, object]:
    when = datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"type": "model", "id": model, "display_name": model, "created_at": when, "lifecycle": "active"}


def count_body(n: int) -> bytes:
    """The answer of `POST /v1/messages/count_tokens`."""
    return encode({"input_tokens": n})


ANTHROPIC = Dialect(
    name=DIALECT,
    read_request=read_request,
    write_answer=write_answer,
    writer=AnthropicWriter,
    error_body=error_body,
    error_event=error_event,
    write_request=write_request,
    read_answer=read_answer,
    reader=AnthropicReader,
    read_reply=read_reply,
    watch=watch,
)
