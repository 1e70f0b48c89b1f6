"""Another configuration comes into use, while calls go on: what stays, what is forgotten, what is made anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyturn.config import Config
from keyturn.core import Deployment, Transition

from . import overview
from .declared import budgets
from .generation import Generation
from .hidden import secrets_of
from .signing_in import forgive, furnish

if TYPE_CHECKING:
    from .gateway import Gateway


def adopt(gateway: Gateway, config: Config) -> None:
    """Answer by *config* from now on. Calls under way finish on what they began with; counters, cooldowns and
    indexes stay; what stood against keys that are gone, or against a quota of 0, is forgotten."""
    older, config = gateway.generation, gateway.adapting.grouped(config)
    credentials = [each for group in config.credentials.values() for each in group]
    gateway.redactor.add(*secrets_of(config))
    config, changed = furnish(gateway, config)
    older.retire(lambda deployment: _make_pool(gateway, deployment))
    gateway.older_lists = [each for each in gateway.older_lists if each.busy] + [older.lists]
    gateway.generation = Generation(config, gateway)
    gateway.generation.lists.inherit(older.lists)
    gateway.generation.pools.make_again(older.pools)
    if older.calls:
        gateway.retired.append(older)
    gateway.carried.take_over(budgets(config), config.spent)
    caps, before = config.modes.caps, older.config.modes.caps
    recapped = {name for name, each in before.items() if caps.get(name) != each}
    freed = gateway.marks.keep(
        {each.fingerprint for each in credentials}, {each.group for each in credentials}, recapped
    )
    for scope in freed:
        gateway.live.cool(Transition(scope, None))  # here it is gone by now; who shares the live state learns it
    gateway.wake_marked(freed)
    forgive(gateway, changed)
    overview.switch_off(gateway, gateway.disabled)
    gateway.room.resize(config.waiting.most, config.waiting.most_bytes)
    gateway.room.move_on(older.number)


def _make_pool(gateway: Gateway, deployment: Deployment) -> bool:
    """Have the pool of *deployment* made by the configuration in use; False when it lacks the provider."""
    known = deployment.provider in gateway.generation.config.credentials
    if known:
        gateway.generation.pools.of(deployment)
    return known
