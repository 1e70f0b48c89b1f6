"""OpenAI Responses requests parsed into a Call: what routing needs, and what no gateway can do."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec.structs import replace

from keyturn.core import Call, Kind

from .fields import refuse
from .jsontext import read_object
from .openai_chat import _first, read_model, read_stream, read_timeout
from .prompt import _inline_bytes, measure

DIALECT = "openai_responses"

_FILES = (b'"file_data":', b'"file_url":')
"""Members of an `input_file`; those of other media `measure` knows."""
_CONVERSATION_HEADERS = ("session-id", "session_id")
"""Codex names its conversation so."""
_MOST_OUTPUT = 1 << 31

_read_str = msgspec.json.Decoder(str).decode


def parse_responses(body: bytes, headers: Mapping[str, str]) -> Call:
    """The Call of a `POST /v1/responses`; *headers* have lower case names.

    Raises BadRequest for what no upstream could answer, and for what would need kept conversations or prompts.
    `store` and `previous_response_id` are taken out of what upstreams see: who asks for them asks this gateway.
    """
    members = read_object(body)
    previous = _previous(members)
    _refuse_kept(members)
    call = _call("chat", members, len(body), headers)
    call.previous = previous
    stated = members.get("store", b"null")
    call.store = None if stated == b"null" else stated == b"true"
    members.pop("previous_response_id", None)
    members["store"] = b"false"
    return call


def parse_input_tokens(body: bytes, headers: Mapping[str, str]) -> Call:
    """The Call of a `POST /v1/responses/input_tokens`, of kind `count`; as `parse_responses`, but that it can go on
    from nothing."""
    members = read_object(body)
    if _previous(members):
        refuse("previous_response_id", "cannot be counted with. Send the whole conversation in `input`.")
    if members.get("store") == b"true":
        refuse("store", "cannot be true here: nothing is answered.")
    _refuse_kept(members)
    return _call("count", members, len(body), headers)


def _call(kind: Kind, members: dict[str, bytes], size: int, headers: Mapping[str, str]) -> Call:
    text_bytes, media, needs = _measured(members)
    return Call(
        DIALECT,
        kind,
        read_model(members),
        members,
        size,
        stream=kind == "chat" and read_stream(members),
        max_output=_max_output(members),
        needs=needs,
        text_bytes=text_bytes,
        media=media,
        timeout=read_timeout(headers),
        conversation=_conversation(members, headers),
    )


def with_input(call: Call, given: bytes) -> Call:
    """*call* with another `input`, JSON text, and measured anew."""
    members = {**call.members, "input": given}
    text_bytes, media, needs = _measured(members)
    size = call.size - len(call.members.get("input", b"")) + len(given)
    return replace(call, members=members, size=size, text_bytes=text_bytes, media=media, needs=needs)


def _measured(members: Mapping[str, bytes]) -> tuple[int, int, frozenset[str]]:
    """Bytes of prompt text, how many media, and what a model must be able to do."""
    given = _input(members)
    prompt = measure(given)
    text_bytes, media = prompt.text_bytes, prompt.media
    if files := sum(given.count(name) for name in _FILES):
        if not media:
            text_bytes -= _inline_bytes(given)
        media += files
    needs = list(prompt.needs)
    if b'"input_image"' in given:
        needs.append("vision")
    if _first(members.get("tools", b"")) not in (b"", b"]"):
        needs.append("tools")
        text_bytes += len(members["tools"])
    text_bytes += len(members.get("instructions", b""))
    if (shape := members.get("text")) is not None and b'"json_' in shape:
        text_bytes += len(shape)
        needs.append("json")
    return text_bytes, media, frozenset(needs)


def _previous(members: Mapping[str, bytes]) -> str:
    given = members.get("previous_response_id", b"null")
    if given == b"null":
        return ""
    if not given.startswith(b'"'):
        refuse("previous_response_id", "must be the id of a response, such as resp_….")
    return _read_str(given)


def _refuse_kept(members: Mapping[str, bytes]) -> None:
    """Refuse what only a server that keeps conversations and prompts, or works in the background, can do."""
    if members.get("conversation", b"null") != b"null":
        refuse("conversation", "cannot be used: Keyturn keeps none. Send all of it in `input`.")
    if members.get("background") == b"true":
        refuse("background", "cannot be true: Keyturn does not work in the background. Use `stream` instead.")
    if members.get("prompt", b"null") != b"null":
        refuse("prompt", "names a stored prompt, and Keyturn keeps none. Send its text in `instructions` and `input`.")


def _input(members: Mapping[str, bytes]) -> bytes:
    given = members.get("input", b"null")
    if given == b"null":
        refuse("input", 'is missing. Send a string, or a list such as [{"role": "user", "content": "Hi"}].')
    if given == b'""' or _first(given) == b"]":
        refuse("input", 'is empty. Send text, or at least one item such as {"role": "user", "content": "Hi"}.')
    if not given.startswith(b'"') and _first(given) != b"{":
        refuse("input", 'must be a string or a list of objects such as {"role": "user", "content": "Hi"}.')
    return given


def _max_output(members: Mapping[str, bytes]) -> int | None:
    raw = members.get("max_output_tokens", b"null")
    if raw == b"null":
        return None
    if raw[0] not in b"-0123456789" or len(raw) > 30:
        refuse("max_output_tokens", "must be a whole number, such as 1024.")
    value = int(min(float(raw), _MOST_OUTPUT))
    return value if value >= 1 else None


def _conversation(members: Mapping[str, bytes], headers: Mapping[str, str]) -> str:
    key = members.get("prompt_cache_key", b"null")
    if key.startswith(b'"') and (name := _read_str(key)):
        return name
    return next((headers[name] for name in _CONVERSATION_HEADERS if headers.get(name)), "")
