"""A Request written as the body of a Messages request to Anthropic."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from keyturn.core import Request, Thinking, Tool
from keyturn.errors import Untranslatable

from .anthropic_blocks import DIALECT
from .anthropic_schema import tighten
from .anthropic_turns import Block, Conversation, Turn, marked
from .dialect import Target
from .jsontext import clean, loose
from .lost import refuse_begun, refuse_lost
from .notes import note as tell
from .tools import flat_name

DEFAULT_MAX_TOKENS = 4096
"""Where neither the client nor the model's largest output says: every model takes it."""
MIN_BUDGET = 1024
_BUDGETS = {"minimal": 1024, "low": 4096, "medium": 8192, "high": 16384, "xhigh": 32000, "max": 32000}
_EFFORTS = {"minimal": "low"}
_MOST_MARKS = 4
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_NO_ARGUMENTS: dict[str, object] = {"type": "object", "properties": {}}
_JSON_ONLY = "Answer with one JSON object and nothing else: no other text, no code fence."
_TIERS = {"auto": "auto", "default": "standard_only"}
_WORDS = {
    "openai_chat": {"thinking": "reasoning_effort", "shape": "response_format"},
    "openai_responses": {"thinking": "reasoning", "shape": "text.format", "verbosity": "text.verbosity"},
    "anthropic": {"stop": "stop_sequences", "shape": "output_config.format"},
    "gemini": {
        "thinking": "generationConfig.thinkingConfig",
        "shape": "generationConfig.responseMimeType",
        "stop": "generationConfig.stopSequences",
        "top_p": "generationConfig.topP",
        "top_k": "generationConfig.topK",
        "temperature": "generationConfig.temperature",
        "seed": "generationConfig.seed",
        "n": "generationConfig.candidateCount",
        "logprobs": "generationConfig.responseLogprobs",
        "presence_penalty": "generationConfig.presencePenalty",
        "frequency_penalty": "generationConfig.frequencyPenalty",
        "tool_choice": "toolConfig",
        "service_tier": "serviceTier",
    },
}
"""What the client calls a field, where that is not our own name for it."""


def write_request(request: Request, target: Target, notes: list[str]) -> dict[str, object]:
    """The body for Anthropic; what is dropped goes into *notes*. Raises Untranslatable.

    A request that came in Anthropic's own words comes out with the same members and values, but for these: a system
    prompt or result of one unmarked text is a string and every other content a list of blocks; neighbouring messages
    of one role are one; results come first; texts of white space are left out; `ttl: 5m`, `is_error: false`,
    `disable_parallel_tool_use: false`, `stream: false`, an empty description and null, the defaults, are left
    out; an effort without `thinking` gets adaptive thinking; tools of Anthropic's own come behind the client's.
    """
    return _Writing(request, target, notes).body()


class _Writing:
    """One body on its way."""

    def __init__(self, request: Request, target: Target, notes: list[str]) -> None:
        self._request = request
        self._target = target
        self._notes = notes

    def body(self) -> dict[str, object]:
        request = self._request
        self._refuse()
        system, turns = Conversation(request, self._target, self._notes).write()
        body: dict[str, Any] = {"model": self._target.model, "max_tokens": self._max_tokens()}
        config: dict[str, object] = {}
        self._shape(config, system)
        tools = self._tools()
        choice = self._choice(bool(tools))
        self._think(body, config, turns, forced=choice is not None and choice["type"] in ("any", "tool"))
        self._sample(body)
        if stop := tuple(each for each in request.stop if each.strip()):
            body["stop_sequences"] = [clean(each) for each in stop]
        if len(stop) < len(request.stop):
            self._note(f"dropped {self._word('stop')} of white space: Anthropic refuses it")
        if config:
            body["output_config"] = config
        if request.user:
            body["metadata"] = {"user_id": clean(request.user)}
        self._tier(body)
        marked(body, request.cache)
        if request.stream:
            body["stream"] = True
        if tools:
            body["tools"] = tools
        if choice:
            body["tool_choice"] = choice
        self._limit_marks(system, turns, tools)
        if system:
            alone = len(system) == 1 and set(system[0]) == {"type", "text"}
            body["system"] = system[0]["text"] if alone else system
        body["messages"] = [{"role": turn.role, "content": turn.content} for turn in turns]
        self._others(body, tools)
        return body

    # --- what cannot be said ---

    def _word(self, name: str) -> str:
        return _WORDS.get(self._request.dialect, {}).get(name, name)

    def _note(self, note: str) -> None:
        tell(self._notes, note)

    def _drop(self, name: str, why: str = "Anthropic has no counterpart") -> None:
        self._note(f"dropped {self._word(name)}: {why}")

    def _refuse(self) -> None:
        """Refuse or drop what Anthropic has no counterpart for."""
        request = self._request
        refuse_lost(request, "Anthropic")
        refuse_begun(request, self._target, "Anthropic")
        for name, value in (("n", (request.n or 1) > 1), ("logprobs", request.logprobs)):
            if value:
                place = self._word(name)
                raise Untranslatable(f"`{place}` has no counterpart at Anthropic. Leave it out.", param=place)
        for name, given in (
            ("seed", request.seed is not None),
            ("presence_penalty", bool(request.presence_penalty)),
            ("frequency_penalty", bool(request.frequency_penalty)),
            ("prompt_cache_key", request.cache_key),
            ("verbosity", request.verbosity),
        ):
            if given:
                self._drop(name)

    # --- members ---

    def _max_tokens(self) -> int:
        """The client's bound, else the model's largest output, else `DEFAULT_MAX_TOKENS`; never above the largest."""
        largest, asked = self._target.max_output, self._request.max_output
        if asked is None:
            return largest or DEFAULT_MAX_TOKENS
        if largest and asked > largest:
            self._note(f"lowered max_tokens to {largest}: the model's largest")
            return largest
        return asked

    def _shape(self, config: dict[str, object], system: list[Block]) -> None:
        shape = self._request.shape
        if shape is None:
            return
        word = self._word("shape")
        if shape.kind == "object":
            system.append({"type": "text", "text": _JSON_ONLY})
            self._note(f"replaced {word}: asked for in the system prompt")
            return
        schema = loose(shape.schema)
        if not self._target.schemas or not isinstance(schema, dict):
            raise Untranslatable(f"`{word}` by a JSON Schema is not possible with {self._target.model}.", param=word)
        if self._request.dialect != DIALECT:
            schema = self._tightened(schema, word)
        config["format"] = {"type": "json_schema", "schema": schema}

    def _tightened(self, schema: dict[str, Any], place: str) -> dict[str, Any]:
        moved: set[str] = set()
        fit = tighten(schema, moved)
        if moved:
            self._note(
                f"moved {', '.join(sorted(moved))} of {place} into descriptions: Anthropic does not enforce them"
            )
        return fit

    def _think(self, body: dict[str, Any], config: dict[str, object], turns: list[Turn], *, forced: bool) -> None:
        """`thinking` and the effort, and `max_tokens` with room for both thinking and answer."""
        thinking = self._request.thinking
        if thinking is None:
            return
        if thinking.effort == "none" or (thinking.budget == 0 and not thinking.effort):
            if self._target.thinking != "none":
                body["thinking"] = {"type": "disabled"}
            return
        if self._target.thinking == "none":
            self._drop("thinking", "the model does not think")
            return
        if forced:
            self._drop("thinking", "Anthropic does not think when a tool call is forced")
            return
        if self._target.thinking == "budget" and _is_under_way_without_thoughts(turns):
            self._drop("thinking", "the turn under way began without it, and Anthropic does not take it up midway")
            return
        display = {} if thinking.shown is None else {"display": "summarized" if thinking.shown else "omitted"}
        if self._target.thinking == "effort":
            body["thinking"] = {"type": "adaptive", **display}
            if effort := thinking.effort or _effort_of(thinking.budget):
                config["effort"] = _EFFORTS.get(effort, effort)
        elif budget := self._budget(body, thinking):
            body["thinking"] = {"type": "enabled", "budget_tokens": budget, **display}
            if thinking.budget and thinking.effort:  # Anthropic's own words: some models know both
                config["effort"] = thinking.effort

    def _budget(self, body: dict[str, Any], thinking: Thinking) -> int:
        """Tokens to think, at least `MIN_BUDGET` and fewer than `max_tokens`; 0 when there is no room."""
        budget = max(thinking.budget or _BUDGETS.get(thinking.effort or "medium", 8192), MIN_BUDGET)
        asked: int = body["max_tokens"]
        if budget < asked:
            return budget
        raised = asked + budget
        if self._target.max_output:
            raised = min(raised, self._target.max_output)
        budget = min(budget, raised - 1)
        if budget < MIN_BUDGET:
            self._drop("thinking", "the model's largest output leaves no room for it")
            return 0
        if raised != asked:
            self._note(f"raised max_tokens to {raised}: it includes the thinking")
        body["max_tokens"] = raised
        return budget

    def _sample(self, body: dict[str, Any]) -> None:
        request = self._request
        given = {
            name: value for name in ("temperature", "top_p", "top_k") if (value := getattr(request, name)) is not None
        }
        if not given:
            return
        thinks = body.get("thinking", {}).get("type") in ("adaptive", "enabled")
        for name, value in given.items():
            if not self._target.sampling:
                self._drop(name, f"{self._target.model} does not take it")
            elif thinks:
                self._drop(name, "Anthropic does not take it while thinking")
            elif name == "top_p" and "temperature" in given:
                self._drop(name, "Anthropic does not take it together with a temperature")
            elif name == "temperature" and not 0 <= value <= 1:
                body[name] = min(max(value, 0.0), 1.0)
                self._note(f"changed {self._word(name)} to {body[name]}: Anthropic's are from 0 to 1")
            else:
                body[name] = value

    def _tier(self, body: dict[str, Any]) -> None:
        tier = self._request.tier
        if tier in _TIERS:
            body["service_tier"] = _TIERS[tier]
        elif tier:
            self._drop("service_tier")

    # --- tools ---

    def _tools(self) -> list[Block]:
        request = self._request
        choice = request.choice
        tools = request.tools
        if choice is not None and (len(choice.names) > 1 or (choice.names and choice.mode != "any")):
            named = {*choice.names}
            tools = tuple(tool for tool in tools if {tool.name, flat_name(tool.name, tool.namespace)} & named)
        written = [self._tool(tool) for tool in tools]
        for hosted in request.hosted:
            block = loose(hosted.raw) if hosted.dialect == DIALECT else None
            if isinstance(block, dict):
                written.append(block)
            else:
                self._note(f"dropped the tool {hosted.what}: it is another provider's own")
        return written

    def _tool(self, tool: Tool) -> Block:
        name = flat_name(tool.name, tool.namespace)
        if not _NAME.fullmatch(name):
            raise Untranslatable(
                f"The tool {name[:150]!r} has a name that Anthropic refuses: at most 128 letters, digits, _ and -.",
                param="tools",
            )
        written: Block = {"name": name}
        if tool.description:
            written["description"] = clean(tool.description)
        written["input_schema"] = _free_schema(tool) if tool.free else self._arguments(tool)
        if tool.strict is not None and not tool.free:
            written["strict"] = tool.strict
        return marked(written, tool.cache)

    def _arguments(self, tool: Tool) -> object:
        schema = loose(tool.schema) if tool.schema else None
        if not isinstance(schema, dict):
            return _NO_ARGUMENTS
        if self._request.dialect == DIALECT:
            return msgspec.Raw(tool.schema)
        if tool.strict:
            schema = self._tightened(schema, "tools")
        return schema if "type" in schema else {"type": "object", **schema}

    def _choice(self, tools: bool) -> Block | None:
        request = self._request
        choice = request.choice
        if not tools:
            if choice is not None and choice.mode == "any":
                self._drop("tool_choice", "there is no tool left to call")
            return None
        written: Block | None = None
        if choice is not None:
            written = {"type": choice.mode}
            if choice.mode == "any" and len(choice.names) == 1:
                written = {"type": "tool", "name": self._flat(choice.names[0])}
        if request.parallel is False and (choice is None or choice.mode != "none"):
            written = {**(written or {"type": "auto"}), "disable_parallel_tool_use": True}
        return written

    def _flat(self, name: str) -> str:
        for tool in self._request.tools:
            if tool.name == name:
                return flat_name(name, tool.namespace)
        return name

    # --- the end ---

    def _limit_marks(self, system: list[Block], turns: list[Turn], tools: list[Block]) -> None:
        """Leave the last four cache marks, which is what Anthropic takes; the one for all is one of them."""
        holders = [*tools, *system]
        for turn in turns:
            for block in turn.content:
                inside = block.get("content") if block["type"] == "tool_result" else None
                holders += inside if isinstance(inside, list) else ()
                holders.append(block)
        marks = [block for block in holders if block.get("cache_control")]
        surplus = len(marks) - (_MOST_MARKS - bool(self._request.cache))
        for block in marks[: max(0, surplus)]:
            del block["cache_control"]
        if surplus > 0:
            self._note(f"dropped {surplus} cache marks: Anthropic takes {_MOST_MARKS}")

    def _others(self, body: dict[str, Any], tools: list[Block]) -> None:
        """Members that only Anthropic knows."""
        request = self._request
        if request.dialect != DIALECT:
            for name in request.others:
                self._note(f"dropped {name}: Anthropic has no counterpart")
            return
        own: dict[str, list[Block]] = {}
        for tool in tools:
            own.setdefault(str(tool.get("name")), []).append(tool)
        for name, raw in request.others.items():
            holder, _, inner = name.partition(".")
            if holder == "tools":
                for tool in own.get(inner, ()):
                    tool.update(loose(raw) or {})
            elif inner and holder in ("output_config", "metadata"):
                body.setdefault(holder, {})[inner] = msgspec.Raw(raw)
            else:
                body[name] = msgspec.Raw(raw)


def _is_under_way_without_thoughts(turns: list[Turn]) -> bool:
    """Whether the model is to go on with a turn of its own, after tool results or a prefill, that has no thinking."""
    own = next((turn for turn in reversed(turns) if turn.role == "assistant"), None)
    if own is None or not own.content:
        return False
    answered = any(block.get("type") == "tool_result" for block in turns[-1].content)
    going_on = own is turns[-1] or (turns[-1].role == "user" and answered)
    return going_on and own.content[0].get("type") not in ("thinking", "redacted_thinking")


def _effort_of(budget: int | None) -> str:
    """The level for a budget. `high` is the most: not every model knows more."""
    if not budget:
        return ""
    return "low" if budget < 2048 else "medium" if budget < 10_000 else "high"


def _free_schema(tool: Tool) -> dict[str, object]:
    """The schema for a tool that takes plain text: an object of one string."""
    text: dict[str, object] = {"type": "string"}
    if tool.schema:
        text["description"] = f"Text in this format: {tool.schema.decode('utf-8', 'replace')}"
    return {"type": "object", "properties": {"input": text}, "required": ["input"], "additionalProperties": False}
