"""Calls to command line tools: the program to run, the prompt that it reads, and who reads what it prints."""

from __future__ import annotations

import json
from typing import Any

from keyturn.core import Call, Candidate, ProcessRequest
from keyturn.errors import BadRequest

from .cli_answers import Asked, ToolAnswer
from .registry import Provider, Tool

MODEL = "${MODEL}"
_TAKEN = frozenset({"model", "messages", "stream", "stream_options"})
"""Members of a request that mean something here."""
_SYSTEM = frozenset({"system", "developer"})
_TRANSCRIPT = (
    "The conversation so far follows, each message with who wrote it. Write the next message of the assistant, "
    "and nothing else."
)


def prepare_tool(provider: Provider, tool: Tool, call: Call, candidate: Candidate, notes: list[str]) -> ProcessRequest:
    """The run that answers *call*. Members that no tool can take, sampling parameters for instance, go into *notes*.

    Raises BadRequest for a model's name that the tool would take for an option, and for messages without text.
    """
    model = candidate.deployment.model
    if model.startswith("-") or not model.isprintable():
        raise BadRequest(f"`model` cannot be {model[:80]!r}: {tool.argv[0]} would take it for an option", param="model")
    prompt = render_prompt(call.members["messages"])
    if not prompt.strip():
        raise BadRequest(f"`messages` hold no text, and {tool.argv[0]} reads nothing else", param="messages")
    notes.extend(f"dropped {name}" for name, value in call.members.items() if name not in _TAKEN and value != b"null")
    environ = {**tool.environ, "TZ": "UTC"}  # they state moments in local time, and nobody here knows where that is
    asked = Asked(provider.name, model, call.stream, tool.output, provider.rules, tool.environ)
    argv = tuple(word.replace(MODEL, model) for word in tool.argv)
    return ProcessRequest(argv, prompt, environ, tool.timeout, ToolAnswer(asked))


def render_prompt(messages: bytes) -> bytes:
    """*messages*, the JSON of a list of chat messages, as one text: what the system says, then the question.

    More than one message besides is a transcript. What is no text (images, sound, calls of tools) is named in brackets.
    """
    try:
        given = json.loads(messages.decode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"`messages` cannot be read: {error}", param="messages") from error
    turns = [message for message in given if isinstance(message, dict)]
    texts = [(str(message.get("role")), _text(message)) for message in turns]
    system = [text for role, text in texts if role in _SYSTEM and text]
    spoken = [(role, text) for role, text in texts if role not in _SYSTEM and text]
    if len(spoken) == 1 and spoken[0][0] == "user":
        parts = [*system, spoken[0][1]]
    elif spoken:
        parts = [*system, _TRANSCRIPT, *(f'<message from="{role}">\n{text}\n</message>' for role, text in spoken)]
    else:
        parts = system
    return "\n\n".join(parts).encode("utf-8", "replace")


def _text(message: dict[str, Any]) -> str:
    """The text of a message."""
    content = message.get("content")
    pieces = content if isinstance(content, list) else [content]
    texts = [_piece(piece) for piece in pieces]
    calls = message.get("tool_calls")
    texts += [f"[called {_named(call)}]" for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    return "\n".join(text for text in texts if text)


def _piece(piece: object) -> str:
    if isinstance(piece, str):
        return piece
    if not isinstance(piece, dict):
        return ""
    for name in ("text", "refusal"):
        if isinstance(piece.get(name), str):
            return str(piece[name])
    return f"[{piece.get('type')}]"


def _named(call: dict[str, Any]) -> str:
    """A call of a tool, as far as text can tell it."""
    function = call.get("function")
    if not isinstance(function, dict):
        return "a tool"
    return f"{function.get('name')} with {function.get('arguments')}"
