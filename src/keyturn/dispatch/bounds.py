"""How long one attempt may take until its first content."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyturn.providers import Provider

from .clock import Watch
from .run import Grant, Run

if TYPE_CHECKING:
    from .gateway import Gateway

END_OF_TOOL = 1.0
"""Seconds that a tool may take to be ended after its own timeout."""
REASONING = (
    "o1",
    "o3",
    "o4",
    "gpt-5",
    "gemini-3",
    "2.5-pro",
    "reason",
    "think",
    "-r1",
    "qwq",
    "magistral",
    "deep-research",
)
"""Parts of the names of models that think before they speak."""
THINKING = frozenset({"reasoning_effort", "reasoning", "thinking"})
"""Members of requests that ask for it."""


def watch_of(gateway: Gateway, run: Run, grant: Grant, provider: Provider) -> Watch:
    """The nearest of the bounds of this attempt until its first content."""
    timeouts = run.generation.config.timeouts
    now = gateway.clock.mono()
    if not run.call.stream:
        phase, length = "no_content", timeouts.no_content
    else:
        phase, length = "first_token", timeouts.first_token
        model = grant.entry.candidate.deployment.model.lower()
        if not THINKING.isdisjoint(run.call.members) or any(part in model for part in REASONING):
            length = max(length, timeouts.reasoning_first_token)
    if provider.tool is not None:  # many print nothing until they have all; their own timeout ends them
        length = max(length, provider.tool.timeout + END_OF_TOOL)
    bound = min(run.deadline, run.content_by)
    if now + length < bound:
        return Watch(gateway.clock, now + length, phase)
    return Watch(gateway.clock, bound, "deadline")
