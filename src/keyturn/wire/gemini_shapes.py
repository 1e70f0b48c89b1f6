"""Gemini's answers as they come: typed just as far as they are read, with what both whole answers and streams share."""

from __future__ import annotations

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
                return name, msgspec.json.encode({name: loose(bytes(raw)), **signed})
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
        return msgspec.convert(given, Chunk)
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


def read_citations(grounding: Any, text: str) -> list[Citation]:
    """The web pages that *text* rests on. The API counts its places in bytes of UTF-8."""
    if not isinstance(grounding, dict):
        return []
    pages = [_page(each) for each in _list(grounding.get("groundingChunks"))]
    found = []
    raw = text.encode("utf-8", "replace")
    for support in _list(grounding.get("groundingSupports")):
        if not isinstance(support, dict):
            continue
        segment = support.get("segment")
        segment = segment if isinstance(segment, dict) else {}
        start, end = _place(raw, segment.get("startIndex") or 0), _place(raw, segment.get("endIndex"))
        quote = segment.get("text")
        for index in _list(support.get("groundingChunkIndices")):
            if type(index) is int and 0 <= index < len(pages) and pages[index][0]:
                url, title = pages[index]
                found.append(Citation(url, title, quote if isinstance(quote, str) else "", start, end))
    return found or [Citation(url, title) for url, title in pages if url]


def _list(given: Any) -> list[Any]:
    return given if isinstance(given, list) else []


def _page(given: Any) -> tuple[str, str]:
    web = given.get("web") if isinstance(given, dict) else None
    web = web if isinstance(web, dict) else {}
    url, title = web.get("uri"), web.get("title")
    return (url if isinstance(url, str) else "", title if isinstance(title, str) else "")


def _place(raw: bytes, index: Any) -> int | None:
    return len(raw[:index].decode("utf-8", "ignore")) if type(index) is int and index >= 0 else None


def write_citations(citations: list[Citation], text: str) -> dict[str, Any]:
    """`groundingMetadata` for *citations* of *text*."""
    pages: dict[tuple[str, str], int] = {}
    supports = []
    for citation in citations:
        if not citation.url:
            continue
        index = pages.setdefault((citation.url, citation.title), len(pages))
        if citation.end is not None:
            start = citation.start or 0
            segment = {
                "startIndex": len(text[:start].encode("utf-8", "replace")),
                "endIndex": len(text[: citation.end].encode("utf-8", "replace")),
                "text": citation.quote or text[start : citation.end],
            }
            supports.append({"segment": segment, "groundingChunkIndices": [index]})
    chunks = [{"web": {"uri": url, **({"title": title} if title else {})}} for url, title in pages]
    return {"groundingChunks": chunks, **({"groundingSupports": supports} if supports else {})} if chunks else {}


def finish_of(choice: Choice) -> str:
    """`finishReason` for a client."""
    return FINISHES.get(choice.stop, "STOP")
