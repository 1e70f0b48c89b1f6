"""Token usage in every OpenAI-like shape, read into one Usage."""

from __future__ import annotations

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
    get = given.get
    prompt = _count(get("prompt_tokens")) or _count(get("input_tokens"))
    output = _count(get("completion_tokens")) or _count(get("output_tokens"))
    total = _count(get("total_tokens"))
    if not prompt:
        prompt = max(0, total - output)
    output = max(output, total - prompt)
    if not prompt and not output:
        return None
    details = get("prompt_tokens_details") or get("input_tokens_details")
    cached = (_part(details, "cached_tokens") if details else 0) or _count(get("prompt_cache_hit_tokens"))  # DeepSeek
    cached = min(prompt, cached)
    written = min(prompt - cached, _part(details, "cache_write_tokens")) if details else 0
    thoughts = get("completion_tokens_details") or get("output_tokens_details")
    reasoning = _part(thoughts, "reasoning_tokens") if thoughts else 0
    return Usage(prompt, output, cached, min(reasoning, output), cost=_money(get("cost")), written=written)


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
