"""How long one attempt may take until its first content."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyturn.core import MOST_ATTEMPTS, MOST_FAULTS, MOST_FAULTS_PER_PROVIDER, Cost, Exhausted, Like, like, peek
from keyturn.providers import Provider

from .clock import Watch, draw
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
LEAST = Cost(1, 1, 1)
"""What a call costs that fits wherever any call fits."""


def watch_of(gateway: Gateway, run: Run, grant: Grant, provider: Provider) -> Watch:
    """The nearest of the bounds of this attempt until its first content."""
    timeouts = run.generation.config.timeouts
    now = gateway.clock.mono()
    if not run.call.stream:
        phase, length = "no_content", timeouts.no_content
    else:
        phase, length = "first_token", timeouts.first_token
        if _thinks(run, grant):
            length = max(length, timeouts.reasoning_first_token)
    if provider.tool is not None:  # many print nothing until they have all; their own timeout ends them
        length = max(length, provider.tool.timeout + END_OF_TOOL)
    elif timeouts.adaptive:
        usual = gateway.latencies.bound(like_of(run, grant), length, timeouts.adaptive_floor)
        if usual < length and _another_left(run, grant, now):
            length = usual
    until = now + length
    if until >= run.deadline or until >= run.content_by:
        until, phase = min(run.deadline, run.content_by), "deadline"
    grant.attempt.content_by = until
    return Watch(gateway.clock, until, phase)


def observed(gateway: Gateway, run: Run, grant: Grant) -> None:
    """The first content of a stream, or a whole answer, is there: remembered for the next of its kind."""
    gateway.latencies.observe(like_of(run, grant), gateway.clock.mono() - grant.attempt.started)


def given_up(gateway: Gateway, run: Run, grant: Grant) -> None:
    """Nothing came in time: the next of its kind is given more. The trail tells what was usual."""
    kind, seconds = like_of(run, grant), gateway.clock.mono() - grant.attempt.started
    usual = gateway.latencies.usual(kind)
    if usual is not None:
        run.trail.notes.append(
            f"{kind.deployment}: given up after {seconds:.1f} s; its slowest answer of late took {usual:.1f} s"
        )
    gateway.latencies.observe(kind, seconds)


def _thinks(run: Run, grant: Grant) -> bool:
    model = grant.entry.candidate.deployment.model.lower()
    return not THINKING.isdisjoint(run.call.members) or any(part in model for part in REASONING)


def like_of(run: Run, grant: Grant) -> Like:
    """What the attempt of *grant* is compared with."""
    return like(run.call, grant.entry.candidate.deployment, thinks=_thinks(run, grant))


def _another_left(run: Run, grant: Grant, now: float) -> bool:
    """Whether somebody else could be asked at once if this one does not answer: the last resort gets all its time."""
    progress, (asked, _) = run.progress, grant.entry.candidate
    if progress.faults + 1 >= MOST_FAULTS or progress.attempts + 1 >= MOST_ATTEMPTS:
        return False
    closing = progress.faults_of.get(asked.provider, 0) + 1 >= MOST_FAULTS_PER_PROVIDER
    for deployment in run.deployments:
        if not progress.open(deployment) or (closing and deployment.provider == asked.provider):
            continue
        tried = set(progress.tried.get(deployment, ()))
        if deployment == asked:
            tried.add(grant.entry.order)
        if not isinstance(peek(run.generation.pools.of(deployment), LEAST, tried, now, draw), Exhausted):
            return True
    return False
