"""Which keys share one quota at their provider: found out from when they are refused, and when they are not.

Two keys of one project are refused together, whichever of them was used; two keys of two projects are not. But keys
that are used alike reach equal limits of their own at the same moment too, and a provider in trouble refuses everybody.
So nothing is believed because two keys were refused together. That makes them *suspects*: from then on calls go to one
of them first, the *leader*, and to the others as soon as it is refused. What happens then tells them apart:

    for         the leader is refused, and another that was hardly used is refused too, at a sum that explains it
    for         a key's headers say that somebody else used its quota, as much as we used the other key
    against     the leader is refused, and another suspect is admitted: it has a quota of its own
    against     a minute without refusals, though both together were used as much as when they were refused
    against     a refusal that no sum explains: a provider in trouble, or somebody else who uses the keys

Each observation moves the score of a pair, a log likelihood ratio: at `SURE` they are one, at `APART` they are two, and
that is not asked again for a day. The lead changes after each observation, and who was refused must have been admitted
since: so neither a key that is merely dead nor minutes of trouble look like kinship.

Pure and deterministic. Keys are named by their quota groups; times are monotonic seconds, costs are tokens.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from math import inf
from types import MappingProxyType

from .suspects import (
    ADMITTED,
    APART,
    APART_FOR,
    DOUBT,
    DOUBTED_FOR,
    ENOUGH,
    FEW,
    HINDSIGHT,
    LATELY,
    LEAD_MOST,
    LEADS,
    LEADS_WITHIN,
    LED,
    MOST_APART,
    MOST_PLACES,
    MOST_SUSPECTS,
    PLAINLY,
    RAMP,
    SAME_SUM,
    SPACING,
    SURE,
    SUSPECTED_FOR,
    TRIAL,
    UNEXPLAINED,
    UNSTATED,
    WINDOW,
    Kin,
    Label,
    Pair,
    Place,
    Sample,
    Spot,
    Stated,
    Trial,
    compare,
    explained,
)

NOBODY: Mapping[str, int] = MappingProxyType({})


class Kinship:
    """What is suspected of the keys of one process."""

    __slots__ = ("_apart", "_pairs", "_spots")

    def __init__(self) -> None:
        self._spots: OrderedDict[Place, Spot] = OrderedDict()
        self._pairs: dict[Label, Pair] = {}
        self._apart: OrderedDict[Label, float] = OrderedDict()
        """Pairs that do not share, and until when that is not asked again."""

    def __bool__(self) -> bool:
        """Whether anything is watched."""
        return bool(self._spots)

    def watches(self, place: Place) -> bool:
        """Whether successes at *place* are worth telling."""
        return place in self._spots

    def keep_apart(self, provider: str, one: str, other: str, until: float) -> None:
        """These two do not share: that is not asked again before *until*."""
        label = (provider, frozenset((one, other)))
        self._pairs.pop(label, None)
        self._apart[label] = until
        self._apart.move_to_end(label)
        if len(self._apart) > MOST_APART:
            self._apart.popitem(last=False)

    def forget(self, provider: str) -> None:
        """Drop what is suspected of the keys of *provider*: they are others, or named otherwise, from now on."""
        for place in [each for each in self._spots if each[0] == provider]:
            del self._spots[place]
        for label in [each for each in self._pairs if each[0] == provider]:
            del self._pairs[label]

    def lead(self, place: Place) -> tuple[str, ...]:
        """Who should be asked first at *place*, then those who should be asked as soon as it is refused, and only
        then; empty: anybody."""
        spot = self._spots.get(place)
        if spot is None or not spot.leader:
            return ()
        return (spot.leader, *(each for each in spot.suspects if each != spot.leader))

    def refused(
        self,
        place: Place,
        name: str,
        sent: float,
        now: float,
        *,
        wait: float | None,
        cost: int,
        busy: Mapping[str, int] = NOBODY,
        stated: Iterable[Stated] = (),
    ) -> list[Kin]:
        """*name* answered at *now* that a limit is reached, to a request of *sent*; *wait*: the provider's own word on
        how long. *busy*: attempts that are under way, by key. Who shares by what is known now."""
        spot = self._spots.get(place)
        if spot is None:
            spot = self._spots[place] = Spot(now)
            if len(self._spots) > MOST_PLACES:
                self._spots.popitem(last=False)
        shut = [other for other, each in spot.keys.items() if other != name and each.shut <= sent < each.likely]
        key = spot.key(name)
        if wait is not None:
            key.close(sent, now, cost, min(0.9 * wait, 3600.0), min(max(wait, 1.0), 3600.0))
        else:  # a limiter that gives back continuously gives one call back after 60 s divided by the limit
            calls = sum(each.used(now)[0] for each in spot.keys.values())
            key.close(sent, now, cost, min(0.2 * WINDOW / calls, 2.0) if calls else 0.3, UNSTATED)
        for each in self._pairs_of(place[0], spot, name):
            self._count_down(spot, each, sent, now)
        pairs = [(other, self._suspected(place[0], spot, other, name, now)) for other in shut]
        for other, pair in pairs:
            if pair is not None:
                self._note(spot, pair, other, name, cost, now, tuple(shut), busy)
        known = any(self._apart.get((place[0], frozenset((other, name))), -inf) > now for other in shut)
        if known and key.fresh(now, 0, 0) and not any(pair for _, pair in pairs):
            self._in_trouble(place[0], spot, now)
        self._read(place[0], spot, name, stated, busy, now)
        return self._decided(place[0], spot, name, now)

    def admitted(
        self,
        place: Place,
        name: str,
        sent: float,
        now: float,
        *,
        cost: int,
        busy: Mapping[str, int] = NOBODY,
        stated: Iterable[Stated] = (),
    ) -> list[Kin]:
        """*name* answered at *now* a request of *sent* well. Who shares by what is known now."""
        spot = self._spots.get(place)
        if spot is None:
            return []
        key = spot.key(name)
        for other, each in spot.keys.items():
            if other != name and each.shut < sent < each.sure and cost >= each.cost:
                self._proved_apart(place[0], other, name, now)
        key.admit(cost, sent, now)
        for pair in self._pairs_of(place[0], spot, name):
            self._watch(spot, pair, now)
            self._count_down(spot, pair, sent, now)
        self._read(place[0], spot, name, stated, busy, now)
        return self._decided(place[0], spot, name, now)

    def expire(self, now: float) -> list[Kin]:
        """Drop what nothing was heard of for long. Who shares by what is known now."""
        found: list[Kin] = []
        for place, spot in list(self._spots.items()):
            for name in [each for each, when in spot.suspects.items() if when <= now - SUSPECTED_FOR]:
                del spot.suspects[name]
            latest = max((each.refused for each in spot.keys.values()), default=spot.since)
            for pair in [each for name in spot.suspects for each in self._pairs_of(place[0], spot, name)]:
                self._count_down(spot, pair, inf, now)
            for name in list(spot.suspects):
                found += self._decided(place[0], spot, name, now)
            if not spot.suspects and latest <= now - WINDOW:
                del self._spots[place]
            else:
                self._lead(place[0], spot, now)
        for label in [each for each, pair in self._pairs.items() if pair.suspected <= now - SUSPECTED_FOR]:
            del self._pairs[label]
        return found

    def _pairs_of(self, provider: str, spot: Spot, name: str) -> Iterator[Pair]:
        if name in spot.suspects:
            found = (self._pairs.get((provider, frozenset((name, other)))) for other in spot.suspects)
            yield from (pair for pair in found if pair is not None)

    def _suspected(self, provider: str, spot: Spot, first: str, name: str, now: float) -> Pair | None:
        """*name* was refused while *first* was; None when it is known that they do not share, or there are too many."""
        label = (provider, frozenset((first, name)))
        if self._apart.get(label, -inf) > now:
            return None
        missing = [each for each in (first, name) if each not in spot.suspects]
        if len(spot.suspects) + len(missing) > MOST_SUSPECTS:
            return None
        spot.suspects[first] = spot.suspects[name] = now
        pair = self._pairs.get(label)
        if pair is None:
            pair = self._pairs[label] = Pair(first, name, now)
        pair.suspected = now
        return pair

    def _note(
        self,
        spot: Spot,
        pair: Pair,
        first: str,
        name: str,
        cost: int,
        now: float,
        shut: tuple[str, ...],
        busy: Mapping[str, int],
    ) -> None:
        """*name* was refused while *first* was: to be looked at when what is under way has ended."""
        if now - spot.since < WINDOW or (pair.trials and now - pair.trials[-1].at < SPACING):
            return
        one, other = spot.key(first), spot.key(name)
        calm, since = one.calm(now) and other.calm(now), max(one.earlier, other.earlier)
        left = busy.get(first, 0) + busy.get(name, 0)
        pair.trials.append(Trial(first, name, now, cost, shut, calm, since, left))
        self._count_down(spot, pair, inf, now)

    def _count_down(self, spot: Spot, pair: Pair, sent: float, now: float) -> None:
        """An attempt of one of the two that was *sent* then is over: look at what waited for it."""
        for trial in list(pair.trials):
            trial.left -= sent <= trial.at
            if trial.left <= 0 or now >= trial.at + HINDSIGHT:
                pair.trials.remove(trial)
                self._try(spot, pair, trial)

    def _try(self, spot: Spot, pair: Pair, trial: Trial) -> None:
        """What *trial* says."""
        at, one, other = trial.at, spot.key(trial.first), spot.key(trial.name)
        (calls, tokens), (more, _) = one.used(at), other.used(at)
        total, used = calls + more, sum(spot.key(each).used(at)[0] for each in (*trial.others, trial.name))
        if not explained(pair, trial, one, other, total, used):
            if at - pair.tried >= SPACING:
                pair.tried = at
                pair.moved(UNEXPLAINED)
                spot.doubts.append(at)
            return
        if calls >= 3:
            pair.lowest = min(pair.lowest or total, total)
        if at - max(pair.tried, spot.trouble) < SPACING or calls < max(3, ENOUGH * pair.most):
            return
        if not other.fresh(at, calls, tokens) or not one.any_within(pair.tried, at):
            return
        if other.failed > -inf and not other.any_within(other.failed, at):
            return  # it may be dead, or the trouble may be the same still
        if trial.cost > max(one.largest, other.largest):
            return  # larger than anything that was let through: too large for anybody, perhaps
        share = (calls if trial.first == pair.one else more) / total
        exact = total >= FEW and pair.otherwise(share, stated=False, total=total)
        pair.samples.append(Sample(False, total, share))
        pair.tried = other.failed = at
        spot.turn = True
        first, name = pair.named(trial.first), pair.named(trial.name)
        said = f"{name} was refused with {more} calls in a minute, when {first} was with {calls}"
        pair.moved(TRIAL + SAME_SUM * exact, said)

    def _in_trouble(self, provider: str, spot: Spot, now: float) -> None:
        """A key that has nothing to do with those that are refused now is refused too: it is the provider."""
        if now - spot.trouble >= SPACING:
            spot.doubts.append(now)
        spot.trouble = now
        for name in spot.suspects:
            for pair in self._pairs_of(provider, spot, name):
                if now - pair.tried <= UNSTATED:
                    pair.doubted()

    def _proved_apart(self, provider: str, refused: str, name: str, now: float) -> None:
        """*name* was admitted while *refused* was refused."""
        label = (provider, frozenset((refused, name)))
        pair = self._pairs.get(label)
        if pair is None:
            if self._apart.get(label, -inf) <= now:
                self.keep_apart(provider, refused, name, now + APART_FOR)
            return
        pair.moved(ADMITTED)

    def _watch(self, spot: Spot, pair: Pair, now: float) -> None:
        """How much both together were admitted for, now that one of them has been."""
        one, other = spot.key(pair.one), spot.key(pair.other)
        total = one.used(now)[0] + other.used(now)[0]
        if total >= pair.most or now - pair.reached > LATELY:
            pair.most, pair.reached = total, now
        if max(one.refused, other.refused) >= pair.over:
            pair.over = inf
        if now >= pair.over + RAMP:
            pair.over = inf
            pair.doubted()
        elif pair.over == inf and pair.lowest and total > 1.15 * pair.lowest + 1:
            pair.over = now

    def _read(
        self,
        provider: str,
        spot: Spot,
        name: str,
        stated: Iterable[Stated],
        busy: Mapping[str, int],
        now: float,
    ) -> None:
        """What headers of *name* say of somebody else's use of its quota."""
        if now - spot.since < WINDOW or name not in spot.suspects:
            return
        for capacity, remaining in stated:
            own = spot.key(name).used(now)[0] + busy.get(name, 0)
            foreign, slack = capacity - remaining - own, max(2.0, 0.1 * capacity)
            if foreign <= slack:
                continue
            for pair in self._pairs_of(provider, spot, name):
                last = pair.looked.get(name, -inf)
                if now - last >= UNSTATED:
                    pair.looked[name], key = now, spot.key(name)
                    plain = own <= slack and now - last >= PLAINLY and key.any_within(max(last, now - WINDOW), now)
                    partner = pair.partner(name)
                    theirs = spot.key(partner).used(now)[0] + busy.get(partner, 0)
                    fits = compare(pair, name, own, theirs, foreign, slack, plain=plain)
                    led = own if name == spot.leader else theirs if partner == spot.leader else 0
                    spot.turn = spot.turn or (fits and led >= LED * (own + theirs))

    def _decided(self, provider: str, spot: Spot, name: str, now: float) -> list[Kin]:
        """Who shares for certain with *name*, and who does not, which is not asked again."""
        kin: list[Kin] = []
        for pair in list(self._pairs_of(provider, spot, name)):
            if pair.score >= SURE + DOUBT * sum(when > now - DOUBTED_FOR for when in spot.doubts):
                kin.append(Kin(provider, pair.one, pair.other, tuple(pair.said)))
                del self._pairs[provider, frozenset((pair.one, pair.other))]
            elif pair.score <= APART:
                self.keep_apart(provider, pair.one, pair.other, now + APART_FOR)
        self._lead(provider, spot, now)
        return kin

    def _lead(self, provider: str, spot: Spot, now: float) -> None:
        """Choose who leads: another one once something was found out, or when nothing was for long."""
        for name in [each for each in spot.suspects if not any(self._pairs_of(provider, spot, each))]:
            del spot.suspects[name]
        names = list(spot.suspects)
        if len(names) < 2:
            spot.leader = ""
            return
        if spot.leader in names and not spot.turn and now < spot.led + LEAD_MOST:
            return
        spot.turn = False
        if len(spot.leads) == LEADS and spot.leads[0] > now - LEADS_WITHIN:
            spot.leader = ""
            return
        place = names.index(spot.leader) + 1 if spot.leader in names else 0
        spot.leader, spot.led = names[place % len(names)], now
        spot.leads.append(now)
