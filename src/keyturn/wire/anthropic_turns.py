"""The conversation of a Request as Anthropic takes it: system blocks, and turns that take turns."""

from __future__ import annotations

from base64 import b64decode
from typing import Any, NamedTuple

import msgspec

from keyturn.core import (
    Foreign,
    Media,
    Message,
    Part,
    Reasoning,
    Refusal,
    Request,
    Signature,
    Text,
    ToolResult,
    ToolUse,
)
from keyturn.errors import BadRequest, Untranslatable

from .anthropic_blocks import DIALECT, tool_id
from .dialect import Target
from .jsontext import clean, loose
from .notes import note as tell
from .signatures import accepted
from .tools import flat_name
from .unanswered import Unanswered

Block = dict[str, Any]
IMAGES = ("image/jpeg", "image/png", "image/gif", "image/webp")

_read_arguments = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Turn(NamedTuple):
    """One message of the body."""

    role: str
    content: list[Block]


class Conversation:
    """Writes the messages of *request*; what is dropped is told in *notes*, once each."""

    def __init__(self, request: Request, target: Target, notes: list[str]) -> None:
        self._request = request
        self._target = target
        self._notes = notes
        self._open: Unanswered[str] = Unanswered()
        """Ids of the calls that have no result yet."""
        self._calls = 0

    def write(self) -> tuple[list[Block], list[Turn]]:
        """The system blocks and the turns. Raises Untranslatable, and BadRequest for arguments that are no object."""
        messages = self._request.messages
        lead = next((at for at, message in enumerate(messages) if message.role != "system"), len(messages))
        system = [block for message in messages[:lead] for block in self._instructions(message)]
        turns: list[Turn] = []
        for number, message in enumerate(messages[lead:], lead):
            role = message.role
            blocks = self._instructions(message) if role == "system" else self._blocks(message)
            if message.name:
                self._note("dropped name: Anthropic has no counterpart")
            if role == "system" and not self._target.mid_system:
                role = "user"
                for block in blocks:
                    block["text"] = f"<system>\n{block['text']}\n</system>"
            if not blocks:
                self._note(f"dropped messages[{number}]: it has nothing that Anthropic takes")
            elif turns and turns[-1].role == role:
                turns[-1].content.extend(blocks)
            else:
                turns.append(Turn(role, blocks))
        if not turns and system:  # a prompt of instructions alone: a turn is required
            return [], [Turn("user", system)]
        if not turns:
            raise Untranslatable(
                "`messages` hold no text and nothing else that Anthropic takes. Say something in one.", param="messages"
            )
        return system, _ordered(turns)

    def _note(self, note: str) -> None:
        tell(self._notes, note)

    def _blocks(self, message: Message) -> list[Block]:
        return [block for part in message.parts if (block := self._block(part)) is not None]

    def _instructions(self, message: Message) -> list[Block]:
        """The text blocks of a system message, which takes no others."""
        blocks = self._blocks(message)
        if other := next((block["type"] for block in blocks if block["type"] != "text"), ""):
            raise Untranslatable(f"A system message holds {other}; Anthropic's are texts.", param="messages")
        return blocks

    def _block(self, part: Part) -> Block | None:
        match part:
            case Text():
                return self._text(part)
            case Refusal(text=text):
                return {"type": "text", "text": clean(text)} if text.strip() else None
            case Media():
                return self._media(part)
            case ToolUse():
                return self._tool_use(part)
            case ToolResult():
                return self._tool_result(part)
            case Reasoning():
                return self._reasoning(part)
            case Foreign(dialect="anthropic") if isinstance(block := loose(part.raw), dict):
                return block
        self._note(f"dropped {part.what}: Anthropic has no counterpart")
        return None

    def _text(self, part: Text) -> Block | None:
        """Anthropic refuses texts of nothing but white space."""
        if not part.text.strip():
            return None
        block: Block = {"type": "text", "text": clean(part.text)}
        if cited := [loose(each.raw) for each in part.citations if each.dialect == DIALECT and each.raw]:
            block["citations"] = cited
        return marked(block, part.cache)

    def _reasoning(self, part: Reasoning) -> Block | None:
        signature = part.signature
        if signature is None:
            if part.text:
                self._note("dropped reasoning: it is not signed")
            return None
        if not accepted(signature, DIALECT, self._target.origin):
            self._note("dropped reasoning: signed by another provider")
            return None
        if part.redacted:
            return {"type": "redacted_thinking", "data": signature.value}
        return _thinking(part.text, signature)

    def _tool_use(self, part: ToolUse) -> Block:
        identity = tool_id(part.id) or f"call_{self._calls}"
        self._calls += 1
        name = flat_name(part.name, part.namespace)
        self._open.add(identity, identity, part.name)
        given: object = {"input": clean(part.arguments)}
        if not part.free:
            given = _arguments(part)
        block: Block = {"type": "tool_use", "id": identity, "name": tool_id(name), "input": given}
        return marked(block, part.cache)

    def _tool_result(self, part: ToolResult) -> Block:
        content = [inner for each in part.parts if (inner := self._block(each)) is not None]
        block: Block = {"type": "tool_result", "tool_use_id": self._answered(part)}
        only = part.parts[0] if len(part.parts) == 1 else None
        if isinstance(only, Text) and not only.cache and not only.citations:
            block["content"] = clean(only.text)
        elif content:
            block["content"] = content
        if part.failed:
            block["is_error"] = True
        return marked(block, part.cache)

    def _answered(self, part: ToolResult) -> str:
        """Which call *part* answers: by its id, else by the tool's name, else the oldest that is open."""
        identity = tool_id(part.id)
        if not identity:
            identity = self._open.named(part.name) or self._open.oldest() or "call_0"
        while self._open.with_id(identity) is not None:
            pass
        return identity

    def _media(self, part: Media) -> Block:
        if part.kind not in ("image", "document"):
            raise Untranslatable(f"The messages hold {part.kind}, which Anthropic does not take.", param="messages")
        if part.detail not in ("", "auto"):
            self._note("dropped detail: Anthropic has no counterpart")
        block: Block = {"type": part.kind, "source": self._source(part)}
        if part.kind == "document":
            block.update({"title": clean(part.name)} if part.name else {})
            block.update({"context": clean(part.context)} if part.context else {})
            block.update({"citations": {"enabled": True}} if part.cited else {})
        return marked(block, part.cache)

    def _source(self, part: Media) -> Block:
        if part.file_id:
            if self._request.dialect != DIALECT:
                raise Untranslatable(
                    f"The messages name the file {part.file_id[:80]!r}, which Anthropic does not have: send its data.",
                    param="messages",
                )
            return {"type": "file", "file_id": part.file_id}
        if part.text:
            if part.mime:
                return {"type": "text", "media_type": "text/plain", "data": clean(part.text)}
            return {"type": "content", "content": clean(part.text)}
        if part.url:
            if not part.url.startswith(("http://", "https://")):
                raise Untranslatable("Anthropic fetches http(s) addresses only: send the data.", param="messages")
            return {"type": "url", "url": clean(part.url)}
        return _inline(part)


def marked(block: Block, cache: str) -> Block:
    """*block* with the cache mark *cache*; Anthropic keeps a prefix for five minutes or an hour."""
    if cache:
        block["cache_control"] = {"type": "ephemeral", "ttl": "1h"} if cache in ("1h", "12h") else {"type": "ephemeral"}
    return block


def _inline(part: Media) -> Block:
    if part.mime in (IMAGES if part.kind == "image" else ("application/pdf",)):
        return {"type": "base64", "media_type": part.mime, "data": part.data}
    if part.kind == "document" and (part.mime.startswith("text/") or part.mime == "application/json"):
        try:
            text = b64decode(part.data).decode()
        except ValueError:
            raise Untranslatable(f"A {part.mime} file in the messages is not in UTF-8.", param="messages") from None
        return {"type": "text", "media_type": "text/plain", "data": text}
    known = ", ".join(IMAGES) if part.kind == "image" else "PDF and text"
    raise Untranslatable(
        f"The messages hold a file of type {part.mime or 'unknown'}, which Anthropic does not take; it takes {known}.",
        param="messages",
    )


def _thinking(text: str, signature: Signature) -> Block:
    return {"type": "thinking", "thinking": clean(text), "signature": signature.value}


def _arguments(part: ToolUse) -> msgspec.Raw:
    """The call's input, as the client wrote it."""
    text = clean(part.arguments).encode()
    if not text.strip():
        text = b"{}"
    try:
        _read_arguments(text)
    except (ValueError, RecursionError):
        raise BadRequest(
            f"The arguments of the call {part.id[:80]!r} of {part.name[:80]!r} in the messages are not the JSON text "
            "of an object. Send them as the model gave them.",
            param="messages",
        ) from None
    return msgspec.Raw(text)


def _ordered(turns: list[Turn]) -> list[Turn]:
    """Results of calls first in their turn, and directly behind the turn of the calls."""
    for at in range(len(turns) - 1):
        later = turns[at + 1]
        if turns[at].role == "system" and later.role == "user" and later.content[0]["type"] == "tool_result":
            turns[at], turns[at + 1] = later, turns[at]
    for turn in turns:
        if turn.role == "user":
            turn.content.sort(key=lambda block: block["type"] != "tool_result")
    merged: list[Turn] = []
    for turn in turns:
        if merged and merged[-1].role == turn.role:
            merged[-1].content.extend(turn.content)
        else:
            merged.append(turn)
    return merged
