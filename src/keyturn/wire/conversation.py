"""Which conversation a call belongs to, told by what the client calls it or by how it begins."""

from __future__ import annotations

import msgspec

from keyturn.core import Call

SHORTEST_CACHED = 4096
"""Bytes of prompt below which no provider caches: 1,024 tokens (OpenAI, Anthropic, Gemini: prompt caching)."""
_HISTORIES = {"openai_chat": "messages", "anthropic": "messages", "gemini": "contents", "openai_responses": "input"}
_ROWS = {
    "gemini": (b'"model"',),
    "openai_responses": (b'"assistant"', b'"reasoning"', b'"function_call"', b'"custom_tool_call"', b'"compaction"'),
}
"""Where the model's turns are told by more than a role, or by one that clients write behind the content: what marks a
turn as the model's. Elsewhere its role does."""
_SYSTEMS = {"anthropic": "system", "gemini": "systemInstruction", "openai_responses": "instructions"}
_rows = msgspec.json.Decoder(list[msgspec.Raw]).decode
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
    history = call.members.get(_HISTORIES.get(call.dialect, ""))
    if history is None:
        return None
    system = call.members.get(_SYSTEMS.get(call.dialect, ""), b"")
    if call.dialect in _ROWS:
        return _by_rows(system, history, _ROWS[call.dialect])
    at = history.find(b'"assistant"')
    if at < 0:
        return hash((system, history.rstrip(_GAPS))), False
    return hash((system, history[: max(history.rfind(b"{", 0, at), 0)].rstrip(_GAPS))), True


def _by_rows(system: bytes, history: bytes, marks: tuple[bytes, ...]) -> tuple[int, bool]:
    try:
        rows = _rows(history)
    except msgspec.DecodeError:  # a text alone, or what is refused later
        return hash((system, history)), False
    for place, row in enumerate(rows):
        told = bytes(row)
        if any(mark in told for mark in marks):
            return hash((system, *map(bytes, rows[:place]))), True
    return hash((system, *map(bytes, rows))), False
