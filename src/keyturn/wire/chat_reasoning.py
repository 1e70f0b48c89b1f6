"""Thinking in OpenAI Chat messages: `reasoning_details` as OpenRouter shapes them, and the plain texts of others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from msgspec import structs

from keyturn.core import Reasoning, Signature

from .signatures import pack

FORMATS = {
    "anthropic": "anthropic-claude-v1",
    "gemini": "google-gemini-v1",
    "openai_responses": "openai-responses-v1",
}
"""`format` of a detail by the dialect whose signature it carries (OpenRouter docs: reasoning tokens)."""
_DIALECTS = {form: dialect for dialect, form in FORMATS.items()}

Sign = Callable[[str, str], Signature]
"""A signature's value and the dialect that its format names -> the signature."""


def dialect_of(detail: dict[str, Any]) -> str:
    """Whose signature a detail carries; empty when its format does not tell."""
    form = detail.get("format")
    return _DIALECTS.get(form, "") if isinstance(form, str) else ""


def text_of(detail: dict[str, Any]) -> str:
    """The thinking or the summary in a detail."""
    text = detail.get("summary" if detail.get("type") == "reasoning.summary" else "text")
    return text if isinstance(text, str) else ""


def signature_of(detail: dict[str, Any], sign: Sign) -> Signature | None:
    """The signature of a detail, or its encrypted thinking."""
    value = detail.get("data" if detail.get("type") == "reasoning.encrypted" else "signature")
    return sign(value, dialect_of(detail)) if isinstance(value, str) and value else None


def read_thinking(message: dict[str, Any], sign: Sign) -> list[Reasoning]:
    """The thinking of a message that is not streamed. What has an unknown shape is passed over.

    The chunks of a stream, put one behind the other as some clients keep them, make the parts that they were.
    """
    found = _read_details(message.get("reasoning_details"), sign)
    plain = message.get("reasoning_content") or message.get("reasoning")
    if isinstance(plain, str) and plain and not any(part.text for part in found):
        if len(found) == 1 and not found[0].redacted:  # its signature came alone
            return [structs.replace(found[0], text=plain)]
        found.insert(0, Reasoning(plain))
    return found


def _read_details(given: object, sign: Sign) -> list[Reasoning]:
    found: list[Reasoning] = []
    said: list[list[str]] = []
    last: tuple[object, object] | None = None
    for detail in given if isinstance(given, list) else ():
        if not isinstance(detail, dict) or detail.get("type") not in _KINDS:
            continue
        text, signature = text_of(detail), signature_of(detail, sign)
        name = detail.get("id")
        name = name if isinstance(name, str) else ""
        hidden = detail["type"] == "reasoning.encrypted"
        before = found[-1] if found else None
        goes_on = last == (detail["type"], detail.get("index"))
        last = (detail["type"], detail.get("index"))
        if before is not None and before.signature is None and (goes_on or (hidden and name and before.id == name)):
            said[-1].append(text)
            found[-1] = structs.replace(before, signature=signature, id=before.id or name)
        elif text or signature is not None:
            said.append([text])
            found.append(Reasoning("", signature, hidden, name))
    return [structs.replace(part, text="".join(texts)) for part, texts in zip(found, said, strict=True)]


_KINDS = ("reasoning.text", "reasoning.summary", "reasoning.encrypted")  # no set: a kind may be any JSON value


def detail(part: Reasoning, index: int) -> dict[str, object]:
    """*part* as one detail; its signature is packed."""
    signature = part.signature
    written: dict[str, object] = {"type": "reasoning.text", "text": part.text}
    if signature is not None and part.redacted and not part.text:
        written = {"type": "reasoning.encrypted", "data": pack(signature)}
    elif signature is not None:
        written["signature"] = pack(signature)
    if part.id:
        written["id"] = part.id
    written["format"] = FORMATS.get(signature.dialect, "unknown") if signature is not None else "unknown"
    written["index"] = index
    return written


def write_thinking(parts: Iterable[Reasoning]) -> dict[str, object]:
    """The members of a message for its thinking: the text for every client, the parts once one of them is signed."""
    thoughts = list(parts)
    members: dict[str, object] = {}
    if text := "\n\n".join(part.text for part in thoughts if part.text):
        members["reasoning_content"] = text
    if any(part.signature is not None for part in thoughts):
        members["reasoning_details"] = [detail(part, index) for index, part in enumerate(thoughts)]
    return members
