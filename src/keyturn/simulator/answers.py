"""What a simulated model says: text that is plainly simulated, tool calls, JSON that fits a schema, vectors.

One engine for all wire formats: their readers make a `Question`, their writers put an `Answer` into words. What a
prompt asks for:

- `[call: weather {"city": "Rome"}]`, once or several times: the model calls exactly these tools, with these arguments.
  A `[then: name {…}]` begins another step: what it calls once the calls before are answered. Without arguments: `{}`;
  a JSON string is what a free-form tool is given.
- the name of an offered tool, or the word tool: it calls that tool, or the first one, with arguments that its schema
  allows. So do a `tool_choice` that demands one and models that are eager.
- `[say: I will look.]`: it says this before it calls.
- a last turn of its own that its answer begins with: it goes on there, as models do that take a prefill.
- tool results: a final text that quotes each of them; of media it says `image seen: image/png, 70 bytes.`
- `[redacted]`, with thinking asked for: Anthropic's thinking comes redacted.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

BYTES_PER_TOKEN = 4
IMAGE_TOKENS = 85
MESSAGE_TOKENS = 3
ECHOED = 200
"""At most so many characters of the prompt's end are echoed."""
QUOTED = 2000
"""At most so many of each tool result."""

_SAID = re.compile(r"\[say:\s*([^\]]*)\]")
_NAMED = re.compile(r"This is the Keyturn simulator \(([^)]*)\)")
_SCRIPTED = re.compile(r"\[(call|then):\s*([\w.:-]+)\s*")


class Unusable(Exception):
    """The request is not one that a provider would accept; the text says why. *case*: a row of its error texts."""

    def __init__(self, why: str, member: str = "messages", case: str = "bad_request") -> None:
        super().__init__(why)
        self.why = why
        self.member = member
        self.case = case


class Medium(NamedTuple):
    """An image, sound or document that was sent: its type and size, or where it is."""

    kind: str
    mime: str
    size: int = 0
    where: str = ""

    def __str__(self) -> str:
        return f"{self.kind} seen: {self.where or f'{self.mime}, {self.size} bytes'}"


class Result(NamedTuple):
    """What a tool answered."""

    text: str
    failed: bool = False


class Said(NamedTuple):
    """One turn of the conversation, whatever the wire format."""

    role: str
    text: str = ""
    results: tuple[Result, ...] = ()
    media: tuple[Medium, ...] = ()


class Offer(NamedTuple):
    """A tool that may be called. *free*: it takes plain text."""

    name: str
    schema: Any = None
    free: bool = False
    namespace: str = ""


class Called(NamedTuple):
    """A call of a tool; *arguments* is JSON text, or the plain text of a free tool."""

    name: str
    arguments: str
    free: bool = False
    namespace: str = ""


@dataclass(slots=True)
class Question:
    """What a request asks for, whatever its wire format."""

    turns: Sequence[Said] = ()
    tokens: int = 0
    """Of the input: what is counted, charged and reported, exact by definition."""
    tools: Sequence[Offer] = ()
    mode: Literal["auto", "none", "any"] = "auto"
    names: Sequence[str] = ()
    """Only these may be called; with `any`: one of them must be."""
    parallel: bool = True
    schema: Any = None
    json: bool = False
    bound: int | None = None
    stop: Sequence[str] = ()
    thinking: bool = False
    shown: bool = True
    """The thinking is put into words, beside its signature."""
    choices: int = 1
    include_usage: bool = False
    marked: bool = False
    """The client marked where a prompt cache may end."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """The body, for what an answer repeats of it."""

    @property
    def prefix(self) -> str:
        """The leading system texts and the first text of the user: what a prompt cache goes by."""
        parts = []
        for turn in self.turns:
            parts.append(turn.text)
            if turn.role == "user":
                break
        return "\n".join(parts)

    @property
    def beginning(self) -> str:
        """What a last turn of the model itself says."""
        last = self.turns[-1] if self.turns else None
        return last.text if last is not None and last.role == "assistant" else ""

    @property
    def media(self) -> list[Medium]:
        return [medium for turn in self.turns for medium in turn.media]

    def groups(self) -> list[list[Said]]:
        """The turns between the model's own."""
        groups: list[list[Said]] = [[]]
        for turn in self.turns:
            if turn.role == "assistant":
                groups.append([])
            else:
                groups[-1].append(turn)
        return groups

    @property
    def results(self) -> list[Result]:
        """What tools have answered since the model last spoke."""
        return [result for turn in self.groups()[-1] for result in turn.results]

    @property
    def said(self) -> str:
        """The last text since the model last spoke, the user's if there is one."""
        last = self.groups()[-1] or self.turns[-1:]
        spoken = [turn.text for turn in last if turn.role == "user" and turn.text]
        return spoken[-1] if spoken else last[-1].text if last else ""


@dataclass(slots=True)
class Answer:
    """One choice: its text in the pieces that a stream sends, or the tools that it calls."""

    pieces: list[str] = field(default_factory=list)
    tools: list[Called] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    finish: Literal["stop", "length", "tool_calls"] = "stop"
    stop_sequence: str = ""
    redacted: bool = False

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def thought(self) -> str:
        return "".join(self.reasoning)

    @property
    def tokens(self) -> int:
        """One per piece, and the usual four bytes per token for tool calls."""
        calls = sum(tokens(call.name) + tokens(call.arguments) for call in self.tools)
        return len(self.pieces) + len(self.reasoning) + calls


class Counts(NamedTuple):
    """Tokens of one answer. *cached* and *written* are part of *input*, *reasoning* of *output*."""

    input: int
    output: int
    reasoning: int = 0
    cached: int = 0
    written: int = 0


def answer_to(question: Question, name: str, *, eager_tools: bool = False, reasons: bool = False) -> Answer:
    """The answer of the simulated model *name* (`groq/llama…`). *eager_tools*: it calls a tool whenever it may."""
    if question.beginning:
        rest = _going_on(question, name, eager_tools)
        if rest is not None:
            return rest
    answer = Answer(redacted="[redacted]" in question.said)
    if reasons or question.thinking:
        answer.reasoning = ["Thinking ", "about ", "it."]
    answer.tools = _calls(question, eager_tools)
    if not question.parallel:
        del answer.tools[1:]
    if answer.tools:
        answer.finish = "tool_calls"
        if found := _SAID.search(question.said):
            answer.pieces = list(_pieces(found[1]))
        return answer
    text = _text(question, name)
    for stop in question.stop:
        head, met, _ = text.partition(stop)
        if stop and met:
            text, answer.stop_sequence = head, stop
    answer.pieces = list(_pieces(text))
    if question.bound is not None and len(answer.pieces) > question.bound:
        del answer.pieces[question.bound :]
        answer.finish, answer.stop_sequence = "length", ""
    return answer


def _going_on(question: Question, name: str, eager_tools: bool) -> Answer | None:
    """The rest of an answer that has begun, whoever of us began it; None when this is not how it would begin."""
    begun = question.beginning
    named = _NAMED.match(begun)
    whole = replace(question, turns=question.turns[:-1], bound=None)
    answer = answer_to(whole, named[1] if named else name, eager_tools=eager_tools)
    if not answer.text.startswith(begun):
        return None
    answer.pieces = list(_pieces(answer.text[len(begun) :]))
    if question.bound is not None and len(answer.pieces) > question.bound:
        del answer.pieces[question.bound :]
        answer.finish, answer.stop_sequence = "length", ""
    return answer


def example(schema: Any, root: Mapping[str, Any] | None = None, depth: int = 0) -> Any:
    """A value that fits the usual JSON schemas of structured outputs: all properties, first choices, least sizes.

    Types may be in capitals, as in Gemini's own schemas.
    """
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
        kind = kind[0] if kind else "string"
    kind = str(kind).lower()
    if kind == "object":
        return {name: example(part, root, depth + 1) for name, part in (schema.get("properties") or {}).items()}
    if kind == "array":
        return [example(schema.get("items", {}), root, depth + 1)] * max(1, int(schema.get("minItems", 1)))
    if kind in ("integer", "number"):
        return schema.get("minimum", 1)
    return {"boolean": True, "null": None}.get(kind, "simulated".ljust(int(schema.get("minLength", 0)), "."))


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


def tokens(text: str) -> int:
    return -(-len(text.encode()) // BYTES_PER_TOKEN)


def tokens_of(turns: Sequence[Said], tools: Any = None) -> int:
    """What a conversation counts as; *tools* as they stand in the request."""
    total = tokens(json.dumps(tools)) if tools else 0
    for turn in turns:
        spoken = tokens(turn.text) + sum(tokens(result.text) for result in turn.results)
        total += MESSAGE_TOKENS + spoken + IMAGE_TOKENS * len(turn.media)
    return total


def _text(question: Question, name: str) -> str:
    if question.schema is not None:
        return json.dumps(example(question.schema), ensure_ascii=False)
    asked = question.said
    if question.json:
        return json.dumps({"simulated": True, "by": name, "echo": asked[-ECHOED:]}, ensure_ascii=False)
    parts = [f"{medium}." for medium in question.media]
    if results := question.results:
        told = " | ".join(f"{'(failed) ' if failed else ''}{text[-QUOTED:]}" for text, failed in results)
        parts.append(f"The tool answered: {told}")
    if asked or not results:
        parts.append(f"You said: {asked[-ECHOED:]}")
    if question.media:
        parts.append(f"I was sent {len(question.media)} image(s).")
    return f"This is the Keyturn simulator ({name}): … " + " ".join(parts)


def _pieces(text: str) -> Iterator[str]:
    """Words with the space before them, as models stream them."""
    start = 0
    while start < len(text):
        end = text.find(" ", start + 1)
        end = len(text) if end < 0 else end
        yield text[start:end]
        start = end


def _calls(question: Question, eager: bool) -> list[Called]:
    offered = [tool for tool in question.tools if not question.names or tool.name in question.names]
    if not offered or question.mode == "none":
        return []
    steps, step = _scripted(question)
    if steps:
        known = {tool.name: tool for tool in question.tools}
        return [_as_told(known.get(name), name, given) for name, given in (steps[step] if step < len(steps) else [])]
    asked = question.said
    if question.mode == "any" and question.names:
        return [_call(tool) for tool in offered[:1]]
    if question.results:
        return []
    named = [tool for tool in offered if tool.name in asked]
    if named:
        return [_call(tool) for tool in named]
    wanted = eager or question.mode == "any" or "tool" in asked.lower()
    return [_call(tool) for tool in offered[:1]] if wanted else []


def _scripted(question: Question) -> tuple[list[list[tuple[str, Any]]], int]:
    """The steps that the prompt states, and how many of them the tools have answered."""
    answered = 0
    prompt = ""
    for group in reversed(question.groups()):
        if any(turn.results for turn in group):
            answered += 1
            continue
        prompt = " ".join(turn.text for turn in group if turn.role == "user")
        if prompt:
            break
    steps: list[list[tuple[str, Any]]] = []
    for found in _SCRIPTED.finditer(prompt):
        try:
            given, _ = json.JSONDecoder().raw_decode(prompt, found.end())
        except ValueError:
            given = {}
        if found[1] == "then" or not steps:
            steps.append([])
        steps[-1].append((found[2], given))
    return steps, answered


def _as_told(tool: Offer | None, name: str, given: Any) -> Called:
    if isinstance(given, str):
        return Called(name, given, True, tool.namespace if tool else "")
    namespace = tool.namespace if tool else ""
    arguments = json.dumps(given, ensure_ascii=False)
    return Called(name, arguments, bool(tool and tool.free), namespace)


def _call(tool: Offer) -> Called:
    if tool.free:
        return Called(tool.name, "simulated input", True, tool.namespace)
    arguments = json.dumps(example(tool.schema or {}) or {}, ensure_ascii=False)
    return Called(tool.name, arguments, False, tool.namespace)


def _resolve(root: Mapping[str, Any], reference: str) -> Any:
    place: Any = root
    for step in reference.removeprefix("#").strip("/").split("/"):
        place = place.get(step.replace("~1", "/").replace("~0", "~"), {}) if step else place
    return place
