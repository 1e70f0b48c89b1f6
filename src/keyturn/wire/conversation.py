"""Which conversation a call belongs to, told by what the client calls it or by how it begins."""

from __future__ import annotations

from collections.abc import Mapping

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
_IDS = ("session_id", "conversation_id", "thread_id", "chat_id", "sessionId", "conversationId", "threadId", "chatId")
"""What clients call a conversation, in the body or in its `metadata`. They are read here and go on as they came."""
LONGEST_ID = 512
_rows = msgspec.json.Decoder(list[msgspec.Raw]).decode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_GAPS = b" \t\r\n,]"


def conversation_of(call: Call, caller: str = "") -> tuple[int, bool] | None:
    """A number that all calls of one conversation of *caller* share, and whether it goes on: then somebody may hold its
    cache. Two callers never share one, whatever they say.

    None for a call too short to be cached. A conversation is known by the name that the client gives it, else by its
    beginning: all before the model's first turn. The number holds in this process only.
    """
    if call.text_bytes < SHORTEST_CACHED:
        return None
    named = call.conversation or _named(call.members)
    if named:
        return hash((caller, named)), True
    history = call.members.get(_HISTORIES.get(call.dialect, ""))
    if history is None:
        return None
    system = call.members.get(_SYSTEMS.get(call.dialect, ""), b"")
    if call.dialect in _ROWS:
        return _by_rows(caller, system, history, _ROWS[call.dialect])
    at = history.find(b'"assistant"')
    if at < 0:
        return hash((caller, system, history.rstrip(_GAPS))), False
    return hash((caller, system, history[: max(history.rfind(b"{", 0, at), 0)].rstrip(_GAPS))), True


def _named(members: Mapping[str, bytes]) -> tuple[str, bytes] | None:
    """The name of the conversation that the body states, if it does."""
    found = _id_in(members)
    metadata = members.get("metadata", b"")
    if found is None and metadata.startswith(b"{"):
        try:
            found = _id_in(_members(metadata))
        except (msgspec.DecodeError, RecursionError):  # refused later, if anybody minds
            return None
    return found


def _id_in(members: Mapping[str, bytes | msgspec.Raw]) -> tuple[str, bytes] | None:
    if members.keys().isdisjoint(_IDS):
        return None
    for name in _IDS:
        raw = members.get(name)
        if raw is not None:
            told = bytes(raw)
            if 2 < len(told) <= LONGEST_ID and told.startswith(b'"'):
                return name, told
    return None


def _by_rows(caller: str, system: bytes, history: bytes, marks: tuple[bytes, ...]) -> tuple[int, bool]:
    try:
        rows = _rows(history)
    except msgspec.DecodeError:  # a text alone, or what is refused later
        return hash((caller, system, history)), False
    for place, row in enumerate(rows):
        told = bytes(row)
        if any(mark in told for mark in marks):
            return hash((caller, system, *map(bytes, rows[:place]))), True
    return hash((caller, system, *map(bytes, rows))), False
