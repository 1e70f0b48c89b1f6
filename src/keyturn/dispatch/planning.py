"""Whom a call may ask, and in which order: resolved, and resolved again when the configuration changed meanwhile."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from keyturn.core import Deployment, ScopeKey, absent_scope, needs_listing, resolve
from keyturn.errors import DeadlineExceeded, KeyturnError, TransportError

from .clock import Watch
from .generation import Generation
from .run import Run

if TYPE_CHECKING:
    from .gateway import Gateway


async def plan(gateway: Gateway, run: Run, generation: Generation) -> None:
    """Whom *run* may ask by the configuration of *generation*, which it carries from then on."""
    if needs_listing(run.call, generation.lists.catalog):
        await listed(gateway, run, generation)
    lay_out(gateway, run, generation)


def lay_out(gateway: Gateway, run: Run, generation: Generation) -> None:
    """The same by what is known of the providers' models by now."""
    chosen = resolve(run.call, run.caller, generation.lists.catalog)
    run.planned(chosen, generation)
    if len(run.deployments) > 1:
        if chosen.strategy == "fastest":
            run.deployments = generation.pools.fastest_first(chosen)
            run.trail.planned = run.deployments[0].provider
            run.trail.plan = run.deployments
        if gateway.marks:
            _leave_out_absent(gateway, run)


async def move_on(gateway: Gateway, run: Run) -> None:
    """The configuration changed while *run* waited: it goes on by the new one, if that knows its name as well."""
    while run.generation is not gateway.generation:
        older, newer = run.generation, gateway.generation
        newer.calls += 1
        moved = False
        try:
            await plan(gateway, run, newer)
            moved = True
        except (KeyturnError, TransportError):
            return
        finally:
            gateway.left(older if moved else newer)


async def listed(gateway: Gateway, run: Run, generation: Generation) -> None:
    """What the providers offer, as far as it is known by the call's deadline."""
    watch = Watch(gateway.clock, min(run.deadline, run.content_by), "models")
    try:
        with watch:
            await generation.lists.refresh()
    except TransportError as error:
        raise DeadlineExceeded("the call's deadline passed while the providers were asked for models") from error
    finally:
        watch.close()


@lru_cache(maxsize=1024)  # a route has the same, call after call
def _absent_scopes(deployments: tuple[Deployment, ...]) -> tuple[ScopeKey, ...]:
    return tuple(map(absent_scope, deployments))


def _leave_out_absent(gateway: Gateway, run: Run) -> None:
    """In a chain, who lately had no such model is not asked; unless nobody would be."""
    if not gateway.marks.stand(_absent_scopes(run.deployments)):
        return
    now = gateway.clock.mono()
    left = tuple(each for each in run.deployments if gateway.marks.blocked((absent_scope(each),), now) is None)
    if left and len(left) < len(run.deployments):
        gone = (each for each in run.deployments if each not in left)
        run.trail.refusals.extend(f"{each}: lately its provider had no such model" for each in gone)
        run.deployments = run.trail.plan = left
