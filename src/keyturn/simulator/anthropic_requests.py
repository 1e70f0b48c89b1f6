"""Requests of Anthropic's Messages API, checked as strictly as Anthropic does, in its words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from . import signatures
from .answers import Medium, Offer, Question, Result, Said, Unusable, tokens_of
from .checks import Asking, decoded, objects

OLD, NEW = "2023-06-01", "2026-10-21"
VERSIONS = (OLD, NEW)

_MEMBERS = frozenset(
    "model max_tokens messages system tools tool_choice thinking output_config stop_sequences stream metadata "
    "service_tier speed cache_control container inference_geo diagnostics temperature top_p top_k".split()
)
_BETA = frozenset(
    "context_management mcp_servers fallbacks fallback_credit_token compaction thread billing_policy betas".split()
)
_UNCOUNTED = frozenset("model messages system tools tool_choice thinking output_config cache_control".split())
_BLOCKS = {
    "text": {"text", "citations"},
    "image": {"source"},
    "document": {"source", "title", "context", "citations"},
    "tool_use": {"id", "name", "input", "caller"},
    "tool_result": {"tool_use_id", "content", "is_error"},
    "thinking": {"thinking", "signature"},
    "redacted_thinking": {"data"},
    "search_result": {"source", "title", "content", "citations"},
}
_TOOL = frozenset(
    "name description input_schema strict input_examples defer_loading eager_input_streaming cache_control type "
    "allowed_callers".split()
)
_OWN_TOOL = re.compile(
    r"(bash|text_editor|web_search|web_fetch|computer|memory|code_execution|tool_search|mcp|advisor)_"
)
_IMAGES = ("image/jpeg", "image/png", "image/gif", "image/webp")
_ID = re.compile(r"^[a-zA-Z0-9_-]+$")
_TOOL_NAME = re.compile(r"^[a-zA-Z0-9_-]{1,128}$")
_OLD_MODEL = re.compile(r"claude-(instant|2|3|(opus|sonnet|haiku)-4(-[0-5](?!\d)|-2025|-latest|$))")
_ADAPTIVE_ONLY = re.compile(r"claude-[a-z]+-(4-[7-9]|[5-9])")
_ONE_SAMPLER = re.compile(r"claude-[a-z]+-(4-[1-9](?!\d)|[5-9])")
EXTRA = "Extra inputs are not permitted"


def read_messages(body: Mapping[str, Any], asking: Asking) -> Question:
    """What a Messages request asks for; `count_tokens` takes the same but for what bounds the output."""
    version = asking.headers.get("anthropic-version")
    if version is None:
        raise Unusable("anthropic-version: header is required")
    if version not in VERSIONS:
        raise Unusable(f'anthropic-version: "{version}" is not a valid version')
    counting = asking.action == "messages/count_tokens"
    _check_members(body, asking, version, counting)
    marks = sum(1 for _ in _marks(body))
    if marks > 4:
        raise Unusable(f"A maximum of 4 blocks with cache_control may be provided. Found {marks}.")
    _check_thinking(body, asking.model)
    turns = [*_system(body.get("system")), *_Conversation(body, asking, version).turns()]
    tools = [_offer(tool, place) for place, tool in enumerate(body.get("tools") or [])]
    question = Question(turns, tokens_of(turns, body.get("tools")), tools, marked=marks > 0, more=body)
    _choose(body.get("tool_choice"), question)
    _shape(body.get("output_config") or {}, question)
    question.bound = body.get("max_tokens")
    question.stop = body.get("stop_sequences") or []
    thinking = body.get("thinking") or {}
    question.thinking = thinking.get("type") in ("enabled", "adaptive", "between_tools")
    question.shown = thinking.get("display") != "omitted"
    return question


def _check_members(body: Mapping[str, Any], asking: Asking, version: str, counting: bool) -> None:
    known = _UNCOUNTED if counting else _MEMBERS
    known = known | _BETA if "anthropic-beta" in asking.headers else known
    for name in body:
        if name not in known or (version == NEW and name in ("temperature", "top_p", "top_k")):
            raise Unusable(f"{name}: {EXTRA}", name)
    bound = body.get("max_tokens")
    if not counting and bound is None:
        raise Unusable("max_tokens: Field required", "max_tokens")
    if bound is not None and (not isinstance(bound, int) or isinstance(bound, bool)):
        raise Unusable("max_tokens: Input should be a valid integer", "max_tokens")
    if isinstance(bound, int) and bound < 0:
        raise Unusable("max_tokens: Input should be greater than or equal to 0", "max_tokens")
    for name in ("temperature", "top_p"):
        if body.get(name) is not None and not 0 <= body[name] <= 1:
            raise Unusable(f"{name}: Input should be less than or equal to 1", name)
    if "temperature" in body and "top_p" in body and _ONE_SAMPLER.match(asking.model):
        raise Unusable("`temperature` and `top_p` cannot both be specified for this model. Please use only one.")
    if body.get("service_tier", "auto") not in ("auto", "standard_only"):
        raise Unusable("service_tier: Input should be 'auto' or 'standard_only'", "service_tier")
    for name in (body.get("metadata") or {}).keys() - {"user_id"}:
        raise Unusable(f"metadata.{name}: {EXTRA}", "metadata")
    for place, stop in enumerate(body.get("stop_sequences") or []):
        if not str(stop).strip():
            raise Unusable(f"stop_sequences.{place}: each stop sequence must contain non-whitespace", "stop_sequences")


def _check_thinking(body: Mapping[str, Any], model: str) -> None:
    thinking = body.get("thinking")
    if thinking is None:
        return
    kind = thinking.get("type") if isinstance(thinking, dict) else None
    known = {"enabled": {"budget_tokens", "display"}, "adaptive": {"display"}}
    if kind not in (*known, "disabled", "between_tools"):
        raise Unusable("thinking: Input tag does not match any of the expected tags: 'adaptive', 'disabled', 'enabled'")
    for name in thinking.keys() - known.get(str(kind), set()) - {"type"}:
        raise Unusable(f"thinking.{kind}.{name}: {EXTRA}")
    if kind == "disabled":
        return
    if kind == "adaptive" and _OLD_MODEL.match(model):
        raise Unusable("adaptive thinking is not supported on this model")
    if kind == "enabled":
        if _ADAPTIVE_ONLY.match(model):
            raise Unusable(
                '"thinking.type.enabled" is not supported for this model. Use "thinking.type.adaptive" and '
                '"output_config.effort" to control thinking behavior.'
            )
        budget = thinking.get("budget_tokens")
        if not isinstance(budget, int):
            raise Unusable("thinking.enabled.budget_tokens: Field required")
        if budget < 1024:
            raise Unusable("thinking.enabled.budget_tokens: Input should be greater than or equal to 1024")
        if budget >= body.get("max_tokens", budget + 1):
            raise Unusable("`max_tokens` must be greater than `thinking.budget_tokens`.")
    if (body.get("tool_choice") or {}).get("type") in ("any", "tool"):
        raise Unusable("Thinking may not be enabled when tool_choice forces tool use.")
    if body.get("temperature", 1) != 1:
        raise Unusable("`temperature` may only be set to 1 when thinking is enabled or in adaptive mode.")
    if "top_k" in body:
        raise Unusable("`top_k` must be unset when thinking is enabled or in adaptive mode.")


def _marks(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every cache mark of a request; its tools' schemas and calls' arguments are not looked into."""
    if isinstance(value, dict):
        mark = value.get("cache_control")
        if mark is not None:
            if not isinstance(mark, dict) or mark.get("type") != "ephemeral" or mark.keys() - {"type", "ttl"}:
                raise Unusable("cache_control.type: Input should be 'ephemeral'")
            if mark.get("ttl", "5m") not in ("5m", "1h"):
                raise Unusable("cache_control.ephemeral.ttl: Input should be '5m' or '1h'")
            yield mark
        for name, part in value.items():
            if name not in ("input_schema", "input", "output_config"):
                yield from _marks(part)
    elif isinstance(value, list):
        for part in value:
            yield from _marks(part)


def _system(given: Any) -> list[Said]:
    if given is None:
        return []
    if isinstance(given, str):
        return [Said("system", given)]
    if not isinstance(given, list):
        raise Unusable("system: Input should be a valid string or list", "system")
    for place, block in enumerate(given):
        if not isinstance(block, dict) or block.get("type") != "text":
            raise Unusable(f"system.{place}.type: Input should be 'text'", "system")
        if not block.get("text"):
            raise Unusable("system: text content blocks must be non-empty", "system")
    return [Said("system", " ".join(block["text"] for block in given))]


def _offer(tool: Any, place: int) -> Offer:
    if not isinstance(tool, dict):
        raise Unusable(f"tools.{place}: Input should be a valid dictionary", "tools")
    kind = tool.get("type", "custom")
    if _OWN_TOOL.match(str(kind)):
        return Offer(str(tool.get("name")))
    if kind != "custom":
        raise Unusable(f"tools.{place}: Input tag '{kind}' found using 'type' does not match any of the expected tags")
    where = f"tools.{place}.custom"
    for name in tool.keys() - _TOOL:
        raise Unusable(f"{where}.{name}: {EXTRA}", "tools")
    if not _TOOL_NAME.match(str(tool.get("name", ""))):
        raise Unusable(f"{where}.name: String should match pattern '{_TOOL_NAME.pattern}'", "tools")
    schema = tool.get("input_schema")
    if not isinstance(schema, dict):
        raise Unusable(f"{where}.input_schema: Field required", "tools")
    if schema.get("type") != "object":
        raise Unusable(f"{where}.input_schema.type: Input should be 'object'", "tools")
    return Offer(tool["name"], schema)


def _choose(choice: Any, question: Question) -> None:
    names = [tool.name for tool in question.tools]
    if len(set(names)) < len(names):
        raise Unusable("tools: Tool names must be unique.", "tools")
    if choice is None:
        return
    if not names:
        raise Unusable("tool_choice: tool_choice may only be specified while providing tools", "tool_choice")
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind not in ("auto", "any", "none", "tool"):
        raise Unusable("tool_choice: Input tag does not match any of: 'auto', 'any', 'none', 'tool'", "tool_choice")
    for name in choice.keys() - {"type", "name", "disable_parallel_tool_use"}:
        raise Unusable(f"tool_choice.{kind}.{name}: {EXTRA}", "tool_choice")
    question.mode = "none" if kind == "none" else "auto" if kind == "auto" else "any"
    question.parallel = choice.get("disable_parallel_tool_use") is not True
    if kind == "tool":
        if choice.get("name") not in names:
            raise Unusable(f"Tool '{choice.get('name')}' not found in provided tools", "tool_choice")
        question.names = [choice["name"]]


def _shape(config: Mapping[str, Any], question: Question) -> None:
    for name in config.keys() - {"effort", "format", "task_budget"}:
        raise Unusable(f"output_config.{name}: {EXTRA}", "output_config")
    if config.get("effort") not in (None, "low", "medium", "high", "xhigh", "max"):
        raise Unusable("output_config.effort: Input should be 'low', 'medium', 'high', 'xhigh' or 'max'")
    wanted = config.get("format")
    if wanted is None:
        return
    if wanted.get("type") != "json_schema" or not isinstance(wanted.get("schema"), dict):
        raise Unusable("output_config.format.schema: Field required", "output_config")
    for name in wanted.keys() - {"type", "schema"}:
        raise Unusable(f"output_config.format.json_schema.{name}: {EXTRA}", "output_config")
    for _, part in objects(wanted["schema"]):
        if part.get("additionalProperties") is not False:
            raise Unusable(
                "output_config.format.schema: For 'object' type, 'additionalProperties' must be explicitly set to "
                "false",
                "output_config",
            )
    question.schema = wanted["schema"]


class _Conversation:
    """The messages of one request, checked one after the other."""

    def __init__(self, body: Mapping[str, Any], asking: Asking, version: str) -> None:
        self._body = body
        self._asking = asking
        self._version = version
        self._open: list[str] = []
        """Calls of the message before."""

    def turns(self) -> list[Said]:
        messages = self._body.get("messages")
        if not isinstance(messages, list):
            raise Unusable("messages: Field required")
        if not messages:
            raise Unusable("messages: at least one message is required")
        found = [self._turn(message, place, len(messages) - 1) for place, message in enumerate(messages)]
        if self._open:
            self._unanswered(len(messages) - 1)
        last = messages[-1]["role"]
        if last == "assistant" and not _OLD_MODEL.match(self._asking.model):
            raise Unusable(
                "This model does not support assistant message prefill. The conversation must end with a user message."
            )
        if (self._body.get("thinking") or {}).get("type") == "enabled":
            _check_thoughts(messages)
        return found

    def _turn(self, message: Any, place: int, last: int) -> Said:
        role = message.get("role") if isinstance(message, dict) else None
        if role == "system" and _OLD_MODEL.match(self._asking.model):
            raise Unusable(
                'messages: Unexpected role "system". The Messages API accepts a top-level `system` parameter, not '
                '"system" as an input message role.'
            )
        if role not in ("user", "assistant", "system"):
            raise Unusable(f'messages: Unexpected role "{role}". Allowed roles are "user" or "assistant"')
        for name in message.keys() - {"role", "content", "cache_control"}:
            raise Unusable(f"messages.{place}.{name}: {EXTRA}")
        content = message.get("content")
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if not isinstance(blocks, list):
            raise Unusable(f"messages.{place}.content: Input should be a valid string or list")
        empty = not blocks or (isinstance(content, str) and not content)
        if empty and not (place == last and role == "assistant"):
            raise Unusable(
                f"messages.{place}: all messages must have non-empty content except for the optional final assistant "
                "message"
            )
        self._answer(role, blocks, place)
        return self._said(role, [] if empty else blocks, place)

    def _answer(self, role: str, blocks: list[Any], place: int) -> None:
        """The results that the calls of the message before need, and no others."""
        given = [block for block in blocks if isinstance(block, dict) and block.get("type") == "tool_result"]
        if self._open:
            leading = blocks[: len(self._open)]
            answered = [block.get("tool_use_id") for block in leading if block in given]
            if role != "user" or sorted(map(str, answered)) != sorted(self._open):
                self._unanswered(place - 1, [each for each in self._open if role != "user" or each not in answered])
        for number, block in enumerate(blocks):
            if block not in given:
                continue
            asked = block.get("tool_use_id")
            if asked not in self._open:
                raise Unusable(
                    f"messages.{place}.content.{number}: unexpected `tool_use_id` found in `tool_result` blocks: "
                    f"{asked}. Each `tool_result` block must have a corresponding `tool_use` block in the previous "
                    "message."
                )
        if len(given) > len(self._open):
            raise Unusable(
                f"messages.{place}.content: each tool_use must have a single result. Found multiple `tool_result` "
                "blocks with the same id"
            )
        self._open = []

    def _unanswered(self, place: int, names: list[str] | None = None) -> None:
        raise Unusable(
            f"messages.{place}: `tool_use` ids were found without `tool_result` blocks immediately after: "
            f"{', '.join(names or self._open)}. Each `tool_use` block must have a corresponding `tool_result` block "
            "in the next message."
        )

    def _said(self, role: str, blocks: list[Any], place: int) -> Said:
        texts: list[str] = []
        results: list[Result] = []
        media: list[Medium] = []
        for number, block in enumerate(blocks):
            where = f"messages.{place}.content.{number}"
            kind = self._check_block(block, where, role)
            if kind == "text":
                texts.append(block["text"])
            elif kind in ("image", "document"):
                media.append(_medium(block, f"{where}.{kind}"))
            elif kind == "tool_result":
                results.append(self._result(block, f"{where}.tool_result", media))
            elif kind == "tool_use":
                self._call(block, where)
                texts.append(json.dumps(block["input"]))
            elif kind == "thinking":
                texts.append(str(block.get("thinking", "")))
        return Said(role, " ".join(texts), tuple(results), tuple(media))

    def _check_block(self, block: Any, where: str, role: str) -> str:
        kind = block.get("type") if isinstance(block, dict) else None
        if not isinstance(kind, str):
            raise Unusable(f"{where}.type: Field required")
        known = _BLOCKS.get(kind)
        if known is None:
            if kind.startswith(("server_tool", "web_", "code_", "bash_", "mcp_", "tool_", "compaction", "container")):
                return kind
            raise Unusable(f"{where}: Input tag '{kind}' found using 'type' does not match any of the expected tags")
        for name in block.keys() - known - {"type", "cache_control"}:
            raise Unusable(f"{where}.{kind}.{name}: {EXTRA}")
        if kind == "text" and not isinstance(block.get("text"), str):
            raise Unusable(f"{where}.text.text: Field required")
        if kind == "text" and not block["text"]:
            raise Unusable("messages: text content blocks must be non-empty")
        if kind == "text" and not block["text"].strip() and role == "user":
            raise Unusable("messages: text content blocks must contain non-whitespace text")
        mine = {"tool_use", "thinking", "redacted_thinking"}
        if kind in mine and role != "assistant":
            raise Unusable(f"{where}: `{kind}` blocks can only be in `assistant` messages")
        if kind in ("tool_result", "image") and role != "user":
            raise Unusable(f"{where}: `{kind}` blocks can only be in `user` messages")
        self._check_version(block, kind, where, role)
        provider = self._asking.persona.name
        if kind == "thinking" and not signatures.fits_thinking(
            provider, block.get("signature"), str(block.get("thinking", ""))
        ):
            raise Unusable(f"{where}: Invalid `signature` in `thinking` block")
        if kind == "redacted_thinking" and not signatures.fits_redacted(provider, block.get("data")):
            raise Unusable(f"{where}: Invalid `data` in `redacted_thinking` block")
        return kind

    def _check_version(self, block: Mapping[str, Any], kind: str, where: str, role: str) -> None:
        if self._version != NEW:
            return
        if kind == "document" and role == "assistant":
            raise Unusable(f"{where}: `document` blocks are not permitted within `assistant` turns")
        if kind == "text" and role == "user" and block.get("citations"):
            raise Unusable(f"{where}.text.citations: {EXTRA}")

    def _call(self, block: Mapping[str, Any], where: str) -> None:
        for name in ("id", "name", "input"):
            if name not in block:
                raise Unusable(f"{where}.tool_use.{name}: Field required")
        if not _ID.match(str(block["id"])):
            raise Unusable(f"{where}.tool_use.id: String should match pattern '{_ID.pattern}'")
        if not isinstance(block["input"], dict):
            raise Unusable(f"{where}.tool_use.input: Input should be a valid dictionary")
        if block["id"] in self._open:
            raise Unusable("messages: `tool_use` ids must be unique")
        self._open.append(block["id"])

    def _result(self, block: Mapping[str, Any], where: str, media: list[Medium]) -> Result:
        content = block.get("content", "")
        texts = []
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for number, part in enumerate(parts or []):
            kind = part.get("type") if isinstance(part, dict) else None
            inner = f"{where}.content.{number}"
            if kind not in ("text", "image", "document", "search_result", "tool_reference"):
                raise Unusable(f"{inner}: Input tag '{kind}' does not match any of the expected tags")
            if kind in ("image", "document"):
                media.append(_medium(part, f"{inner}.{kind}"))
            elif kind == "text" and not part.get("text") and not isinstance(content, str):
                raise Unusable("messages: text content blocks must be non-empty")
            texts.append(str(part.get("text", "")))
        return Result(" ".join(text for text in texts if text), block.get("is_error") is True)


def _medium(block: Mapping[str, Any], where: str) -> Medium:
    source = block.get("source")
    kind = source.get("type") if isinstance(source, dict) else None
    if not isinstance(source, dict) or kind not in ("base64", "url", "file", "text", "content"):
        raise Unusable(f"{where}.source: Input tag does not match any of: 'base64', 'file', 'url'")
    if kind == "url" and not str(source.get("url")).startswith("http"):
        raise Unusable(f"{where}.source.url.url: Only HTTPS URLs are supported")
    if kind in ("url", "file"):
        return Medium(block["type"], "", where=str(source.get("url") or source.get("file_id")))
    mime = str(source.get("media_type"))
    if kind in ("text", "content"):
        return Medium(block["type"], mime, len(str(source.get("data") or source.get("content"))))
    allowed = _IMAGES if block["type"] == "image" else ("application/pdf",)
    if mime not in allowed:
        told = " or ".join(filter(None, (", ".join(f"'{each}'" for each in allowed[:-1]), f"'{allowed[-1]}'")))
        raise Unusable(f"{where}.source.base64.media_type: Input should be {told}")
    content = decoded(source.get("data"))
    if content is None:
        raise Unusable(f"{where}.source.base64.data: Invalid base64 data")
    if not content:
        raise Unusable(f"{where}.source.base64: {block['type']} cannot be empty")
    return Medium(block["type"], mime, len(content))


def _check_thoughts(messages: list[Any]) -> None:
    """With thinking enabled, a call that is being answered must still have the thinking that led to it."""
    for place in range(len(messages) - 1, 0, -1):
        message, content = messages[place - 1], messages[place].get("content")
        answers = isinstance(content, list) and any(block.get("type") == "tool_result" for block in content)
        if messages[place]["role"] != "user" or not answers or message["role"] != "assistant":
            return
        first = message["content"][0].get("type") if isinstance(message["content"], list) else "text"
        if first not in ("thinking", "redacted_thinking"):
            raise Unusable(
                f"messages.{place - 1}.content.0.type: Expected `thinking` or `redacted_thinking`, but found "
                f"`{first}`. When `thinking` is enabled, a final `assistant` message must start with a thinking block "
                "(preceeding the lastmost set of `tool_use` and `tool_result` blocks). To avoid this requirement, "
                "disable `thinking`."
            )
        return
