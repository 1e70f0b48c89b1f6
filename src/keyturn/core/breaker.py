"""The breaker of one provider (and endpoint): when it is left alone, who may probe, and when it is in use again.

    closed   ── half of 20 attempts in 20 s were faults, or 5 in a row ──▶ open
    open     ── 5 s, then 7 s each time ──▶ one real request at a time probes
    probing  ── a fault ──▶ open     ── an answer ──▶ up to 8 at a time probe
             ── three answers ──▶ closed

A fault is what an outage is made of: a 5xx, a timeout, a lost connection, an overload. Refused keys, limits and
mistakes of clients say nothing of it and are not counted. Nor is a provider left alone because one of its models is
broken while another answers: that model rests by itself. Nor because of one or two broken keys, however many calls meet
them at one moment: the share of faults counts once three keys have met one, or all that could be asked. A key that a
probe finds failing rests then, so that the next probe asks another.

Of faults in a row each began after the one before it had failed, so that what broke at one moment counts once. Three
are enough when they are spread over more than ten seconds, as they are where the marks below let nothing but a probe
pass. But faults in a row count only of failures to connect, or while somebody waits for an answer: ten calls in 20 s
that would ask this provider first. Where fewer ask, the cooldown table is all that is needed.

The interval between two probes stays that short for as long as the outage lasts: so answers are back within seconds of
its end. A provider that itself asks to wait longer is obeyed, up to a minute: what it asks for one model is for that.

Between closed and open there is the throttle: while more than half of a provider's answers are faults, and too few for
the breaker, a growing share of calls leaves it alone, but for its models that work. What has not been answered, as it
is slow or its client left, says nothing by itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from typing import NamedTuple

from .cooldowns import FOREVER
from .credentials import OUTAGE, Mark, Marks, ScopeKey, Transition
from .model import Deployment, Draw

WINDOW = 20.0
"""Seconds that are looked back on."""
MOST_SEEN = 400
"""Attempts that are looked back on at most."""
ENOUGH = 20
"""Attempts of which the share of faults says anything."""
SHARE = 0.5
IN_A_ROW = 5
FEWER, SPREAD = 3, 10.0
"""As good as five in a row: so many over more than so many seconds."""
WANTED = 10
"""Calls within WINDOW that show that its return is waited for."""
CONNECT = frozenset({"dns", "refused", "unreachable", "tls", "connect_timeout"})
"""Codes of faults by which nothing was reached at all."""
STEPS = (5.0, 7.0)
"""Seconds that it stays open before a request may probe."""
JITTER = 0.5
"""Seconds that are added at random at most."""
WIDER = 8
"""Requests that may probe at a time once one was answered."""
PROOF = 3
"""Answers that close it."""
KEYS = 3
"""Keys that must have met faults, as far as there are others, before the share of faults counts."""
ASIDE = 30.0
"""Seconds that a key rests whose probe failed, if another can be asked: several probes' time."""
WORKS = 3
"""Answers by which a model shows that its provider works, when they are most of its attempts."""
LONGEST_STEP = 60.0
"""Seconds of the longest rest in the cooldown table: a longer one was asked for by the provider itself."""
REASON = "outage"


class Seen(NamedTuple):
    """One attempt that was answered or failed. Times are monotonic seconds."""

    deployment: Deployment
    started: float
    now: float
    stated: float | None = None
    """Seconds that the provider itself asks to wait."""
    code: str = ""
    """Of a fault without an answer: its kind."""
    key: str = ""
    """The fingerprint of the credential that was used."""


Others = Callable[[Collection[str]], bool]
"""Whether a key beside those with these fingerprints could be asked now."""


def nobody(beside: Collection[str]) -> bool:
    """Where a provider has one key only."""
    return False


class Breaker:
    """What one breaker looks back on. Whether it is open stands in the marks, which many gateways may share."""

    __slots__ = (
        "_answered",
        "_covers",
        "_failed_at",
        "_opened",
        "_proofs",
        "_rested",
        "_row",
        "_row_since",
        "_seen",
        "_unreached",
        "_wanted",
        "scope",
    )

    def __init__(self, scope: ScopeKey, covers: Callable[[str], bool] = lambda model: True) -> None:
        """*scope*: that of its mark. *covers*: whether it is the one for a model of its provider."""
        self.scope = scope
        self._covers = covers
        self._seen: deque[tuple[float, Deployment, str, bool]] = deque(maxlen=MOST_SEEN)
        """When each of the latest attempts ended, what it asked by which key, and whether it was a fault."""
        self._row = 0
        self._unreached = 0
        """How many of them, the latest ones, could not even connect."""
        self._row_since = self._failed_at = -FOREVER
        """When the first and the latest of the faults in a row ended."""
        self._wanted: deque[float] = deque(maxlen=WANTED)
        self._opened = -FOREVER
        self._proofs = 0
        self._answered: set[Deployment] = set()
        """What has answered since it opened."""
        self._rested: set[ScopeKey] = set()
        """Keys that rest since a probe of theirs failed."""

    def failed(
        self, marks: Marks, seen: Seen, draw: Draw, longest: float = FOREVER, others: Others = nobody
    ) -> list[Transition]:
        """An attempt met a fault: what follows for the marks. *longest*: seconds that it may stay open at most."""
        mark = marks.get(self.scope)
        if mark is not None:
            return self._not_yet(mark, seen, draw, longest, others)
        self._seen.append((seen.now, seen.deployment, seen.key, True))
        if seen.started > self._failed_at:
            self._row_since = self._row_since if self._row else seen.now
            self._row += 1
            self._unreached = self._unreached + 1 if seen.code in CONNECT else 0
            self._failed_at = seen.now
        if not self._row_says_so(seen.now) and not self._mostly_faults(seen.now, others):
            return []
        self._seen.clear()
        self._row = self._unreached = 0
        return [self._open(1, seen, draw, longest), *self._take_over(marks, seen.now)]

    def answered(self, marks: Marks, seen: Seen) -> list[Transition]:
        """An attempt was answered well."""
        self._row = self._unreached = 0
        mark = marks.get(self.scope)
        if mark is None:
            self._seen.append((seen.now, seen.deployment, seen.key, False))
            return []
        if seen.started <= mark.since:
            return []
        self._since(mark)
        self._answered.add(seen.deployment)
        self._proofs += 1
        if self._proofs >= PROOF:
            return [Transition(self.scope, None, started=seen.started), *self._let_go(seen.now)]
        if self._proofs > 1:
            return []
        return [Transition(self.scope, "cooling", mark.until, REASON, mark.strikes, mark.since, width=WIDER)]

    def forget(self) -> None:
        """Nothing of what was seen counts any more."""
        self._seen.clear()
        self._row = self._unreached = 0
        self._rested.clear()

    def wanted(self, now: float) -> None:
        """A call begins that would ask this provider first."""
        self._wanted.append(now)

    def works(self, deployment: Deployment, now: float) -> bool:
        """Whether *deployment* was mostly answered well of late, whatever its provider's other models do."""
        mine = [fault for ended, each, _, fault in self._seen if each == deployment and ended > now - SPELL]
        bad = sum(mine)
        return len(mine) - bad >= WORKS and len(mine) > 2 * bad

    def only_some_keys(self, now: float) -> bool:
        """Whether a few keys fail, while another was answered each time: others can have their calls."""
        failing: set[str] = set()
        answered: set[str] = set()
        for ended, _, key, fault in self._seen:
            if ended > now - SPELL:
                (failing if fault else answered).add(key)
        return 0 < len(failing) < KEYS and not answered <= failing

    def _row_says_so(self, now: float) -> bool:
        """Whether there were enough faults in a row."""
        if self._unreached >= IN_A_ROW:
            return True
        enough = self._row >= IN_A_ROW or (self._row >= FEWER and now > self._row_since + SPREAD)
        return enough and len(self._wanted) == WANTED and self._wanted[0] > now - WINDOW

    def _not_yet(self, mark: Mark, seen: Seen, draw: Draw, longest: float, others: Others) -> list[Transition]:
        """A fault while it is open: of a probe, or of what was under way when it opened."""
        if seen.started <= mark.since:
            return []
        self._since(mark)
        again = self._open(mark.strikes + 1, seen, draw, longest)
        if not self._answered or seen.deployment in self._answered:
            return [again, *self._aside(seen, longest, others)]
        # The provider works, this model of it does not: it rests first, so that not all who wait for it are let go.
        rest = again._replace(scope=("deployment", *seen.deployment), reason="server_error")
        return [rest, Transition(self.scope, None, started=seen.started), *self._let_go(seen.now)]

    def _aside(self, seen: Seen, longest: float, others: Others) -> list[Transition]:
        """The key whose probe failed rests, as it may be what is broken, if another can be asked instead."""
        if not seen.key or not others((seen.key,)):
            return []
        scope = ("key_model", seen.deployment.provider, seen.key, seen.deployment.model)
        self._rested.add(scope)
        return [Transition(scope, "cooling", seen.now + min(ASIDE, longest), REASON, 1, seen.now)]

    def _let_go(self, now: float) -> list[Transition]:
        """It is over: the keys of failed probes are as good as the others."""
        rested, self._rested = self._rested, set()
        return [Transition(scope, None, started=now) for scope in rested]

    def _open(self, step: int, seen: Seen, draw: Draw, longest: float) -> Transition:
        length = STEPS[min(step, len(STEPS)) - 1] + draw() * JITTER
        until = seen.now + min(max(length, min(seen.stated or 0.0, LONGEST_STEP)), longest)
        return Transition(self.scope, "cooling", until, REASON, step, seen.now)

    def _since(self, mark: Mark) -> None:
        if self._opened != mark.since:
            self._opened, self._proofs = mark.since, 0
            self._answered.clear()

    def _mostly_faults(self, now: float, others: Others) -> bool:
        """Whether most of the latest attempts were faults, those of no model were mostly answered, and it is not a few
        keys that fail."""
        models: dict[Deployment, list[int]] = {}
        keys: dict[str, list[int]] = {}
        total = faults = 0
        for ended, deployment, key, fault in self._seen:
            if ended > now - WINDOW:
                total += 1
                faults += fault
                models.setdefault(deployment, [0, 0])[fault] += 1
                keys.setdefault(key, [0, 0])[fault] += 1
        if total < ENOUGH or faults < SHARE * total:
            return False
        if any(good >= WORKS and good > bad for good, bad in models.values()):
            return False
        failing = [key for key, (_, bad) in keys.items() if bad]
        return len(failing) >= KEYS or not others(failing)

    def _take_over(self, marks: Marks, now: float) -> list[Transition]:
        """What the outage has marked below it is its own from now on."""
        provider = self.scope[1]
        scopes = [
            mark.scope
            for mark in marks.of(provider, counting=True)
            if mark.scope[0] in ("key_model", "deployment")
            and mark.reason in OUTAGE
            and mark.until - now <= LONGEST_STEP
        ]
        scopes += [row.scope for row in marks.faults() if row.scope[1] == provider]
        return [Transition(scope, None, started=now) for scope in dict.fromkeys(scopes) if self._covers(scope[-1])]


SPELL = 120.0
"""Seconds that the throttle looks back on."""
SLOT = 10.0
FAVOUR = 2.0
"""How many requests it allows for each that was answered."""


def rejected_share(requests: int, accepts: int) -> float:
    """The share of calls that leave a provider alone of which *accepts* of *requests* were no faults."""
    if requests < ENOUGH:
        return 0.0
    return max(0.0, (requests - FAVOUR * accepts) / (requests + 1))


class Throttle:
    """How many requests a provider was sent of late, counted when each begins, and how they were answered."""

    __slots__ = ("_slots",)

    def __init__(self) -> None:
        self._slots: deque[list[int]] = deque()
        """Number, requests, accepts, faults; the newest is last."""

    def began(self, now: float) -> None:
        """A request is sent."""
        self._slot(now)[1] += 1

    def accepted(self, now: float) -> None:
        """An answer came that is no fault."""
        self._slot(now)[2] += 1

    def failed(self, now: float) -> None:
        """A fault came."""
        self._slot(now)[3] += 1

    def share(self, now: float) -> float:
        """The share of calls that leave the provider alone."""
        requests, accepts, faults = self._sums(now)
        if faults < ENOUGH * SHARE or faults <= accepts:
            return 0.0
        return rejected_share(requests, accepts)

    def counts(self, now: float) -> tuple[int, int]:
        """How many of its answers were faults, and how many there were."""
        _, accepts, faults = self._sums(now)
        return faults, accepts + faults

    def _sums(self, now: float) -> tuple[int, int, int]:
        first = (now - SPELL) // SLOT
        recent = [slot for slot in self._slots if slot[0] >= first]
        return sum(slot[1] for slot in recent), sum(slot[2] for slot in recent), sum(slot[3] for slot in recent)

    def clear(self) -> None:
        """Begin anew: the breaker has opened."""
        self._slots.clear()

    def _slot(self, now: float) -> list[int]:
        number = int(now // SLOT)
        if not self._slots or self._slots[-1][0] != number:
            self._slots.append([number, 0, 0, 0])
            while self._slots[0][0] < (now - SPELL) // SLOT:
                self._slots.popleft()
        return self._slots[-1]
