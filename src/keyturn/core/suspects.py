"""What is known of keys that may share a quota: how each was used and refused, and what was seen of every two.

See `kinship` for what is made of it. Times are monotonic seconds, costs are tokens.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import ceil, inf
from typing import NamedTuple

WINDOW = 60.0
"""Seconds that uses are looked back at: providers' short limits are per minute."""
SURE, APART = 8.0, -5.0
"""Scores from which a pair is believed to share, or not to share."""
TRIAL, SAME_SUM, SHARPLY = 2.5, 3.0, 6.0
"""What the refusal of a hardly used key says; more when the sum is that of another time with another split; and still
more when use rose so fast both times that it was hit in a moment."""
SHARP = 0.5
"""Of a sum, what at most had been used `RAMP` before for that."""
STATED, EXACT, CONTRAST, MOST_STATED = 1.5, 3.0, 3.0, 6.0
"""What fitting headers say; what those of a hardly used key say that fit exactly; more once they fitted at quite
different splits, and at most so much before."""
ADMITTED, UNEXPLAINED, SOMEBODY, NOBODY_ELSE = -6.0, -3.0, -2.0, -2.0
"""What an admission, a refusal that no sum explains, headers of more than that, and headers of nothing say against
it."""
DOUBT, DOUBTED_FOR, MOST_DOUBTS = 2.5, 1800.0, 8
"""How much more is needed for each refusal that no sum explained, of any keys of the place, within so many seconds; and
of how many at most."""
FEW = 8
"""Calls below which an equal sum may be chance."""
ENOUGH = 0.6
"""Of the most that two were admitted for in a minute: what they must have been used for when a refusal is to count."""
LATELY = 240.0
"""Seconds that this is remembered: in a minute that two windows of the provider share it is twice the limit."""
HARDLY = 0.45
"""Of what a key was admitted for in a minute: below that it cannot have reached a limit of its own. A fixed window and
a bucket let through twice their limit in some minute, so half of it is always below the limit."""
RIVAL = 0.35
"""Of what one of two was used for: a third that was used for so much may be who is felt."""
OTHERWISE = 0.3
"""By how much the share of a key must differ for a split to be another one."""
RAMP = 15.0
"""Seconds within which a use that grows beyond a limit is refused."""
APART_FOR = 86_400.0
SUSPECTED_FOR = 900.0
"""Seconds after its last refusal that a suspicion is dropped."""
LEAD_MOST = 180.0
"""Seconds that one leads when nothing happens."""
LEADS, LEADS_WITHIN = 24, 3600.0
"""How often the lead may change at one place within a time; beyond it nobody leads there for as long."""
PLAINLY = 45.0
"""Seconds between two answers that say so most plainly."""
LED = 0.7
"""The share of the use of two from which on one of them has really led."""
UNSTATED = 5.0
"""Seconds within which another refusal counts as one together, where the provider does not say how long it lasts."""
LITTLE = 0.1
"""Of what another key was used for: so little is hardly used too."""
WATCHED = 150.0
"""Seconds after the last refusal of a place for which it is watched."""
UNSETTLED = 240.0
"""Seconds after the first refusal of a place in which it is open who shares with whom as long as nothing tells."""
HINDSIGHT = 30.0
"""Seconds after a refusal that what was under way then is waited for, before anything is made of it."""
KEPT = WINDOW + RAMP + HINDSIGHT + 1.0
SPACING = 20.0
"""Seconds between two refusals that count, of a key that had not said when it is free again."""
CLOSELY = 5.0
"""Seconds between two that do, of one that had: between them somebody must have been admitted anyway."""
EXACTLY = 1.0
"""Seconds by which a provider's word on when a key is free again may be early."""
ALIGNED = 1.1
"""Seconds by which the moments may differ that are said to be the end of one fixed window."""
STEP = 0.25
"""Seconds of a slot."""
MOST_PLACES, MOST_SUSPECTS, MOST_KEYS, MOST_APART, MOST_SAMPLES = 64, 8, 256, 20_000, 16

Place = tuple[str, str]
"""A provider, and what a model's use is counted as there."""
Label = tuple[str, frozenset[str]]
"""A provider, and two of its keys."""


class Stated(NamedTuple):
    """What headers say of a limit of requests per minute of the key that answered."""

    capacity: int
    remaining: int


class Kin(NamedTuple):
    """Two keys that share a quota."""

    provider: str
    one: str
    other: str
    evidence: tuple[str, ...]
    """Sentences in which `{one}` and `{other}` stand for the two."""


@dataclass(slots=True)
class Slot:
    begin: float
    calls: int = 0
    tokens: int = 0


class UsedKey:
    """One key at one place."""

    __slots__ = (
        "cost",
        "earlier",
        "failed",
        "free",
        "heard",
        "idle",
        "largest",
        "likely",
        "most",
        "most_tokens",
        "refused",
        "shut",
        "slots",
        "streak",
        "sure",
    )

    def __init__(self) -> None:
        self.slots: deque[Slot] = deque()
        """What it was admitted for, by the second in which it was sent, of the last two minutes."""
        self.most = self.most_tokens = self.largest = 0
        """The most calls and tokens within a minute, and the largest single call, that were ever admitted."""
        self.refused = self.earlier = -inf
        """When it last was; and when before that."""
        self.streak = self.failed = -inf
        """Since when there is no minute without a refusal; when its refusal last counted."""
        self.shut = self.sure = self.likely = -inf
        """Since when it is refused; and until when that surely, or likely, holds."""
        self.cost = 0
        """Of the call that was refused."""
        self.free, self.heard = inf, -inf
        """From when it is free again by the provider's own word; and when that was heard."""
        self.idle = False
        """It was not admitted since."""

    def used(self, now: float, since: float = -inf) -> tuple[int, int]:
        """Calls and tokens that were sent in the minute before *now*, but not before *since*, and admitted."""
        calls = tokens = 0
        begin = max(now - WINDOW, since - STEP)
        for slot in reversed(self.slots):
            if slot.begin <= begin:
                break
            if slot.begin <= now:
                calls += slot.calls
                tokens += slot.tokens
        return calls, tokens

    def before(self, now: float, since: float) -> int:
        """Calls of the minute that ended `RAMP` before *now*, but none from before *since*."""
        begin = max(now - RAMP - WINDOW, since)
        return sum(slot.calls for slot in self.slots if begin < slot.begin <= now - RAMP)

    def any_within(self, begin: float, end: float) -> bool:
        """Whether something that was sent after *begin*, until *end*, was admitted."""
        return any(begin < slot.begin <= end for slot in self.slots)

    def admit(self, tokens: int, sent: float, now: float) -> None:
        begin = sent // STEP * STEP
        slot = next((each for each in reversed(self.slots) if each.begin <= begin), None)
        if slot is None or slot.begin != begin:  # answers come in another order than requests were sent in
            slot = Slot(begin)
            self.slots.insert(sum(each.begin < begin for each in self.slots), slot)
            while self.slots[0].begin <= now - KEPT:
                self.slots.popleft()
        slot.calls += 1
        slot.tokens += tokens
        calls, used = self.used(now)
        self.most, self.most_tokens = max(self.most, calls), max(self.most_tokens, used)
        self.largest = max(self.largest, tokens)
        self.idle = False
        if sent > self.shut:
            self.sure = self.likely = -inf

    def close(
        self, sent: float, now: float, cost: int, sure: float, likely: float, wait: float | None = None
    ) -> float | None:
        """A request of *sent* is refused at *now*, which surely holds for *sure* seconds and likely for *likely*, by
        the provider's own word for *wait*. Since when it had been said that it would be free by then, and it was not
        used; None: it had not been said so."""
        promised = self.heard if self.idle and sent >= self.free + EXACTLY and cost <= self.cost else None
        self.free, self.heard, self.idle = (inf, now, False) if wait is None else (now + wait, now, True)
        if now - self.refused >= WINDOW:
            self.streak = now
        if now - self.refused > UNSTATED:
            self.earlier = self.refused
        if sent >= self.sure:
            self.shut = now
        self.refused, self.cost, self.sure, self.likely = now, cost, sent + sure, now + likely
        return promised

    def fresh(self, now: float, calls: int, tokens: int) -> bool:
        """Whether it was used so little that it cannot have reached a limit of its own, by what it has been admitted
        for before, or beside the *calls* and *tokens* of another."""
        own, used = self.used(now)
        return own <= max(HARDLY * self.most, LITTLE * calls) and used <= max(
            HARDLY * self.most_tokens, LITTLE * tokens
        )

    def calm(self, now: float) -> bool:
        """Whether there was no refusal in the minute before just now."""
        return now - self.refused >= WINDOW or now - self.streak < UNSTATED


class Sample(NamedTuple):
    stated: bool
    total: int
    share: float
    """Of the first key in the total."""
    sharp: bool = False
    """Most of it had been used just before."""


@dataclass(slots=True)
class Trial:
    """*name* was refused while *first* was, of which something is made once nothing is under way from before."""

    first: str
    name: str
    at: float
    cost: int
    others: tuple[str, ...]
    """Who else was refused then."""
    began: float
    """When the window of that moment had begun, where windows are fixed."""
    calm: bool
    """There had been no refusal for a minute."""
    since: float
    """When there had been one before."""
    left: int
    """Attempts of both that were under way."""
    promised: float | None
    """When *name* had said that it would be free by then, if it was not used since."""


@dataclass(slots=True)
class Pair:
    one: str
    other: str
    suspected: float
    """When both were last refused together."""
    score: float = 0.0
    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=MOST_SAMPLES))
    said: deque[str] = field(default_factory=lambda: deque(maxlen=6))
    tried: float = -inf
    """When a refusal last counted."""
    looked: dict[str, float] = field(default_factory=dict)
    """When each key's headers last counted."""
    stated: float = 0.0
    """What headers have added to the score."""
    contrasted: bool = False
    """They fitted at quite different splits."""
    most: int = 0
    """The most that both together were admitted for within a minute, lately."""
    reached: float = -inf
    """When that was."""
    lowest: int = 0
    """The least sum at which both were refused; 0: not known yet."""
    trials: list[Trial] = field(default_factory=list)
    over: float = inf
    """Since when they are used for clearly more than that, and none was refused."""

    def named(self, name: str) -> str:
        return "{one}" if name == self.one else "{other}"

    def partner(self, name: str) -> str:
        return self.other if name == self.one else self.one

    def moved(self, step: float, said: str = "") -> None:
        self.score += step
        if step > 0:
            self.said.append(said)
        else:
            self.doubted()

    def spoken_against(self, step: float) -> None:
        """Headers do not fit: which, as they are of another moment, does not prove the two apart."""
        self.moved(step if self.score + step > APART else 0.0)

    def doubted(self) -> None:
        """What spoke for it so far must be found again."""
        self.score, self.stated, self.contrasted = min(self.score, 0.0), 0.0, False
        self.samples.clear()
        self.said.clear()

    def otherwise(self, share: float, *, stated: bool) -> bool:
        """Whether there is a sample with quite another split."""
        return any(each.stated == stated and abs(each.share - share) >= OTHERWISE for each in self.samples)

    def again(self, seen: Sample) -> float:
        """What it says that the sum of *seen* is that of other samples, some with quite another split; nothing when
        most of them have another sum."""
        if seen.total < FEW:
            return 0.0
        for step, others in (
            (SHARPLY, [each for each in self.samples if not each.stated and each.sharp] if seen.sharp else []),
            (SAME_SUM, [each for each in self.samples if not each.stated]),
        ):
            same = [each for each in others if abs(each.total - seen.total) <= max(1, 0.08 * seen.total)]
            if 2 * len(same) > len(others) and any(abs(each.share - seen.share) >= OTHERWISE for each in same):
                return step
        return 0.0


@dataclass(slots=True)
class Spot:
    """What is known of one place."""

    since: float
    keys: OrderedDict[str, UsedKey] = field(default_factory=OrderedDict)
    suspects: dict[str, float] = field(default_factory=dict)
    """When each was last refused together with another."""
    groups: list[list[str]] = field(default_factory=list)
    """Those of them that are suspected with each other, as of the change that `grouped_at` counts."""
    grouped_at: int = -1
    leaders: dict[str, float] = field(default_factory=dict)
    """Who leads those that are suspected together, and since when."""
    turn: set[str] = field(default_factory=set)
    """Of those that these belong to somebody else is to lead."""
    leads: deque[float] = field(default_factory=lambda: deque(maxlen=LEADS))
    trouble: float = -inf
    """When everybody was last refused, whatever was used."""
    doubts: deque[float] = field(default_factory=lambda: deque(maxlen=8))
    """When there were refusals that no sum explains."""
    lied: float = -inf
    """When a key was last refused that had said it would be free, though nobody was admitted since."""
    reset: float = -inf
    """When a fixed window ends, as far as providers' words tell."""
    fixed: bool = False
    """They told the same of two windows, and nothing else since."""

    def choose_leaders(self, now: float) -> None:
        """In each group another one leads once something was found out, or when nothing was for long."""
        leaders: dict[str, float] = {}
        for names in self.groups:
            old = next((each for each in names if each in self.leaders), "")
            if old and not self.turn.intersection(names) and now < self.leaders[old] + LEAD_MOST:
                leaders[old] = self.leaders[old]
            elif len(self.leads) < LEADS or self.leads[0] <= now - LEADS_WITHIN:
                leaders[names[(names.index(old) + 1) % len(names) if old else 0]] = now
                self.leads.append(now)
        self.leaders = leaders
        self.turn.clear()

    def heard(self, free: float) -> bool:
        """It was said that something is free from then on. Whether it is known otherwise by that whether the windows
        are fixed."""
        away = free - self.reset
        if abs(away) <= ALIGNED:
            return False
        known = self.fixed
        self.fixed = ALIGNED < away < inf and abs(away - WINDOW * round(away / WINDOW)) <= ALIGNED
        self.reset = free
        return self.fixed != known

    def began(self, now: float) -> float:
        """When the window that *now* is in has begun, where windows are fixed."""
        return self.reset - WINDOW * ceil((self.reset - now) / WINDOW) if self.fixed else -inf

    def used(self, name: str, now: float) -> int:
        """Calls of *name* that count at *now*."""
        return self.key(name).used(now, self.began(now))[0]

    def key(self, name: str) -> UsedKey:
        found = self.keys.get(name)
        if found is None:
            if len(self.keys) >= MOST_KEYS:
                del self.keys[next(each for each in self.keys if each not in self.suspects)]
            found = self.keys[name] = UsedKey()
        return found


def explained(
    pair: Pair, trial: Trial, one: UsedKey, other: UsedKey, total: int, used: int, began: float = -inf
) -> bool:
    """Whether what both, or all that were refused then, were used for may have reached a limit of all of them, in a
    window that *began* then."""
    if used < HARDLY * pair.most:
        return False
    since = max(trial.since, began)
    before = one.before(trial.at, since) + other.before(trial.at, since)
    return not (trial.calm and total > 5 and before > total)


def together(pairs: Iterable[Pair]) -> list[list[str]]:
    """The keys of *pairs*, those together that are connected by them; in the same order for all processes."""
    groups: list[set[str]] = []
    for pair in pairs:
        near = {pair.one, pair.other}
        joined = [each for each in groups if near & each]
        groups = [each for each in groups if each not in joined] + [near.union(*joined)]
    return sorted(sorted(each) for each in groups)


def rose(trial: Trial, one: UsedKey, other: UsedKey, total: int, began: float) -> bool:
    """Whether most of the *total* of both had been used just before."""
    before = one.before(trial.at, began) + other.before(trial.at, began)
    return before <= SHARP * total


def compare(pair: Pair, name: str, own: int, theirs: int, foreign: float, slack: float, *, plain: bool) -> bool:
    """Whether what we used of the other key explains the *foreign* use of *name* that its headers tell of. *plain*:
    *name* was admitted at the last minute's beginning, and is refused now although it was hardly used."""
    if theirs < 0.35 * foreign - 1:
        pair.spoken_against(SOMEBODY)
        return False
    if theirs < 0.7 * foreign - slack or foreign < 0.5 * theirs - slack:
        return False
    share = (own if name == pair.one else theirs) / max(own + theirs, 1)
    contrast = pair.otherwise(share, stated=True)
    pair.samples.append(Sample(True, own + theirs, share))
    plain = plain and abs(theirs - foreign) <= slack
    free = contrast or pair.contrasted or plain
    exact = theirs >= max(FEW, 2 * own) and abs(theirs - foreign) <= max(1.0, 0.1 * theirs)
    step = EXACT if exact else STATED
    if not free:
        step = min(step, MOST_STATED - pair.stated)
    if contrast and not pair.contrasted:
        pair.contrasted = True
        step += CONTRAST
    pair.stated += step
    if step > 0:
        user, another = pair.named(name), pair.named(pair.partner(name))
        pair.moved(step, f"{user} told of {foreign:.0f} calls of somebody else, when {another} had made {theirs}")
    return True
