"""Reads an upstream's error, in whatever envelope it comes, into one flat piece of evidence.

Envelopes met so far: `{"error": {…}}`, the same in a one-element array, `{"type": "error", "error": {…}}`, flat
`{"message", "type", "code"}`, `{"object": "error", …}`, `{"detail": …}`, `{"id", "message"}`,
`{"code", "error": "text"}`, `{"status", "title", "detail"}`, `{"error": "text"}`, server-sent events and NDJSON lines
that hold one of these, HTML of a CDN, and plain text. None of them is asked for by name: known members are collected
wherever they stand. Input is untrusted: only a bounded part is read, and nothing here raises.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from .hints import duration, number

MOST_BYTES = 65536
MOST_TEXT = 4096
MOST_NODES = 200
DEEPEST = 8
MOST_VALUE = 1e15
"""Above this a number is no limit."""

TEXTS = frozenset(
    "message msg detail details title error errors error_description error_message raw description reasons".split()
)
CODES = frozenset("code type status reason error_type error_code errorcode provider_code __type".split())
STATUSES = frozenset("code status status_code statuscode raw_status_code http_status http_code".split())
DELAYS = frozenset(
    "retry_after retryafter retry_after_seconds resets_in_seconds retrydelay retry_delay quotaresetdelay "
    "estimated_time".split()
)
QUOTAS = frozenset("quotaid quota_limit quotametric quota_metric limit_source".split())
ZEROES = frozenset("quotavalue quota_limit_value".split())
FLAGS = frozenset(("flagged_input", "content_filter_result"))
SKIPPED = frozenset(
    "failed_generation input ctx loc usage choices headers links previous_errors quotadimensions model id request_id "
    "user_id param request openrouter_metadata stack stacktrace traceback patterns @type logprobs url".split()
)
NO_CODE = frozenset(("error", "none", "null", "failed", ""))
BLOCKED = ("just a moment", "shield: status:", "attention required! | cloudflare", "checking your browser")
"""What guards in front of a server say in plain text, where others send a page."""


@dataclass(slots=True)
class Evidence:
    """What one answer says about itself."""

    error: bool = False
    """It is an error, whatever its status."""
    page: bool = False
    """An HTML page, or plain text of a CDN: not the API's own words."""
    codes: list[str] = field(default_factory=list)
    """Every code in lower snake case, most telling first."""
    code: str = ""
    """The first code as it was written."""
    message: str = ""
    """The first sentence, on one line."""
    text: str = ""
    """Every sentence, lower case, without web addresses."""
    number: int | None = None
    """An HTTP status that the body states."""
    delays: list[float] = field(default_factory=list)
    """Seconds from machine-readable members."""
    quotas: str = ""
    """Ids of the quotas that were hit, lower case."""
    zero: bool = False
    """A quota of nothing."""
    values: list[int] = field(default_factory=list)
    """How large the quotas are."""
    named: bool = False
    """An aggregator names its upstream."""
    relayed: bool = False
    """A `provider` member says whom an aggregator asked."""
    retryable: bool | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers repeated in the body."""


def read_evidence(body: bytes, *, failed: bool, stream: bool) -> Evidence:
    """The evidence in *body*; *failed* says that the status already tells of an error."""
    found = Evidence()
    found.error = failed
    whole = len(body) <= MOST_BYTES
    body = body[-MOST_BYTES:] if stream and not whole else body[:MOST_BYTES]
    body = body.removeprefix(b"\xef\xbb\xbf").strip()
    if not body:
        return found
    if body[:1] == b"<":
        _read_page(body, found)
        return found
    document = _decode(body) if body[:1] in b'{["' else None
    if document is None:
        _read_lines(body, found, failed, whole)
    elif failed or (document := _error_in(document)) is not None:
        found.error = True
        _collect(document, found)
    return found


def _decode(text: bytes | str) -> Any:
    """The JSON value, None when it is none."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return None


def _read_page(body: bytes, found: Evidence) -> None:
    """The visible beginning of an HTML page. A page is never an answer of a model."""
    found.error = found.page = True
    html = body[:16384].decode("utf-8", "replace")
    words: list[str] = []
    at = 0
    while (opening := html.find("<", at)) >= 0 and len(words) < 60:
        if (visible := html[at:opening].strip()) and len(visible) < 500:
            words.append(visible)
        tag = html[opening + 1 : opening + 8].lower()
        end = f"</{tag[:6]}" if tag.startswith("script") else f"</{tag[:5]}" if tag.startswith("style") else ">"
        closing = html.lower().find(end, opening) if end != ">" else html.find(end, opening)
        if closing < 0:
            break
        at = closing + 1 if end == ">" else html.find(">", closing) + 1
        if at == 0:
            break
    _finish(found, words)


def _read_lines(body: bytes, found: Evidence, failed: bool, whole: bool) -> None:
    """Server-sent events, NDJSON, or plain text."""
    text = body.decode("utf-8", "replace")
    events = False
    for event, data in _events(text):
        document = _decode(data) if data[:1] in ("{", "[") else None
        events = events or document is not None or data == "[DONE]"
        if document is None:
            if event == "error":
                found.error = True
                _finish(found, [data])
                return
            continue
        inner = document if event == "error" else _error_in(document)
        if inner is not None:
            found.error = True
            _collect(inner, found)
            return
    if failed or (whole and not events):
        found.error = True
        head = text[:256].lower()
        found.page = "error code: 1" in head[:64] or any(mark in head for mark in BLOCKED)
        _finish(found, [text[:MOST_TEXT]])


def _events(text: str) -> Iterator[tuple[str, str]]:
    """(event, data) of each server-sent event; a line that begins like JSON is an event of its own (NDJSON)."""
    event, data = "", []
    for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if line.startswith("data:"):
            data.append(line[5:].strip())
        elif line.startswith("event:"):
            event = line[6:].strip()
        elif line[:1] in ("{", "["):
            yield "", line
        elif not line.strip():
            if data:
                yield event, "\n".join(data)
            event, data = "", []
    if data:
        yield event, "\n".join(data)


def _error_in(document: Any) -> Any:
    """The part of an HTTP 200 answer that tells of an error; None when it is an ordinary answer."""
    if isinstance(document, list):
        return next((inner for item in document[:4] if (inner := _error_in(item)) is not None), None)
    if not isinstance(document, dict):
        return None
    kind = document.get("type")
    if document.get("error") or kind == "error" or document.get("object") == "error" or document.get("errors"):
        return document
    response = document.get("response")
    if isinstance(response, dict) and (response.get("error") or response.get("status") == "failed"):
        return response
    if isinstance(groq := document.get("x_groq"), dict) and groq.get("error"):
        return groq
    choices = document.get("choices")
    if isinstance(choices, list):
        first = choices[0] if choices else None
        return first["error"] if isinstance(first, dict) and isinstance(first.get("error"), dict) else None
    if (blocked := _blocked(document)) is not None:
        return blocked
    answers = ("data", "candidates", "output", "content", "models", "embeddings", "done")
    if document.get("success") is False or document.get("status") == "failed":
        return document
    if ("message" in document or "detail" in document) and not any(member in document for member in answers):
        return document if any(member in document for member in ("code", "status_code", "detail", "status")) else None
    return None


def _blocked(document: dict[str, Any]) -> dict[str, str] | None:
    """Gemini's native refusal: HTTP 200, a block reason and no candidate."""
    feedback = document.get("promptFeedback")
    reason = feedback.get("blockReason") if isinstance(feedback, dict) else None
    candidates = document.get("candidates")
    if reason is None and isinstance(candidates, list) and candidates:
        reasons = [
            item.get("finishReason") for item in candidates if isinstance(item, dict) and not item.get("content")
        ]
        reason = reasons[0] if len(reasons) == len(candidates) and reasons[0] not in ("STOP", "MAX_TOKENS") else None
    return {"type": "prompt_blocked", "message": f"blocked: {reason}"} if isinstance(reason, str) else None


def _collect(document: Any, found: Evidence) -> None:
    """Gather codes, sentences, statuses, delays and quota ids of an error document."""
    words: list[str] = []
    if isinstance(document, str):
        words.append(document)
    elif isinstance(document, dict):
        found.relayed = isinstance(document.get("provider"), str)
    budget = [MOST_NODES]
    _walk(document, found, words, budget, 0)
    _finish(found, words)


def _walk(node: Any, found: Evidence, words: list[str], budget: list[int], depth: int) -> None:
    if depth > DEEPEST:
        return
    for key, value in _members(node):
        budget[0] -= 1
        if budget[0] < 0:
            return
        if isinstance(value, bool) or value is None:
            if key == "retryable" and value is not None:
                found.retryable = value
        elif isinstance(value, str):
            _take_text(key, value, found, words, budget, depth)
        elif isinstance(value, int | float):
            _take_number(key, value, found)
        elif key == "headers" and isinstance(value, dict) and not found.headers:
            found.headers = {str(name).lower(): str(text) for name, text in list(value.items())[:32]}
        elif key in FLAGS:
            found.codes.append("content_filter")
        elif key not in SKIPPED:
            _walk(value, found, words, budget, depth + 1)


def _members(node: Any) -> Iterable[tuple[str, Any]]:
    """The members of an object, or the items of a list under the name `message`: a list of sentences is one text."""
    if isinstance(node, dict):
        return ((str(key).lower(), value) for key, value in node.items())
    if isinstance(node, list):
        return (("message", value) for value in node[:16])
    return ()


def _take_text(key: str, value: str, found: Evidence, words: list[str], budget: list[int], depth: int) -> None:
    if key in CODES:
        _take_code(key, value, found, words)
    elif key in TEXTS:
        inner = _decode(value) if value[:1] in ("{", "[") and len(value) < MOST_BYTES else None
        if inner is None:
            words.append(value)
        else:
            _walk(inner, found, words, budget, depth + 1)
    elif key in DELAYS:
        if (seconds := duration(value)) is not None:
            found.delays.append(seconds)
    elif key in QUOTAS:
        found.quotas += " " + value[:200].lower()
    elif key in ZEROES:
        found.zero = found.zero or value.strip() == "0"
        _take_value(number(value.strip()), found)
    elif key == "provider_name":
        found.named = bool(value)
    elif key in FLAGS:
        found.codes.append("content_filter")


def _take_code(key: str, value: str, found: Evidence, words: list[str]) -> None:
    if value.count(" ") > 2 or len(value) > 80:
        words.append(value)
        return
    if key in STATUSES and value.isascii() and value.isdigit() and len(value) == 3 and found.number is None:
        found.number = int(value)
        return
    code = snake(value)
    if code in NO_CODE:
        return
    if not found.code or (key == "code" and len(found.codes) < 2):
        found.code = value
    if key == "error_type":  # OpenRouter's stable vocabulary outranks the code that a dialect forces upon it
        found.codes.insert(0, code)
    else:
        found.codes.append(code)


def _take_number(key: str, value: float, found: Evidence) -> None:
    if key in STATUSES:
        if isinstance(value, int) and 100 <= value <= 599:
            if found.number is None:
                found.number = value
        else:
            found.codes.append(str(value))
    elif key in DELAYS:
        found.delays.append(float(value))
    elif key == "retry_after_ms":
        found.delays.append(value / 1000.0)
    elif key in ZEROES:
        found.zero = found.zero or value == 0
        _take_value(value, found)


def _take_value(value: float | None, found: Evidence) -> None:
    if value is not None and 0 < value < MOST_VALUE and value == int(value):
        found.values.append(int(value))


def _finish(found: Evidence, words: list[str]) -> None:
    """Join the sentences: the first one as the message, all of them as searchable text."""
    seen: list[str] = []
    room = MOST_TEXT
    for word in words:
        word = word[:room]
        if word and word not in seen:
            seen.append(word)
            room -= len(word)
    if seen:
        found.message = one_line(seen[0])
    text = " ".join(" ".join(seen).lower().split()).replace("’", "'")
    found.text = without_addresses(text)


def one_line(text: str, most: int = 300) -> str:
    """*text* as a single printable line of at most *most* characters."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text[: 2 * most]).split())
    return line if len(line) <= most else line[: most - 1] + "…"


def snake(code: str) -> str:
    """`RateLimitReached`, `API_KEY_INVALID`, `resource-exhausted` -> lower snake case."""
    if code.islower() or code.isupper():
        plain = code.lower()
    else:
        plain = "".join(
            f"_{sign.lower()}" if sign.isupper() and place and not code[place - 1].isupper() else sign.lower()
            for place, sign in enumerate(code)
        )
    for sign in "-.:/ ":
        plain = plain.replace(sign, "_")
    return plain.strip("_").replace("__", "_")


def without_addresses(text: str) -> str:
    """*text* without web addresses: a link to a billing page does not make an error one of billing."""
    if "http" not in text and "www." not in text:
        return text
    return " ".join(word for word in text.split(" ") if "http://" not in word and "https://" not in word)


def status_in(text: str) -> int | None:
    """An HTTP status that a sentence states: `Response 429: …`, `error code: 503`, `status 502`."""
    for anchor in ("response ", "error code: ", "status code ", "status code: ", "status: ", "status ", "http "):
        at = text.find(anchor)
        if at >= 0:
            plain = number(text[at + len(anchor) : at + len(anchor) + 3])
            if plain is not None and 400 <= plain <= 599:
                return int(plain)
    return None
