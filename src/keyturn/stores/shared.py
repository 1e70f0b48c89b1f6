"""Makes the live state that many gateways share; what it needs is loaded only then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from keyturn.core import Clock, Draw, Marks, Secret

from .live import LiveState


def shared_state(
    url: Secret,
    marks: Marks,
    clock: Clock,
    draw: Draw,
    *,
    prefix: str,
    without: Literal["local_share", "open", "closed"],
    least_replicas: int,
) -> LiveState:
    """The live state of all gateways with the same *prefix* in the Redis at *url*. Nothing is connected before `open`.

    *without* says what becomes of providers' limits while Redis is away, *least_replicas* by how many each is divided
    at least.
    """
    from .redis_link import RedisLink
    from .redis_state import RedisState

    return RedisState(
        RedisLink(url, prefix, clock, draw),
        marks,
        clock,
        name=f"{int(draw() * 2**53):014x}",
        prefix=prefix,
        without=without,
        least_replicas=least_replicas,
    )


async def look_at_shared(url: Secret, clock: Clock) -> tuple[str, Sequence[str]]:
    """Which Redis *url* names, and what is worth a look at it, without joining those who share it. Raises StoreError
    when it must not be used, or cannot be reached."""
    from .redis_boot import look

    return await look(url, clock)
