"""Gemini's answers as they come: typed just as far as they are read, with what both whole answers and streams share."""

from __future__ import annotations

import json
from itertools import accumulate
from typing import Any

import msgspec

from keyturn.core import Choice, Citation, StopReason, Usage

from .jsontext import loose

_MOST = 1_000_000_000
"""No answer uses more tokens; a larger figure is a mistake that must not spend a budget for ever."""
_FILTERED = """SAFETY RECITATION BLOCKLIST PROHIBITED_CONTENT SPII LANGUAGE IMAGE_SAFETY IMAGE_PROHIBITED_CONTENT
IMAGE_RECITATION MODEL_ARMOR""".split()
STOPS: dict[str, StopReason] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "CONTINUATION": "pause",
    **dict.fromkeys(_FILTERED, "content_filter"),
}
"""`finishReason`; every other one is `other`, a broken call of a tool too."""
FINISHES: dict[str | None, str] = {
    "length": "MAX_TOKENS",
    "content_filter": "SAFETY",
    "other": "OTHER",
}
"""The way back; every other one is `STOP`."""
_Number = int | float | None
_NOTHING = msgspec.Raw()


class Call(msgspec.Struct, gc=False):
    """A `functionCall`."""

    name: str | None = None
    id: str | None = None
    args: msgspec.Raw = _NOTHING


class Blob(msgspec.Struct, gc=False):
    """`inlineData`."""

    mimeType: str | None = None
    data: str | None = None


class Part(msgspec.Struct, gc=False):
    """A part; the last four only go back into Gemini's own dialect."""

    text: str | None = None
    thought: bool | None = None
    thoughtSignature: str | None = None
    functionCall: Call | None = None
    inlineData: Blob | None = None
    executableCode: msgspec.Raw = _NOTHING
    codeExecutionResult: msgspec.Raw = _NOTHING
    toolCall: msgspec.Raw = _NOTHING
    toolResponse: msgspec.Raw = _NOTHING

    def foreign(self) -> tuple[str, bytes] | None:
        """Name and JSON text of a part that only Gemini knows."""
        for name in ("executableCode", "codeExecutionResult", "toolCall", "toolResponse"):
            raw = getattr(self, name)
            if len(memoryview(raw)) and bytes(raw) != b"null":
                signed = {"thoughtSignature": self.thoughtSignature} if self.thoughtSignature else {}
                return name, encoded({name: loose(bytes(raw)), **signed})
        return None


class Content(msgspec.Struct, gc=False):
    """The turn of the model."""

    parts: list[Part] | None = None


class Candidate(msgspec.Struct, gc=False):
    """One answer, or a piece of it."""

    content: Content | None = None
    finishReason: str | None = None
    index: _Number = None
    logprobsResult: Any = None
    groundingMetadata: Any = None


class Used(msgspec.Struct, gc=False):
    """`usageMetadata`."""

    promptTokenCount: _Number = None
    candidatesTokenCount: _Number = None
    thoughtsTokenCount: _Number = None
    cachedContentTokenCount: _Number = None
    toolUsePromptTokenCount: _Number = None
    totalTokenCount: _Number = None


class Feedback(msgspec.Struct, gc=False):
    """`promptFeedback`."""

    blockReason: str | None = None


class Chunk(msgspec.Struct, gc=False):
    """A GenerateContentResponse."""

    candidates: list[Candidate] | None = None
    promptFeedback: Feedback | None = None
    usageMetadata: Used | None = None
    modelVersion: str | None = None
    responseId: str | None = None
    error: Any = None

    @property
    def blocked(self) -> bool:
        """The prompt itself was refused."""
        return not self.candidates and self.promptFeedback is not None and bool(self.promptFeedback.blockReason)


_read = msgspec.json.Decoder(Chunk).decode


def read_chunk(data: bytes) -> Chunk | None:
    """The answer or chunk in *data*; None for what is none. Never raises."""
    try:
        return _read(data)
    except (ValueError, RecursionError):
        pass
    given = loose(data)
    if isinstance(given, list) and len(given) == 1:  # errors come wrapped so
        given = given[0]
        if not (isinstance(given, dict) and given.get("error")):
            return None
    if not isinstance(given, dict):
        return None
    if given.get("error"):
        return Chunk(error=given["error"])
    try:
        return _read(encoded(given))
    except (ValueError, RecursionError):
        return None


def read_used(used: Used | None) -> Usage | None:
    """The Usage; None when it tells nothing. The API leaves thinking out of the candidates' tokens, we do not."""
    if used is None:
        return None
    prompt = _tokens(used.promptTokenCount) + _tokens(used.toolUsePromptTokenCount)
    thoughts = _tokens(used.thoughtsTokenCount)
    total = _tokens(used.totalTokenCount)
    output = max(_tokens(used.candidatesTokenCount) + thoughts, total - prompt if prompt else 0)
    if not prompt:
        prompt = max(0, total - output)
    if not prompt and not output:
        return None
    return Usage(prompt, output, min(_tokens(used.cachedContentTokenCount), prompt), min(thoughts, output))


def _tokens(given: _Number) -> int:
    if not given or given != given or given < 0:
        return 0
    return int(min(given, _MOST))


def used_of(usage: Usage) -> dict[str, int]:
    """`usageMetadata` for a client."""
    found = {
        "promptTokenCount": usage.input,
        "candidatesTokenCount": usage.output - usage.reasoning,
        "totalTokenCount": usage.total,
    }
    if usage.reasoning:
        found["thoughtsTokenCount"] = usage.reasoning
    if usage.cached:
        found["cachedContentTokenCount"] = usage.cached
    return found


def index_of(candidate: Candidate) -> int:
    """Which answer it is; 0 where the API does not say."""
    given = candidate.index
    return int(given) if given and 0 < given < 1000 else 0


def args_of(call: Call) -> str:
    """The arguments as JSON text of an object."""
    text = bytes(call.args)
    return text.decode("utf-8", "replace") if text[:1] == b"{" else "{}"


def stop_of(finish: str, called: bool) -> StopReason:
    """Why it stopped. A turn that calls tools ends with `STOP` too."""
    stop = STOPS.get(finish, "other")
    return "tool_calls" if called and stop == "stop" else stop


def read_logprobs(given: Any) -> bytes:
    """`logprobsResult` in OpenAI Chat's shape; empty when it holds none."""
    if not isinstance(given, dict) or not isinstance(chosen := given.get("chosenCandidates"), list):
        return b""
    tops = given.get("topCandidates")
    tops = tops if isinstance(tops, list) else []
    content = []
    for index, each in enumerate(chosen):
        top = tops[index] if index < len(tops) and isinstance(tops[index], dict) else {}
        others = top.get("candidates")
        token = _token(each)
        token["top_logprobs"] = [_token(other) for other in others] if isinstance(others, list) else []
        content.append(token)
    return msgspec.json.encode({"content": content}) if content else b""


def _token(given: Any) -> dict[str, Any]:
    given = given if isinstance(given, dict) else {}
    text = given.get("token")
    text = text if isinstance(text, str) else ""
    return {"token": text, "logprob": _number(given), "bytes": list(text.encode("utf-8", "replace"))}


def _number(given: dict[str, Any]) -> float:
    found = given.get("logProbability")
    return float(found) if isinstance(found, (int, float)) and -1e300 < found < 1e300 else 0.0


def write_logprobs(logprobs: bytes) -> dict[str, Any] | None:
    """OpenAI Chat's `logprobs` as a `logprobsResult`; None when they hold none."""
    given = loose(logprobs)
    content = given.get("content") if isinstance(given, dict) else None
    if not isinstance(content, list) or not content:
        return None
    tokens = [each for each in content if isinstance(each, dict)]
    tops = [each.get("top_logprobs") for each in tokens]
    return {
        "chosenCandidates": [_candidate(each) for each in tokens],
        "topCandidates": [
            {
                "candidates": [_candidate(each) for each in top if isinstance(each, dict)]
                if isinstance(top, list)
                else []
            }
            for top in tops
        ],
    }


def _candidate(token: dict[str, Any]) -> dict[str, Any]:
    return {"token": token.get("token"), "logProbability": token.get("logprob")}


def encoded(body: object) -> bytes:
    """*body*, decoded from any JSON, as JSON on one line. Never raises: what no UTF-8 can hold is replaced, and what is
    nested too deep becomes null."""
    try:
        return msgspec.json.encode(body)
    except (ValueError, RecursionError):  # half a surrogate pair
        pass
    try:
        text = json.dumps(body, ensure_ascii=False, default=_decoded).encode("utf-8", "replace")
        return msgspec.json.encode(json.loads(text))  # NaN is null
    except (ValueError, RecursionError):
        return b"null"


def _decoded(raw: object) -> Any:
    return loose(bytes(raw)) if isinstance(raw, msgspec.Raw) else None


def read_citations(grounding: Any, text: str) -> list[Citation]:
    """The web pages that *text* rests on. The API counts its places in bytes of UTF-8."""
    if not isinstance(grounding, dict):
        return []
    pages = [_page(each) for each in _list(grounding.get("groundingChunks"))]
    found = []
    place = Places(text)
    for support in _list(grounding.get("groundingSupports")):
        if not isinstance(support, dict):
            continue
        segment = support.get("segment")
        segment = segment if isinstance(segment, dict) else {}
        start, end = place.of_byte(segment.get("startIndex") or 0), place.of_byte(segment.get("endIndex"))
        quote = segment.get("text")
        for index in _list(support.get("groundingChunkIndices")):
            if type(index) is int and 0 <= index < len(pages) and pages[index][0]:
                url, title = pages[index]
                found.append(Citation(url, title, quote if isinstance(quote, str) else "", start, end))
    return found or [Citation(url, title) for url, title in pages if url]


def cites(grounding: Any) -> bool:
    """Whether *grounding* tells of pages."""
    return isinstance(grounding, dict) and bool(_list(grounding.get("groundingChunks")))


def _list(given: Any) -> list[Any]:
    return given if isinstance(given, list) else []


def _page(given: Any) -> tuple[str, str]:
    web = given.get("web") if isinstance(given, dict) else None
    web = web if isinstance(web, dict) else {}
    url, title = web.get("uri"), web.get("title")
    return (url if isinstance(url, str) else "", title if isinstance(title, str) else "")


class Places:
    """Places in *text*, as characters and as bytes of UTF-8. Each is found without going through all the text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._raw = text.encode("utf-8", "replace")
        self._plain = len(self._raw) == len(text)
        self._chars: list[int] = []
        """Characters before each block of `_BLOCK` bytes, and bytes before each block of as many characters."""
        self._bytes: list[int] = []
        if not self._plain:
            blocks = (self._raw[at : at + _BLOCK] for at in range(0, len(self._raw), _BLOCK))
            self._chars = [*accumulate(map(_characters, blocks), initial=0)]
            pieces = (text[at : at + _BLOCK] for at in range(0, len(text), _BLOCK))
            self._bytes = [*accumulate((len(each.encode("utf-8", "replace")) for each in pieces), initial=0)]

    def of_byte(self, index: object) -> int | None:
        """The character at byte *index*, in its middle too; None for what is no place."""
        if type(index) is not int or index < 0:
            return None
        raw = self._raw
        index = min(index, len(raw))
        if self._plain:
            return index
        block = index // _BLOCK
        found = self._chars[block] + _characters(raw[block * _BLOCK : index])
        return found - 1 if index < len(raw) and raw[index] & 0xC0 == 0x80 else found

    def of_character(self, index: int) -> int:
        """The byte at which the character *index* begins."""
        index = min(max(index, 0), len(self._text))
        if self._plain:
            return index
        block = index // _BLOCK
        return self._bytes[block] + len(self._text[block * _BLOCK : index].encode("utf-8", "replace"))


_BLOCK = 1024
_CONTINUED = bytes(range(0x80, 0xC0))


def _characters(raw: bytes) -> int:
    """How many characters begin in *raw*, a piece of UTF-8."""
    return len(raw.translate(None, _CONTINUED))


_MOST_QUOTED = 1_000_000


def write_citations(citations: list[Citation], text: str) -> dict[str, Any]:
    """`groundingMetadata` for *citations* of *text*, each once; beyond `_MOST_QUOTED` without the words that they
    quote, which their places tell as well."""
    pages: dict[tuple[str, str], int] = {}
    supports = []
    place = Places(text)
    quoted = 0
    for citation in dict.fromkeys(citations):
        if not citation.url:
            continue
        index = pages.setdefault((citation.url, citation.title), len(pages))
        if citation.end is not None:
            start = citation.start or 0
            segment: dict[str, object] = {
                "startIndex": place.of_character(start),
                "endIndex": place.of_character(citation.end),
            }
            quoted += len(citation.quote) or max(0, citation.end - start)
            if quoted <= _MOST_QUOTED:
                segment["text"] = citation.quote or text[start : citation.end]
            supports.append({"segment": segment, "groundingChunkIndices": [index]})
    chunks = [{"web": {"uri": url, **({"title": title} if title else {})}} for url, title in pages]
    return {"groundingChunks": chunks, **({"groundingSupports": supports} if supports else {})} if chunks else {}


def finish_of(choice: Choice) -> str:
    """`finishReason` for a client."""
    return FINISHES.get(choice.stop, "STOP")
