"""What a gateway finds out while it works, and how it adapts to it: one place for all who learn from outcomes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keyturn.core import Outcome

    from .exchange import Exchange
    from .gateway import Gateway

    Onlooker = Callable[[Exchange, Outcome], None]
    """Learns from outcomes: of each that is no success, and of successes while its name stands in `Adapting.alert`."""


class Adapting:
    """Belongs to one gateway and outlives its configurations."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.onlookers: list[Onlooker] = []
        """Who learns from outcomes, told in this order after the cooldowns are set."""
        self.alert: set[str] = set()
        """Who of them wants to see successes too, by name: empty while all is well, so that a success costs nothing."""
