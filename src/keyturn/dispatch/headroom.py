"""How much each route can take, now and in a minute, and when its keys return: `GET /v1/headroom`, `keyturn top`.

The figures are promises, see `core.headroom`. Reading them sends nothing to a provider and takes nothing, but for the
list of models that a bare name given by the client may need.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from keyturn.core import (
    AUTO,
    FOREVER,
    Caller,
    Claim,
    Deployment,
    Entry,
    Exhausted,
    Fill,
    Limit,
    Plan,
    Room,
    ScopeKey,
    Seat,
    Trail,
    absent_scope,
    call_of_size,
    claims,
    cost_within,
    fill_seats,
    needs_listing,
    resolve,
    room_after,
    room_of,
)
from keyturn.errors import KeyturnError

from .candidates import Stand, claims_of, cost_there, moment_of, seconds, standing_of
from .declared import window_name
from .lines import Line
from .owning import OwnLimits
from .run import Run
from .signing_in import trouble_of

if TYPE_CHECKING:
    from .gateway import Gateway
    from .generation import Generation

HORIZON = 60.0
"""Seconds to the later moment."""
CALL_TOKENS = 100
"""Of the prompt of the calls that are counted, unless another number is asked for."""
MOST_ROUTES = 200
MOST_KEYS = 1000
"""Rows that are told; how many more there are is said."""
MOST_SEATS = 20_000
"""Keys on deployments that are looked at for one answer: a larger pool leaves routes out, and says so."""
AT_ONCE = 200
"""Of these between two pauses, in which calls go on."""
MOST_AT_A_SCRAPE = 500
"""Of these for the figures of one page of metrics, which is made in one go."""
DAY = 86_400.0
TOKENS = frozenset({"tokens", "input_tokens"})
"""Of which the figure of tokens is made: what prompts take."""


class Size(NamedTuple):
    """Of the calls that are counted: tokens of the prompt, and the most of the answer; None: what is usual there."""

    tokens: int = CALL_TOKENS
    output: int | None = None


USUAL = Size()


class _Place:
    """One key on one deployment, looked at."""

    __slots__ = ("_stand", "claims", "entry", "seat")

    def __init__(self, entry: Entry, claims: list[Claim]) -> None:
        self.entry = entry
        self.claims = claims
        self.seat: Seat | None = None
        """None: it cannot take such a call at all."""
        self._stand: Stand | None = None

    def stand(self, reading: _Reading) -> Stand:
        """Whether it is free, else what keeps it away."""
        if self._stand is None:
            self._stand = standing_of(reading.gateway, self.entry, self.claims, reading.now)
        return self._stand


class _Reading:
    """One look at a gateway: every bound is read once, so that figures of one answer fit together."""

    def __init__(self, gateway: Gateway, generation: Generation, caller: Caller, size: Size) -> None:
        self.gateway = gateway
        self.generation = generation
        self.caller = caller
        self.size = size
        self.now = gateway.clock.mono()
        self._left_now: dict[str, int] = {}
        self._left_later: dict[str, int] = {}
        """Bound -> its room at both moments, read once each."""
        self._places: dict[Deployment, list[_Place]] = {}
        self._own = OwnLimits(generation, gateway)
        standing = gateway.live.standing()
        self._shared = standing.store != "memory"
        self._marked = bool(gateway.marks)
        self._parts = standing.replicas if not standing.reachable else 1
        """Gateways that go on by themselves while what they share is away: each may use its part."""
        self.seats = 0

    def places(self, deployment: Deployment) -> list[_Place]:
        """The keys of *deployment*."""
        found = self._places.get(deployment)
        if found is None:
            found = self._places[deployment] = list(self._looked(deployment))
            self.seats += len(found)
        return found

    async def look(self, deployments: tuple[Deployment, ...]) -> None:
        """Look at the keys of *deployments*, as `places` does, with pauses."""
        looked = 0
        for deployment in deployments:
            if deployment in self._places:
                continue
            found = []
            for place in self._looked(deployment):
                found.append(place)
                looked += 1
                if looked % AT_ONCE == 0:
                    await _pause(self.gateway)
            self._places[deployment] = found
            self.seats += len(found)
        if looked > AT_ONCE:
            await _pause(self.gateway)

    def _looked(self, deployment: Deployment) -> Iterator[_Place]:
        cost = cost_there(self.gateway, self.generation, call_of_size(str(deployment), *self.size), deployment)
        for each in tuple(self.generation.pools.of(deployment).entries):
            yield self._place(each, claims_of(self.gateway, each, cost))

    def known(self, deployment: Deployment) -> list[_Place]:
        """The keys of *deployment* as far as they were looked at."""
        return self._places.get(deployment, [])

    def _place(self, entry: Entry, needed: list[Claim]) -> _Place:
        place, bounds, tokens = _Place(entry, needed), [], []
        if trouble_of(entry.candidate.credential):
            return place
        for claim in needed:
            cost = cost_within(claim)
            if cost is None:
                return place
            bounds.append((self._limit(claim.limit), cost))
            if claim.limit.metric in TOKENS:
                tokens.append(claim.limit.key)
        if self._marked:
            bounds += [(name, 1) for scope in entry.scopes if (name := self._mark(scope))]
        place.seat = Seat(tuple(bounds), tuple(tokens))
        return place

    def _limit(self, limit: Limit) -> str:
        if limit.key not in self._left_now:
            live, now = self.gateway.live, self.now
            row = live.view(now).row(limit, now) if self._shared else None
            room = room_of(limit, live.meters.counter(limit), row, now, now + HORIZON)
            self._note(limit.key, Room(room.now // self._parts, room.later // self._parts))
        return limit.key

    def _mark(self, scope: ScopeKey) -> str:
        room = room_after(self.gateway.marks.get(scope), self.now, self.now + HORIZON)
        if room is None:
            return ""
        name = f"mark {' '.join(scope)}"
        self._note(name, room)
        return name

    def _note(self, name: str, room: Room) -> None:
        self._left_now[name], self._left_later[name] = room

    def own_bounds(self, run: Run, entry: Entry) -> list[tuple[str, int]] | None:
        """What *run* needs of its caller's and its role's own limits; None when nobody can say what it costs."""
        if not run.own:
            return []
        cost = self._own.cost(run, entry)
        needed = None if cost is None else [(claim.limit, cost_within(claim)) for claim in claims(run.own, cost)]
        if needed is None or any(cost is None for _, cost in needed):
            return None
        return [(self._limit(limit), cost or 0) for limit, cost in needed]

    def now_in(self, seats: list[Seat]) -> Fill:
        """What fits into *seats* at this moment."""
        return fill_seats(seats, self._left_now)

    def later_in(self, seats: list[Seat], ahead: int = 0) -> Fill:
        """What fits at the horizon, beside the *ahead* calls that wait already."""
        return fill_seats(seats, self._left_later, ahead)


async def headroom(gateway: Gateway, caller: Caller, route: str | None = None, size: Size = USUAL) -> dict[str, Any]:
    """The answer to `GET /v1/headroom`: of *route*, or of every route that *caller* may use and somebody could answer.

    Raises what `resolve` raises for *route*.
    """
    generation = gateway.generation
    plans, left_out = await _plans(gateway, generation, caller, route)
    for plan in plans.values():
        for each in plan.deployments:
            generation.pools.of(each)
    scopes = {scope for plan in plans.values() for scope in _scopes(generation, plan)}
    runs = {name: _run(gateway, generation, caller, plan, size) for name, plan in plans.items()}
    await gateway.live.refresh(scopes, {limit for run in runs.values() for limit in run.own})
    reading, rows, looked = _Reading(gateway, generation, caller, size), [], 0
    for name, run in runs.items():
        if reading.seats >= MOST_SEATS:
            left_out += 1
            continue
        await reading.look(run.deployments)
        rows.append(_route(reading, name, run, plans[name]))
        looked += sum(len(reading.places(each)) for each in run.deployments)
        if looked >= AT_ONCE:
            looked = 0
            await _pause(gateway)
    owner = caller.name == Caller().name
    standing = gateway.live.standing()
    told = {
        "object": "headroom",
        "at": moment_of(gateway, 0.0),
        "in_s": HORIZON,
        "call": {"tokens": size.tokens, "output": size.output},
        "live": {"store": standing.store, "reachable": standing.reachable, "replicas": standing.replicas},
        "waiting": gateway.room.waiting,
        "routes": rows,
        "routes_left_out": left_out,
        "own": [gateway.own_limit(limit) for limit in caller.limits],
    }
    if owner:
        keys, hidden = await _keys(reading, {each for run in runs.values() for each in run.deployments})
        told |= {"keys": keys, "keys_left_out": hidden}
    return told


def gauges(gateway: Gateway, most: int = 50) -> Iterator[tuple[str, float, float]]:
    """Name of each role, alias and route id that can be answered, with the calls that fit now and in a minute: infinite
    for any number. The first *most* of them, as far as there are not too many keys to look at."""
    generation = gateway.generation
    catalog, caller = generation.lists.catalog, gateway.config.default_caller
    reading = _Reading(gateway, generation, caller, USUAL)
    for name in [*catalog.names, *catalog.routes][:most]:
        plan = _planned(gateway, generation, caller, name)
        if plan is None or needs_listing(call_of_size(name, CALL_TOKENS), catalog):
            continue
        keys = sum(len(generation.config.credentials.get(each.provider, ())) for each in plan.deployments)
        if reading.seats + keys > MOST_AT_A_SCRAPE:
            continue
        now, later = _figures(reading, _run(gateway, generation, caller, plan, USUAL))[:2]
        yield name, _calls(now), _calls(later)


def _calls(fits: Fill) -> float:
    return FOREVER if fits.calls is None else float(fits.calls)


async def _plans(
    gateway: Gateway, generation: Generation, caller: Caller, route: str | None
) -> tuple[dict[str, Plan], int]:
    """The plan of each route, and of how many there was no room for."""
    lists = generation.lists
    if route is not None:
        call = call_of_size(route, CALL_TOKENS)
        if needs_listing(call, lists.catalog):
            await lists.refresh()
        return {route: resolve(call, caller, lists.catalog)}, 0
    found: dict[str, Plan] = {}
    left_out = 0
    for number, name in enumerate(_names(gateway, generation), 1):
        if number % AT_ONCE == 0:
            await _pause(gateway)
        plan = _planned(gateway, generation, caller, name)
        if plan is None:
            continue
        if len(found) < MOST_ROUTES:
            found[name] = plan
        else:
            left_out += 1
    return found, left_out


def _names(gateway: Gateway, generation: Generation) -> Iterator[str]:
    """Roles and aliases, route ids, `auto`, then each `provider/model` that stands behind one of them, is declared, or
    was asked for."""
    catalog = generation.lists.catalog
    named = list(dict.fromkeys((*catalog.names, *catalog.routes, AUTO)))
    yield from named
    behind: dict[Deployment, None] = {}
    for name in named:
        plan = _planned(gateway, generation, gateway.config.default_caller, name)
        behind.update(dict.fromkeys(plan.deployments if plan is not None else ()))
    behind.update(dict.fromkeys(each for each in generation.config.facts if each.provider in catalog.offers))
    behind.update(dict.fromkeys(pool.deployment for pool in generation.pools))
    yield from (str(each) for each in behind if str(each) not in named)


def _planned(gateway: Gateway, generation: Generation, caller: Caller, name: str) -> Plan | None:
    """The plan of *name*; None when nobody can answer it, or not to *caller*."""
    try:
        return resolve(call_of_size(name, CALL_TOKENS), caller, generation.lists.catalog)
    except KeyturnError:
        return None


def _scopes(generation: Generation, plan: Plan) -> Iterator[str]:
    for each in plan.deployments:
        for entry in generation.pools.of(each).entries:
            yield from entry.limit_scopes


def _run(gateway: Gateway, generation: Generation, caller: Caller, plan: Plan, size: Size) -> Run:
    """A call for the route of *plan*, as it would be if somebody sent it now."""
    call = call_of_size(plan.route, *size)
    run = Run(call, caller, Trail("", plan.route, gateway.clock.mono()), generation)
    run.planned(plan, generation)
    if plan.strategy == "fastest":
        run.deployments = generation.pools.fastest_first(plan)
    if len(run.deployments) > 1:
        now, marks = gateway.clock.mono(), gateway.marks
        there = tuple(each for each in run.deployments if marks.blocked((absent_scope(each),), now) is None)
        run.deployments = there or run.deployments
    return run


def _figures(reading: _Reading, run: Run) -> tuple[Fill, Fill, list[_Place]]:
    """What fits now and at the horizon, and the keys that it would go to."""
    room, number = reading.gateway.room, run.generation.number
    places, open_now, seats = [], [], []
    for deployment in run.deployments:
        behind = room.wanted(deployment, number)
        for place in reading.places(deployment):
            places.append(place)
            own = reading.own_bounds(run, place.entry)
            if place.seat is not None and own is not None:
                seats.append(place.seat._replace(calls=(*place.seat.calls, *own)))
                open_now += [] if behind else seats[-1:]
    return reading.now_in(open_now), reading.later_in(seats, _ahead(reading.gateway, run)), places


def _ahead(gateway: Gateway, run: Run) -> int:
    """How many calls wait that may take what *run* could."""
    bundle = gateway.room.bundle(Line(run.generation.number, run.deployments))
    return 0 if bundle is None else bundle.shares.calls


def _route(reading: _Reading, name: str, run: Run, plan: Plan) -> dict[str, Any]:
    now, later, places = _figures(reading, run)
    gateway, ahead = reading.gateway, _ahead(reading.gateway, run)
    role = reading.generation.lists.catalog.names.get(name)
    return {
        "route": name,
        "kind": role.kind if role is not None else "default" if plan.defaults else _kind(reading, name),
        "deployments": [str(each) for each in run.deployments],
        "now": _told(now),
        "in_60_s": _told(later),
        "returns": _earliest(reading, places) if now.calls == 0 else None,
        "waiting": {"calls": ahead, "expected_s": _expected(reading, run, places) if ahead or now.calls == 0 else 0.0},
        "day_quotas": _day_quotas(gateway, [claim.limit for place in places for claim in place.claims], reading.now),
        "own": [gateway.own_limit(limit) for limit in run.own if limit not in reading.caller.limits],
    }


def _expected(reading: _Reading, run: Run, places: list[_Place]) -> float | None:
    """Seconds until it would be the turn of a call that comes now; None when nobody knows."""
    waits = [stand.wait for each in places if not (stand := each.stand(reading)).free]
    shortage = Exhausted(min(waits, default=0.0), len(waits), sum(each == FOREVER for each in waits), 0, 0)
    foreseen = run.generation.reserving.foreseen(run, shortage).wait
    return None if foreseen is None else seconds(foreseen)


def _kind(reading: _Reading, name: str) -> str:
    return "route" if name in reading.generation.lists.catalog.routes else "model"


def _told(fits: Fill) -> dict[str, int | None]:
    return {"requests": fits.calls, "tokens": fits.tokens}


def _earliest(reading: _Reading, places: list[_Place]) -> dict[str, Any] | None:
    """When the first of *places* is free again, and what keeps it away until then; None when nobody knows."""
    stands, gateway = (each.stand(reading) for each in places), reading.gateway
    first = min((each for each in stands if not each.free), key=lambda each: each.wait, default=None)
    if first is None or first.wait == FOREVER:
        return None
    return {"in_s": seconds(first.wait), "at": moment_of(gateway, first.wait), "why": first.why}


def _day_quotas(gateway: Gateway, limits: list[Limit], now: float) -> list[dict[str, Any]]:
    """The limits of a day or longer, together: each counter once. `resets_at`: when the last of them is whole again."""
    sums: dict[tuple[str, str], dict[str, Any]] = {}
    view = gateway.live.view(now)
    for limit in {each.key: each for each in limits}.values():
        if limit.window.seconds < DAY and limit.window.kind != "calendar":
            continue
        row = view.row(limit, now)
        key = (limit.metric, window_name(limit.window))
        total = sums.setdefault(key, {"capacity": 0, "used": 0, "free": 0, "longest": 0.0})
        total["capacity"] += row.capacity
        total["used"] += row.used
        total["free"] += row.free
        total["longest"] = max(total["longest"], row.resets_in)
    return [
        {
            "metric": metric,
            "window": window,
            **{name: total[name] for name in ("capacity", "used", "free")},
            "resets_in_s": seconds(total["longest"]) if total["longest"] else None,
            "resets_at": moment_of(gateway, total["longest"]) if total["longest"] else None,
        }
        for (metric, window), total in sums.items()
    ]


async def _keys(reading: _Reading, deployments: set[Deployment]) -> tuple[list[dict[str, Any]], int]:
    """Every key on every deployment that was looked at, and how many more there are."""
    places = [(each, place) for each in sorted(deployments) for place in reading.known(each)]
    rows = []
    for number, (deployment, place) in enumerate(places[:MOST_KEYS], 1):
        rows.append(_key(reading, deployment, place))
        if number % AT_ONCE == 0:
            await _pause(reading.gateway)
    return rows, len(places) - len(rows)


def _key(reading: _Reading, deployment: Deployment, place: _Place) -> dict[str, Any]:
    gateway, stand = reading.gateway, place.stand(reading)
    seats = [place.seat] if place.seat is not None else []
    pool = reading.generation.pools.of(deployment)
    return {
        "provider": deployment.provider,
        "model": deployment.model,
        "key": place.entry.candidate.credential.shown,
        "state": stand.state,
        "why": stand.why,
        "returns_in_s": None if stand.free else seconds(stand.wait),
        "returns_at": None if stand.free else moment_of(gateway, stand.wait),
        "now": _told(reading.now_in(seats)),
        "in_60_s": _told(reading.later_in(seats)),
        "used_share": round(pool.load(place.entry, reading.now), 3),
        "active": place.entry.active,
        "day_quotas": _day_quotas(gateway, [claim.limit for claim in place.claims], reading.now),
    }


async def _pause(gateway: Gateway) -> None:
    """Let calls go on."""
    await gateway.clock.sleep_until(gateway.clock.mono())
