"""Messages written as Gemini's `contents`: turns that alternate, results right behind the calls that they answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from keyturn.core import (
    Foreign,
    Media,
    Message,
    Part,
    Reasoning,
    Refusal,
    Signature,
    Text,
    ToolResult,
    ToolUse,
)
from keyturn.errors import BadRequest, Untranslatable

from .dialect import Target
from .gemini_contents import mime_by_name
from .gemini_fields import DIALECT
from .notes import note as tell
from .signatures import accepted
from .tools import flat_name
from .unanswered import Unanswered

UNSIGNED = "skip_thought_signature_validator"
"""Stands for the signature of a call that another model made (docs: thought signatures)."""
_DEFAULT_MIMES = {"image": "image/jpeg", "document": "application/pdf", "audio": "audio/mp3", "video": "video/mp4"}

_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
Content = dict[str, Any]


def split_system(messages: Sequence[Message]) -> tuple[list[Message], list[Message]]:
    """The leading system messages, and the rest."""
    count = next((index for index, each in enumerate(messages) if each.role != "system"), len(messages))
    return list(messages[:count]), list(messages[count:])


def system_texts(messages: Sequence[Message], notes: list[str]) -> list[dict[str, Any]]:
    """The texts of system messages, as parts."""
    parts = []
    for message in messages:
        for part in message.parts:
            text = part.text if isinstance(part, (Text, Media)) else ""
            if text:
                parts.append({"text": text})
            elif isinstance(part, Media):
                notes.append(f"dropped {part.kind} in a system message: Gemini takes text there")
    return parts


class TurnWriter:
    """Writes the turns of one request. What it leaves out, it tells once in *notes*."""

    def __init__(self, target: Target, notes: list[str]) -> None:
        self._target = target
        self._notes = notes
        self._contents: list[Content] = []
        self._calls: Unanswered[ToolUse] = Unanswered()
        """Calls of the last model turn that wait for their result."""
        self._called = False
        """The last turn is the model's and holds a call."""
        self._answers = 0
        """Results at the head of the last turn, which is the user's."""

    def write(self, messages: Sequence[Message]) -> list[Content]:
        """The `contents` for *messages*."""
        for message in messages:
            if message.name:
                self._note("dropped name: Gemini has no counterpart")
            if message.role == "assistant":
                self._fill()
                self._model(message.parts)
            elif message.role == "system":
                texts = [{"text": f"<system>{part['text']}</system>"} for part in system_texts([message], self._notes)]
                self._add("user", texts)
            else:
                self._user(message.parts)
        if self._contents and self._contents[-1]["role"] == "user":
            self._fill()
        return self._contents

    def _note(self, note: str) -> None:
        tell(self._notes, note)

    def _add(self, role: str, parts: list[dict[str, Any]]) -> None:
        if not parts:
            return
        if self._contents and self._contents[-1]["role"] == role:
            self._contents[-1]["parts"] += parts
        else:
            self._contents.append({"role": role, "parts": parts})
            self._called, self._answers = False, 0

    def _model(self, parts: Sequence[Part]) -> None:
        written: list[dict[str, Any]] = []
        pending = ""
        first, called = not self._called, False
        for part in parts:
            if isinstance(part, Reasoning):
                if part.signature is None and part.text:
                    self._note("dropped reasoning: it is not signed")
                pending = self._signed(part.signature) or pending
            elif isinstance(part, ToolUse):
                call: dict[str, Any] = {"functionCall": _call(part)}
                signature = self._signed(part.signature)
                if not signature and first:
                    signature, pending = pending, ""
                    signature = signature or (UNSIGNED if self._target.signed_calls else "")
                if signature:
                    call["thoughtSignature"] = signature
                first, called = False, True
                self._calls.add(part, part.id, part.name)
                written.append(call)
            elif isinstance(part, Text):
                signature = self._signed(part.signature)
                if part.text or signature:
                    written.append({"text": part.text, **({"thoughtSignature": signature} if signature else {})})
            else:
                written += self._plain(part)
        if pending:
            written.append({"text": "", "thoughtSignature": pending})
        self._add("model", written)
        self._called = self._called or called

    def _signed(self, signature: Signature | None) -> str:
        if signature is None:
            return ""
        if accepted(signature, DIALECT, self._target.origin):
            return signature.value
        self._note("dropped reasoning: signed by another provider")
        return ""

    def _plain(self, part: Part) -> list[dict[str, Any]]:
        """The part for what is neither thought, call nor result; none for what Gemini does not know."""
        if isinstance(part, (Text, Refusal)):
            return [{"text": part.text}] if part.text else []
        if isinstance(part, Media):
            return [self._media(part)]
        if isinstance(part, Foreign):
            if part.dialect == DIALECT:
                return [msgspec.json.decode(part.raw)]
            self._note(f"dropped {part.what}: Gemini has no counterpart")
        return []

    def _user(self, parts: Sequence[Part]) -> None:
        results = [part for part in parts if isinstance(part, ToolResult)]
        if results:
            self._results(results)
        others = [each for part in parts if not isinstance(part, ToolResult) for each in self._plain(part)]
        self._add("user", others)

    def _results(self, results: list[ToolResult]) -> None:
        responses, beside = [], []
        for result in sorted(results, key=lambda each: self._calls.place(each.id)):
            use = self._calls.with_id(result.id)
            if use is None:
                raise BadRequest(
                    f"A tool result answers the call {result.id[:80]!r}, but the turn before it has no such call. "
                    "Send each result right behind the turn that called the tool.",
                    param="messages",
                )
            response, media = self._response(use, result)
            responses.append({"functionResponse": response})
            beside += media
        if not (self._contents and self._contents[-1]["role"] == "user"):
            self._contents.append({"role": "user", "parts": []})
            self._called, self._answers = False, 0
        self._put_answers(responses)
        self._contents[-1]["parts"] += beside

    def _put_answers(self, responses: list[dict[str, Any]]) -> None:
        """Put *responses* behind the results that the last turn has already."""
        self._contents[-1]["parts"][self._answers : self._answers] = responses
        self._answers += len(responses)

    def _response(self, use: ToolUse, result: ToolResult) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The functionResponse for *result*, and media that stand beside it."""
        text = "\n".join(part.text for part in result.parts if part.text)
        media = [self._media(part) for part in result.parts if isinstance(part, Media) and not part.text]
        response: dict[str, Any] = {"error": text} if result.failed else {"output": text}
        if not result.failed and text[:1] == "{":
            try:
                response = dict(_object(text.encode()))
            except (ValueError, RecursionError):
                pass
        found: dict[str, Any] = {"name": flat_name(use.name, use.namespace), "response": response}
        if use.id:
            found["id"] = use.id
        if media and self._target.signed_calls:
            found["parts"] = media
            return found, []
        return found, media

    def _fill(self) -> None:
        """Answer the calls that nobody answered: the API wants as many results as calls."""
        if self._contents and self._contents[-1]["role"] == "model":
            return
        unanswered = self._calls.rest()
        if not unanswered or not self._contents:
            return
        missing = [
            {"name": flat_name(use.name, use.namespace), "response": {"error": "no result"}} for use in unanswered
        ]
        for response, use in zip(missing, unanswered, strict=True):
            if use.id:
                response["id"] = use.id
            self._note(f"added an empty result of {use.name}: Gemini wants one for each call")
        self._put_answers([{"functionResponse": response} for response in missing])

    def _media(self, media: Media) -> dict[str, Any]:
        if media.detail in ("low", "high", "original"):
            self._note("dropped detail: Gemini has no counterpart")
        if media.cited:
            self._note("dropped citations: Gemini cannot be told to cite")
        if media.data:
            blob = {"mimeType": media.mime or _DEFAULT_MIMES[media.kind], "data": media.data}
            return {"inlineData": blob}
        if media.url or "://" in media.file_id or media.file_id.startswith("files/"):
            address = media.url or media.file_id
            mime = media.mime or mime_by_name(address) or _DEFAULT_MIMES[media.kind]
            return {"fileData": {"fileUri": address, "mimeType": mime}}
        if media.file_id:
            raise Untranslatable(
                f"The file {media.file_id[:80]!r} lies with another provider; Gemini cannot read it. Send it inline.",
                param="messages",
            )
        heading = "\n".join(line for line in (media.name, media.context) if line)
        return {"text": f"{heading}\n\n{media.text}" if heading else media.text}


def _call(use: ToolUse) -> dict[str, Any]:
    args: object
    if use.free:
        args = {"input": use.arguments}
    else:
        text = use.arguments.strip() or "{}"
        try:
            args = _object(text.encode("utf-8", "replace"))
        except (ValueError, RecursionError):
            raise BadRequest(
                f"The arguments of the call {use.id[:80]!r} of `{use.name[:80]}` are not the JSON text of an object.",
                param="messages",
            ) from None
    found = {"name": flat_name(use.name, use.namespace), "args": args}
    if use.id:
        found["id"] = use.id
    return found
