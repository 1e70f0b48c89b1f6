"""How many tokens a call will cost, from its bytes and from what earlier answers reported. No vocabulary is needed."""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

from .limits import Cost
from .message import Usage
from .model import Call

BYTES_PER_TOKEN = 4.0
"""Of English prose and of JSON, before anything is learned about a model. Other scripts need more tokens: learned."""
PREAMBLE = 8
"""Tokens that chat templates add around a conversation."""
PER_MEDIUM = 800
"""Tokens of an image of middling size (OpenAI 765 for 1024 x 1024 in high detail, Gemini 258 per tile)."""
MOST_PREAMBLE = 256
MOST_PER_MEDIUM = 20_000
"""Bounds of the same; a clip or a document may be long."""
LONGEST_TOKEN = 256
"""Bytes that one token can stand for at most. The longest tokens of the known vocabularies are runs of 128 blanks;
doubled for what JSON writes and no tokenizer ever sees, as escapes and indentation."""

MARGIN = 1.3
"""What is charged of the likely input: so far do honest estimates miss."""

FIRST_OUTPUT = 256
MOST_OUTPUT = 65_536
QUANTILE = 0.9
STEP = 0.2
"""The learned output rises by 18 % when an answer is longer and falls by 2 % when it is not: it settles where one
answer in ten is longer, and no single answer moves it far."""

PRIOR = 500.0
"""Tokens of evidence that a model counts like any other, before its first answers."""
HEAVIEST = 4000.0
"""Tokens that one answer counts for at most: a huge prompt must not decide for all others."""
FADING = 0.95
"""What the evidence so far is worth after each answer."""
MOST_MODELS = 1024
"""Models remembered; the one that answered longest ago is forgotten first."""


class Estimate(NamedTuple):
    """Input tokens of a call: what is likely, and what it cannot exceed (*bound*) or fall below (*floor*)."""

    likely: int
    bound: int
    floor: int


class _Learned:
    """What the answers of one model have taught: its input against our count, and how long its answers are."""

    __slots__ = ("counted", "output", "reported")

    def __init__(self) -> None:
        self.counted = self.reported = PRIOR
        self.output = float(FIRST_OUTPUT)


class Estimator:
    """Estimates calls and learns from usage, per model. Mutable and deterministic; its memory is bounded."""

    __slots__ = ("_models",)

    def __init__(self) -> None:
        self._models: dict[str, _Learned] = {}
        """The one that learned last stands last."""

    def estimate(self, call: Call, model: str = "") -> Estimate:
        """The input tokens of *call* on *model*, by default the name that it asks for."""
        size, media = call.text_bytes, call.media
        likely = PREAMBLE + size / BYTES_PER_TOKEN + media * PER_MEDIUM
        learned = self._models.get(model or call.model)
        if learned is not None:
            likely *= learned.reported / learned.counted
        # A byte-level vocabulary never makes more tokens than there are bytes.
        bound = size + MOST_PREAMBLE + media * MOST_PER_MEDIUM
        floor = size // LONGEST_TOKEN or 1
        return Estimate(min(max(ceil(likely), floor), bound), bound, floor)

    def charge(self, call: Call, model: str, *, counts_output: bool, charges_max_output: bool) -> Cost:
        """What admission charges for *call* on *model*: the likely input with a margin, and the output where the
        provider counts it.

        *charges_max_output*: the provider takes the output that the call allows (`max_tokens`) at admission; others
        are charged what the model usually answers, at most what the call allows. Each call asks it of several models,
        so it is done in one go, without the steps between.
        """
        size, media = call.text_bytes, call.media
        likely, output = PREAMBLE + size / BYTES_PER_TOKEN + media * PER_MEDIUM, FIRST_OUTPUT
        learned = self._models.get(model)
        if learned is not None:
            likely *= learned.reported / learned.counted
            output = ceil(learned.output)
        bound, floor = size + MOST_PREAMBLE + media * MOST_PER_MEDIUM, size // LONGEST_TOKEN or 1
        tokens = ceil(likely)
        if tokens < floor:
            tokens = floor
        tokens = ceil((tokens if tokens < bound else bound) * MARGIN)
        if tokens > bound:
            tokens = bound
        if call.kind == "embeddings" or not counts_output:
            return Cost(tokens, 0, floor)
        allowed = call.max_output
        if allowed is not None and (charges_max_output or allowed < output):
            output = allowed
        return Cost(tokens, output if output > 1 else 1, floor)

    def learn(self, model: str, call: Call, usage: Usage) -> None:
        """*model* answered *call* and reported *usage*. Our own estimates, which are not exact, teach nothing."""
        if not usage.exact:
            return
        learned = self._models.pop(model, None) or _Learned()
        self._models[model] = learned
        if len(self._models) > MOST_MODELS:
            del self._models[next(iter(self._models))]
        if usage.input > 0:
            counted = likely_tokens(call)
            weight = min(1.0, HEAVIEST / max(counted, usage.input))
            learned.counted = learned.counted * FADING + counted * weight
            learned.reported = learned.reported * FADING + usage.input * weight
        if usage.output > 0:
            longer = usage.output > learned.output
            step = 1 + STEP * QUANTILE if longer else 1 - STEP * (1 - QUANTILE)
            learned.output = min(max(learned.output * step, 1.0), float(MOST_OUTPUT))

    def output(self, model: str) -> int:
        """Output tokens to charge for *model*: nine answers of ten are no longer; 256 before anything is learned."""
        learned = self._models.get(model)
        return FIRST_OUTPUT if learned is None else ceil(learned.output)


def call_of_size(route: str, tokens: int, output: int | None = None) -> Call:
    """A chat call for *route* whose prompt would usually have *tokens* tokens, and whose answer at most *output*."""
    size = max(0, round((tokens - PREAMBLE) * BYTES_PER_TOKEN))
    return Call("openai_chat", "chat", route, {}, size, text_bytes=size, max_output=output)


def likely_tokens(call: Call) -> float:
    """The input tokens that would be usual for any model."""
    return PREAMBLE + call.text_bytes / BYTES_PER_TOKEN + call.media * PER_MEDIUM
