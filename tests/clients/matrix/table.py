"""The page docs/clients-matrix.md, made of the cells: `python -m tests.clients.matrix.table` prints it."""

from __future__ import annotations

from collections.abc import Iterator
from string import ascii_lowercase
from textwrap import wrap
from typing import NamedTuple

from .cells import IMPOSSIBLE, UPSTREAMS, possible
from .clients import CLIENTS

NAMES = {
    "openai_chat": "OpenAI Chat",
    "openai_responses": "OpenAI Responses",
    "anthropic": "Anthropic Messages",
    "gemini": "Gemini",
}


WIDTH = 140
"""Of the text, in characters."""
HEAD = (
    "Which feature of which client works with which provider. Every `yes` is tested with the official Python SDK "
    f"({', '.join(sorted({f'`{kind.sdk}`' for kind in CLIENTS.values()}))}) over real connections, against simulated "
    "providers that check requests as strictly as the real ones. Clients are the rows, the "
    "[wire formats](wire-formats.md) of providers the columns. A letter says why nothing can be there."
)


class Feature(NamedTuple):
    title: str
    text: str


FEATURES = {
    "plain": Feature("Plain answers", "Text, stop reason, and usage exactly as the provider told it."),
    "stream": Feature(
        "Streamed answers",
        "The SDK's raw events, and its own help with streams: `chat.completions.stream`, `responses.stream`, "
        "`messages.stream`, and a chat of google-genai.",
    ),
    "tool": Feature(
        "A tool", "A call with its arguments, the result sent back, an answer that quotes it; plain and streamed."
    ),
    "parallel": Feature(
        "Several tools",
        "Two calls in one turn, both answered in order, then a further call; plain and streamed, also with every event "
        "of the provider by itself.",
    ),
    "image": Feature("Images", "A PNG in base64."),
    "schema": Feature(
        "Structured output", "An answer by a JSON Schema, parsed by the SDK into a pydantic model; plain and streamed."
    ),
    "reasoning": Feature(
        "Thinking",
        "Asked for in the client's own way; it is shown, and its signature goes back to the provider that gave it, "
        "through two calls of tools and a further question. OpenAI Chat has no word for showing it: `reasoning_effort` "
        "alone makes a model think; OpenRouter's "
        '`reasoning: {"effort": "medium"}`, sent in `extra_body`, shows it too. '
        "Providers that speak OpenAI Chat sign nothing.",
    ),
    "errors": Feature(
        "Errors",
        "The SDK's own exception with status, type, message and id: the provider's 400 and 404 in its words; 503 when "
        "it refuses every key with 401, with `x-should-retry: false`; 429 with `Retry-After`; 502 after its 500, 503 "
        "and 529; a wrong caller key; a stream that breaks.",
    ),
    "models": Feature("Models", "`models.list`, and one model by its name."),
    "count": Feature(
        "Counting tokens",
        "`count_tokens`, or `responses.input_tokens`. An Anthropic or Gemini provider counts for a client of its own "
        "format; all else is an estimate, marked `x-keyturn-estimated: true`.",
    ),
    "embeddings": Feature("Embeddings", "Several texts at once, and fewer dimensions."),
}


def page() -> str:
    """The whole page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# SDKs and providers"
    yield ""
    yield from wrap(HEAD, WIDTH)
    for name, feature in FEATURES.items():
        yield ""
        yield f"## {feature.title}"
        yield ""
        yield from wrap(feature.text, WIDTH, break_on_hyphens=False)
        yield ""
        yield from _table(name)


def _table(name: str) -> Iterator[str]:
    ruled_out = IMPOSSIBLE.get(name, {})
    letters = dict(zip(dict.fromkeys(ruled_out.values()), ascii_lowercase, strict=False))
    yes = set(possible(name))
    yield "| client | " + " | ".join(NAMES[upstream] for upstream in UPSTREAMS) + " |"
    yield "|---|" + "---|" * len(UPSTREAMS)
    for client in CLIENTS:
        row = ["yes" if (client, each) in yes else letters[ruled_out[client, each]] for each in UPSTREAMS]
        yield f"| {NAMES[client]} | " + " | ".join(row) + " |"
    for reason, letter in letters.items():
        yield ""
        yield f"{letter}: {reason}."


if __name__ == "__main__":
    print(page(), end="")
