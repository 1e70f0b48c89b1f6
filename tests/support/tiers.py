"""Three tiers and the last resort: premium openai, fast groq, standard gemini, then g4f, with one model at all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from keyturn.simulator import Fault, KeyRule

from . import virtual
from .world import World

MODEL = "gpt-4o-mini"
ASKED = f"openai/{MODEL}"
TIERS = ("openai", "groq", "gemini", "g4f")
GROUP = f"equivalents:\n  - [{', '.join(f'{name}/{MODEL}' for name in TIERS)}]\n"
G4F = {"G4F_MAIN_API_BASE": "https://g4f.test/v1"}

Story = Callable[[World], Awaitable[None]]


def tiered(
    story: Story,
    *faults: Fault,
    pool: Mapping[str, int | Sequence[KeyRule]] | None = None,
    environ: dict[str, str] | None = None,
    models: str = GROUP,
    alone: bool = False,
    **more: Any,
) -> None:
    """*story* with a key for each tier, or *pool*, in virtual time. *models* is models.yaml. *alone*: upstreams have
    MODEL and nothing else."""
    keys = dict.fromkeys(TIERS, 1) if pool is None else pool
    told = {"models": {name: [MODEL] for name in (*TIERS, "openrouter")}, **more} if alone else more

    async def main() -> None:
        async with World(
            keys, environ={**G4F, **(environ or {})}, files={"models.yaml": models}, faults=faults, **told
        ) as world:
            await story(world)

    virtual.run(main)


def asked(world: World) -> list[str]:
    """The providers that were asked for an answer, in order."""
    return [each.provider for each in world.seen()]


def out(provider: str = "", **how: Any) -> Fault:
    """*provider* (or all) does not answer chats: with a 500, unless *how* says otherwise."""
    return Fault(provider=provider, kind="chat", **(how or {"status": 500}))
