"""Token usage in every OpenAI-like shape, read into one Usage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keyturn.core import Usage, nano

_MOST = 1_000_000_000
"""No answer uses more tokens; a larger figure is a mistake that must not spend a budget for ever."""


def read_usage(given: object) -> Usage | None:
    """The Usage in the decoded member `usage`, or None when it tells nothing. Never raises.

    All zero tells nothing: an answer always costs its prompt, and some servers fill in zeros for figures they do not
    have. Output is `total_tokens` less the prompt where that is more than `completion_tokens`: xAI and Gemini leave
    reasoning out of the latter.
    """
    if not isinstance(given, dict):
        return None
    get: Callable[[str], Any] = given.get
    prompt, output, total = get("prompt_tokens"), get("completion_tokens"), get("total_tokens")
    whole = type(total) is int and type(prompt) is int and type(output) is int
    if whole and 0 < output < total < _MOST and prompt + output == total:
        if len(given) == 3:  # there is nothing else to read
            return Usage(prompt, output)
    else:
        prompt, output = _reckoned(given)
        if not prompt and not output:
            return None
    details = get("prompt_tokens_details") or get("input_tokens_details")
    cached = (_part(details, "cached_tokens") if details else 0) or _count(get("prompt_cache_hit_tokens"))  # DeepSeek
    cached = min(prompt, cached)
    written = min(prompt - cached, _part(details, "cache_write_tokens")) if details else 0
    thoughts = get("completion_tokens_details") or get("output_tokens_details")
    reasoning = min(output, _part(thoughts, "reasoning_tokens")) if thoughts else 0
    cost = get("cost")
    return Usage(prompt, output, cached, reasoning, True, None if cost is None else _money(cost), written)


def _reckoned(given: dict[str, object]) -> tuple[int, int]:
    """Input and output in *given*, by whichever names and sums it has them."""
    get = given.get
    prompt = _count(get("prompt_tokens")) or _count(get("input_tokens"))
    output = _count(get("completion_tokens")) or _count(get("output_tokens"))
    total = _count(get("total_tokens"))
    if not prompt:
        prompt = max(0, total - output)
    return prompt, max(output, total - prompt)


def _part(details: object, name: str) -> int:
    return _count(details.get(name)) if isinstance(details, dict) else 0


def _money(value: object) -> int | None:
    """Dollars as nano-dollars; None for what is no plausible amount. Who may be believed, the catalog says."""
    if type(value) in (int, float) and 0 <= value < _MOST:  # type: ignore[operator]
        return nano(value)  # type: ignore[arg-type]
    return None


def _count(value: object) -> int:
    """A whole number of tokens from 0 to `_MOST`; 0 for what is no number, or below 0."""
    if value is None:
        return 0
    if type(value) is int:  # not bool
        return (value if value < _MOST else _MOST) if value > 0 else 0
    if type(value) is float:
        return int(min(value, _MOST)) if value > 0 else 0
    return 0
