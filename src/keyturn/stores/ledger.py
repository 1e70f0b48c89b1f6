"""The shape of the ledger, the durable record of calls: what is written, what is asked, and the one that keeps nothing.

An attempt is written twice, before its first byte is sent and when it is over, under one id: whatever is written again
changes nothing. A call is written once, when it is over. Times are Unix milliseconds, durations milliseconds, money
whole nano-dollars. No row holds a secret: keys are shown by label and fingerprint.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import msgspec

if TYPE_CHECKING:
    from .lines import Names, Shared

By = Literal["key", "caller", "model", "day", "call"]


class AttemptRow(msgspec.Struct, array_like=True, gc=False):
    """One attempt: kind `i`, about to be sent, what is held in place of what is used; or `f`, over."""

    kind: Literal["i", "f"]
    id: str
    call: str
    at: int
    """When it began."""
    caller: str
    route: str
    """The name that the client asked for."""
    role: str
    """The role whose budget pays; empty for none."""
    provider: str
    model: str
    key: str
    """`groq-2:9f3a1c`."""
    fingerprint: str
    tier: int
    resend: bool
    input: int
    """Of `i` and of `f` without exact usage: an estimate."""
    output: int
    charged: int
    """What budgets are charged: of `i` all that is held, of `f` what it came to."""
    meaning: str = ""
    """Of its outcome; empty while it runs."""
    status: int | None = None
    ms: float | None = None
    first_token_ms: float | None = None
    cached: int = 0
    written: int = 0
    reasoning: int = 0
    exact: bool = False
    cost: int | None = None
    """None: nobody knows the price. Of `i` what it is expected to cost, with a budget all that is held."""
    detail: str = ""


class CallRow(msgspec.Struct, array_like=True, gc=False):
    """One call, over: also one that was refused before anything was sent. Of one that its only attempt answered well,
    and of which there is nothing else to tell, none is written: the attempt says it all."""

    kind: Literal["c"]
    id: str
    at: int
    caller: str
    route: str
    status: int
    code: str
    """The error code; empty when it was served."""
    ms: float
    waited_ms: float
    attempts: int
    stream: bool
    refusals: Sequence[str] = ()
    notes: Sequence[str] = ()


class UsageQuery(NamedTuple):
    """What `keyturn usage` asks: sums of everything begun in [*since*, *until*), Unix milliseconds."""

    by: By
    since: int
    until: int
    most: int = 1000
    """Rows at most; of `call` the latest, also those without an attempt, of all others those with the most tokens."""
    name: str = ""
    """Only what is called this by *by*; empty: everything."""


class UsageRow(NamedTuple):
    """Sums over attempts that are over (or were given up at a crash, at what they held)."""

    name: str
    """`groq-2:9f3a1c`, the caller, `provider/model`, `2026-11-28` (UTC), or the call's id."""
    attempts: int
    failed: int
    """Of these, those without a good answer."""
    input: int
    cached: int
    output: int
    reasoning: int
    cost: int
    """Of the attempts whose price is known."""
    unpriced: int
    """Attempts with usage whose price is not known."""
    estimated: int
    """Attempts whose tokens are estimates."""


class CallStory(NamedTuple):
    """One call as it was recorded; *call* None: it is under way, or ended with a crash."""

    call: CallRow | None
    attempts: tuple[AttemptRow, ...]

    @classmethod
    def of(cls, call: CallRow | None, attempts: tuple[AttemptRow, ...]) -> CallStory:
        """The story of what was found: a single good attempt without a row of its call is all of the call."""
        if call is None and len(attempts) == 1 and attempts[0].meaning == "ok" and not attempts[0].resend:
            (only,) = attempts
            stream = only.first_token_ms is not None
            call = CallRow("c", only.call, only.at, only.caller, only.route, 200, "", only.ms or 0.0, 0.0, 1, stream)
        return cls(call, attempts)


class Standing(NamedTuple):
    """How a ledger is doing, for `/readyz`, `/metrics` and `stores check`."""

    store: Literal["none", "sqlite", "postgres"]
    writable: bool
    """False: the disk is full, or too much waits; calls without a budget go on unrecorded, all others are refused."""
    reachable: bool
    """False: the database is away, and rows wait in the data folder."""
    waiting_bytes: int
    """What waits to be written into the database."""
    lost: int
    """Rows that could not be recorded, since the start."""
    trouble: str = ""
    """What is wrong and what to do about it; empty while all is well."""
    recorded: int = 0
    """Rows that were recorded, since the start."""


@dataclass(frozen=True, slots=True)
class Keeping:
    """How long things are kept, and what must be certain."""

    keep_days: float = 90.0
    responses_days: float = 30.0
    durable: bool = False
    """A line is safe on the disk, not only in the kernel, before its request is sent."""
    budgeted: bool = True
    """Somebody has a budget, so that what was spent must be known before the first call."""


class Ledger(Protocol):
    """Records calls. `intend`, `finish` and `ended` never block and never raise but as they say.

    An attempt is given as the JSON line of its row, with its newline. Who gives it may change it afterwards. In the
    place of what it shares with others it may have the number of that, which is then given beside it.
    """

    keeps: bool
    """False: nothing is kept, so that rows need not be made."""

    @property
    def sink(self) -> Sink | None:
        """The database behind it, for who keeps house; None: nothing is kept."""
        ...

    async def open(self) -> None:
        """Ready the store: migrate it, take in what an earlier process left behind. Raises StoreError."""
        ...

    def intend(self, line: bytes | bytearray, shared: Shared | None = None, *, paying: bool) -> Awaitable[None] | None:
        """An attempt is about to be sent. What is returned is done before a byte is; None: it is on record.

        Raises LimiterUnavailable when it cannot be recorded and a budget depends on it (*paying*).
        """
        ...

    def finish(self, line: bytes | bytearray, shared: Shared | None = None) -> None:
        """An attempt is over. May be called while a task is being cancelled."""
        ...

    def ended(self, row: CallRow) -> None:
        """A call is over."""
        ...

    async def flush(self) -> None:
        """Return when all that was recorded so far can be asked for."""
        ...

    async def spent(self, month: str) -> Mapping[str, int]:
        """`caller/<name>` and `role/<name>` -> nano-dollars charged in *month* (`2026-11`, UTC), what is held by
        attempts under way included."""
        ...

    async def add_spent(self, month: str, spent: Mapping[str, int], source: str) -> None:
        """Take over what was spent before there was a ledger; the same *source* again changes nothing. Raises
        StoreError."""
        ...

    async def usage(self, query: UsageQuery) -> Sequence[UsageRow]: ...

    async def story(self, call: str) -> CallStory | None:
        """One call by its id, None when it is not known."""
        ...

    async def prune(self, keep_days: float) -> int:
        """Drop single calls older than *keep_days*; their sums stay. How many rows went. Raises StoreError."""
        ...

    def standing(self) -> Standing: ...

    async def close(self) -> None:
        """Write what is left to write, as far as possible, and let go."""
        ...

    def abandon(self) -> None:
        """Let go where there is no loop to `close` on: what was recorded is written down, for the next start."""
        ...


class NullLedger:
    """Keeps nothing."""

    keeps = False
    sink = None

    async def open(self) -> None:
        return None

    def intend(self, line: bytes | bytearray, shared: Shared | None = None, *, paying: bool) -> None:
        return None

    def finish(self, line: bytes | bytearray, shared: Shared | None = None) -> None:
        return None

    def ended(self, row: CallRow) -> None:
        return None

    async def flush(self) -> None:
        return None

    async def spent(self, month: str) -> Mapping[str, int]:
        return {}

    async def add_spent(self, month: str, spent: Mapping[str, int], source: str) -> None:
        return None

    async def usage(self, query: UsageQuery) -> Sequence[UsageRow]:
        return ()

    async def story(self, call: str) -> CallStory | None:
        return None

    async def prune(self, keep_days: float) -> int:
        return 0

    def standing(self) -> Standing:
        return Standing("none", True, True, 0, 0)

    async def close(self) -> None:
        return None

    def abandon(self) -> None:
        return None


class Sink(Protocol):
    """A database behind the journal. Every method may be called again after it failed; all raise StoreError.

    Only one process writes into a sink's rows of one *instance* (the data folder's own id) at a time.
    """

    name: Literal["sqlite", "postgres"]

    async def open(self) -> None:
        """Connect and migrate forward. A schema newer than this program is refused."""
        ...

    async def apply(self, lines: Sequence[bytes], instance: str, names: Names | None = None) -> None:
        """Take in lines of one file of a journal (JSON of AttemptRow and CallRow), in one transaction, each at most
        once. *names*: what lines before them in that file told, to be kept for those that follow.

        An `i` never replaces an `f` of the same id.
        """
        ...

    async def give_up(self, instance: str, before: int) -> int:
        """Attempts of *instance* that began before this Unix millisecond and are not over: they count as they are
        held, as estimates, for their process is dead. How many there were."""
        ...

    async def add_spent(self, month: str, spent: Mapping[str, int], source: str) -> None:
        """Take over what was spent before there was a ledger; the same *source* again changes nothing."""
        ...

    async def spent(self, month: str) -> Mapping[str, int]: ...
    async def usage(self, query: UsageQuery) -> Sequence[UsageRow]: ...
    async def story(self, call: str) -> CallStory | None: ...

    async def keep_house(self, now: int, keep_days: float, responses_days: float) -> int:
        """Roll up what is complete, then drop single calls older than *keep_days*; how many rows went."""
        ...

    async def check(self) -> Sequence[str]:
        """What is wrong with the database, one sentence each."""
        ...

    async def outline(self) -> str:
        """What it is, for people: its schema, and how many attempts are under way."""
        ...

    async def backup(self, path: Path) -> None:
        """Write a copy to *path*, private, whole or not at all, while calls go on.

        Raises StoreError, also when *path* exists.
        """
        ...

    async def close(self) -> None: ...


class ResponseRow(NamedTuple):
    """One kept answer of the Responses API."""

    id: str
    caller: str
    at: int
    previous: str
    """The id of the one that it goes on from; empty for none."""
    input: bytes
    """Its own input items, a JSON array."""
    response: bytes
    """The response object, JSON."""


class Responses(Protocol):
    """Kept answers, in the same database as the ledger. All raise StoreError."""

    async def keep(self, row: ResponseRow) -> None: ...

    async def find(self, caller: str, id: str) -> ResponseRow | None:
        """Only *caller*'s own."""
        ...

    async def forget(self, caller: str, id: str) -> bool: ...
