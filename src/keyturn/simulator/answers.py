"""What a simulated model says: text that is plainly simulated, tool calls, JSON that fits a schema, vectors."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

BYTES_PER_TOKEN = 4
IMAGE_TOKENS = 85
MESSAGE_TOKENS = 3
ECHOED = 200
"""At most so many characters of the prompt's end are echoed."""


class Unusable(Exception):
    """The request is not one that a provider would accept; the text says why."""

    def __init__(self, why: str, member: str = "messages") -> None:
        super().__init__(why)
        self.why = why
        self.member = member


@dataclass(slots=True)
class Answer:
    """One choice: its text in the pieces that a stream sends, or the tools that it calls as (name, arguments)."""

    pieces: list[str] = field(default_factory=list)
    tools: list[tuple[str, str]] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    finish: str = "stop"

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def tokens(self) -> int:
        """One per piece, and the usual four bytes per token for tool calls."""
        calls = sum(_tokens(name) + _tokens(arguments) for name, arguments in self.tools)
        return len(self.pieces) + len(self.reasoning) + calls


def prompt_tokens(body: Mapping[str, Any]) -> int:
    """What the simulator counts, charges and reports for the input: exact by definition."""
    if "messages" not in body:
        return sum(_tokens(text) for text in _inputs(body))
    total = _tokens(json.dumps(body["tools"])) if body.get("tools") else 0
    for message in body["messages"]:
        total += MESSAGE_TOKENS + sum(_tokens(text) for text in _texts(message)) + IMAGE_TOKENS * _images(message)
        if message.get("tool_calls"):
            total += _tokens(json.dumps(message["tool_calls"]))
    return total


def max_output(body: Mapping[str, Any]) -> int | None:
    """The output bound that the request states."""
    bound = body.get("max_completion_tokens") or body.get("max_tokens")
    return bound if isinstance(bound, int) else None


def check(body: Any) -> None:
    """Raises Unusable for what every provider refuses."""
    if not isinstance(body, dict):
        raise Unusable("We could not parse the JSON body of your request.", "body")
    if not isinstance(body.get("model"), str) or not body["model"]:
        raise Unusable("you must provide a model parameter", "model")
    if "input" in body:
        return
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Unusable("Invalid 'messages': empty array. Expected an array with minimum length 1.")
    if not all(isinstance(message, dict) and isinstance(message.get("role"), str) for message in messages):
        raise Unusable("Invalid type for 'messages[0]': expected an object with a role.")


def answer_to(body: Mapping[str, Any], name: str, *, eager_tools: bool = False, reasons: bool = False) -> Answer:
    """The answer of the simulated model *name* (`groq/llama…`). *eager_tools*: it calls a tool whenever it may."""
    asked = _last_text(body["messages"])
    answer = Answer()
    if reasons:
        answer.reasoning = ["Thinking ", "about ", "it."]
    answer.tools = [_call(tool) for tool in _tools_to_call(body, asked, eager_tools)]
    if answer.tools:
        answer.finish = "tool_calls"
        return answer
    answer.pieces = list(_pieces(_text(body, name, asked)))
    bound = max_output(body)
    if bound is not None and len(answer.pieces) > bound:
        del answer.pieces[bound:]
        answer.finish = "length"
    return answer


def example(schema: Any, root: Mapping[str, Any] | None = None, depth: int = 0) -> Any:
    """A value that fits the usual JSON schemas of structured outputs: all properties, first choices, least sizes."""
    if not isinstance(schema, Mapping) or depth > 30:
        return None
    root = schema if root is None else root
    if "$ref" in schema:
        return example(_resolve(root, schema["$ref"]), root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for union in ("anyOf", "oneOf", "allOf"):
        if schema.get(union):
            return example(schema[union][0], root, depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = kind[0]
    if kind == "object":
        return {name: example(part, root, depth + 1) for name, part in schema.get("properties", {}).items()}
    if kind == "array":
        return [example(schema.get("items", {}), root, depth + 1)] * max(1, schema.get("minItems", 1))
    if kind in ("integer", "number"):
        return schema.get("minimum", 1)
    return {"boolean": True, "null": None}.get(kind, "simulated".ljust(schema.get("minLength", 0), "."))


def vector(text: str, dimensions: int) -> list[float]:
    """A unit vector that depends on *text* alone."""
    numbers: list[float] = []
    block = 0
    while len(numbers) < dimensions:
        digest = hashlib.sha256(f"{block}:{text}".encode()).digest()
        numbers.extend((byte - 127.5) / 127.5 for byte in digest)
        block += 1
    del numbers[dimensions:]
    length = math.sqrt(sum(number * number for number in numbers))
    return [number / length for number in numbers]


def _tokens(text: str) -> int:
    return -(-len(text.encode()) // BYTES_PER_TOKEN)


def _inputs(body: Mapping[str, Any]) -> list[str]:
    given = body.get("input", "")
    return [
        item if isinstance(item, str) else json.dumps(item) for item in (given if isinstance(given, list) else [given])
    ]


def _texts(message: Mapping[str, Any]) -> Iterator[str]:
    content = message.get("content")
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                yield part["text"]


def _images(message: Mapping[str, Any]) -> int:
    content = message.get("content")
    if not isinstance(content, list):
        return 0
    return sum(isinstance(part, dict) and part.get("type") not in ("text", None) for part in content)


def _last_text(messages: Sequence[Mapping[str, Any]]) -> str:
    return " ".join(_texts(messages[-1]))


def _text(body: Mapping[str, Any], name: str, asked: str) -> str:
    wanted = body.get("response_format") or {}
    if wanted.get("type") == "json_schema":
        return json.dumps(example(wanted.get("json_schema", {}).get("schema", {})), ensure_ascii=False)
    if wanted.get("type") == "json_object":
        return json.dumps({"simulated": True, "by": name, "echo": asked[-ECHOED:]}, ensure_ascii=False)
    seen = sum(_images(message) for message in body["messages"])
    images = f" I was sent {seen} image(s)." if seen else ""
    heading = "The tool answered" if body["messages"][-1]["role"] == "tool" else "You said"
    return f"This is the Keyturn simulator ({name}): … {heading}: {asked[-ECHOED:]}{images}"


def _pieces(text: str) -> Iterator[str]:
    """Words with the space before them, as models stream them."""
    start = 0
    while start < len(text):
        end = text.find(" ", start + 1)
        end = len(text) if end < 0 else end
        yield text[start:end]
        start = end


def _tools_to_call(body: Mapping[str, Any], asked: str, eager: bool) -> list[Mapping[str, Any]]:
    offered = [tool["function"] for tool in body.get("tools") or [] if isinstance(tool.get("function"), dict)]
    choice = body.get("tool_choice", "auto")
    if not offered or choice == "none":
        return []
    if isinstance(choice, dict):
        wanted = choice.get("function", {}).get("name")
        return [tool for tool in offered if tool.get("name") == wanted]
    if body["messages"][-1]["role"] == "tool":
        return []
    named = [tool for tool in offered if str(tool.get("name")) in asked]
    if named:
        return named
    return offered[:1] if eager or choice == "required" or "tool" in asked.lower() else []


def _call(tool: Mapping[str, Any]) -> tuple[str, str]:
    return str(tool.get("name")), json.dumps(example(tool.get("parameters") or {}) or {}, ensure_ascii=False)


def _resolve(root: Mapping[str, Any], reference: str) -> Any:
    place: Any = root
    for step in reference.removeprefix("#").strip("/").split("/"):
        place = place.get(step.replace("~1", "/").replace("~0", "~"), {}) if step else place
    return place
