"""One configuration and what was made from it: pools, model lists, prices. A call keeps the one that it began with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from keyturn.config import Config
from keyturn.core import ZERO, Credential, Deployment, Marks, Price, facts_of, key_scope
from keyturn.providers import price_of

from .models import ModelLists
from .pools import Pools
from .reserving import Reserving

if TYPE_CHECKING:
    from .gateway import Gateway
    from .hedging import Hedging
    from .holding import Guards
    from .sharing import Sharing


MOST_PRICES = 4096
"""Prices that are kept: models come from clients."""
NOT_YET = Price(0.0, 0.0)
"""Stands for one that nobody asked for so far."""


class Prices:
    """What deployments cost, as far as that is known: looked up once each."""

    __slots__ = ("_config", "_known")

    def __init__(self, config: Config) -> None:
        self._config = config
        self._known: dict[Deployment, Price | None] = {}

    def of(self, deployment: Deployment) -> Price | None:
        """The price of *deployment*; None when it is not known, which is never zero.

        What the configuration says comes first; then what costs nothing: a route marked free, a tool or a server
        without keys; then the list of prices that is shipped, whatever the plan of the key.
        """
        known = self._known.get(deployment, NOT_YET)
        if known is not NOT_YET:
            return known
        if len(self._known) >= MOST_PRICES:
            self._known.clear()
        self._known[deployment] = price = self._look_up(deployment)
        return price

    def _look_up(self, deployment: Deployment) -> Price | None:
        facts = facts_of(self._config.facts, deployment)
        if facts.price is not None:
            return facts.price
        provider = self._config.providers.get(deployment.provider)
        if facts.price_tier == "free" and not facts.paid:
            return ZERO
        if provider is not None and (provider.tool or provider.keyless):
            return ZERO
        return price_of(deployment.provider, deployment.model)


class Generation:
    """Made by `Gateway` from a configuration, at the start and at each reload."""

    __slots__ = (
        "calls",
        "config",
        "guards",
        "hedging",
        "lists",
        "measures",
        "number",
        "pools",
        "prices",
        "reserving",
        "sharing",
        "tiers",
    )

    def __init__(self, config: Config, gateway: Gateway) -> None:
        self.config = config
        self.number = gateway.generations = gateway.generations + 1
        """Which one of this process it is, from 1."""
        self.tiers = {name: config.tier_of(name) for name in config.providers}
        """The tier of each provider."""
        self.prices = Prices(config)
        self.calls = 0
        """Calls under way that began with it."""
        adapting, freed = gateway.adapting, gateway.room.freed
        self.pools = Pools(config, gateway.clock, gateway.live, freed, gateway.rotations, lambda: adapting.pins)
        self.reserving = Reserving(self, gateway)
        self.lists = ModelLists(
            config, gateway.clock, gateway.transport, _pickable(gateway.marks), _healthy(gateway.marks), self.prices.of
        )
        self.measures = "fastest" in config.strategies.values() or any(
            route.strategy == "fastest" for route in config.names.values()
        )
        """Somebody wants to know how soon deployments answer."""
        self.sharing: Sharing | None = None
        """Answers that calls share; None where nobody asked for it."""
        if config.cache is not None or config.coalesce is not None:
            from .sharing import Sharing

            self.sharing = Sharing(config, gateway)
        self.hedging: Hedging | None = None
        """Second requests for slow calls; None where nobody asked for it."""
        if config.hedging is not None:
            from .hedging import Hedging

            self.hedging = Hedging(config.hedging, gateway)

        self.guards: Guards | None = None
        """What is done for streams that are cut; None where nobody asked for it."""
        if config.stream.hold_tools or config.stream.goes_on:
            from .holding import Guards

            self.guards = Guards(config.stream)

    def retire(self, successor: Callable[[Deployment], bool]) -> None:
        """Another one is in use now; *successor* has it make the pool of a deployment, if it has the provider."""
        self.pools.successor = successor
        if self.sharing is not None:
            self.sharing.kept.clear()


def _healthy(marks: Marks) -> Callable[[Credential], bool]:
    return lambda credential: marks.get(key_scope(credential)) is None


def _pickable(marks: Marks) -> Callable[[Credential], bool]:
    def pickable(credential: Credential) -> bool:
        mark = marks.get(key_scope(credential))
        return mark is None or mark.state != "disabled"

    return pickable
