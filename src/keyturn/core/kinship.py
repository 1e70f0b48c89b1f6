"""Which keys share one quota at their provider: found out from when they are refused, and when they are not.

Two keys of one project are refused together, whichever of them was used; two keys of two projects are not. But keys
that are used alike reach equal limits of their own at the same moment too, and a provider in trouble refuses everybody.
So nothing is believed because two keys were refused together. That makes them *suspects*: from then on calls go to one
of them first, the *leader*, and to the others as soon as it is refused. What happens then tells them apart:

    for         the leader is refused, and another that was hardly used is refused too, at a sum that explains it
    for         the same, and the other was used, but had said that it would be free by then, and was left alone since
    for         a key's headers say that somebody else used its quota, as much as we used the other key
    against     the leader is refused, and another suspect is admitted: it has a quota of its own
    against     a minute without refusals, though both together were used as much as when they were refused
    against     a refusal that no sum explains: a provider in trouble, or somebody else who uses the keys

Each observation moves the score of a pair, a log likelihood ratio: at `SURE` they are one, at `APART` they are two, and
that is not asked again for a day. The same sum at another split says more, and most when use rose fast, so that it was
hit in a moment. The lead changes after each observation, and who was refused must have been admitted since: so neither
a key that is merely dead nor minutes of trouble look like kinship. What several keys may have used up says nothing.

Pure and deterministic. Keys are named by their quota groups; times are monotonic seconds, costs are tokens.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping
from math import inf, nextafter
from types import MappingProxyType

from .suspects import (
    ADMITTED,
    APART,
    APART_FOR,
    CLOSELY,
    DOUBT,
    DOUBTED_FOR,
    ENOUGH,
    FEW,
    HINDSIGHT,
    LATELY,
    LED,
    MOST_APART,
    MOST_DOUBTS,
    MOST_PLACES,
    MOST_SUSPECTS,
    NOBODY_ELSE,
    PLAINLY,
    RAMP,
    RIVAL,
    SPACING,
    STEP,
    SURE,
    SUSPECTED_FOR,
    TRIAL,
    UNEXPLAINED,
    UNSETTLED,
    UNSTATED,
    WATCHED,
    WINDOW,
    Kin,
    Label,
    Pair,
    Place,
    Sample,
    Spot,
    Stated,
    Trial,
    UsedKey,
    compare,
    explained,
    rose,
    together,
)

NOBODY: Mapping[str, int] = MappingProxyType({})


class Kinship:
    """What is suspected of the keys of one process."""

    __slots__ = ("_apart", "_changes", "_pairs", "_spots")

    def __init__(self) -> None:
        self._spots: OrderedDict[Place, Spot] = OrderedDict()
        self._pairs: dict[Label, Pair] = {}
        self._apart: OrderedDict[Label, float] = OrderedDict()
        """Pairs that do not share, and until when that is not asked again."""
        self._changes = 0
        """How often a pair came or went, or a suspect."""

    def __bool__(self) -> bool:
        """Whether anything is watched."""
        return bool(self._spots)

    def watches(self, place: Place) -> bool:
        """Whether successes at *place* are worth telling."""
        return place in self._spots

    def keep_apart(self, provider: str, one: str, other: str, until: float) -> None:
        """These two do not share: that is not asked again before *until*."""
        label = (provider, frozenset((one, other)))
        self._changes += 1
        self._pairs.pop(label, None)
        self._apart[label] = until
        self._apart.move_to_end(label)
        if len(self._apart) > MOST_APART:
            self._apart.popitem(last=False)

    def forget(self, provider: str, names: Collection[str] | None = None) -> None:
        """Drop what is suspected of *names* of *provider* (None: of all its keys): they are others, or named otherwise,
        from now on."""
        self._changes += 1
        for place, spot in [each for each in self._spots.items() if each[0][0] == provider]:
            if names is None:
                del self._spots[place]
                continue
            for name in names:
                spot.keys.pop(name, None)
                spot.suspects.pop(name, None)
                spot.leaders.pop(name, None)
        for label in [each for each in self._pairs if each[0] == provider]:
            if names is None or label[1].intersection(names):
                del self._pairs[label]

    def lead(self, place: Place) -> tuple[str, ...]:
        """All that are suspected at *place*: see `leads`."""
        return tuple(name for group in self.leads(place) for name in group)

    def leads(self, place: Place) -> tuple[tuple[str, ...], ...]:
        """Of each that are suspected together at *place*, who should be asked first, then those who should be asked as
        soon as it is refused, and only then; empty: anybody."""
        spot = self._spots.get(place)
        if spot is None or not spot.leaders:
            return ()
        groups = self._together(place[0], spot)
        return tuple(
            (leader, *(each for each in group if each != leader))
            for leader in spot.leaders
            for group in groups
            if leader in group
        )

    def suspects(self, place: Place, name: str) -> bool:
        """Whether *name* is suspected to share with another key at *place*."""
        spot = self._spots.get(place)
        return spot is not None and name in spot.suspects

    def unsettled(self, place: Place, name: str, others: Iterable[str], now: float) -> bool:
        """Whether it is not known yet at *place* whether *name* shares with some of *others*."""
        spot = self._spots.get(place)
        if spot is None:
            return False
        if name in spot.suspects:
            return True
        if now >= spot.since + UNSETTLED:
            return False
        return any(not self._are_apart(place[0], name, other, now) for other in others if other != name)

    def serves(self, place: Place, name: str, now: float) -> bool:
        """Whether *name* was admitted at *place* in the last two minutes, as far as that is known already."""
        spot = self._spots.get(place)
        return spot is not None and (now < spot.since + UNSETTLED or spot.key(name).any_within(now - 2 * WINDOW, now))

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
        full: Iterable[str] = (),
        bounded: bool = False,
    ) -> list[Kin]:
        """*name* answered at *now* that a limit is reached, to a request of *sent*; *wait*: the provider's own word on
        how long. *busy*: attempts that are under way, by key. *full*: keys that are not asked because all they are
        known to be allowed is used. *bounded*: something is known of how much that is, so that use ends there without a
        refusal. Who shares by what is known now."""
        spot = self._spots.get(place)
        if spot is None:
            spot = self._spots[place] = Spot(now)
            if len(self._spots) > MOST_PLACES:
                self._spots.popitem(last=False)
        shut = [other for other, each in spot.keys.items() if other != name and each.shut <= sent < each.likely]
        key = spot.key(name)
        own = key.used(now)[0]
        others = (each for each in full if each != name and each not in shut)
        shut += [each for each in others if own < spot.used(each, now) + busy.get(each, 0)]
        if wait is not None:
            promised = key.close(sent, now, cost, min(0.9 * wait, 3600.0), min(max(wait, 1.0), 3600.0), wait)
            if spot.heard(now + wait):
                self._count_anew(place[0], spot)
        else:  # a limiter that gives back continuously gives one call back after 60 s divided by the limit
            calls = sum(each.used(now)[0] for each in spot.keys.values()) if now >= spot.since + WINDOW else 0
            promised = key.close(sent, now, cost, min(0.2 * WINDOW / calls, 2.0) if calls else 0.3, UNSTATED)
        for each in self._pairs_of(place[0], spot, name):
            self._count_down(place[0], spot, each, sent, now)
        pairs = [(other, self._suspected(place[0], spot, other, name, now)) for other in shut]
        for other, pair in pairs:
            if pair is not None:
                self._note(
                    place[0], spot, pair, other, name, cost, now, tuple(shut), busy, promised=promised, bounded=bounded
                )
        known = any(self._are_apart(place[0], other, name, now) for other in shut)
        if known and key.fresh(now, 0, 0) and not self._users(place[0], spot, name, now, busy, 1):
            self._in_trouble(place[0], spot, now)
        self._read(place[0], spot, name, stated, busy, sent, now)
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
        after: str = "",
    ) -> list[Kin]:
        """*name* answered at *now* a request of *sent* well, which *after* had refused just before, perhaps so that the
        clock hardly tells. Who shares by what is known now."""
        spot = self._spots.get(place)
        if spot is None:
            return []
        key = spot.key(name)
        for other, each in spot.keys.items():
            moment = sent if other == after else nextafter(sent, -inf)
            if other != name and each.shut < moment < each.sure and cost >= each.cost:
                self._proved_apart(place[0], other, name, now)
        key.admit(cost, sent, now)
        for pair in self._pairs_of(place[0], spot, name):
            for trial in pair.trials:
                if trial.name == name and sent <= trial.at:
                    trial.promised = None
            self._watch(spot, pair, now)
            self._count_down(place[0], spot, pair, sent, now)
        self._read(place[0], spot, name, stated, busy, sent, now)
        return self._decided(place[0], spot, name, now)

    def expire(self, now: float) -> list[Kin]:
        """Drop what nothing was heard of for long. Who shares by what is known now."""
        found: list[Kin] = []
        self._changes += 1
        for place, spot in list(self._spots.items()):
            for name in [each for each, when in spot.suspects.items() if when <= now - SUSPECTED_FOR]:
                del spot.suspects[name]
            latest = max((each.refused for each in spot.keys.values()), default=spot.since)
            for pair in [each for name in spot.suspects for each in self._pairs_of(place[0], spot, name)]:
                self._count_down(place[0], spot, pair, inf, now)
            for name in list(spot.suspects):
                found += self._decided(place[0], spot, name, now)
            if not spot.suspects and latest <= now - WATCHED:
                del self._spots[place]
            else:
                self._lead(place[0], spot, now)
        for label in [each for each, pair in self._pairs.items() if pair.suspected <= now - SUSPECTED_FOR]:
            self._changes += 1
            del self._pairs[label]
        return found

    def _are_apart(self, provider: str, one: str, other: str, now: float) -> bool:
        """Whether it is known that these two do not share."""
        return self._apart.get((provider, frozenset((one, other))), -inf) > now

    def _pairs_of(self, provider: str, spot: Spot, name: str) -> Iterator[Pair]:
        if name in spot.suspects:
            found = (self._pairs.get((provider, frozenset((name, other)))) for other in spot.suspects)
            yield from (pair for pair in found if pair is not None)

    def _suspected(self, provider: str, spot: Spot, first: str, name: str, now: float) -> Pair | None:
        """*name* was refused while *first* was; None when it is known that they do not share, or there are too many."""
        label = (provider, frozenset((first, name)))
        if self._are_apart(provider, first, name, now):
            return None
        missing = [each for each in (first, name) if each not in spot.suspects]
        if len(spot.suspects) + len(missing) > MOST_SUSPECTS:
            return None
        self._changes += 1
        spot.suspects[first] = spot.suspects[name] = now
        pair = self._pairs.get(label)
        if pair is None:
            pair = self._pairs[label] = Pair(first, name, now)
        pair.suspected = now
        return pair

    def _note(
        self,
        provider: str,
        spot: Spot,
        pair: Pair,
        first: str,
        name: str,
        cost: int,
        now: float,
        shut: tuple[str, ...],
        busy: Mapping[str, int],
        *,
        promised: float | None,
        bounded: bool,
    ) -> None:
        """*name* was refused while *first* was: to be looked at when what is under way has ended."""
        if pair.trials and now - pair.trials[-1].at < (SPACING if promised is None else CLOSELY):
            return
        one, other = spot.key(first), spot.key(name)
        calm, since = not bounded and one.calm(now) and other.calm(now), max(one.earlier, other.earlier)
        left = busy.get(first, 0) + busy.get(name, 0)
        pair.trials.append(Trial(first, name, now, cost, shut, spot.began(now), calm, since, left, promised))
        self._count_down(provider, spot, pair, inf, now)

    def _count_down(self, provider: str, spot: Spot, pair: Pair, sent: float, now: float) -> None:
        """An attempt of one of the two that was *sent* then is over: look at what waited for it."""
        for trial in list(pair.trials):
            trial.left -= sent <= trial.at
            if trial.left <= 0 or now >= trial.at + HINDSIGHT:
                pair.trials.remove(trial)
                self._try(provider, spot, pair, trial)

    def _try(self, provider: str, spot: Spot, pair: Pair, trial: Trial) -> None:
        """What *trial* says."""
        at, one, other = trial.at, spot.key(trial.first), spot.key(trial.name)
        began = trial.began
        (calls, _), (more, _) = one.used(at, began), other.used(at, began)
        total, used = calls + more, sum(spot.key(each).used(at)[0] for each in (*trial.others, trial.name))
        if trial.promised is not None and self._user(provider, spot, trial) != trial.first:
            trial.promised = None
        known = trial.promised is not None or at - spot.since >= WINDOW
        if known and not explained(pair, trial, one, other, total, used, began):
            if at - pair.tried >= SPACING:
                pair.tried = at
                pair.moved(UNEXPLAINED)
                spot.doubts.append(at)
            return
        share = (calls if trial.first == pair.one else more) / max(total, 1)
        seen = Sample(False, total, share, rose(trial, one, other, total, max(began, at - WINDOW)))
        rivals = self._users(provider, spot, trial.name, at, NOBODY, max(2.0, RIVAL * calls))
        alone = trial.promised is not None or not {*rivals}.difference((trial.first,)).intersection(trial.others)
        if known and alone and self._counts(spot, pair, trial, one, other, seen):
            step = TRIAL + pair.again(seen)
            pair.tried = other.failed = at
            spot.turn.add(trial.first)
            first, name = pair.named(trial.first), pair.named(trial.name)
            pair.moved(step, f"{name} was refused with {more} calls in a minute, when {first} was with {calls}")
        elif total and (calls if trial.first in spot.leaders else more) >= LED * total:
            spot.turn.add(trial.first)  # the same would be seen again
        if total >= 3:
            pair.samples.append(seen)

    def _counts(self, spot: Spot, pair: Pair, trial: Trial, one: UsedKey, other: UsedKey, seen: Sample) -> bool:
        """Whether *trial* says anything but what the sum was at which both were refused."""
        at, promised, total = trial.at, trial.promised is not None, seen.total
        if total >= 3 and at - spot.since >= WINDOW:
            pair.lowest = min(pair.lowest or total, total)
        if at - pair.tried < (CLOSELY if promised else SPACING) or at - spot.trouble < SPACING:
            return False
        if total < max(3, ENOUGH * pair.most) or not one.any_within(pair.tried, at):
            return False
        calls, tokens = one.used(at, trial.began)
        if not promised and (calls < max(3, ENOUGH * pair.most) or not other.fresh(at, calls, tokens)):
            return False
        if other.failed > -inf and not other.any_within(other.failed, at):
            return False  # it may be dead, or the trouble may be the same still
        # Larger than anything that was let through, it may be too large for anybody.
        return trial.cost <= max(one.largest, other.largest)

    def _user(self, provider: str, spot: Spot, trial: Trial) -> str:
        """Who alone may have used what the key of *trial* was said to be free for; empty: nobody, or several."""
        since, name = trial.promised, trial.name
        if since is None or spot.lied > trial.at - DOUBTED_FOR:
            return ""
        keys = ((other, each) for other, each in spot.keys.items() if other != name)
        users = [other for other, each in keys if each.any_within(since - STEP, trial.at)]
        if not users:
            spot.lied = trial.at
        users = [other for other in users if not self._are_apart(provider, other, name, trial.at)]
        return users[0] if len(users) == 1 else ""

    def _count_anew(self, provider: str, spot: Spot) -> None:
        """The windows turned out to be fixed, or not to be: the sums so far were others."""
        for name in spot.suspects:
            for pair in self._pairs_of(provider, spot, name):
                pair.most, pair.reached, pair.lowest, pair.over = 0, -inf, 0, inf

    def _together(self, provider: str, spot: Spot) -> list[list[str]]:
        """Those that are suspected with each other, directly or by way of others; not to be changed."""
        if spot.grouped_at == self._changes:
            return spot.groups
        return together(pair for name in spot.suspects for pair in self._pairs_of(provider, spot, name))

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
        total = spot.used(pair.one, now) + spot.used(pair.other, now)
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
        sent: float,
        now: float,
    ) -> None:
        """What headers of *name*, in the answer to a request of *sent*, say of somebody else's use of its quota."""
        if max(spot.began(now), now - WINDOW) < spot.since or name not in spot.suspects:
            return
        for capacity, remaining in stated:
            own = spot.used(name, now) + busy.get(name, 0)
            foreign, slack = capacity - remaining - own, max(2.0, 0.1 * capacity)
            users = self._users(provider, spot, name, now, busy, max(2.0, 0.35 * foreign - 1))
            for pair in self._pairs_of(provider, spot, name):
                last, partner = pair.looked.get(name, -inf), pair.partner(name)
                if now - last < (UNSTATED if foreign > slack else WINDOW):
                    continue
                if foreign <= slack:
                    lately = spot.key(partner).used(sent, max(spot.began(sent), sent - RAMP))[0]
                    if own <= 0.3 * capacity and lately >= max(FEW, 0.5 * capacity):
                        pair.looked[name] = now
                        pair.spoken_against(NOBODY_ELSE)
                    continue
                theirs = spot.used(partner, now) + busy.get(partner, 0)
                if users != [partner] and (partner in users or theirs >= 0.35 * foreign - 1):
                    continue  # another one may be who it tells of
                pair.looked[name], key = now, spot.key(name)
                plain = own <= slack and now - last >= PLAINLY and key.any_within(max(last, now - WINDOW), now)
                fits = compare(pair, name, own, theirs, foreign, slack, plain=plain)
                led = own if name in spot.leaders else theirs if partner in spot.leaders else 0
                if fits and led >= LED * (own + theirs):
                    spot.turn.add(name)

    def _users(
        self, provider: str, spot: Spot, name: str, now: float, busy: Mapping[str, int], least: float
    ) -> list[str]:
        """Who was used for so much, of all that may share with *name*."""
        return [
            other
            for other in spot.keys
            if other != name
            and not self._are_apart(provider, other, name, now)
            and spot.used(other, now) + busy.get(other, 0) >= least
        ]

    def _decided(self, provider: str, spot: Spot, name: str, now: float) -> list[Kin]:
        """Who shares for certain with *name*, and who does not, which is not asked again."""
        kin: list[Kin] = []
        for pair in list(self._pairs_of(provider, spot, name)):
            doubts = sum(when > now - DOUBTED_FOR for when in spot.doubts)
            if pair.score >= SURE + DOUBT * min(doubts, MOST_DOUBTS):
                kin.append(Kin(provider, pair.one, pair.other, tuple(pair.said)))
                self._changes += 1
                del self._pairs[provider, frozenset((pair.one, pair.other))]
            elif pair.score <= APART:
                self.keep_apart(provider, pair.one, pair.other, now + APART_FOR)
        self._lead(provider, spot, now)
        return kin

    def _lead(self, provider: str, spot: Spot, now: float) -> None:
        """Choose who leads: another one once something was found out, or when nothing was for long."""
        if spot.grouped_at != self._changes:
            for name in [each for each in spot.suspects if not any(self._pairs_of(provider, spot, each))]:
                del spot.suspects[name]
            spot.groups, spot.grouped_at = self._together(provider, spot), self._changes
        spot.choose_leaders(now)
