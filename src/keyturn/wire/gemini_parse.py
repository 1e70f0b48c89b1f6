"""Gemini requests parsed into Calls: what routing needs, found in their raw text."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from keyturn.core import Call, Kind

from .fields import Fields, refuse
from .gemini_fields import DIALECT, GeminiFields, camel_members
from .jsontext import read_object
from .openai_chat import read_model, read_timeout

_ELEMENT = re.compile(rb"\[[ \t\r\n]*(.)", re.S)
_MEDIA = re.compile(rb'"(?:inlineData|inline_data|fileData|file_data)"[ \t\r\n]*:')
_MIME = re.compile(rb'"(?:mimeType|mime_type)"[ \t\r\n]*:[ \t\r\n]*"(image|video|audio)')
_DATA = re.compile(rb'"data"[ \t\r\n]*:[ \t\r\n]*"')
_FUNCTIONS = re.compile(rb'"function(?:Declarations|_declarations)"[ \t\r\n]*:[ \t\r\n]*\[[ \t\r\n]*\{')
_NEEDS = {b"image": "vision", b"video": "vision", b"audio": "audio"}
_MOST_OUTPUT = 1 << 31
_MOST_INLINE = 1000
"""Inline media looked at in one prompt; what is beyond counts as text."""
_HOMES = re.compile(r"(?:publishers/[^/]+/)?models/")

_any = msgspec.json.Decoder().decode


def parse_generate(body: bytes, headers: Mapping[str, str], model: str, *, stream: bool, array: bool) -> Call:
    """The Call of a `POST …/models/{model}:generateContent`; *stream* of a `:streamGenerateContent`, *array* without
    `alt=sse`. *headers* have lower case names.

    Its members have camelCase names. Raises BadRequest for what no upstream could answer.
    """
    members = _members(body)
    _contents("contents", members.get("contents"))
    return _call("chat", members, members, len(body), headers, model, stream=stream, form="array" if array else "")


def parse_count_tokens(body: bytes, headers: Mapping[str, str], model: str) -> Call:
    """The Call of a `:countTokens`, which carries `contents` or a whole `generateContentRequest`."""
    members = _members(body)
    whole = members
    if _present(members.get("generateContentRequest")):
        place = "generateContentRequest"
        raw = members[place]
        if raw[:1] != b"{":
            refuse(place, "must be an object.")
        whole = _members(raw)
        _contents(f"{place}.contents", whole.get("contents"))
    else:
        _contents("contents", members.get("contents"))
    return _call("count", members, whole, len(body), headers, model)


def parse_embed(body: bytes, headers: Mapping[str, str], model: str, *, batch: bool) -> Call:
    """The Call of an `:embedContent`, or with *batch* of a `:batchEmbedContents`; its `path` is the method."""
    members = _members(body)
    name, opening, example = ("requests", b"[", "a list") if batch else ("content", b"{", "an object")
    given = members.get(name)
    if not _present(given):
        refuse(name, f"is missing. Send {example} with the texts to embed.")
    if given is None or given[:1] != opening or (batch and _first(given) not in (b"{", b"]")):
        refuse(name, f"must be {example}{' of objects' if batch else ''}.")
    if batch and _first(given) == b"]":
        refuse(name, "is empty. Send at least one request.")
    return Call(
        DIALECT,
        "embeddings",
        _model(model),
        members,
        len(body),
        text_bytes=len(given),
        timeout=read_timeout(headers),
        path="batchEmbedContents" if batch else "embedContent",
    )


def _call(
    kind: Kind,
    members: Mapping[str, bytes],
    whole: Mapping[str, bytes],
    size: int,
    headers: Mapping[str, str],
    model: str,
    *,
    stream: bool = False,
    form: str = "",
) -> Call:
    contents = whole["contents"]
    tools = whole.get("tools", b"")
    media = len(_MEDIA.findall(contents))
    text_bytes = len(contents) + len(tools) + len(whole.get("systemInstruction", b""))
    needs = set()
    if media:
        text_bytes -= _inline_bytes(contents)
        needs = {_NEEDS[mime] for mime in _MIME.findall(contents)}
    if _FUNCTIONS.search(tools):
        needs.add("tools")
    config = _config(whole.get("generationConfig"))
    schema = config.get("responseJsonSchema") or config.get("responseSchema") or config.get("responseFormat")
    if schema or config.text("responseMimeType") == "application/json":
        needs.add("json")
        text_bytes += len(whole.get("generationConfig", b""))
    return Call(
        DIALECT,
        kind,
        _model(model),
        members,
        size,
        stream=stream,
        max_output=_max_output(config),
        needs=frozenset(needs),
        text_bytes=text_bytes,
        media=media,
        timeout=read_timeout(headers),
        form=form,
    )


def _members(body: bytes) -> dict[str, bytes]:
    return camel_members(read_object(body))


def _model(given: str) -> str:
    """The model's own name, out of the path: without the collection that it stands in."""
    return read_model({"model": msgspec.json.encode(_HOMES.sub("", given, count=1) if _HOMES.match(given) else given)})


def _present(raw: bytes | None) -> bool:
    return raw is not None and raw != b"null"


def _first(raw: bytes) -> bytes:
    """First byte of an array's first element, `]` of an empty array, nothing of another value."""
    found = _ELEMENT.match(raw)
    return found[1] if found else b""


def _contents(place: str, raw: bytes | None) -> None:
    example = '[{"role": "user", "parts": [{"text": "Hi"}]}]'
    if raw is None or raw == b"null":
        refuse(place, f"is missing. Send a list such as {example}.")
    first = _first(raw)
    if first == b"]":
        refuse(place, f"is empty. Send at least one turn, such as {example}.")
    if first != b"{":
        refuse(place, f"must be a list of objects such as {example}.")


def _inline_bytes(contents: bytes) -> int:
    """Bytes of base64 in the prompt."""
    total = at = 0
    for _ in range(_MOST_INLINE):
        found = _DATA.search(contents, at)
        if found is None:
            break
        at = contents.find(b'"', found.end())
        total += at - found.end()
    return total


def _config(raw: bytes | None) -> GeminiFields:
    if raw is None or raw == b"null":
        return GeminiFields({})
    try:
        given = _any(raw)
    except (ValueError, RecursionError) as error:
        refuse("generationConfig", f"is no valid JSON: {error}.")
    found: Fields = GeminiFields.of(given, "generationConfig")
    assert isinstance(found, GeminiFields)
    return found


def _max_output(config: GeminiFields) -> int | None:
    """Below 1 means no bound. Of two spellings the larger: which one counts, the upstream decides."""
    given, twice = config.whole("maxOutputTokens"), config.value.get("max_output_tokens")
    if given is not None and isinstance(twice, int):
        given = max(given, twice)
    return None if given is None or given < 1 else min(given, _MOST_OUTPUT)
