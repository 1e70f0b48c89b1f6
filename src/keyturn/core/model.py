"""The values that every other room speaks in: secrets, credentials, deployments, calls, attempts, trails, clocks."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn, Protocol

import msgspec

from .limitbook import Limit
from .message import Usage

if TYPE_CHECKING:
    from .accounts import Account

Meaning = Literal[
    "rate_limited",
    "daily_quota",
    "insufficient_credit",
    "invalid_key",
    "forbidden",
    "not_found",
    "context_length",
    "content_filter",
    "bad_request",
    "overloaded",
    "server_error",
    "timeout",
    "ok",
    "unknown",
]
Scope = Literal["key", "quota_group", "model", "provider", "request"]
Kind = Literal["chat", "completions", "embeddings", "images", "audio", "moderations", "rerank", "count"]
"""What a call asks for. `completions` are the legacy ones; `count` counts the tokens of a prompt."""


NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Secret:
    """A value that cannot be printed, formatted, pickled or encoded; `reveal` is for header builders only."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself. Called where a header is built and where secrets are looked for to redact them."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "<secret>"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "<secret>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled or copied out of the process")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a Secret does not tell its state")


def fingerprint(provider: str, secret: str) -> str:
    """The identity of a secret: first 16 hex digits of SHA-256(`keyturn:` + provider + `:` + secret)."""
    return hashlib.sha256(f"keyturn:{provider}:{secret}".encode()).hexdigest()[:16]


class TokenSource(Protocol):
    """Where the short-lived secret of a credential comes from. Of one event loop."""

    latest: Secret
    """The token that was got last, whether or not it still holds; empty at first."""
    trouble: str
    """Why there is none and what to do about it; empty while all is well."""

    def current(self) -> Secret | None:
        """The token, None when there is none that still holds."""
        ...

    async def obtain(self) -> Secret:
        """The token; waits for a new one when there is none, as long as is reasonable. Raises NoToken."""
        ...

    def rejected(self, token: Secret) -> bool:
        """The provider refused *token*. Whether asking for another is worth while: `obtain` then gives that one."""
        ...

    def reset(self) -> None:
        """Forget what went wrong: the next `obtain` tries again."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Credential:
    """One secret for one provider account, or an account that gives short-lived tokens.

    *number* is the variable's own (bare = 0). *group* names the quota group, unique within the provider; by default
    the credential's own fingerprint. Credentials are compared by identity of the object: there is one per secret.
    """

    provider: str
    secret: Secret
    number: int
    fingerprint: str
    group: str
    plan: str | None = None
    weight: float = 1.0
    priority: int | None = None
    """Key priority, 1 first; None: none was given."""
    origin: str = ""
    """The variable that it came from; never the value."""
    account: Account | None = None
    """Set where tokens take the place of the secret, which is empty then."""
    tokens: TokenSource | None = None
    """The tokens of *account*, in a gateway."""
    declared: bool = False
    """Its owner said which quota group it is in."""

    @classmethod
    def of(cls, provider: str, secret: str, number: int = 0, *, group: str = "", **more: Any) -> Credential:
        """A credential with its fingerprint computed; without *group* it is a quota group of its own."""
        mark = fingerprint(provider, secret)
        return cls(provider, Secret(secret), number, mark, group or mark, **more)

    @property
    def keyed(self) -> bool:
        """False for the one of a server that needs no key."""
        return self.account is not None or bool(self.secret)

    @property
    def label(self) -> str:
        """`groq-2`."""
        return f"{self.provider}-{self.number}"

    @property
    def shown(self) -> str:
        """Label and first 6 of the fingerprint, `groq-2:9f3a1c`: the only form that logs and answers show."""
        return f"{self.provider}-{self.number}:{self.fingerprint[:6]}"


class Deployment(NamedTuple):
    """A provider and the upstream's own model name."""

    provider: str
    model: str

    def __str__(self) -> str:
        return f"{self.provider}/{self.model}"


class Candidate(NamedTuple):
    """A deployment with a credential, considered for one call."""

    deployment: Deployment
    credential: Credential


CallerClass = Literal["interactive", "normal", "batch"]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is asking. With one gateway key there is one caller, `default`, who may do everything."""

    name: str = "default"
    routes: tuple[str, ...] = ()
    """Names that it may ask for, with shell wildcards; empty: every name."""
    limits: tuple[Limit, ...] = ()
    """Its own limits and its budget, counted under `caller/<name>`, each with owner `caller`."""
    weight: float = 1.0
    rank: CallerClass = "normal"


class Call(msgspec.Struct, eq=False):
    """One request of a client: the raw members of its body and the thin view that routing needs.

    *members* maps each top-level member to its raw JSON text, untouched. Sizes are in bytes, tokens are estimates.
    """

    dialect: str
    kind: Kind
    model: str
    members: Mapping[str, bytes]
    size: int
    stream: bool = False
    wants_usage: bool = False
    """The client itself asked for usage in the stream."""
    max_output: int | None = None
    needs: frozenset[str] = frozenset()
    """Of `tools`, `vision`, `json`, `audio`."""
    text_bytes: int = 0
    """Bytes of prompt text (messages, tools, input) without inline media."""
    media: int = 0
    """How many images, audio clips or files the prompt carries."""
    timeout: float | None = None
    """`x-request-timeout-ms` in seconds: the call's deadline."""
    path: str = ""
    """Of a call that is passed on unread (images, audio, moderations, rerank): its path below `/v1`."""
    raw: bytes = b""
    """The body of a multipart form, whose *members* are its text fields as JSON strings; its type is *content_type*."""
    content_type: str = ""
    form: str = ""
    """`array`: a Gemini stream as one JSON array, not as events."""
    headers: Mapping[str, str] = NO_HEADERS
    """Headers of the client that belong to the dialect and may be passed on: `anthropic-version`, `anthropic-beta`."""
    cache_control: str = ""
    """What the client's `cache-control` says, in lower case: `no-cache`, `no-store`."""
    stated_class: bytes = b""
    """`x-keyturn-class` as it came."""
    commit_after: float | None = None
    """`x-keyturn-commit-after` in seconds; None: the client did not say."""
    on_cut: str = ""
    """`x-keyturn-on-cut`: what is to become of its stream when it is cut, `continue` or `error`; empty: as its route
    says."""
    conversation: str = ""
    """What the client itself calls the conversation (`prompt_cache_key`, `metadata.user_id`, a header), if it does."""
    previous: str = ""
    """Of Responses: the id of the kept answer that it goes on from."""
    store: bool | None = None
    """Of Responses: whether its answer is to be kept; None: the client did not say."""
    served_at: str = ""
    """Where tracing is on: the path of the HTTP endpoint that it came in at, as a template; empty in the library."""
    trace_headers: Mapping[str, str] = NO_HEADERS
    """Where tracing is on: `traceparent` and `tracestate` as they came."""


class Pick(NamedTuple):
    """How one of several keys was chosen, as it stood then."""

    ready: int
    """How many were ready in its rank, itself included."""
    load: float | None
    """The used share of the fullest of its limits; None when nobody looked at it."""
    active: int
    """Its attempts under way."""
    pace: float | None
    """Seconds until it began to answer lately; None where nobody measures that."""

    def told(self) -> dict[str, object]:
        """The form that `--json` output carries."""
        pace = None if self.pace is None else _ms(self.pace)
        load = None if self.load is None else round(self.load, 3)
        return {"ready": self.ready, "load": load, "active": self.active, "pace_ms": pace}

    def said(self) -> str:
        """`3 ready keys: 40 % of its limits used, 2 calls under way, answers begin after 0.3 s`."""
        load = "" if self.load is None else f"{100 * self.load:.0f} % of its limits used, "
        pace = "" if self.pace is None else f", answers begin after {self.pace:.1f} s"
        return f"{self.ready} ready keys: {load}{self.active} calls under way{pace}"


@dataclass(slots=True)
class Attempt:
    """One request handed to a transport, and what became of it. Times are monotonic seconds."""

    id: str
    provider: str
    model: str
    key: str
    started: float
    meaning: str = ""
    status: int | None = None
    detail: str = ""
    first_token: float | None = None
    ended: float | None = None
    usage: Usage | None = None
    resend: bool = False
    """Sent again on the same credential."""
    tier: int = 0
    """The tier of its provider."""
    answered_as: str = ""
    """The model that a whole answer names; it and *stop* are kept where tracing is on."""
    stop: str = ""
    """Why a whole answer ended."""
    content_by: float | None = None
    """When it would have been given up, had nothing come of its answer."""
    pick: tuple[int, float | None, int, float | None] | None = None
    """How its key was chosen, where there were several: the members of `Pick`."""

    def brief(self) -> dict[str, object]:
        """The form that error bodies and `--json` output carry."""
        return {
            "provider": self.provider,
            "model": self.model,
            "key": self.key,
            "meaning": self.meaning or "unfinished",
            "status": self.status,
        }

    def told(self) -> dict[str, object]:
        """The same with what only the owner sees; *ms* is None while it runs.

        *pick*: of how many ready keys it was chosen, the used share of its limits, the calls it had under way, and how
        soon it began to answer lately; None where there was one. *content_by_ms*: how long it had until its first
        content.
        """
        ms = None if self.ended is None else _ms(self.ended - self.started)
        return {
            **self.brief(),
            "ms": ms,
            "detail": self.detail,
            "resend": self.resend,
            "pick": None if self.pick is None else Pick(*self.pick).told(),
            "content_by_ms": None if self.content_by is None else _ms(self.content_by - self.started),
        }


Fallback = Literal["none", "later", "last"]
"""Who answered: the first choice; somebody of a later step or tier; the last tier there is."""


class Trace(Protocol):
    """One call's place in a distributed trace, where tracing is on."""

    @property
    def trace_id(self) -> str:
        """32 hex digits."""
        ...

    def sending(self, attempt: Attempt) -> tuple[tuple[str, str], ...]:
        """*attempt* is about to be sent: the headers that tell its upstream (W3C Trace Context)."""
        ...


class Trail(msgspec.Struct):
    """All attempts of one call, with every refusal and its reason, and what was changed on the way."""

    call: str
    route: str
    started: float
    attempts: list[Attempt] = []
    refusals: list[str] = []
    notes: list[str] = []
    waited: float = 0.0
    status: int = 0
    code: str = ""
    """The error code answered, empty when the call was served."""
    ended: float | None = None
    stream: bool = False
    fallback: Fallback = "none"
    planned: str = ""
    """The provider that stands first in the plan, which may be passed over."""
    trace: Trace | None = None
    shared: str = ""
    """Of a call that may share its answer: `hit` (a kept answer), `joined` (another call's), `miss`; else empty."""
    caller: str = ""
    """Who asked; empty for a request that never became a call."""
    plan: tuple[Deployment, ...] = ()
    """Who might be asked, in order."""
    ordered: str = "in_order"
    """How the deployments of one step of the plan were ordered."""
    bounds: tuple[float, float, float] | None = None
    """By when it had to be answered, and its first content to come, in monotonic seconds; and for how many seconds it
    might wait for keys, all its waits together. None for what never became a call."""
    position: int | None = None
    """Its place in the line when it began to wait, from 1; None: it never did."""
    expected_wait: float | None = None
    """Seconds that it was to wait then, as far as could be known."""

    def told(self) -> dict[str, object]:
        """The whole story as JSON has it; durations in milliseconds.

        *plan*: who might be asked, in order. *deadlines*: how long the call might take in all, until its first content,
        and waiting for a key. *wait*: its place in the line and what it was to wait; None where it never waited.
        """
        return {
            "call": self.call,
            "route": self.route,
            "status": self.status,
            "code": self.code,
            "waited_ms": round(self.waited * 1000, 1),
            "attempts": [attempt.told() for attempt in self.attempts],
            "refusals": self.refusals,
            "notes": self.notes,
            "plan": [str(each) for each in self.plan],
            "ordered": self.ordered,
            "deadlines": self._deadlines_told(),
            "wait": self._wait_told(),
            "shared": self.shared or None,
        }

    def _deadlines_told(self) -> dict[str, object] | None:
        if self.bounds is None:
            return None
        deadline, content_by, patience = self.bounds
        total, content = deadline - self.started, min(deadline, content_by) - self.started
        return {"total_ms": _ms(total), "content_ms": _ms(content), "wait_ms": _ms(min(patience, total))}

    def _wait_told(self) -> dict[str, object] | None:
        if not self.waited and self.position is None:
            return None
        expected = None if self.expected_wait is None else _ms(self.expected_wait)
        return {"position": self.position, "expected_ms": expected, "actual_ms": _ms(self.waited)}


def _ms(seconds: float) -> float | None:
    """Milliseconds, rounded to tenths; None for what has no end."""
    return round(seconds * 1000, 1) if seconds < float("inf") else None


class TimerHandle(Protocol):
    """What `Clock.call_at` returns."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """Time as a parameter. *mono* for durations, *wall* (Unix seconds) for calendars and dates."""

    def mono(self) -> float: ...
    def wall(self) -> float: ...
    def sleep_until(self, when: float) -> Awaitable[None]: ...
    def call_at(self, when: float, callback: Callable[[], object]) -> TimerHandle: ...


Draw = Callable[[], float]
"""A uniform number in [0, 1): the only randomness that decisions see."""
