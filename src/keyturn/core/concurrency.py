"""How many attempts an upstream bears at once, learned from its overloads: a value per quota group and model.

Nothing is bounded until it says that it has too much to do (an overload, a refusal for too many at once, no first token
in time) while more than three attempts are under way. Then at most 0.7 of what was under way are allowed, and again 0.7
of that for each further sign from an attempt that began since: what was sent before says nothing of the new bound, nor
does a single probe.

The bound grows while it is used (four fifths of it or more): up to nine tenths of what was too much by a quarter with
each round of answers, from there to just below it by one. There it stays for a while, before more than that is tried
again: ten seconds, twice as long each time that it was too much again, ten minutes at most. Without such rest every
second spent at the bound would be paid for by an overload a moment later.

Ten minutes without any sign, or use, and it is forgotten; so is one that has grown to more than 512.

An upstream that says nothing but has calls wait shows it by when its streams begin: `Onset`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, exp, log, sqrt
from typing import NamedTuple

from .cooldowns import FOREVER
from .outcome import Outcome

LESS = 0.7
FEW = 3
"""So few under way are hardly what an upstream has too much of."""
HALF = 0.5
"""A bound that is used less than that is not what an overload was about."""
MOST = 512
IN_USE = 0.8
NEAR = 0.9
"""Up to this share of what was too much it grows quickly."""
QUICK = 4
"""How many times as quickly."""
PATIENCE = 10.0
MOST_PATIENCE = 600.0
QUIET = 600.0
"""Seconds without a sign, and without being used in full, after which it is forgotten."""


AT_ONCE = ("concurren", "parallel", "simultaneous", "in-flight", "in flight")
"""How a refusal with 429 speaks of too many at a time."""


def overload(outcome: Outcome) -> bool:
    """Whether *outcome* is a sign that an upstream had too much to do at once."""
    if outcome.meaning == "overloaded":
        return True
    if outcome.meaning == "timeout":
        return outcome.code == "first_token"
    said = f"{outcome.code} {outcome.message}".lower()
    return outcome.meaning == "rate_limited" and any(word in said for word in AT_ONCE)


class Bound(NamedTuple):
    """At most *limit* at a time. Times are monotonic seconds."""

    limit: int
    too_much: int
    """How many were under way when it was too much last."""
    since: float
    """When that was."""
    answers: int = 0
    """Since it grew last."""
    patience: float = PATIENCE
    """Seconds before as many are tried again."""
    used: float = 0.0
    """When an answer came while it was in use last."""

    def over(self, now: float) -> bool:
        """Whether it is to be forgotten: for so long there was no sign, and nobody was kept away by it."""
        return now >= max(self.since, self.used) + QUIET


def narrowed(bound: Bound | None, under_way: int, started: float, now: float) -> Bound | None:
    """A sign of overload from an attempt that began at *started*, itself one of *under_way*. None: nothing follows."""
    if bound is None:
        return Bound(int(LESS * under_way), under_way, now) if under_way > FEW else None
    if started <= bound.since or under_way < HALF * bound.limit:
        return None
    reached = min(bound.limit, max(under_way, 1))
    again = reached >= bound.too_much - 1
    patience = min(bound.patience * 2, MOST_PATIENCE) if again else PATIENCE
    return Bound(max(1, int(LESS * bound.limit)), max(reached, 2), now, 0, patience)


def slowed(bound: Bound | None, crowd: int, waiting: float, now: float) -> Bound:
    """Streams begin late, which began while *crowd* were under way, of which *waiting* seem to wait."""
    reached = crowd if bound is None or crowd < IN_USE * bound.limit else bound.limit
    again = bound is not None and reached >= bound.too_much - 1
    patience = min(bound.patience * 2, MOST_PATIENCE) if bound is not None and again else PATIENCE
    fewer = max(ceil(LESS * reached), reached - max(ceil(waiting), 1))
    return Bound(max(1, min(fewer, reached - 1)), max(reached, 2), now, 0, patience)


def widened(bound: Bound, under_way: int, now: float) -> Bound | None:
    """An answer came, of one of *under_way*. None: it is forgotten."""
    if under_way < IN_USE * bound.limit:
        return None if bound.over(now) else bound
    answers = bound.answers + 1
    quick = bound.limit < NEAR * (bound.too_much - 1)
    if answers < (max(1, bound.limit // QUICK) if quick else bound.limit):
        return bound._replace(answers=answers, used=now)
    if bound.limit >= bound.too_much - 1 and now < bound.since + bound.patience:
        return bound._replace(answers=bound.limit, used=now)
    return bound._replace(limit=bound.limit + 1, answers=0, used=now) if bound.limit < MOST else None


SLOW = 1.5
"""So many times as late as usual is slow."""
LATE = 0.25
"""So many seconds later than usual are slow, at least."""
SURE, LARGE = 5.0, 1.0
"""How many standard errors away from chance it must be; the logarithm that is enough while little is known."""
WILD, SUDDEN = 1.4, 3.0
"""The logarithm of how much later, and how much sooner, than usual an answer is at most: one alone says little."""
LATELY = 1 / 8
"""The weight of the latest answer in what was lately."""
CHANCE = LATELY / (2 - LATELY)
"""The variance of such a mean, in those of one answer."""
LONG = 600.0
"""Seconds that what is usual looks back on."""
BEGINNING = 32
"""Answers of which each is looked at, as little is known yet."""
GUESSED, GUESSES = 0.3, 3.0
"""The spread that is taken for theirs before they are seen, in logarithms, and as how many it counts."""
TURN = 8
"""Attempts that end between two moments at which their pace is measured."""
GAP = 60.0
"""Seconds without an answer after which what was lately says nothing of now."""
CLEAR = 4.0
"""How many standard errors an effect must be, by the number of answers that are judged."""
WIDTH = 1.5
"""The standard deviation, as a multiple of the median distance from the median."""
FEWEST, ENOUGH, MOST_SEEN = 5, 12, 64
"""Answers that are judged at a time: at least; while it is not clear; at most."""
SOME_OF_IT, MOST_OF_IT = 0.5, 0.75
"""Shares of what is hoped for: it was a queue, if so much is gained; it clearly was."""
STEPS, MORE_STEPS = 2, 3
"""How many times fewer are sent before it is given up; where most of what is under way seems to wait."""
REST = 30.0
"""Seconds after a trial in vain until the next; twice as long each time."""
MOST_REST = 3600.0


class Begun(NamedTuple):
    """The first content of a stream came. Seconds; *started* and *now* monotonic."""

    size: int
    """Bytes of its prompt's text."""
    crowd: int
    """Attempts that were under way when it was sent, itself included."""
    started: float
    now: float


class Trial(NamedTuple):
    """Streams begin late. First it is made sure of, then fewer at a time are sent, to see whether they begin sooner."""

    before: Bound | None
    since: float
    seen: list[tuple[float, int]]
    """How late those began that count, in seconds, and how many were under way then."""
    steps: int = 0
    """How many times fewer were sent: 0 while it is made sure of."""
    limit: int = 0
    late: float = 0.0
    """How late they were before, how many were under way, and how many ended per second."""
    crowd: float = 0.0
    pace: float = 0.0


class Onset:
    """When the streams of one upstream begin, and whether that is late because of how many are under way.

    Usual is a time that grows with the prompt, fitted to the answers of the last ten minutes that were not late; the
    fewer were under way, the more an answer says of it. When streams begin more than half as late again as usual, and
    not by chance, fewer are sent: a trial. If they had stood in a queue there, each call that is missing from it saves
    the others the time in which one is answered. Where they do not begin sooner by about that, they are slow for
    another reason: the trial is undone, and what is usual is what they take now. So a slow day of a provider costs a
    short trial, by as many calls as would wait there if it were a queue.
    """

    __slots__ = (
        "_at",
        "_base",
        "_count",
        "_crowd",
        "_lately",
        "_marks",
        "_mean",
        "_next",
        "_per_byte",
        "_rest",
        "_seen",
        "_squares",
        "_sums",
        "_trial",
        "_variance",
    )

    def __init__(self) -> None:
        self._count = 0
        """Answers seen."""
        self._seen = self._squares = 0.0
        """The sum of the weights of those that made what is usual, and of the squares of these."""
        self._sums: tuple[float, ...] = (0.0,) * 5
        """Of the fit: weighted means of 1, size, seconds, size squared, size times seconds."""
        self._base = self._per_byte = 0.0
        """The fit: seconds without a prompt, and more for each byte of it."""
        self._mean, self._variance = 0.0, GUESSED * GUESSED
        """Of the logarithm of how many times as late as fitted."""
        self._crowd = 0.0
        """The mean of how many were under way."""
        self._lately = 0.0
        """How far above that mean the latest were."""
        self._at = 0.0
        self._marks: list[tuple[float, int]] = []
        """Two moments at most, and how many attempts had ended by then."""
        self._trial: Trial | None = None
        self._next = -REST
        self._rest = REST / 2

    @property
    def watchful(self) -> bool:
        """Whether every stream should be looked at: something is tried, or may have to be, or little is known yet."""
        return self._trial is not None or self._count < BEGINNING or self._lately > self._slow() / 2

    def trying(self, now: float) -> bool:
        """Whether it is being found out: no more at a time should be sent meanwhile."""
        return self._trial is not None and now <= self._at + GAP

    def observe(self, begun: Begun, bound: Bound | None, ended: int) -> Bound | None:
        """A stream began. *ended*: how many attempts have ended in all. What becomes of *bound*: itself, another, or
        None (it is forgotten)."""
        now, took = begun.now, max(begun.now - begun.started, 1e-3)
        if now > self._at + GAP:
            self._lately, self._trial = 0.0, None
            self._marks.clear()
        passed, self._at = now - self._at, now
        self._count += 1
        pace = self._pace(now, ended)
        fitted = self._base + self._per_byte * begun.size if self._base else took
        usual, trial = fitted * exp(self._mean), self._trial
        if trial is not None and trial.limit != (0 if bound is None or not trial.steps else bound.limit):
            trial = self._trial = None  # others decided otherwise
        if trial is not None:
            if begun.started > trial.since and (not trial.steps or begun.crowd < trial.crowd):
                trial.seen.append((took - usual, begun.crowd))
                return self._judged(trial, bound, usual, pace, now)
            return bound
        above = log(took / usual)
        if bound is None or begun.started > bound.since:
            self._lately += (max(-SUDDEN, min(above, WILD)) - self._lately) * LATELY
        self._learn(begun, above, fitted, passed, bound)
        if self._lately < -self._slow():
            self._rebase(exp(self._lately))
        elif self._lately > self._slow() and now >= self._next and begun.crowd > (FEW if bound is None else 1):
            self._trial = Trial(bound, -FOREVER if bound is None else bound.since, [])
        return bound

    def _slow(self) -> float:
        """How much later than usual, as a logarithm, the mean of the latest must be to be slow."""
        unsure = self._squares / (self._seen * self._seen) if self._seen else 1.0
        chance = SURE * sqrt(self._variance * CHANCE)
        return max(log(SLOW), chance, min(chance * sqrt(1 + unsure / CHANCE), LARGE))

    def _pace(self, now: float, ended: int) -> float:
        """How many attempts ended per second lately; 0 when nobody knows."""
        marks = self._marks
        if not marks or ended < marks[-1][1]:
            marks[:] = [(now, ended)]
        elif ended >= marks[-1][1] + TURN or now > marks[-1][0] + GAP:
            marks[:] = [marks[-1], (now, ended)]
        return max(((ended - then) / (now - when) for when, then in marks if now > when), default=0.0)

    def _learn(self, begun: Begun, above: float, fitted: float, passed: float, bound: Bound | None) -> None:
        """An answer was *above* what is usual. That is usual too, unless many are late, or more were under way than
        usual, who may have made it so; or half of *bound*."""
        share, old = 1.0 / min(begun.crowd, FEW + 1) ** 2, exp(-passed / LONG)
        self._crowd += share / (self._seen * old + share) * (begun.crowd - self._crowd)
        late = self._lately > self._slow() / 2 or begun.crowd > self._crowd + HALF
        if begun.crowd > HALF * bound.limit if bound is not None else late and begun.crowd > FEW:
            return
        self._seen = self._seen * old + share
        self._squares = self._squares * old * old + share * share
        weight = share / self._seen
        most = max(HALF, 3 * sqrt(self._variance))
        off = max(-most, min(above, most))
        took = fitted * exp(self._mean + off)
        self._mean += weight * off
        self._variance += weight / (1 + GUESSES * weight) * (off * off - self._variance)
        share = weight / (fitted * fitted)  # an error counts by its share of what was expected
        new = (1.0, begun.size, took, begun.size**2, begun.size * took)
        ones, sizes, seconds, squares, products = self._sums = tuple(
            (1 - weight) * old + share * each for old, each in zip(self._sums, new, strict=True)
        )
        spread = ones * squares - sizes * sizes
        slope = (ones * products - sizes * seconds) / spread if spread > 1e-3 * ones * squares else 0.0
        self._per_byte = slope = max(0.0, min(slope, seconds / sizes if sizes else 0.0))
        self._base = max((seconds - slope * sizes) / ones, 1e-3)

    def _rebase(self, times: float) -> None:
        """What is usual is *times* as long from now on."""
        ones, sizes, seconds, squares, products = self._sums
        self._sums = (ones, sizes, seconds * times, squares, products * times)
        self._base, self._per_byte = self._base * times, self._per_byte * times
        self._lately = 0.0

    def _judged(self, trial: Trial, bound: Bound | None, usual: float, pace: float, now: float) -> Bound | None:
        """What follows from what *trial* has seen so far."""
        late, crowd = (_median(each) for each in zip(*trial.seen, strict=True))
        above = log(max(1 + late / usual, 1e-3))
        if not trial.steps:
            if not self._enough(trial, max(late, HALF * usual), usual, clear=True):
                return bound
            return self._made_sure(trial, bound, late, crowd, above, pace, now)
        hoped, fall = min(max(trial.crowd - crowd, 0.0) / trial.pace, trial.late), trial.late - late
        if not self._enough(trial, hoped, usual, clear=fall >= MOST_OF_IT * hoped):
            return bound
        if fall >= SOME_OF_IT * hoped:
            self._trial, self._rest, self._lately = None, REST / 2, max(-WILD, min(above, WILD))
            return bound
        waiting = trial.late * trial.pace
        most = MORE_STEPS if waiting >= HALF * trial.crowd else STEPS
        if trial.steps < most and trial.limit > 1 and bound is not None:
            return self._fewer(trial, bound, trial.limit, waiting, now)
        self._trial = None
        self._rebase(exp(above))
        self._rest = min(2 * self._rest, MOST_REST) if now < self._next + MOST_REST else REST
        self._next = now + self._rest
        return trial.before

    def _made_sure(
        self, trial: Trial, bound: Bound | None, late: float, crowd: float, above: float, pace: float, now: float
    ) -> Bound | None:
        """Whether streams are late indeed; if so fewer are sent."""
        self._trial = None
        self._lately = max(-WILD, min(above, WILD))
        least = FEW + 1 if bound is None else max(2, HALF * bound.limit)
        if bound is None and (above < log(SLOW) or late < LATE):
            self._rebase(exp(above))
        if above < log(SLOW) or late < LATE or crowd < least or not pace:
            return bound
        trial = trial._replace(before=bound, late=late, crowd=crowd, pace=pace)
        return self._fewer(trial, bound, ceil(crowd), late * pace, now)

    def _fewer(self, trial: Trial, bound: Bound | None, crowd: int, waiting: float, now: float) -> Bound:
        after = slowed(bound, crowd, waiting, now)
        self._trial = trial._replace(since=now, seen=[], steps=trial.steps + 1, limit=after.limit)
        return after

    def _enough(self, trial: Trial, effect: float, usual: float, *, clear: bool) -> bool:
        """Whether as many were seen as tell an *effect*, in seconds, from chance."""
        middle = _median([late for late, _ in trial.seen])
        spread = max(WIDTH * _median([abs(late - middle) for late, _ in trial.seen]), sqrt(self._variance) * usual)
        least = CLEAR * spread / max(effect, 1e-3)
        return len(trial.seen) >= max(FEWEST if clear else ENOUGH, min(least * least, MOST_SEEN))


def _median(values: Sequence[float]) -> float:
    ordered, half = sorted(values), len(values) // 2
    return (ordered[half] + ordered[-half - 1]) / 2
