"""Embeddings between OpenAI's form and Gemini's: requests and answers, both ways."""

from __future__ import annotations

import struct
from base64 import b64decode, b64encode
from typing import Any

import msgspec

from keyturn.core import Call
from keyturn.errors import Untranslatable

from .fields import Fields, body_of, refuse
from .gemini_fields import GeminiFields

_Vector = list[float]


class _Values(msgspec.Struct, gc=False):
    values: _Vector | None = None


class _Gemini(msgspec.Struct, gc=False):
    embeddings: list[_Values] | None = None
    embedding: _Values | None = None
    usageMetadata: Any = None


class _Item(msgspec.Struct, gc=False):
    embedding: _Vector | str
    index: int | float | None = None


class _OpenAI(msgspec.Struct, gc=False):
    data: list[_Item]
    usage: Any = None


_read_gemini = msgspec.json.Decoder(_Gemini).decode
_read_openai = msgspec.json.Decoder(_OpenAI).decode


def render_embed(call: Call, model: str) -> bytes:
    """A Gemini call for a Gemini upstream: as it came, but for the model's name, which each request of a batch
    repeats. Raises BadRequest."""
    members = {name: msgspec.Raw(value) for name, value in call.members.items() if name != "model"}
    if "requests" not in members:
        return msgspec.json.encode(members)
    requests = [
        {**{name: value for name, value in each.value.items() if name != "model"}, "model": f"models/{model}"}
        for each in GeminiFields(body_of(call)).inners("requests")
    ]
    return msgspec.json.encode({**members, "requests": requests})


def openai_to_gemini(call: Call, model: str, notes: list[str]) -> tuple[str, bytes]:
    """The method and the body for an OpenAI *call*. Raises Untranslatable for lists of tokens."""
    body = Fields(body_of(call))
    given = body.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts:
        refuse("input", "must be a string or a list of strings.")
    if not all(isinstance(text, str) for text in texts):
        raise Untranslatable("`input` is a list of tokens; Gemini embeds texts only. Send strings.", param="input")
    dimensions = body.whole("dimensions")
    body.one_of("encoding_format", ("float", "base64"))
    for name in body.value:
        if name not in ("model", "input", "dimensions", "encoding_format"):
            notes.append(f"dropped {name}: Gemini has no counterpart")
    more = {} if dimensions is None else {"outputDimensionality": dimensions}
    requests = [{"model": f"models/{model}", "content": {"parts": [{"text": text}]}, **more} for text in texts]
    return "batchEmbedContents", msgspec.json.encode({"requests": requests})


def gemini_to_openai(call: Call, model: str, notes: list[str]) -> bytes:
    """The OpenAI body for a Gemini *call*. Raises Untranslatable for what is no text, and for different sizes."""
    body = GeminiFields(body_of(call))
    requests = body.inners("requests") if body.get("requests") is not None else [body]
    texts, sizes = [], set()
    for request in requests:
        content = request.inner("content")
        if content is None:
            refuse(request.at("content"), 'is missing. Send {"parts": [{"text": "…"}]}.')
        parts = content.inners("parts")
        if not parts:
            refuse(content.at("parts"), 'is missing. Send [{"text": "…"}].')
        for part in parts:
            if part.get("text") is None:
                raise Untranslatable(f"`{part.place}` has no `text`; OpenAI embeds texts only.", param=part.place)
        texts.append("\n".join(part.text("text") for part in parts))
        config = request.inner("embedContentConfig") or request
        size = request.whole("outputDimensionality")
        sizes.add(size if size is not None else config.whole("outputDimensionality"))
        for name in ("taskType", "title"):
            note = f"dropped {name}: OpenAI has no counterpart"
            if (request.get(name) or config.get(name)) and note not in notes:
                notes.append(note)
    if len(sizes) > 1:
        raise Untranslatable(
            "The requests have different `outputDimensionality`; OpenAI takes one for all.", param="requests"
        )
    size = sizes.pop()
    more = {} if size is None else {"dimensions": size}
    return msgspec.json.encode({"model": model, "input": texts, "encoding_format": "float", **more})


def gemini_answer_to_openai(body: bytes, call: Call, model: str) -> bytes:
    """Gemini's answer as the OpenAI client of *call* reads it; without data when it holds none. Never raises.

    `base64` is what the official SDK asks for: little-endian 32-bit floats.
    """
    try:
        given = _read_gemini(body)
    except (ValueError, RecursionError):
        given = _Gemini()
    vectors = given.embeddings if given.embeddings is not None else [given.embedding] if given.embedding else []
    packed = call.members.get("encoding_format") == b'"base64"'
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": _packed(each.values or []) if packed else each.values or [],
        }
        for index, each in enumerate(vectors)
    ]
    usage = given.usageMetadata if isinstance(given.usageMetadata, dict) else {}
    tokens = _count(usage.get("promptTokenCount")) or _count(usage.get("totalTokenCount"))
    told = {"prompt_tokens": tokens, "total_tokens": tokens}
    return msgspec.json.encode({"object": "list", "data": data, "model": model, "usage": told})


def openai_answer_to_gemini(body: bytes, call: Call) -> bytes:
    """OpenAI's answer as the Gemini client of *call* reads it; without vectors when it holds none. Never raises."""
    try:
        given = _read_openai(body)
    except (ValueError, RecursionError):
        given = _OpenAI([])
    items = sorted(enumerate(given.data), key=lambda pair: pair[0] if pair[1].index is None else pair[1].index)
    vectors = [{"values": _unpacked(item.embedding)} for _, item in items]
    found: dict[str, Any] = {"embeddings": vectors}
    if "requests" not in call.members:
        found = {"embedding": vectors[0] if vectors else {"values": []}}
    usage = given.usage if isinstance(given.usage, dict) else {}
    if tokens := _count(usage.get("prompt_tokens")) or _count(usage.get("total_tokens")):
        found["usageMetadata"] = {"promptTokenCount": tokens, "totalTokenCount": tokens}
    return msgspec.json.encode(found)


def _packed(values: _Vector) -> str:
    try:
        raw = struct.pack(f"<{len(values)}f", *values)
    except OverflowError:  # more than 32 bits hold
        most = 3.4028234663852886e38
        raw = struct.pack(f"<{len(values)}f", *(min(max(value, -most), most) for value in values))
    return b64encode(raw).decode()


def _unpacked(given: _Vector | str) -> _Vector:
    if not isinstance(given, str):
        return given
    try:
        raw = b64decode(given)
    except ValueError:
        return []
    if len(raw) % 4:
        return []
    return [value if value == value else 0.0 for value in struct.unpack(f"<{len(raw) // 4}f", raw)]


def _count(given: Any) -> int:
    return int(given) if type(given) in (int, float) and 0 < given < 1_000_000_000 else 0
