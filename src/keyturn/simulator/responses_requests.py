"""Requests of OpenAI's Responses API, checked as strictly as OpenAI does, in its words."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from . import signatures
from .answers import Medium, Offer, Question, Result, Said, Unusable, tokens_of
from .checks import Asking, decoded, laxity, linked

_MEMBERS = frozenset(
    "model input instructions max_output_tokens max_tool_calls tools tool_choice parallel_tool_calls reasoning text "
    "temperature top_p top_logprobs include store previous_response_id conversation prompt truncation background "
    "metadata user safety_identifier service_tier stream stream_options prompt_cache_key prompt_cache_options "
    "prompt_cache_retention context_management moderation image access_programs client_metadata".split()
)
_INCLUDE = frozenset(
    "file_search_call.results web_search_call.results web_search_call.action.sources message.input_image.image_url "
    "computer_call_output.output.image_url code_interpreter_call.outputs reasoning.encrypted_content "
    "message.output_text.logprobs".split()
)
_CALLS = {"function_call": "arguments", "custom_tool_call": "input"}
_OUTPUTS = {"function_call_output": "function_call", "custom_tool_call_output": "custom_tool_call"}
_OTHERS = frozenset(
    "file_search_call computer_call computer_call_output web_search_call image_generation_call code_interpreter_call "
    "local_shell_call local_shell_call_output shell_call shell_call_output apply_patch_call apply_patch_call_output "
    "mcp_list_tools mcp_approval_request mcp_approval_response mcp_call tool_search_call tool_search_output "
    "compaction compaction_trigger item_reference program program_output additional_tools".split()
)
_HOSTED = frozenset(
    "web_search web_search_preview file_search code_interpreter image_generation mcp computer computer_use_preview "
    "shell local_shell apply_patch tool_search programmatic_tool_calling".split()
)
_NAME = re.compile(r"^[a-zA-Z0-9_-]{1,64}$")
_PREFIXES = {"function_call": "fc", "custom_tool_call": "ctc", "reasoning": "rs", "message": "msg"}
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_THINKERS = re.compile(r"^(o\d|gpt-5)")


def read_responses(body: Mapping[str, Any], asking: Asking) -> Question:
    """What a request of `/responses` or `/responses/input_tokens` asks for."""
    for name in body:
        if name not in _MEMBERS:
            raise Unusable(f"Unknown parameter: '{name}'.", name, "unknown_parameter")
    _check_members(body)
    turns = _Items(body, asking).turns()
    if instructions := body.get("instructions"):
        turns.insert(0, Said("system", str(instructions)))
    tools = [offer for place, tool in enumerate(body.get("tools") or []) for offer in _offers(tool, f"tools[{place}]")]
    question = Question(turns, tokens_of(turns, body.get("tools")), tools, more=body)
    _choose(body.get("tool_choice"), question)
    _shape((body.get("text") or {}).get("format") or {}, question)
    question.parallel = body.get("parallel_tool_calls") is not False
    question.bound = body.get("max_output_tokens")
    reasoning = body.get("reasoning") or {}
    effort = reasoning.get("effort")
    if effort is not None and effort not in _EFFORTS:
        told = ", ".join(f"'{each}'" for each in _EFFORTS[:-1])
        raise Unusable(f"Invalid value: '{effort}'. Supported values are: {told}, and 'max'.", "reasoning.effort")
    question.thinking = effort != "none" and (bool(reasoning) or _THINKERS.match(asking.model) is not None)
    question.shown = reasoning.get("summary") is not None
    return question


def _check_members(body: Mapping[str, Any]) -> None:
    if "input" not in body and not body.keys() & {"previous_response_id", "prompt", "conversation"}:
        raise Unusable(
            "One of \"input\" or \"previous_response_id\" or 'prompt' or 'conversation' must be provided.", "input"
        )
    bound = body.get("max_output_tokens")
    if bound is not None and bound < 16:
        raise Unusable(
            f"Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16, but got {bound} "
            "instead.",
            "max_output_tokens",
        )
    for name in ("store", "stream", "background", "parallel_tool_calls"):
        if body.get(name) is not None and not isinstance(body[name], bool):
            raise Unusable(f"Invalid type for '{name}': expected a boolean, but got {body[name]!r} instead.", name)
    if previous := body.get("previous_response_id"):
        raise Unusable(
            f"Previous response with id '{previous}' not found.", "previous_response_id", "no_previous_response"
        )
    for value in body.get("include") or []:
        if value not in _INCLUDE:
            raise Unusable(f"Invalid value: '{value}'. Supported values are: {', '.join(sorted(_INCLUDE))}.", "include")
    if body.get("top_logprobs") and "message.output_text.logprobs" not in (body.get("include") or []):
        raise Unusable("top_logprobs requires include to hold message.output_text.logprobs.", "top_logprobs")


class _Items:
    """The input items of one request, checked one after the other."""

    def __init__(self, body: Mapping[str, Any], asking: Asking) -> None:
        self._body = body
        self._asking = asking
        self._open: dict[str, str] = {}
        """Calls that wait for their output, with their type."""

    def turns(self) -> list[Said]:
        given = self._body.get("input", "")
        if isinstance(given, str):
            return [Said("user", given)]
        if not isinstance(given, list):
            raise Unusable("Invalid type for 'input': expected one of a string or array of input items.", "input")
        turns = []
        for place, item in enumerate(given):
            if not isinstance(item, dict):
                raise Unusable(f"Invalid type for 'input[{place}]': expected an object.", f"input[{place}]")
            turns.append(self._item(item, place, given[place + 1 :]))
        for name, kind in self._open.items():
            told = "function" if kind == "function_call" else "custom tool"
            raise Unusable(f"No tool output found for {told} call {name}.", "input")
        return [turn for turn in turns if turn is not None]

    def _item(self, item: Mapping[str, Any], place: int, rest: Sequence[Any]) -> Said | None:
        where = f"input[{place}]"
        kind = item.get("type", "message")
        prefix = _PREFIXES.get(kind)
        if prefix and item.get("id") is not None and not str(item["id"]).startswith(prefix):
            raise Unusable(
                f"Invalid '{where}.id': '{item['id']}'. Expected an ID that begins with '{prefix}'.", f"{where}.id"
            )
        if kind == "message":
            return self._message(item, where)
        if kind in _CALLS:
            return self._call(item, kind, where)
        if kind in _OUTPUTS:
            return self._output(item, kind, where)
        if kind == "reasoning":
            self._reasoning(item, rest)
            return None
        if kind not in _OTHERS:
            known = ", ".join(f"'{name}'" for name in ("message", *_CALLS, *_OUTPUTS, "reasoning", *sorted(_OTHERS)))
            raise Unusable(f"Invalid value: '{kind}'. Supported values are: {known}.", f"{where}.type")
        return Said("assistant")

    def _message(self, item: Mapping[str, Any], where: str) -> Said:
        role = item.get("role")
        if role not in ("user", "assistant", "system", "developer"):
            raise Unusable(
                f"Invalid value: '{role}'. Supported values are: 'assistant', 'system', 'developer', and 'user'.",
                f"{where}.role" if role else where,
            )
        content = item.get("content")
        if isinstance(content, str):
            return Said("system" if role == "developer" else role, content)
        if not isinstance(content, list):
            raise Unusable(f"Missing required parameter: '{where}.content'.", f"{where}.content")
        texts, media = _contents(content, f"{where}.content", role == "assistant")
        return Said("system" if role == "developer" else role, texts, (), media)

    def _call(self, item: Mapping[str, Any], kind: str, where: str) -> Said:
        for name in ("call_id", "name", _CALLS[kind]):
            if name not in item:
                raise Unusable(f"Missing required parameter: '{where}.{name}'.", f"{where}.{name}")
            if not isinstance(item[name], str):
                raise Unusable(f"Invalid type for '{where}.{name}': expected a string.", f"{where}.{name}")
        if not _NAME.match(item["name"]):
            raise Unusable(
                f"Invalid '{where}.name': string does not match pattern. Expected a string that matches the pattern "
                "'^[a-zA-Z0-9_-]+$'.",
                f"{where}.name",
            )
        self._open[item["call_id"]] = kind
        return Said("assistant", item[_CALLS[kind]])

    def _output(self, item: Mapping[str, Any], kind: str, where: str) -> Said:
        for name in ("call_id", "output"):
            if name not in item:
                raise Unusable(f"Missing required parameter: '{where}.{name}'.", f"{where}.{name}")
        if self._open.pop(item["call_id"], "") != _OUTPUTS[kind]:
            told = "function" if kind == "function_call_output" else "custom tool"
            raise Unusable(f"No tool call found for {told} call output with call_id {item['call_id']}.", "input")
        output = item["output"]
        if isinstance(output, str):
            return Said("user", "", (Result(output),))
        if not isinstance(output, list):
            raise Unusable(f"Invalid type for '{where}.output': expected one of a string or array.", f"{where}.output")
        text, media = _contents(output, f"{where}.output", False)
        return Said("user", "", (Result(text),), media)

    def _reasoning(self, item: Mapping[str, Any], rest: Sequence[Any]) -> None:
        name, content = item.get("id"), item.get("encrypted_content")
        if not isinstance(item.get("summary"), list):
            raise Unusable("Missing required parameter: 'input.summary'.", "input")
        if content is None:
            raise Unusable(
                f"Item with id '{name}' not found. Items are not persisted when `store` is set to false. Try again "
                "with `store` set to true, or remove this item from your input.",
                "input",
                "no_item",
            )
        if not signatures.fits_encrypted(self._asking.persona.name, self._asking.owner, content):
            shown = content if len(content) < 16 else f"{content[:8]}...{content[-4:]}"
            raise Unusable(
                f"The encrypted content {shown} could not be verified. Reason: Encrypted content could not be "
                "decrypted or parsed.",
                "input",
                "unverified",
            )
        following = rest[0] if rest and isinstance(rest[0], dict) else {"role": "user"}
        if following.get("type", "message") == "message" and following.get("role") != "assistant":
            raise Unusable(
                f"Item '{name}' of type 'reasoning' was provided without its required following item.", "input"
            )


def _contents(parts: Sequence[Any], where: str, own: bool) -> tuple[str, tuple[Medium, ...]]:
    """Texts and media of content parts; *own*: of the model's own words."""
    texts: list[str] = []
    media: list[Medium] = []
    allowed = ("output_text", "refusal") if own else ("input_text", "input_image", "input_file")
    for number, part in enumerate(parts):
        kind = part.get("type") if isinstance(part, dict) else None
        place = f"{where}[{number}]"
        if kind not in allowed:
            told = ", ".join(f"'{name}'" for name in allowed[:-1]) + f" and '{allowed[-1]}'"
            raise Unusable(f"Invalid value: '{kind}'. Supported values are: {told}.", place)
        if kind in ("input_image", "input_file"):
            media.append(_medium(part, kind, place))
            continue
        text = part.get("refusal" if kind == "refusal" else "text")
        if not isinstance(text, str):
            raise Unusable(f"Missing required parameter: '{place}.text'.", f"{place}.text")
        texts.append(text)
    return " ".join(texts), tuple(media)


def _medium(part: Mapping[str, Any], kind: str, where: str) -> Medium:
    short = "image" if kind == "input_image" else "document"
    if part.get("file_id"):
        return Medium(short, "", where=str(part["file_id"]))
    name = "image_url" if kind == "input_image" else "file_url" if part.get("file_url") else "file_data"
    given = part.get(name)
    if not isinstance(given, str):
        told = "an object" if isinstance(given, dict) else json.dumps(given)
        raise Unusable(
            f"Invalid type for '{where}.{name}': expected a string, but got {told} instead.", f"{where}.{name}"
        )
    medium = linked(short, given)
    if medium is None and name == "file_data" and (content := decoded(given)):
        medium = Medium(short, "application/pdf", len(content))
    if medium is None:
        raise Unusable(
            f"Invalid '{where}.{name}'. Expected a valid URL or a base64-encoded data URL, but got a value that is "
            "neither.",
            f"{where}.{name}",
        )
    return medium


def _offers(tool: Any, where: str, namespace: str = "") -> list[Offer]:
    kind = tool.get("type") if isinstance(tool, dict) else None
    if kind in _HOSTED:
        return []
    if kind == "namespace":
        inner = tool.get("tools") or []
        return [offer for n, row in enumerate(inner) for offer in _offers(row, f"{where}.tools[{n}]", tool["name"])]
    if kind not in ("function", "custom"):
        raise Unusable(f"Invalid value: '{kind}'. Supported values are: 'function', 'custom', …", f"{where}.type")
    if "name" not in tool:
        raise Unusable(f"Missing required parameter: '{where}.name'.", f"{where}.name")
    if not _NAME.match(str(tool["name"])):
        raise Unusable(
            f"Invalid '{where}.name': string does not match pattern. Expected a string that matches the pattern "
            "'^[a-zA-Z0-9_-]+$'.",
            f"{where}.name",
        )
    if nested := tool.keys() & {"function", "custom"}:
        raise Unusable(f"Unknown parameter: '{where}.{nested.pop()}'.", where, "unknown_parameter")
    if tool.get("strict") is True and kind == "function" and (why := laxity(tool.get("parameters") or {})):
        raise Unusable(f"Invalid schema for function '{tool['name']}': {why}", f"{where}.parameters")
    return [Offer(tool["name"], tool.get("parameters"), kind == "custom", namespace)]


def _choose(choice: Any, question: Question) -> None:
    if choice is None or choice == "auto":
        return
    if choice in ("none", "required"):
        question.mode = "none" if choice == "none" else "any"
        return
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind == "allowed_tools":
        question.mode = "any" if choice.get("mode") == "required" else "auto"
        rows = choice.get("tools") or []
    elif kind in ("function", "custom"):
        question.mode, rows = "any", [choice]
    elif kind in _HOSTED:
        return
    else:
        raise Unusable("Invalid value for 'tool_choice'.", "tool_choice")
    for row in rows:
        if row.get("type") in ("function", "custom") and "name" not in row:
            raise Unusable("Missing required parameter: 'tool_choice.name'.", "tool_choice.name")
    question.names = [str(row["name"]) for row in rows if "name" in row]
    offered = {tool.name for tool in question.tools}
    if question.names and not offered & set(question.names):
        raise Unusable(f"Tool choice '{kind}' not found in 'tools' parameter.", "tool_choice")


def _shape(wanted: Mapping[str, Any], question: Question) -> None:
    kind = wanted.get("type", "text")
    if kind not in ("text", "json_object", "json_schema"):
        raise Unusable(
            f"Invalid value: '{kind}'. Supported values are: 'json_object', 'json_schema', and 'text'.",
            "text.format.type",
        )
    question.json = kind == "json_object"
    if kind == "json_schema":
        for name in ("name", "schema"):
            if name not in wanted:
                raise Unusable(f"Missing required parameter: 'text.format.{name}'.", f"text.format.{name}")
        question.schema = wanted["schema"]
        if wanted.get("strict") is True and (why := laxity(question.schema)):
            raise Unusable(f"Invalid schema for response_format '{wanted['name']}': {why}", "text.format.schema")
