"""Who made which reasoning signature: remembered for a while, so that nobody is sent another's."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

import msgspec
from msgspec.structs import replace

from keyturn.core import Call, Candidate, Message, Origin, Part, Reasoning, Request, Signature, Text, ToolUse
from keyturn.providers import origin_of
from keyturn.wire import MARK, MARK_INSIDE, accepted

MOST = 20_000
"""Signatures, and calls of tools, that are remembered; the oldest is forgotten first."""
_NAMES: dict[str, tuple[bytes, ...]] = {
    "anthropic": (b'"signature"', b'"redacted_thinking"'),
    "gemini": (b'"thoughtSignature"', b'"thought_signature"'),
    "openai_responses": (b'"encrypted_content"',),
}
_PACKED = f'"{MARK}'.encode()
_HELD = re.compile(rb'(?:signature|data)"\s*:\s*"' + re.escape(MARK.encode()))
"""A packed signature where a chat client holds one; anywhere else somebody wrote about it."""
_PLAIN = bytes.maketrans(b"-_", b"+/")
_HISTORY = {"anthropic": "messages", "gemini": "contents", "openai_responses": "input"}
_SECRETIVE = re.compile(rb'"type"\s*:\s*"(?:reasoning|compaction)"')
_ENCRYPTED = re.compile(rb'"encrypted_content"\s*:\s*"')
_UNSIGNED = re.compile(rb'"signature"\s*:\s*""')
"""Thinking that nobody signed, as models write it that sign nothing: Anthropic refuses it."""
_VALUES = re.compile(
    rb'"(?:signature|data|thoughtSignature|thought_signature|encrypted_content)"\s*:\s*"((?:[^"\\]|\\.)+)"'
)


class _Turn(msgspec.Struct):
    role: str = ""
    content: Any = None


_ROWS = msgspec.json.Decoder(list[msgspec.Raw]).decode
_TURN = msgspec.json.Decoder(_Turn).decode


class SignatureMemory:
    """Bounded, in memory only: what it forgets is taken to belong to whoever speaks the dialect."""

    def __init__(self) -> None:
        self._makers: OrderedDict[bytes, Origin] = OrderedDict()
        self._calls: OrderedDict[str, Signature] = OrderedDict()

    def made(self, values: Iterable[str], candidate: Candidate) -> None:
        """*candidate* gave these signatures."""
        origin = origin_of(candidate)
        for value in values:
            _keep(self._makers, _digest(value.encode()), origin)

    def called(self, signed: Iterable[tuple[str, Signature]]) -> None:
        """Calls of tools, by their ids, that carry a signature which their client's dialect may lose."""
        for identity, signature in signed:
            _keep(self._calls, identity, signature)

    def foreign(self, call: Call, candidate: Candidate) -> bool:
        """Whether the history of *call* holds a signature that *candidate*, which speaks its dialect, does not take."""
        if call.dialect == "openai_chat":  # has none of its own: what servers of its kind do not know, they may refuse
            messages = call.members.get("messages", b"")
            return _PACKED in messages and _HELD.search(messages) is not None
        names = _NAMES.get(call.dialect)
        if names is None:
            return False
        if call.dialect == "anthropic" and _began_without_thinking(call):
            return True
        history = call.members.get(_HISTORY[call.dialect], b"")
        if call.dialect == "openai_responses" and _unproven(history):
            return True
        if not any(name in history for name in names):
            return False
        if _UNSIGNED.search(history) is not None:
            return True
        origin, marks = origin_of(candidate), (MARK.encode(), MARK_INSIDE.encode())
        for written in _VALUES.findall(history):
            value = written.replace(b"\\/", b"/")  # some encoders escape what base64 is full of
            if value.startswith(marks):
                return True
            maker = self._makers.get(_digest(value))
            if maker is not None and not accepted(Signature("", call.dialect, maker), call.dialect, origin):
                return True
        return False

    def recalled(self, request: Request) -> Request:
        """*request* with what is remembered of its signatures: who made them, and those that its client lost."""
        messages = tuple(self._message(message) for message in request.messages)
        return request if messages == request.messages else replace(request, messages=messages)

    def _message(self, message: Message) -> Message:
        if message.role != "assistant":
            return message
        return replace(message, parts=tuple(self._part(part) for part in message.parts))

    def _part(self, part: Part) -> Part:
        if not isinstance(part, (Reasoning, ToolUse, Text)):
            return part
        signature = part.signature
        if signature is None:
            lost = self._calls.get(part.id) if isinstance(part, ToolUse) and part.id else None
            return part if lost is None else replace(part, signature=lost)
        if signature.origin is None:
            maker = self._makers.get(_digest(signature.value.encode()))
            if maker is not None:
                return replace(part, signature=replace(signature, origin=maker))
        return part


def _began_without_thinking(call: Call) -> bool:
    """Whether an Anthropic client that wants thinking in tokens goes on with a turn which another model began, without
    any: after a call of a tool Anthropic does not take thinking up midway, and answers 400."""
    if b'"enabled"' not in call.members.get("thinking", b""):
        return False
    try:
        rows = _ROWS(call.members.get("messages", b""))
        if not rows or b'"tool_result"' not in bytes(rows[-1]):
            return False
        own = next((row for row in map(_TURN, reversed(rows)) if row.role == "assistant"), None)
    except ValueError:
        return False
    if own is None or not isinstance(own.content, list) or not own.content:
        return own is not None
    first = own.content[0]
    return not (isinstance(first, dict) and first.get("type") in ("thinking", "redacted_thinking"))


def _unproven(history: bytes) -> bool:
    """Whether items of Responses hold thinking without its encrypted content: a client that counts on kept responses
    sends it so, and OpenAI refuses it, as none are kept. What open models think stands there in plain text."""
    if b'"reasoning"' not in history or b'"reasoning_text"' in history:
        return False
    return len(_SECRETIVE.findall(history)) > len(_ENCRYPTED.findall(history))


def _digest(value: bytes) -> bytes:
    """The same for both alphabets of base64: Google's SDK sends Gemini's signatures back in the other one."""
    return blake2b(value.translate(_PLAIN).rstrip(b"="), digest_size=16).digest()


def _keep(kept: OrderedDict[Any, Any], key: object, value: object) -> None:
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > MOST:
        kept.popitem(last=False)
