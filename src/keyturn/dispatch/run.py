"""What one call carries through dispatch: its plan, its bounds in time, what it has tried, and its trail."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from keyturn.config import model_variable
from keyturn.core import (
    FAULTS,
    Attempt,
    Call,
    Caller,
    CallerClass,
    Claim,
    Cost,
    Deployment,
    Entry,
    Limit,
    Meaning,
    Outcome,
    Plan,
    Pool,
    Progress,
    Request,
    ScopeKey,
    Trail,
)
from keyturn.errors import Untranslatable
from keyturn.stores import Pending, Reservation
from keyturn.wire import SHORTEST_CACHED, conversation_of

from .strain import class_of

if TYPE_CHECKING:
    from .continuing import Seam
    from .generation import Generation
    from .recording import Named
    from .switching import Awaited


NOBODY: frozenset[Deployment] = frozenset()


class Run:
    """One call under way. Times are monotonic seconds."""

    __slots__ = (
        "added",
        "awaited",
        "call",
        "caller",
        "came_back",
        "committed",
        "content_by",
        "conversation",
        "costs",
        "counted",
        "deadline",
        "defaults",
        "deployments",
        "finals",
        "first",
        "first_final",
        "generation",
        "hints",
        "inexpressible",
        "joint",
        "last",
        "last_asked",
        "neutral",
        "own",
        "patience",
        "paying",
        "place",
        "progress",
        "role",
        "seam",
        "started",
        "too_big",
        "trail",
        "unafforded",
        "unpriced",
        "weighed",
    )

    added: frozenset[Deployment]
    """Those that its name does not write out."""
    defaults: bool
    """It names no model: each provider is asked for its default."""
    hints: tuple[str, ...]
    """What its owner should set."""
    joint: bool
    """It answers several calls, each of which is recorded by itself."""
    counted: bool
    """It counts as a request of its caller: further attempts do not count again."""
    came_back: bool
    """It was told to come back at about this time, and did."""
    committed: bool
    """Its client was told 200 before anybody had answered."""
    last: Meaning
    """What its latest attempt that failed meant; `ok` before."""
    last_asked: ScopeKey | None
    """Which provider and endpoint that was."""
    unafforded: bool
    """A second try would have been worth while, but the budget of its provider is spent."""
    seam: Seam | None
    """Where its answer was cut, once somebody else is to go on with it."""
    paying: bool
    """One of them is a budget: prices matter."""
    role: str
    """The role whose budget pays."""
    finals: frozenset[Deployment]
    """The deployments that gave an answer that is final for them."""
    first: frozenset[Deployment]
    """The first choice of the plan: who else answers is a fallback."""

    def __init__(self, call: Call, caller: Caller, trail: Trail, generation: Generation) -> None:
        self.call = call
        self.caller = caller
        self.trail = trail
        self.generation = generation
        timeouts = generation.config.timeouts
        self.started = trail.started
        stated = call.timeout
        total = timeouts.total
        self.deadline = self.started + (min(total, stated) if stated else total)
        self.content_by = self.started + (timeouts.to_content or total)
        """`GLOBAL_TIMEOUT`: by then the first content must have come."""
        self.conversation: tuple[int, bool] | None = None
        """Its number, and whether somebody may hold its prompt cache."""
        self.weighed = False
        """Whether to wait for who does was decided."""
        self.awaited: Awaited | None = None
        """What it has waited for so."""
        if call.text_bytes >= SHORTEST_CACHED:
            self._recognise()
        self.patience = timeouts.queue_wait if stated is None else stated
        """Seconds that the call may spend waiting for credentials, all its waits together."""
        if (caller.rank == "batch" or call.stated_class) and stated is None and self.rank == "batch":
            self.patience = generation.config.waiting.batch_wait
        self.deployments: tuple[Deployment, ...] = ()
        self.added = NOBODY
        self.defaults = False
        self.hints = ()
        self.first = NOBODY
        self.own: tuple[Limit, ...] = caller.limits
        """Limits of the caller and of the role, reserved with the candidate's."""
        self.joint = False
        self.counted = False
        self.paying = False
        self.role = ""
        self.place: int | None = None
        """Its place among those who wait, once it has waited: who was called in vain stands where it stood."""
        self.came_back = self.committed = False
        self.unpriced: frozenset[Deployment] = NOBODY
        """Deployments that a budget cannot cover, as nobody knows what they cost."""
        self.costs: dict[Deployment, Cost] = {}
        self.progress = Progress()
        self.neutral: Request | None = None
        """The whole call in neutral form, once somebody of another dialect is asked."""
        self.inexpressible: dict[Deployment, Untranslatable] = {}
        """Deployments whose dialect cannot say what the call says."""
        self.too_big: Limit | None = None
        """A limit that even the least this call can cost exceeds."""
        self.first_final: Failed | None = None
        """The first answer that is final for its deployment, handed back when all say so."""
        self.last = "ok"
        self.last_asked = None
        self.unafforded = False
        self.seam = None
        self.finals = NOBODY

    def _recognise(self) -> None:
        if self.call.text_bytes >= SHORTEST_CACHED and self.generation.config.modes.stickiness:
            self.conversation = conversation_of(self.call, self.caller.name)

    def go_on(self, call: Call) -> None:
        """It goes on from earlier turns, which *call* holds too."""
        self.call = call
        self._recognise()

    @property
    def rank(self) -> CallerClass:
        """Its class: its caller's, unless it asks for a lower one itself."""
        return class_of(self.caller, self.call.stated_class)

    @property
    def hindered(self) -> bool:
        """There are candidates that others may use and it may not: it has tried them."""
        return self.progress.attempts > 0 or bool(self.progress.tried)

    def wait_until(self, now: float) -> float:
        """Until when a wait that begins at *now* may last."""
        return min(now + self.patience - self.trail.waited, self.deadline, self.content_by)

    def planned(self, plan: Plan, generation: Generation) -> None:
        """The steps to take by *generation* are known; also when others were planned before, and nothing was sent."""
        if generation is not self.generation:
            self.generation, self.own, self.first = generation, self.caller.limits, NOBODY
            self.role = ""
            self.costs.clear()
            self.unpriced = NOBODY
            self.inexpressible.clear()
            self.trail.refusals.clear()
            self.progress = Progress()
            self.too_big = None
        trail = self.trail
        self.deployments = trail.plan = plan.deployments
        self.first = plan.primary or NOBODY
        self.added, self.defaults = plan.added, plan.defaults
        trail.planned, trail.ordered = plan.deployments[0].provider, plan.strategy
        trail.bounds = (self.deadline, self.content_by, self.patience)
        if plan.role is not None and plan.role.budget is not None:
            self.own = (*self.own, plan.role.budget)
            self.role = plan.role.budget.scope.partition("/")[2]
        self.paying = any(limit.metric == "cost" for limit in self.own) if self.own else False
        if plan.refusals:
            trail.refusals.extend(plan.refusals)

    def cannot_ask(self, deployment: Deployment, error: Untranslatable) -> None:
        """*deployment* speaks a dialect that cannot say what the call says."""
        self.inexpressible[deployment] = error
        self.progress.closed |= {deployment}
        self.trail.refusals.append(f"{deployment}: {error.message}")

    def remember(self, failed: Failed) -> None:
        """Keep the first of the answers that no other key of the same deployment would change."""
        outcome = failed.outcome
        if self.defaults and outcome.meaning == "not_found":
            provider, model = failed.entry.candidate.deployment
            variable = model_variable(self.generation.config.providers[provider], self.call.kind)
            hint = f"{provider} has no {model}, its default model: set {variable} to one that it has"
            self.hints += (hint,)
            self.trail.notes.append(hint)
        if outcome.try_other_key or outcome.scope == "provider" or outcome.meaning in FAULTS or not failed.body:
            return
        self.finals |= {failed.entry.candidate.deployment}
        if self.first_final is None:
            self.first_final = failed


class Grant:
    """An entry that was picked, with the reservation of its attempt. `close` gives it back unused."""

    __slots__ = ("_open", "_over", "attempt", "begun", "budget", "entry", "pending", "pool", "reservation", "sent")

    def __init__(
        self,
        over: Callable[[Attempt], None],
        pool: Pool,
        entry: Entry,
        attempt: Attempt,
        reservation: Reservation | Pending,
        budget: Claim | None = None,
    ) -> None:
        self._over = over
        self._open = True
        self.pool = pool
        self.entry = entry
        self.attempt = attempt
        self.reservation = reservation
        self.pending = not isinstance(reservation, Reservation)
        """A shared store has still to say whether it is granted."""
        self.budget = budget
        """What the attempt takes of a budget, if one applies."""
        self.sent = False
        """The whole request is on its way: what it reserved counts."""
        self.begun: tuple[int, Named] | None = None
        """When its attempt began, Unix milliseconds, and what its record shares with others, once that is written."""

    @property
    def open(self) -> bool:
        return self._open

    def shut(self) -> bool:
        """Mark as over; True the first time."""
        was, self._open = self._open, False
        return was

    def close(self) -> None:
        """Nothing was sent: give everything back."""
        if self.shut():
            self.reservation.close()
            self.pool.done(self.entry)
            self._over(self.attempt)


class Failed(NamedTuple):
    """An attempt that gave no answer to relay: its outcome, and the upstream's answer where there was one."""

    entry: Entry
    outcome: Outcome
    status: int
    content_type: str
    body: bytes
    dialect: str = "openai_chat"
    """Of the upstream."""
