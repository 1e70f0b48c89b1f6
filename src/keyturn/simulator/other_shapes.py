"""Images, sound, moderations and rankings: what they ask for and what is answered, in OpenAI's shapes.

Rankings are in the shape that Together, Jina and others share.
"""

from __future__ import annotations

import base64
import email.parser
import email.policy
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .answers import Question, Said, Unusable, tokens
from .checks import Asking
from .reply import Reply

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
"""One pixel."""
SOUND = b"ID3\x04" + bytes(range(256)) * 16
SOUND_PIECE = 1024
CATEGORIES = (
    "harassment harassment/threatening hate hate/threatening illicit illicit/violent self-harm "
    "self-harm/instructions self-harm/intent sexual sexual/minors violence violence/graphic"
).split()
_NEEDED = {
    "images/generations": ("prompt",),
    "images/edits": ("prompt", "image"),
    "images/variations": ("image",),
    "audio/transcriptions": ("file",),
    "audio/translations": ("file",),
    "audio/speech": ("input", "voice"),
    "moderations": ("input",),
    "rerank": ("query", "documents"),
}


class File(NamedTuple):
    """A file of a form."""

    name: str
    mime: str
    size: int


def form(content_type: str, raw: bytes) -> dict[str, Any]:
    """The fields of a multipart form, files as `File`; `image[]` may be there several times. Raises ValueError."""
    head = f"content-type: {content_type}\r\n\r\n".encode("latin-1")
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + raw)
    if not message.is_multipart():
        raise ValueError("no multipart form")
    fields: dict[str, Any] = {}
    for part in message.iter_parts():
        name = str(part.get_param("name", header="content-disposition"))
        payload = part.get_payload(decode=True)
        payload = payload if isinstance(payload, bytes) else b""
        filename = part.get_filename()
        value: Any = payload.decode() if filename is None else File(filename, part.get_content_type(), len(payload))
        if name.endswith("[]"):
            fields.setdefault(name[:-2], []).append(value)
        else:
            fields[name] = value
    return fields


def read(body: Mapping[str, Any], asking: Asking) -> Question:
    """What any of these asks for."""
    for name in _NEEDED[asking.action]:
        if body.get(name) in (None, "", []):
            raise Unusable(f"Missing required parameter: '{name}'.", name)
    if asking.action in ("audio/transcriptions", "images/edits"):
        name = "file" if asking.action.startswith("audio") else "image"
        files = body[name] if isinstance(body[name], list) else [body[name]]
        if not all(isinstance(file, File) and file.size for file in files):
            raise Unusable(f"Invalid value for '{name}': expected a file.", name)
    texts = [body.get(name) for name in ("prompt", "input", "query", "documents")]
    spoken = [text if isinstance(text, str) else json.dumps(text) for text in texts if text]
    return Question([Said("user", spoken[-1] if spoken else "")], sum(map(tokens, spoken)), more=body)


def images(reply: Reply) -> dict[str, Any]:
    body = reply.question.more
    row = {"b64_json": base64.b64encode(PNG).decode()}
    if body.get("response_format") == "url":
        row = {"url": f"https://images.invalid/{reply.id}.png"}
    total = reply.question.tokens
    details = {"text_tokens": total, "image_tokens": 0}
    usage = {"input_tokens": total, "input_tokens_details": details, "output_tokens": 0, "total_tokens": total}
    return {"created": reply.created, "data": [row] * int(body.get("n") or 1), "usage": usage}


def transcription(reply: Reply) -> Any:
    """The text names the file and its size; plain text where `response_format` says so."""
    body = reply.question.more
    file = body["file"]
    text = f"This is the Keyturn simulator: heard {file.name}, {file.mime}, {file.size} bytes."
    if body.get("response_format") in ("text", "srt", "vtt"):
        return f"{text}\n"
    if body.get("response_format") == "verbose_json":
        return {"task": "transcribe", "language": "english", "duration": 1.0, "text": text, "segments": []}
    return {"text": text, "usage": {"type": "duration", "seconds": 1}}


def moderations(reply: Reply) -> dict[str, Any]:
    """Flagged is what says so: an input with the word `violence` in it."""
    given = reply.question.more["input"]
    inputs = given if isinstance(given, list) else [given]
    rows = []
    for item in inputs:
        hit = "violence" in json.dumps(item)
        flags = {name: hit and name == "violence" for name in CATEGORIES}
        scores = {name: 0.9 if flag else 0.01 for name, flag in flags.items()}
        applied = {name: ["text"] for name in CATEGORIES}
        row = {"flagged": hit, "categories": flags, "category_scores": scores, "category_applied_input_types": applied}
        rows.append(row)
    return {"id": f"modr-{reply.id}", "model": reply.model or "omni-moderation-latest", "results": rows}


def rerank(reply: Reply) -> dict[str, Any]:
    """Documents that share most words with the query come first."""
    body = reply.question.more
    words = set(str(body["query"]).lower().split())
    rows = []
    for index, document in enumerate(body["documents"]):
        text = document if isinstance(document, str) else json.dumps(document)
        score = len(words & set(text.lower().split())) / (len(words) or 1)
        shown = {"document": {"text": text}} if body.get("return_documents") else {}
        rows.append({"index": index, "relevance_score": round(score, 4)} | shown)
    rows.sort(key=lambda row: -float(str(row["relevance_score"])))
    total = reply.question.tokens
    usage = {"prompt_tokens": total, "completion_tokens": 0, "total_tokens": total}
    head = {"id": reply.id, "object": "rerank", "model": reply.model}
    return head | {"results": rows[: body.get("top_n") or len(rows)], "usage": usage}


ANSWERS: dict[str, Callable[[Reply], Any]] = {
    "images/generations": images,
    "images/edits": images,
    "images/variations": images,
    "audio/transcriptions": transcription,
    "audio/translations": transcription,
    "moderations": moderations,
    "rerank": rerank,
}
"""All but speech, which is no JSON."""
