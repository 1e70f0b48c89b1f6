"""The neutral conversation that every dialect translates to and from: request, answer, stream events, usage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from msgspec import Struct, field

StopReason = Literal["stop", "stop_sequence", "length", "tool_calls", "content_filter", "pause", "other"]
"""`stop_sequence`: one of the request's `stop` was met; `pause`: a tool of the provider's own runs on (send the turn
back); a dialect that knows neither writes `stop`."""
Role = Literal["system", "user", "assistant"]
Effort = Literal["", "none", "minimal", "low", "medium", "high", "xhigh", "max"]
MediaKind = Literal["image", "document", "audio", "video"]


class Usage(NamedTuple):
    """Tokens that one attempt used. *input* includes cached tokens, *output* includes reasoning tokens."""

    input: int = 0
    output: int = 0
    cached: int = 0
    """Of the input, read from a prompt cache."""
    reasoning: int = 0
    exact: bool = True
    """False when it is our own estimate."""
    cost: int | None = None
    """Nano-dollars that the upstream itself says it charged."""
    written: int = 0
    """Of the input, written to a prompt cache."""

    @property
    def total(self) -> int:
        return self.input + self.output


class Reply(Struct, frozen=True):
    """A complete answer, read as far as the gateway needs it."""

    text: str = ""
    stop: StopReason | None = None
    usage: Usage | None = None
    model: str = ""
    tool_calls: int = 0
    empty: bool = False
    """True when it carries no choice and no data at all: an answer without content."""
    signatures: tuple[str, ...] = ()
    """Values of the reasoning signatures that it carries."""


class Origin(NamedTuple):
    """Who gave an answer: provider, model, and the credential's quota group."""

    provider: str
    model: str
    group: str


class Signature(Struct, frozen=True):
    """A proof of earlier reasoning that a provider gives out and wants back, unchanged. Nobody else can use it."""

    value: str
    dialect: str
    """Whose proof it is: `anthropic`, `gemini`, `openai_responses`."""
    origin: Origin | None = None
    """Who made it; None when nobody knows: then it belongs to whoever speaks *dialect*."""


class Citation(Struct, frozen=True):
    """A source of a text. *raw* is the JSON of its own dialect, for the way back into it."""

    url: str = ""
    title: str = ""
    quote: str = ""
    start: int | None = None
    """Where the cited text begins and ends in the answer, in characters."""
    end: int | None = None
    dialect: str = ""
    raw: bytes = b""


class Text(Struct, frozen=True, tag=True):
    """Plain text. *cache*: a prompt cache may end here, for `5m`, `30m`, `1h` or `12h`; empty: no such mark."""

    text: str
    cache: str = ""
    citations: tuple[Citation, ...] = ()
    signature: Signature | None = None
    """Gemini signs texts too."""


class Media(Struct, frozen=True, tag=True):
    """An image, document, sound or film: inline (*data*, base64), by address, by file id, or as a document's text."""

    kind: MediaKind
    mime: str = ""
    """Empty when the dialect did not state it."""
    data: str = ""
    url: str = ""
    file_id: str = ""
    text: str = ""
    name: str = ""
    """A file's name or title."""
    context: str = ""
    """What is said about a document, apart from it."""
    detail: str = ""
    """How closely to look at an image: low, high, auto, original."""
    cited: bool = False
    """Answers are to cite it."""
    cache: str = ""


class Reasoning(Struct, frozen=True, tag=True):
    """Thinking before an answer. Hidden thinking has a signature and no text."""

    text: str = ""
    signature: Signature | None = None
    redacted: bool = False
    """The signature's value is the encrypted thinking itself, not a proof beside it."""
    id: str = ""
    summary: bool = True
    """The text is a summary, not the thinking itself (OpenAI's Responses tell the two apart)."""


class ToolUse(Struct, frozen=True, tag=True):
    """A call of a tool by the model. *arguments* is JSON text of an object, or plain text for a *free* tool."""

    id: str
    """Empty where the provider gives none: older Gemini models."""
    name: str
    arguments: str = "{}"
    free: bool = False
    namespace: str = ""
    signature: Signature | None = None
    cache: str = ""


class ToolResult(Struct, frozen=True, tag=True):
    """What a tool answered; *parts* are texts and media. Stands in a `user` message, before its other parts."""

    id: str
    parts: tuple[Text | Media, ...] = ()
    name: str = ""
    """Of the tool, where the dialect states it."""
    failed: bool = False
    free: bool = False
    cache: str = ""


class Refusal(Struct, frozen=True, tag=True):
    """The model's own words for why it does not answer."""

    text: str


class Foreign(Struct, frozen=True, tag=True):
    """What only one dialect knows (a tool of the provider's own, its result): goes back into it as it came."""

    dialect: str
    what: str
    """The type's name, for notes: `web_search`, `server_tool_use`."""
    raw: bytes
    """JSON text."""


Part = Text | Media | Reasoning | ToolUse | ToolResult | Refusal | Foreign


class Message(Struct, frozen=True):
    """One turn. Leading `system` messages are the system prompt; one in the middle is an instruction from then on."""

    role: Role
    parts: tuple[Part, ...]
    name: str = ""
    """Who speaks, where several do."""


class Tool(Struct, frozen=True):
    """A function of the client's that the model may call. *schema*: JSON text of the JSON Schema of its arguments."""

    name: str
    description: str = ""
    schema: bytes = b""
    """Empty: it takes no arguments."""
    strict: bool | None = None
    free: bool = False
    """It takes plain text, not an object; *schema* is then the JSON text of its `format`, or empty."""
    namespace: str = ""
    cache: str = ""


class ToolChoice(Struct, frozen=True):
    """Whether the model calls tools: as it likes, at least one, none. *names*: only these; empty: all."""

    mode: Literal["auto", "any", "none"]
    names: tuple[str, ...] = ()


class Shape(Struct, frozen=True):
    """Structured output: any JSON object, or one of *schema* (JSON text of a JSON Schema)."""

    kind: Literal["object", "schema"]
    schema: bytes = b""
    name: str = ""
    description: str = ""
    strict: bool | None = None


class Thinking(Struct, frozen=True):
    """How much to think. *effort* empty and *budget* None: as the model likes (`adaptive`, Gemini's -1)."""

    effort: Effort = ""
    budget: int | None = None
    """Tokens; 0: not at all."""
    shown: bool | None = None
    """Whether the client wants to see the thinking or a summary of it; None: the dialect's default."""


class Request(Struct, frozen=True):
    """A request for an answer, whole. None and empty mean that the client did not say."""

    dialect: str
    """The dialect that it was written in."""
    model: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    hosted: tuple[Foreign, ...] = ()
    """Tools that the provider itself runs, such as web search."""
    choice: ToolChoice | None = None
    parallel: bool | None = None
    """Whether several tools may be called at once."""
    shape: Shape | None = None
    thinking: Thinking | None = None
    max_output: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    n: int | None = None
    logprobs: bool = False
    top_logprobs: int | None = None
    user: str = ""
    cache_key: str = ""
    cache: str = ""
    """A cache mark for the whole prompt, as Anthropic's top-level `cache_control`."""
    verbosity: str = ""
    tier: str = ""
    """Service tier, in OpenAI's words: auto, default, flex, priority."""
    stream: bool = False
    wants_usage: bool = False
    """The client itself asked for usage in an OpenAI Chat stream."""
    begun: bool = False
    """The last message is the beginning of the answer itself, and the model is to go on with it."""
    others: Mapping[str, bytes] = field(default_factory=dict)
    """Members that only *dialect* knows, as JSON text by name (`generationConfig.speechConfig` for inner ones)."""


class Choice(Struct, frozen=True):
    """One answer. *logprobs* is JSON text in OpenAI Chat's shape (`{"content": […]}`)."""

    parts: tuple[Part, ...]
    stop: StopReason | None = None
    stop_sequence: str = ""
    logprobs: bytes = b""


class Answer(Struct, frozen=True):
    """A complete answer with all that it carries. Several choices only where `n` asked for them."""

    choices: tuple[Choice, ...]
    id: str = ""
    model: str = ""
    created: int | None = None
    """Unix seconds."""
    usage: Usage | None = None
    tier: str = ""


# --- the same as it arrives: events of a stream ---------------------------------------------------------------------


class Started(Struct, frozen=True):
    """The upstream has accepted the request. *usage* is what it says of the input so far."""

    id: str = ""
    model: str = ""
    usage: Usage | None = None
    created: int | None = None


class TextDelta(Struct, frozen=True):
    """More text. A `Boundary` in between begins a new part of the same kind."""

    text: str
    choice: int = 0
    logprobs: bytes = b""


class ReasoningDelta(Struct, frozen=True):
    """More thinking."""

    text: str
    choice: int = 0
    summary: bool = True


class RefusalDelta(Struct, frozen=True):
    """More of a refusal."""

    text: str
    choice: int = 0


class Signed(Struct, frozen=True):
    """The signature of the thinking, text or tool call before it; alone (*redacted*) it is hidden thinking."""

    signature: Signature
    choice: int = 0
    redacted: bool = False
    id: str = ""
    """Of the reasoning item, where the dialect names it."""


class Cited(Struct, frozen=True):
    """A source of the text so far."""

    citation: Citation
    choice: int = 0


class ToolStarted(Struct, frozen=True):
    """A call of a tool begins. *index* counts the calls of one choice from 0."""

    index: int
    id: str
    name: str
    choice: int = 0
    free: bool = False
    namespace: str = ""
    signature: Signature | None = None


class ToolDelta(Struct, frozen=True):
    """More of the arguments of call *index*: fragments of the JSON text, or of the plain text of a free tool."""

    index: int
    arguments: str
    choice: int = 0


class ToolEnded(Struct, frozen=True):
    """The arguments of call *index* are complete. Dialects that cannot tell send none before `Stopped`."""

    index: int
    choice: int = 0


class Boundary(Struct, frozen=True):
    """The part so far is complete; what follows is a new one."""

    choice: int = 0


class ForeignPart(Struct, frozen=True):
    """A part that only one dialect knows, complete."""

    part: Foreign
    choice: int = 0


class Stopped(Struct, frozen=True):
    """A choice is complete."""

    stop: StopReason
    choice: int = 0
    stop_sequence: str = ""


class Used(Struct, frozen=True):
    """What it has used; the last one counts."""

    usage: Usage


class Ping(Struct, frozen=True):
    """The upstream is still there."""


Delta = (
    Started
    | TextDelta
    | ReasoningDelta
    | RefusalDelta
    | Signed
    | Cited
    | ToolStarted
    | ToolDelta
    | ToolEnded
    | Boundary
    | ForeignPart
    | Stopped
    | Used
    | Ping
)
"""An event of a stream, whatever the dialect. Its end and its errors are told apart from these: see `StreamReader`."""

SPEAKING = (TextDelta, ReasoningDelta, RefusalDelta, ToolStarted, ToolDelta, ForeignPart, Stopped)
"""Events that are output: the client's answer has begun."""
