"""The credential state machine: what marks restrict, and how outcomes change them, by the cooldown tables.

Two rules for this file. A *mark* says that something may not be used until a moment, and why; nothing else restricts a
candidate. Every change of a mark is a `Transition` that `judge` returns and `Marks.apply` performs; nothing else
changes a mark.

A mark sits on one of six scopes, and a candidate obeys all of its six, the most restrictive first:

    key          the credential                       invalid keys, 401, disabled by the owner
    group        its quota group                      no credit
    group_model  quota group and model                429, day quota
    key_model    credential and model                 forbidden, 5xx, timeouts, unknown answers
    deployment   provider and model                   overload, faults that every credential sees
    provider     provider and endpoint                an outage: its breaker is open

A seventh, `absent`, says that a deployment answered "no such model": chains leave it out, a direct call is still sent.

States and how they are left:

    cooling      ── time ──▶ probation     one real request at a time probes
    exhausted    ── time ──▶ probation     day quota or credit; never probed earlier
    unentitled   ── time ──▶ probation     not offered to this credential
    invalid      ── time ──▶ probation     after 24 h; also by `keys reset` or a new value
    disabled     ── owner only
    probation    ── success ──▶ (no mark)  ── fault ──▶ cooling, one step longer
    counting     faults in a row, not yet enough for a cooldown; restricts nothing

An outage has one owner. While a provider is marked, its faults (5xx, timeout, overload) belong to its breaker alone:
`judge` marks nothing for them, and what they had marked before is taken off when the breaker opens. So it is the
breaker that says how soon a request may probe, whatever longer rests single keys had collected. Only the breaker sets,
lengthens and clears that mark.

A running cooldown is never shortened. A success clears a mark only when its attempt began after the mark was set; a
fault of an attempt that began before may lengthen a mark, never raise its step. So a burst of failures that were in
flight together counts once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, NamedTuple, get_args

from .cooldowns import DAY, FOREVER, TABLE, Row, ScopeKind, State, Table
from .lasting import LONGEST, KeptFaults, KeptMark, left_of, moment
from .model import Candidate, Credential, Deployment, Draw, Meaning
from .outcome import Outcome

Block = Literal["limit", "busy", "fault", "dead"]
ScopeKey = tuple[str, ...]

MOST_MARKS = 4096
"""From so many marks on, old ones are let go."""
REMEMBERED = 3600.0
"""Seconds after its end that a mark still counts for the next step, when there are many."""
BRIEF = 5.0
"""Seconds of a cooldown that no restart needs to find."""
STATES: Mapping[str, State] = {name: name for name in get_args(State) if name not in ("counting", "disabled")}
"""Those that outlive a process."""
SHARED = ("deployment", "absent", "provider")
"""Kinds of scopes that belong to no credential and to no quota group."""
OUTAGE: frozenset[Meaning] = frozenset({"server_error", "timeout", "overloaded"})
"""What an outage is made of: faults of the upstream, whoever asks."""
MASS_401_WINDOW = 60.0
MASS_401_LENGTH = 300.0
NO_BOUNDS: Mapping[str, float] = MappingProxyType({})


BLOCKS: dict[str, Block] = {
    "rate_limited": "limit",
    "daily_quota": "limit",
    "custom_cap": "limit",
    "overloaded": "fault",
    "server_error": "fault",
    "timeout": "fault",
    "unknown": "fault",
    "outage": "fault",
}
"""What a mark with this reason means for the caller; every other reason is `dead`."""


@dataclass(slots=True)
class Mark:
    """Why something may not be used, and until when (monotonic seconds)."""

    scope: ScopeKey
    state: State
    until: float
    reason: str
    strikes: int
    since: float
    width: int = 1
    """How many may probe at a time."""
    probes: set[str] = field(default_factory=set)
    """The attempts that are probing."""

    @property
    def probe(self) -> str | None:
        """An attempt that is probing, while as many do as may: until it ends nothing else may pass."""
        return next(iter(self.probes)) if len(self.probes) >= self.width else None

    @property
    def block(self) -> Block:
        return BLOCKS.get(self.reason, "dead")

    def wait(self, now: float) -> float:
        """Seconds until it may be passed; infinite while a probe is out, whose end wakes whoever waits."""
        return self.until - now if self.until > now else FOREVER


class Transition(NamedTuple):
    """One change of one mark. *state* None clears it."""

    scope: ScopeKey
    state: State | None
    until: float = 0.0
    reason: str = ""
    strikes: int = 0
    since: float = 0.0
    shorten: bool = False
    """The one exception to "never shortened": a mass of 401 turned out to be the provider's fault."""
    started: float = FOREVER
    """Of a clear: when the attempt that succeeded began. A mark that another gateway set since then stays."""
    width: int = 1
    """How many may probe at a time once it is over."""


class Verdict(NamedTuple):
    """What `judge` decided: the transitions, and a sentence for the owner when something is alarming."""

    transitions: list[Transition]
    alarm: str = ""


def scopes_of(candidate: Candidate, counted: str = "", endpoint: str = "") -> tuple[ScopeKey, ...]:
    """The six scopes that a candidate obeys: key, group, group_model, key_model, deployment, provider.

    *counted*: what the model's use is counted as when several models share a quota; they then cool together.
    *endpoint*: which of the provider's endpoints serves the model, where it has several.
    """
    (provider, model), credential = candidate
    mark, group = credential.fingerprint, credential.group
    return (
        ("key", provider, mark),
        ("group", provider, group),
        ("group_model", provider, group, counted or model),
        ("key_model", provider, mark, model),
        ("deployment", provider, model),
        ("provider", provider, endpoint),
    )


def absent_scope(deployment: Deployment) -> ScopeKey:
    """The scope of "this model does not exist there"."""
    return ("absent", deployment.provider, deployment.model)


def key_scope(credential: Credential) -> ScopeKey:
    """The scope of the credential itself."""
    return ("key", credential.provider, credential.fingerprint)


class Marks:
    """All marks of one process. Mutable and deterministic; `now` is monotonic seconds."""

    __slots__ = ("_crowded", "_failing", "_probes", "_table", "_unauthorised", "touched")

    def __init__(self) -> None:
        self.touched: set[ScopeKey] | None = None
        """The scopes whose marks were set, changed or cleared, for who wants to know and empties it; None: nobody."""
        self._table: dict[ScopeKey, Mark] = {}
        self._crowded = MOST_MARKS
        self._probes: dict[str, list[Mark]] = {}
        self._failing: dict[ScopeKey, list[str]] = {}
        """Per deployment: the credentials of its latest faults with no success between, latest last."""
        self._unauthorised: dict[str, dict[str, float]] = {}
        """Per provider: when each credential last answered 401."""

    def __bool__(self) -> bool:
        """Whether there is anything that a success would clear."""
        return bool(self._table or self._failing)

    def get(self, scope: ScopeKey) -> Mark | None:
        return self._table.get(scope)

    def stand(self, scopes: Iterable[ScopeKey]) -> bool:
        """Whether there is a mark on any of *scopes*, whatever it says."""
        return not self._table.keys().isdisjoint(scopes)

    def unmarked(self) -> Callable[[Iterable[ScopeKey]], bool]:
        """To ask of many scopes at one moment: whether there is no mark on any of them, whatever it would say."""
        return self._table.keys().isdisjoint

    def blocked(self, scopes: Collection[ScopeKey], now: float) -> Mark | None:
        """The mark that forbids a candidate with these scopes, the latest to end; None when it may be used."""
        table = self._table
        if not table or table.keys().isdisjoint(scopes):
            return None
        worst: Mark | None = None
        for scope in scopes:
            mark = table.get(scope)
            if mark is None or mark.state == "counting" or (mark.until <= now and mark.probe is None):
                continue
            if worst is None or mark.wait(now) > worst.wait(now):
                worst = mark
        return worst

    def begin(self, scopes: Iterable[ScopeKey], attempt: str, now: float) -> None:
        """An attempt starts: it becomes the probe of every mark of its scopes whose time is up."""
        if not self._table or not self.stand(scopes):
            return
        for scope in scopes:
            mark = self._table.get(scope)
            if mark is not None and mark.state != "counting" and len(mark.probes) < mark.width:
                mark.probes.add(attempt)
                self._probes.setdefault(attempt, []).append(mark)

    def end(self, attempt: str) -> list[ScopeKey]:
        """An attempt is over without a verdict of its own on these marks: the next request may probe."""
        freed: list[ScopeKey] = []
        if not self._probes:
            return freed
        for mark in self._probes.pop(attempt, ()):
            if attempt in mark.probes:
                mark.probes.discard(attempt)
                freed.append(mark.scope)
        return freed

    def apply(self, change: Transition) -> bool:
        """Perform *change*. True when whoever the mark kept away should look again."""
        mark = self._table.get(change.scope)
        if self.touched is not None:
            self.touched.add(change.scope)
        if change.state is None:
            self._failing.pop(change.scope, None)
            return self._table.pop(change.scope, None) is not None
        if mark is None:
            if len(self._table) >= self._crowded:
                self._prune(change.since)
            self._table[change.scope] = Mark(
                change.scope, change.state, change.until, change.reason, change.strikes, change.since
            )
            return False
        mark.strikes = change.strikes
        if change.shorten or change.until >= mark.until or mark.state == "counting":
            mark.state, mark.until, mark.reason = change.state, change.until, change.reason
        mark.since = max(mark.since, change.since)
        probed, mark.width = bool(mark.probes), change.width
        mark.probes.clear()
        return probed or change.shorten

    def _prune(self, now: float) -> None:
        """Forget what restricts nothing any more: models come from clients, and must not fill the memory."""
        for scope, mark in list(self._table.items()):
            if mark.until <= now - REMEMBERED and not mark.probes:
                del self._table[scope]
                if self.touched is not None:
                    self.touched.add(scope)
        self._crowded = max(MOST_MARKS, 2 * len(self._table))

    def keep(
        self, fingerprints: Collection[str], groups: Collection[str], recapped: Collection[str] = ()
    ) -> list[ScopeKey]:
        """The configuration changed: forget what stands against credentials and quota groups that are gone, what holds
        until it changes, and the rests after custom caps of the providers *recapped*, whose caps are others now. The
        scopes that were freed; what the owner disabled stays so.
        """
        freed = []
        for scope, mark in list(self._table.items()):
            if mark.state == "disabled":
                continue
            kind, owner = scope[0], scope[2]
            gone = owner not in (groups if kind.startswith("group") else fingerprints)
            over = mark.until == FOREVER or (mark.reason == "custom_cap" and scope[1] in recapped)
            if over or (gone and kind not in SHARED):
                del self._table[scope]
                if self.touched is not None:
                    self.touched.add(scope)
                if mark.state != "counting":
                    freed.append(scope)
        return freed

    def kept(self, scope: ScopeKey, now: float, offset: float) -> KeptMark | None:
        """The mark on *scope* as a restart is to find it, with moments *offset* later; None when it need not: it is of
        a few seconds, has long been over, only counts, or is the owner's own, which is kept elsewhere."""
        mark = self._table.get(scope)
        if mark is None or mark.state in ("counting", "disabled") or mark.until <= now - REMEMBERED:
            return None
        if mark.until - now <= BRIEF and mark.until - mark.since <= BRIEF and mark.reason != "custom_cap":
            return None
        until = moment(mark.until, offset)
        return KeptMark(scope, mark.state, until, mark.reason, mark.strikes, mark.since + offset)

    def dump(self, now: float, offset: float) -> list[KeptMark]:
        """All that `kept` keeps."""
        found = (self.kept(scope, now, offset) for scope in self._table)
        return [each for each in found if each is not None]

    def faults(self) -> list[KeptFaults]:
        """The faults in a row of every deployment."""
        return [KeptFaults(scope, credentials) for scope, credentials in self._failing.items()]

    def restore(
        self, marks: Iterable[KeptMark], now: float, offset: float, faults: Iterable[KeptFaults] = ()
    ) -> list[ScopeKey]:
        """Take over what an earlier process knew; what is marked here already stays as it is. The scopes that are
        marked by it.

        Nothing lasts longer than it had left, an invalid key and what was to last until the configuration changes no
        longer than a day.
        """
        taken = []
        for each in marks:
            state, scope = STATES.get(each.state), tuple(each.scope)
            if state is None or len(scope) < 3 or scope in self._table:
                continue
            until = left_of(each.until, offset, now, DAY if state == "invalid" else LONGEST)
            if until > now - REMEMBERED:
                since = min(each.since - offset, until if each.reason == "custom_cap" else now)
                self._table[scope] = Mark(scope, state, until, each.reason, each.strikes, since)
                taken.append(scope)
        for row in faults:
            self._failing.setdefault(tuple(row.scope), row.credentials[-8:])
        return taken

    def of(self, provider: str, *, counting: bool = False) -> list[Mark]:
        """Every mark of *provider* that is or was a restriction; with *counting* also those that only count faults."""
        marks = [mark for mark in self._table.values() if mark.scope[1] == provider]
        return marks if counting else [mark for mark in marks if mark.state != "counting"]

    def every(self) -> list[Mark]:
        """Every mark that is or was a restriction."""
        return [mark for mark in self._table.values() if mark.state != "counting"]

    def failed(self, deployment: ScopeKey, credential: str) -> list[str]:
        """Remember a fault of *credential* on *deployment*; the faults in a row there, this one last."""
        row = self._failing.setdefault(deployment, [])
        row.append(credential)
        del row[:-8]
        if len(self._failing) > MOST_MARKS:
            del self._failing[next(iter(self._failing))]
        return row

    def failing(self, deployment: ScopeKey) -> bool:
        """Whether *deployment* had faults since its last success."""
        return deployment in self._failing

    def unauthorised(self, provider: str, credential: str, now: float) -> list[str]:
        """Remember a 401; the provider's credentials that answered 401 within the last minute."""
        seen = self._unauthorised.setdefault(provider, {})
        seen[credential] = now
        for old in [name for name, when in seen.items() if now - when > MASS_401_WINDOW]:
            del seen[old]
        return list(seen)


class Report(NamedTuple):
    """What `judge` is told about one finished attempt. Times are monotonic seconds."""

    candidate: Candidate
    scopes: tuple[ScopeKey, ...]
    outcome: Outcome
    started: float
    now: float
    siblings: int
    """How many credentials the provider has here."""
    in_chain: bool = False
    """Other deployments were planned for the call: only then is an absent model remembered."""
    reset_in: float | None = None
    """Seconds to the reset of the provider's day quotas, by its catalog row."""
    first_step: float | None = None
    """`rotation.cooldown_seconds`: the first step of the minute row; later steps are never shorter."""
    table: Table = TABLE
    """That of the cooldown profile."""
    longest: Mapping[str, float] = NO_BOUNDS
    """Meaning -> seconds that a cooldown may last at most, whoever says more; `server_error` stands for every fault."""


SUCCESSES: frozenset[Meaning] = frozenset({"ok"})
INNOCENT: frozenset[Meaning] = frozenset({"bad_request", "content_filter", "context_length"})


def judge(marks: Marks, report: Report, draw: Draw) -> Verdict:
    """The transitions that one outcome causes, by the report's table; the provider's own word comes first."""
    outcome = report.outcome
    if outcome.meaning in SUCCESSES:
        return Verdict(cleared(marks, report.scopes, report.started))
    if outcome.meaning in INNOCENT or (outcome.scope == "request" and outcome.meaning not in ("timeout", "unknown")):
        return Verdict([])
    if outcome.meaning == "not_found" and not report.in_chain:
        return Verdict([])
    if outcome.meaning in OUTAGE and marks.get(report.scopes[-1]) is not None:
        return Verdict([])  # its breaker's
    theirs = outcome.scope == "provider" and outcome.meaning in ("invalid_key", "insufficient_credit")
    if theirs or outcome.meaning in ("server_error", "timeout"):  # an aggregator's own key or purse is not ours
        return Verdict([_fault(marks, report, draw)])
    if outcome.meaning == "invalid_key":
        return _unauthorised(marks, report, draw)
    row = report.table["no_quota" if outcome.no_quota else outcome.meaning]
    scope_kind = "deployment" if outcome.meaning == "rate_limited" and outcome.scope == "provider" else row.scope
    return Verdict([_step(marks, _scope(report, scope_kind), row, report, draw)])


def cleared(marks: Marks, scopes: tuple[ScopeKey, ...], started: float) -> list[Transition]:
    """The transitions that a success of a candidate with *scopes* causes, which was sent at *started*."""
    deployment = scopes[-2]
    every = (*scopes, ("absent", *deployment[1:]))
    found: list[Transition] = []
    if not marks.stand(every) and not marks.failing(deployment):
        return found
    for scope in every:
        mark = marks.get(scope) if scope[0] != "provider" else None
        if mark is None:
            if scope[0] == "deployment" and marks.failing(scope):
                found.append(Transition(scope, None, started=started))
        elif mark.state != "disabled" and started >= mark.since:
            found.append(Transition(scope, None, started=started))
    return found


def _scope(report: Report, kind: ScopeKind) -> ScopeKey:
    if kind == "absent":
        return absent_scope(report.candidate.deployment)
    return next(scope for scope in report.scopes if scope[0] == kind)


def _step(marks: Marks, scope: ScopeKey, row: Row, report: Report, draw: Draw, least: int = 1) -> Transition:
    """The next step of *row* on *scope*, from step *least* on; the provider's own wait wins over the step's length, and
    the bound of the report over both."""
    mark = marks.get(scope)
    before = mark.strikes if mark is not None else 0
    late = mark is not None and report.started < mark.since
    count = max(least, before if late else before + 1)
    stated = report.outcome.wait_s
    if stated is None and row.to_reset:
        stated = report.reset_in
    if stated is not None:
        length = stated + draw() * min(1.0, stated * 0.05)
    else:
        length = row.steps[min(count, len(row.steps)) - 1]
        first = report.first_step
        if first is not None and row is report.table["rate_limited"]:
            length = first if count == 1 else max(length, first)
        if row.jitter:
            length += draw() * length * row.jitter
    if report.longest:
        fault = row is report.table["server_error"]
        length = min(length, report.longest.get("server_error" if fault else report.outcome.meaning, FOREVER))
    since = mark.since if late and mark is not None else report.now
    state = row.state if length > 0 else "counting"
    return Transition(scope, state, report.now + length, report.outcome.meaning, count, since)


def _fault(marks: Marks, report: Report, draw: Draw) -> Transition:
    """5xx, timeouts, transport: the credential's, or the whole deployment's when every credential sees it."""
    deployment, row = _scope(report, "deployment"), report.table["server_error"]
    failed = marks.failed(deployment, report.candidate.credential.fingerprint)
    if report.siblings == 1:
        return _step(marks, deployment, row, report, draw)
    if len(failed) >= 3 and len(set(failed[-3:])) == 3:
        return _step(marks, deployment, row, report, draw, least=row.first)
    return _step(marks, _scope(report, "key_model"), row, report, draw)


def _unauthorised(marks: Marks, report: Report, draw: Draw) -> Verdict:
    credential, now = report.candidate.credential, report.now
    row = report.table["invalid_key" if report.outcome.explicit else "unclear_401"]
    if report.outcome.status != 401:
        return Verdict([_step(marks, _scope(report, "key"), row, report, draw)])
    recent = marks.unauthorised(credential.provider, credential.fingerprint, now)
    if len(recent) < 3 or len(recent) * 2 <= report.siblings:
        return Verdict([_step(marks, _scope(report, "key"), row, report, draw)])
    changes = [_step(marks, _scope(report, "key"), report.table["mass_401"], report, draw)]
    for other in recent:
        mark = marks.get(("key", credential.provider, other))
        if mark is not None and mark.state == "invalid" and now - mark.since <= MASS_401_WINDOW:
            until = mark.since + MASS_401_LENGTH
            changes.append(
                Transition(mark.scope, "cooling", until, "invalid_key", mark.strikes, mark.since, shorten=True)
            )
    alarm = (
        f"{len(recent)} of {report.siblings} {credential.provider} keys answered 401 within a minute: treated as a "
        "fault of the provider, the keys rest for 5 minutes"
    )
    return Verdict(changes, alarm)


def model_scope(deployment: Deployment, group: str, counted: str = "") -> str:
    """The name under which the limits of one quota group and model are counted; *counted*: see `scopes_of`."""
    return f"{deployment.provider}/{group}|{counted or deployment.model}"


def credential_scope(credential: Credential) -> str:
    """The name under which the limits of one credential over all its models are counted."""
    return f"{credential.provider}/{credential.fingerprint}"
