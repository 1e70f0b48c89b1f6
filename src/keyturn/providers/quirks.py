"""What a model takes, and a neutral request made to fit it, before a dialect writes it."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import msgspec
from msgspec.structs import replace

from keyturn.core import Call, Candidate, Message, Origin, Request, Text, Thinking
from keyturn.wire import Target

from .registry import Provider

OURS = frozenset({"fold_system", "least_budget"})
"""Quirks that are heeded here; all others are members of Target."""
_LEVELS = (b'"thinkingLevel"', b'"thinking_level"')
_BUDGETS = (b'"thinkingBudget"', b'"thinking_budget"')
_SAMPLING = frozenset({"temperature", "top_p", "top_k"})
_CALLS = (b'"functionCall"', b'"function_call"')
_RESULTS = (b'"functionResponse"', b'"function_response"')
_SIGNATURES = (b'"thoughtSignature"', b'"thought_signature"')
_ROWS = msgspec.json.Decoder(list[msgspec.Raw]).decode
_NOTHING: dict[str, Any] = {}


def quirks_of(provider: Provider, model: str) -> dict[str, Any]:
    """What the catalog says of *model*: the first of the provider's patterns that fits its name."""
    name = model.rpartition("/")[2].lower()
    for quirk in provider.quirks:
        if fnmatchcase(name, quirk.match):
            return dict(quirk.takes)
    return _NOTHING


def origin_of(candidate: Candidate) -> Origin:
    """Who answers: whose signatures count."""
    deployment, credential = candidate
    return Origin(deployment.provider, deployment.model, credential.group[:12])


def target_of(candidate: Candidate, quirks: dict[str, Any]) -> Target:
    """What the upstream of *candidate* takes."""
    members = {name: value for name, value in quirks.items() if name not in OURS}
    return Target(candidate.deployment.model, origin_of(candidate), **members)


def fits(provider: Provider, call: Call, model: str) -> bool:
    """Whether what *call* says of thinking and sampling, in the provider's own dialect, is in the words of *model*.

    Who asks for a role or an alias cannot know them: an agent says `adaptive` where the model behind the name knows
    budgets only. Who names the model itself is taken at its word, but for calls of tools in the turn under way that
    another model made and did not sign.
    """
    if call.dialect not in ("anthropic", "gemini"):
        return True
    quirks = quirks_of(provider, model)
    if quirks.get("signed_calls") and _has_unsigned_call(call.members.get("contents", b"")):
        return False
    if call.model.endswith(model):
        return True
    takes = quirks.get("thinking", "effort")
    if call.dialect == "gemini":
        said = call.members.get("generationConfig", b"")
        levels, budgets = (any(name in said for name in names) for names in (_LEVELS, _BUDGETS))
        said_in = "effort" if levels else "budget" if budgets else takes
        return bool(takes == said_in)
    thinking, sampling = call.members.get("thinking", b""), quirks.get("sampling", True)
    effort = b'"adaptive"' in thinking or b'"effort"' in call.members.get("output_config", b"")
    wanted = "effort" if effort else "budget" if b'"enabled"' in thinking else takes
    return bool(takes == wanted and (sampling or _SAMPLING.isdisjoint(call.members)))


def goes_on(provider: Provider, dialect: str, model: str, request: Request) -> bool:
    """Whether *model*, asked in *dialect*, can be told to go on with an answer to *request* that has begun."""
    if provider.tool is not None or dialect == "openai_responses" or not quirks_of(provider, model).get("prefill"):
        return False
    thinking = request.thinking
    thinks = thinking is not None and thinking.effort != "none" and thinking.budget != 0
    return not thinks or dialect == "gemini"  # elsewhere the thinking would have to stand before the beginning


def _has_unsigned_call(contents: bytes) -> bool:
    """Whether the turn under way has a step of the model that calls tools and carries no signature."""
    if not any(name in contents for name in _CALLS):
        return False
    try:
        rows = _ROWS(contents)
    except ValueError:
        return False
    for row in map(bytes, reversed(rows)):
        if any(name in row for name in _CALLS):
            if not any(name in row for name in _SIGNATURES):
                return True
        elif not any(name in row for name in _RESULTS):
            return False  # what the user asked: the turn began behind it
    return False


def fitted(request: Request, quirks: dict[str, Any]) -> Request:
    """*request* as the model can read it: its system prompt where there is one, its least thinking."""
    if quirks.get("fold_system"):
        request = _without_system(request)
    least = quirks.get("least_budget")
    thinking = request.thinking
    if (
        least
        and thinking is not None
        and (thinking.effort == "none" or (thinking.budget is not None and thinking.budget < least))
    ):
        request = replace(request, thinking=Thinking(budget=least, shown=thinking.shown))
    return request


def _without_system(request: Request) -> Request:
    """System messages become the beginning of the user message that follows."""
    messages: list[Message] = []
    held: tuple[Any, ...] = ()
    for message in request.messages:
        if message.role == "system":
            held += message.parts
        elif message.role == "user" and held:
            messages.append(replace(message, parts=(*held, *message.parts)))
            held = ()
        else:
            messages.append(message)
    if held:
        messages.append(Message("user", tuple(part for part in held if isinstance(part, Text))))
    return replace(request, messages=tuple(messages))
