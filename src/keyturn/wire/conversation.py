"""Which conversation a call belongs to, told by what the client calls it or by how it begins."""

from __future__ import annotations

from keyturn.core import Call

SHORTEST_CACHED = 4096
"""Bytes of prompt below which no provider caches: 1,024 tokens (OpenAI, Anthropic, Gemini: prompt caching)."""
_HISTORIES = {
    "openai_chat": ("messages", b'"assistant"'),
    "anthropic": ("messages", b'"assistant"'),
    "gemini": ("contents", b'"model"'),
    "openai_responses": ("input", b'"assistant"'),
}
_SYSTEMS = {"anthropic": "system", "gemini": "systemInstruction", "openai_responses": "instructions"}
_GAPS = b" \t\r\n,]"


def conversation_of(call: Call) -> tuple[int, bool] | None:
    """A number that all calls of one conversation share, and whether it goes on: then somebody may hold its cache.

    None for a call too short to be cached. A conversation is known by its beginning: all before the model's first turn.
    The number holds in this process only.
    """
    if call.text_bytes < SHORTEST_CACHED:
        return None
    if call.conversation:
        return hash(call.conversation), True
    found = _HISTORIES.get(call.dialect)
    history = call.members.get(found[0]) if found is not None else None
    if found is None or history is None:
        return None
    system = call.members.get(_SYSTEMS.get(call.dialect, ""), b"")
    at = history.find(found[1])
    if at < 0:
        return hash((system, history.rstrip(_GAPS))), False
    return hash((system, history[: max(history.rfind(b"{", 0, at), 0)].rstrip(_GAPS))), True
