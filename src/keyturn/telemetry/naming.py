"""What the OpenTelemetry conventions call our providers, and what a call says of how it wants to be answered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from keyturn.core import Call

PROVIDER_NAMES: Mapping[str, str] = {
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "moonshot": "moonshot_ai",
    "vertex": "gcp.vertex_ai",
    "vertex_ai": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}
"""Providers that the conventions call otherwise than we do; all others keep their own name."""

_NUMBERS: Mapping[str, tuple[str, ...]] = {
    "temperature": ("temperature",),
    "top_p": ("top_p", "topP"),
    "top_k": ("top_k", "topK"),
    "frequency_penalty": ("frequency_penalty", "frequencyPenalty"),
    "presence_penalty": ("presence_penalty", "presencePenalty"),
    "seed": ("seed",),
    "choice.count": ("n", "candidateCount"),
}
"""Attribute -> the members that say it, of OpenAI's and Anthropic's body, and of Gemini's `generationConfig`."""
_GEMINI = "generationConfig"
_WHOLE = ("seed", "top_k", "choice.count")


def provider_name(provider: str) -> str:
    """What the conventions call *provider*."""
    return PROVIDER_NAMES.get(provider, provider)


def asked(call: Call) -> Iterator[tuple[str, int | float]]:
    """The numbers that a request sets, as span attributes. Nothing of what it says: stop sequences are text."""
    members: Mapping[str, Any] = call.members
    if _GEMINI in members:
        members = _decoded(members[_GEMINI], dict) or {}
    for name, spellings in _NUMBERS.items():
        for spelling in spellings:
            value = members.get(spelling)
            if isinstance(value, bytes):
                value = _decoded(value, float)
            if isinstance(value, int | float) and not isinstance(value, bool):
                yield f"gen_ai.request.{name}", int(value) if name in _WHOLE else float(value)
                break


def _decoded(raw: bytes, kind: type) -> Any:
    """The JSON *raw*; None when it is not of *kind*."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, RecursionError):
        return None
