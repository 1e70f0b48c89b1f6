"""One face for four clients: the official SDKs, each asked in its own way and its answer read into one shape.

A conversation is a list of the client's own messages: `history = client.prompt("Hello")`, then
`turn = client.ask(model, history)` and `history += [*turn.said, *client.results(turn, ["18 degrees"])]`.
"""

from __future__ import annotations

import base64
import json
import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

import anthropic
import openai
from google import genai
from google.genai import types
from pydantic import BaseModel, ConfigDict

Mode = Literal["plain", "stream", "helper"]
"""In one piece; as the events that the SDK brings; through the SDK's own help with streams."""
MODES: tuple[Mode, ...] = get_args(Mode)


def _png() -> bytes:
    """One red pixel."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0\xff\0\0")) + chunk(b"IEND", b"")
    )


PNG = _png()
PNG_TEXT = base64.b64encode(PNG).decode()


class Wind(BaseModel):
    model_config = ConfigDict(extra="forbid")
    speed: float
    gusts: bool


class Weather(BaseModel):
    """What structured answers are parsed into."""

    model_config = ConfigDict(extra="forbid")
    city: str
    sky: Literal["clear", "cloudy"]
    winds: list[Wind]


SIMULATED = Weather(city="simulated", sky="clear", winds=[Wind(speed=1.0, gusts=True)])
"""What the simulator makes of the schema of `Weather`."""


def _tool(name: str, member: str) -> dict[str, Any]:
    properties = {member: {"type": "string", "description": "Where."}}
    schema = {"type": "object", "properties": properties, "required": [member], "additionalProperties": False}
    return {"name": name, "description": f"Tell the {name}.", "schema": schema}


TOOLS = [_tool("weather", "city"), _tool("clock", "zone")]


class Called(NamedTuple):
    """A call of a tool. Gemini's upstreams may give no *id*."""

    id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass
class Turn:
    """One answer. *said* is what goes back into the history for it, *raw* what the SDK gave."""

    raw: Any
    text: str = ""
    thinking: str = ""
    calls: list[Called] = field(default_factory=list)
    said: list[Any] = field(default_factory=list)
    finish: str = ""
    parts: int = 1
    """In how many pieces the text came."""
    parsed: Any = None
    tokens: tuple[int, int] = (0, 0)
    """Of input and output, as the SDK tells them."""


class Client(ABC):
    """An SDK as it stands; it tries once unless told otherwise."""

    dialect: str
    sdk: str
    helper: str
    """What helps with streams."""
    finishes: tuple[str, str]
    """How it calls the end of a text, and of a turn that calls tools."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self.key = key
        self.api = self.connect(url, key)

    @abstractmethod
    def connect(self, url: str, key: str) -> Any:
        """The SDK's client of the gateway at *url*."""

    @abstractmethod
    def prompt(self, text: str, *, image: bool = False) -> list[Any]:
        """The beginning of a conversation, with `PNG` if *image*."""

    @abstractmethod
    def results(self, turn: Turn, texts: Sequence[str]) -> list[Any]:
        """What the tools that *turn* called have answered, in order."""

    @abstractmethod
    def ask(
        self,
        model: str,
        history: Sequence[Any],
        mode: Mode = "plain",
        *,
        tools: bool = False,
        weather: bool = False,
        thinking: Any = None,
    ) -> Turn:
        """The next turn. *weather*: it is to be parsed into `Weather`; *thinking* is the client's own way to ask."""

    @abstractmethod
    def thinking(self, model: str) -> Any:
        """How this client asks *model* to think aloud."""

    @abstractmethod
    def models(self) -> list[str]:
        """The names that it lists."""

    def close(self) -> None:
        self.api.close()


class Chat(Client):
    dialect, sdk, helper = "openai_chat", "openai", "chat.completions.stream"
    finishes = ("stop", "tool_calls")

    def connect(self, url: str, key: str) -> Any:
        return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)

    def prompt(self, text: str, *, image: bool = False) -> list[Any]:
        content: list[Any] = [{"type": "text", "text": text}]
        if image:
            content.append({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG_TEXT}"}})
        return [{"role": "user", "content": content if image else text}]

    def results(self, turn: Turn, texts: Sequence[str]) -> list[Any]:
        pairs = zip(turn.calls, texts, strict=True)
        return [{"role": "tool", "tool_call_id": call.id, "content": text} for call, text in pairs]

    def ask(
        self,
        model: str,
        history: Sequence[Any],
        mode: Mode = "plain",
        *,
        tools: bool = False,
        weather: bool = False,
        thinking: Any = None,
    ) -> Turn:
        options: dict[str, Any] = {"model": model, "messages": list(history)}
        if tools:
            functions = [{"name": t["name"], "parameters": t["schema"], "strict": True} for t in TOOLS]
            options["tools"] = [{"type": "function", "function": function} for function in functions]
        options |= thinking or {}
        completions = self.api.chat.completions
        if mode == "plain":
            if weather:
                return self._turn(completions.parse(**options, response_format=Weather))
            return self._turn(completions.create(**options))
        options["stream_options"] = {"include_usage": True}
        if mode == "helper":
            with completions.stream(**options, **({"response_format": Weather} if weather else {})) as stream:
                events = list(stream)
                turn = self._turn(stream.get_final_completion())
            turn.parts = sum(event.type == "content.delta" for event in events)
            assert "".join(event.delta for event in events if event.type == "content.delta") == turn.text
            return turn
        if weather:
            schema = {"name": "weather", "strict": True, "schema": Weather.model_json_schema()}
            options["response_format"] = {"type": "json_schema", "json_schema": schema}
        return _together(list(completions.create(**options, stream=True)), weather)

    def _turn(self, completion: Any) -> Turn:
        [choice] = completion.choices
        message = choice.message
        turn = Turn(completion, message.content or "", said=[message], finish=choice.finish_reason)
        turn.thinking = getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None) or ""
        for call in message.tool_calls or []:
            turn.calls.append(Called(call.id, call.function.name, json.loads(call.function.arguments)))
        turn.parsed = getattr(message, "parsed", None)
        turn.tokens = (completion.usage.prompt_tokens, completion.usage.completion_tokens)
        return turn

    def thinking(self, model: str) -> Any:
        if "gpt-oss" in model:
            return {"reasoning_effort": "medium"}
        return {"extra_body": {"reasoning": {"effort": "medium"}}}

    def models(self) -> list[str]:
        return [model.id for model in self.api.models.list()]


def _together(chunks: list[Any], weather: bool) -> Turn:
    """Chunks put together as programs without a helper do: texts and calls are kept, all else is lost."""
    turn = Turn(chunks)
    calls: dict[int, dict[str, Any]] = {}
    pieces = []
    for chunk in chunks:
        if chunk.usage is not None:
            turn.tokens = (chunk.usage.prompt_tokens, chunk.usage.completion_tokens)
        for choice in chunk.choices:
            delta = choice.delta
            pieces += [delta.content] if delta.content else []
            turn.thinking += getattr(delta, "reasoning_content", None) or getattr(delta, "reasoning", None) or ""
            turn.finish = choice.finish_reason or turn.finish
            for part in delta.tool_calls or []:
                call = calls.setdefault(part.index, {"id": "", "name": "", "arguments": ""})
                call["id"] = part.id or call["id"]
                call["name"] += part.function.name or ""
                call["arguments"] += part.function.arguments or ""
    turn.text, turn.parts = "".join(pieces), len(pieces)
    message: dict[str, Any] = {"role": "assistant", "content": turn.text or None}
    if calls:
        functions = [(call["id"], {"name": call["name"], "arguments": call["arguments"]}) for call in calls.values()]
        message["tool_calls"] = [{"id": name, "type": "function", "function": given} for name, given in functions]
        turn.calls = [Called(name, given["name"], json.loads(given["arguments"])) for name, given in functions]
    turn.said = [message]
    turn.parsed = Weather.model_validate_json(turn.text) if weather else None
    return turn


class Responses(Client):
    dialect, sdk, helper = "openai_responses", "openai", "responses.stream"
    finishes = ("completed", "completed")

    def connect(self, url: str, key: str) -> Any:
        return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)

    def prompt(self, text: str, *, image: bool = False) -> list[Any]:
        content: list[Any] = [{"type": "input_text", "text": text}]
        if image:
            url = f"data:image/png;base64,{PNG_TEXT}"
            content.append({"type": "input_image", "detail": "auto", "image_url": url})
        return [{"role": "user", "content": content if image else text}]

    def results(self, turn: Turn, texts: Sequence[str]) -> list[Any]:
        pairs = zip(turn.calls, texts, strict=True)
        return [{"type": "function_call_output", "call_id": call.id, "output": text} for call, text in pairs]

    def ask(
        self,
        model: str,
        history: Sequence[Any],
        mode: Mode = "plain",
        *,
        tools: bool = False,
        weather: bool = False,
        thinking: Any = None,
    ) -> Turn:
        options: dict[str, Any] = {"model": model, "input": list(history), "store": False}
        options["include"] = ["reasoning.encrypted_content"]  # without it, thinking cannot go back into the history
        if tools:
            rows = [{"name": tool["name"], "parameters": tool["schema"], "strict": True} for tool in TOOLS]
            options["tools"] = [{"type": "function", **row} for row in rows]
        if thinking:
            options["reasoning"] = thinking
        responses = self.api.responses
        if mode == "plain":
            return self._turn(
                responses.parse(**options, text_format=Weather) if weather else responses.create(**options)
            )
        if mode == "helper":
            with responses.stream(**options, **({"text_format": Weather} if weather else {})) as stream:
                events = list(stream)
                turn = self._turn(stream.get_final_response())
        else:
            if weather:
                schema = {"type": "json_schema", "name": "weather", "strict": True}
                options["text"] = {"format": schema | {"schema": Weather.model_json_schema()}}
            events = list(responses.create(**options, stream=True))
            turn = self._turn(events[-1].response)
            turn.parsed = Weather.model_validate_json(turn.text) if weather else None
        assert [event.sequence_number for event in events] == list(range(len(events)))
        texts = [event.delta for event in events if event.type == "response.output_text.delta"]
        turn.parts = len(texts)
        assert "".join(texts) == turn.text
        thoughts = [
            event.delta for event in events if event.type.endswith(("summary_text.delta", "reasoning_text.delta"))
        ]
        assert "".join(thoughts) == turn.thinking
        return turn

    def _turn(self, response: Any) -> Turn:
        turn = Turn(response, response.output_text, said=list(response.output), finish=response.status)
        for item in response.output:
            if item.type == "function_call":
                turn.calls.append(Called(item.call_id, item.name, json.loads(item.arguments)))
            if item.type == "reasoning":
                turn.thinking += "".join(part.text for part in [*item.summary, *(item.content or [])])
        turn.parsed = getattr(response, "output_parsed", None)
        turn.tokens = (response.usage.input_tokens, response.usage.output_tokens)
        return turn

    def thinking(self, model: str) -> Any:
        return {"effort": "medium", "summary": "auto"}

    def models(self) -> list[str]:
        return [model.id for model in self.api.models.list()]


class Messages(Client):
    dialect, sdk, helper = "anthropic", "anthropic", "messages.stream"
    finishes = ("end_turn", "tool_use")

    def connect(self, url: str, key: str) -> Any:
        return anthropic.Anthropic(base_url=url, api_key=key, max_retries=0)

    def prompt(self, text: str, *, image: bool = False) -> list[Any]:
        content: list[Any] = [{"type": "text", "text": text}]
        if image:
            source = {"type": "base64", "media_type": "image/png", "data": PNG_TEXT}
            content.insert(0, {"type": "image", "source": source})
        return [{"role": "user", "content": content if image else text}]

    def results(self, turn: Turn, texts: Sequence[str]) -> list[Any]:
        pairs = zip(turn.calls, texts, strict=True)
        blocks = [{"type": "tool_result", "tool_use_id": call.id, "content": text} for call, text in pairs]
        return [{"role": "user", "content": blocks}]

    def ask(
        self,
        model: str,
        history: Sequence[Any],
        mode: Mode = "plain",
        *,
        tools: bool = False,
        weather: bool = False,
        thinking: Any = None,
    ) -> Turn:
        options: dict[str, Any] = {"model": model, "messages": list(history), "max_tokens": 4096}
        if tools:
            rows = [{"name": tool["name"], "description": tool["description"]} for tool in TOOLS]
            schemas = [{"input_schema": tool["schema"]} for tool in TOOLS]
            options["tools"] = [row | schema for row, schema in zip(rows, schemas, strict=True)]
        options |= thinking or {}
        messages = self.api.messages
        if mode == "plain":
            return self._turn(
                messages.parse(**options, output_format=Weather) if weather else messages.create(**options)
            )
        if mode == "helper":
            with messages.stream(**options, **({"output_format": Weather} if weather else {})) as stream:
                events = list(stream)
                turn = self._turn(stream.get_final_message())
            turn.parts = sum(event.type == "text" for event in events)
            assert "".join(event.text for event in events if event.type == "text") == turn.text
            return turn
        if weather:
            schema = {"type": "json_schema", "schema": Weather.model_json_schema()}
            options["output_config"] = {"format": schema}
        turn = _blocks(list(messages.create(**options, stream=True)))
        turn.parsed = Weather.model_validate_json(turn.text) if weather else None
        return turn

    def _turn(self, message: Any) -> Turn:
        said = [{"role": "assistant", "content": message.content}]
        turn = Turn(message, said=said, finish=message.stop_reason)
        for block in message.content:
            if block.type == "text":
                turn.text += block.text
            elif block.type == "thinking":
                turn.thinking += block.thinking
            elif block.type == "tool_use":
                turn.calls.append(Called(block.id, block.name, block.input))
        turn.parsed = getattr(message, "parsed_output", None)
        usage = message.usage
        cached = (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
        turn.tokens = (usage.input_tokens + cached, usage.output_tokens)
        return turn

    def thinking(self, model: str) -> Any:
        if "haiku" in model:
            return {"thinking": {"type": "enabled", "budget_tokens": 2048, "display": "summarized"}}
        return {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": "medium"}}

    def models(self) -> list[str]:
        return [model.id for model in self.api.models.list()]


def _blocks(events: list[Any]) -> Turn:
    """Raw events put together by their documentation."""
    turn = Turn(events)
    blocks: list[dict[str, Any]] = []
    for event in events:
        if event.type == "content_block_start":
            assert event.index == len(blocks)
            blocks.append(event.content_block.to_dict())
            blocks[-1].pop("citations", None)
        elif event.type == "content_block_delta":
            block, delta = blocks[event.index], event.delta
            if delta.type == "input_json_delta":
                block["json"] = block.get("json", "") + delta.partial_json
            else:
                name = delta.type.removesuffix("_delta")
                turn.parts += name == "text"
                block[name] = block.get(name, "") + getattr(delta, name)
        elif event.type == "message_delta":
            turn.finish = event.delta.stop_reason
            usage = event.usage
            cached = (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
            turn.tokens = ((usage.input_tokens or 0) + cached, usage.output_tokens)
    assert [events[0].type, events[-1].type] == ["message_start", "message_stop"]
    turn.parts -= 1
    for block in blocks:
        if block["type"] == "text":
            turn.text += block["text"]
        elif block["type"] == "thinking":
            turn.thinking += block["thinking"]
        elif block["type"] == "tool_use":
            block["input"] = json.loads(block.pop("json", "") or "{}")
            turn.calls.append(Called(block["id"], block["name"], block["input"]))
    turn.said = [{"role": "assistant", "content": blocks}]
    return turn


class Gemini(Client):
    dialect, sdk, helper = "gemini", "google-genai", "chats"
    finishes = ("STOP", "STOP")

    def connect(self, url: str, key: str) -> Any:
        return genai.Client(api_key=key, http_options=types.HttpOptions(base_url=url))

    def prompt(self, text: str, *, image: bool = False) -> list[Any]:
        parts = [types.Part.from_text(text=text)]
        if image:
            parts.append(types.Part.from_bytes(data=PNG, mime_type="image/png"))
        return [types.Content(role="user", parts=parts)]

    def results(self, turn: Turn, texts: Sequence[str]) -> list[Any]:
        parts = []
        for call, text in zip(turn.calls, texts, strict=True):
            response = types.FunctionResponse(id=call.id or None, name=call.name, response={"result": text})
            parts.append(types.Part(function_response=response))
        return [types.Content(role="user", parts=parts)]

    def ask(
        self,
        model: str,
        history: Sequence[Any],
        mode: Mode = "plain",
        *,
        tools: bool = False,
        weather: bool = False,
        thinking: Any = None,
    ) -> Turn:
        config = types.GenerateContentConfig(thinking_config=thinking)
        config.automatic_function_calling = types.AutomaticFunctionCallingConfig(disable=True)
        if tools:
            names = [{"name": tool["name"], "description": tool["description"]} for tool in TOOLS]
            rows: list[Any] = [
                types.FunctionDeclaration(**name, parameters_json_schema=tool["schema"])
                for name, tool in zip(names, TOOLS, strict=True)
            ]
            config.tools = [types.Tool(function_declarations=rows)]
        if weather:
            config.response_mime_type, config.response_schema = "application/json", Weather
        if mode == "plain":
            turn = self._turn([self.api.models.generate_content(model=model, contents=list(history), config=config)])
            turn.parsed = turn.raw[0].parsed
            return turn
        if mode == "stream":
            stream = self.api.models.generate_content_stream(model=model, contents=list(history), config=config)
            turn = self._turn(list(stream))
        else:
            *before, last = history
            chat = self.api.chats.create(model=model, config=config, history=before)
            turn = self._turn(list(chat.send_message_stream(last.parts)))
            kept = [part for each in chat.get_history(curated=True)[len(history) :] for part in each.parts]
            assert "".join(part.text or "" for part in kept if not part.thought) == turn.text
            turn.said = [types.Content(role="model", parts=kept)]  # the chat keeps one of each chunk
        turn.parsed = Weather.model_validate_json(turn.text) if weather else None
        return turn

    def _turn(self, chunks: list[Any]) -> Turn:
        turn = Turn(chunks)
        contents = [chunk.candidates[0].content for chunk in chunks if chunk.candidates]
        parts = [part for content in contents if content for part in content.parts or []]
        pieces = [part.text for part in parts if part.text and not part.thought]
        turn.text, turn.parts = "".join(pieces), len(pieces)
        turn.thinking = "".join(part.text for part in parts if part.text and part.thought)
        for part in parts:
            if part.function_call is not None:
                call = part.function_call
                turn.calls.append(Called(call.id or "", call.name, call.args or {}))
        turn.said = [types.Content(role="model", parts=parts)]
        ends = [candidate.finish_reason for chunk in chunks for candidate in chunk.candidates or []]
        turn.finish = next(end.value for end in ends if end is not None)
        usage = chunks[-1].usage_metadata
        turn.tokens = (usage.prompt_token_count, usage.candidates_token_count + (usage.thoughts_token_count or 0))
        return turn

    def thinking(self, model: str) -> Any:
        if "gemini-2.5" in model:
            return types.ThinkingConfig(include_thoughts=True, thinking_budget=2048)
        return types.ThinkingConfig(include_thoughts=True, thinking_level=types.ThinkingLevel.MEDIUM)

    def models(self) -> list[str]:
        return [model.name for model in self.api.models.list()]


CLIENTS: dict[str, type[Client]] = {each.dialect: each for each in (Chat, Responses, Messages, Gemini)}
