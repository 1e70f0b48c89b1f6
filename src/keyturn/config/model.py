"""The frozen configuration: every setting that the rest of the program reads, already checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from keyturn.core import Caller, Credential, Deployment, Equivalents, ModelFacts, Route, Secret
from keyturn.providers import Provider, known, plain_name

from .modes import Modes

Strategy = Literal["balanced", "round_robin", "sequential", "weighted", "fastest", "cheapest"]
CooldownProfile = Literal["adaptive", "fixed", "patient"]
LogFormat = Literal["console", "json"]
EquivalentsMode = Literal["shipped", "own", "off"]
"""Which groups of the same model are used: the shipped ones and those of models.yaml, these alone, or none."""
SharingScope = Literal["caller", "shared"]
"""Who is given the answer that one caller caused: that caller alone, or everybody who may ask for the name."""


class LimitSpec(NamedTuple):
    """One declared limit, counted per quota group and model. *window* is `inflight` for concurrency only."""

    metric: Literal["requests", "tokens", "concurrency"]
    window: Literal["second", "minute", "hour", "day", "month", "inflight"]
    capacity: int


class LimitRule(NamedTuple):
    """What limits.yaml says of the models that *pattern* (an id, or shell wildcards) names."""

    pattern: str
    specs: tuple[LimitSpec, ...]
    plan: Literal["free", "paid"] | None = None
    """Holds for credentials of this plan only; None for all."""
    scope: Literal["quota_group", "key", "shared"] = "quota_group"
    """What is counted together: each quota group's use of it, each key's, or everybody's."""
    quota_group: str = ""
    """Models with the same one count together; empty: each model for itself."""
    unavailable: bool = False
    """Not offered on this plan at all."""
    origin: str = ""
    """`config/limits.yaml:12`."""


class Rotation(NamedTuple):
    """The rest of a provider's `rotation:` beside its strategy."""

    cooldown_seconds: float | None = None
    """The first step of the cooldown after a minute limit; later steps are never shorter."""
    each_call: bool = False
    """round_robin moves on with every call, not only after a 429."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long each phase of an attempt or a call may take, in seconds."""

    connect: float = 5.0
    tls: float = 5.0
    first_token: float = 60.0
    reasoning_first_token: float = 300.0
    """The same for models that think before they speak."""
    silence: float = 120.0
    """Without a single byte, once the answer has begun."""
    no_content: float = 300.0
    """Bytes come, but only comments and pings."""
    total: float = 600.0
    to_content: float | None = None
    """`GLOBAL_TIMEOUT`: bounds a call's time to first content, over all its attempts; None leaves it to *total*."""
    queue_wait: float = 20.0
    """How long a call waits for a credential when none is free."""
    models_ttl: float = 300.0
    """How long a provider's list of models is believed."""
    adaptive: bool = False
    """*first_token* and *no_content* follow what each deployment usually takes, while somebody else is left to ask."""
    adaptive_floor: float = 10.0
    """They are never made shorter than this."""


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """Whose answers are kept, and how many. Sizes in bytes."""

    routes: tuple[str, ...]
    """Names as clients ask for them, with shell wildcards."""
    ttl: float = 300.0
    """Seconds that an answer is given again."""
    max_entries: int = 10_000
    max_bytes: int = 64 * 1024 * 1024
    """Of all answers together."""
    max_answer: int = 1024 * 1024
    """A larger answer is not kept."""
    scope: SharingScope = "caller"


@dataclass(frozen=True, slots=True)
class CoalesceSettings:
    """Which identical calls are answered by one call upstream while it is under way."""

    routes: tuple[str, ...]
    max_buffer: int = 1024 * 1024
    """Bytes of an answer up to which another call may still join, and by which a slow client may stay behind."""
    scope: SharingScope = "caller"


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """How streams begin, and go on when they are cut. Names are those that clients ask for, with shell wildcards."""

    hold_tools: tuple[str, ...] = ()
    """Whose calls of tools and JSON are held back until they are whole."""
    goes_on: tuple[str, ...] = ()
    """`continue`: whose texts go on elsewhere when they are cut."""
    goes_on_elsewhere: tuple[str, ...] = ()
    """Those of them that another model of the plan may go on with."""
    commit_after: float | None = None
    """Seconds without content after which a stream begins with comments; None: it begins with its content."""


@dataclass(frozen=True, slots=True)
class WaitingSettings:
    """How many calls may wait for a key, and how long those of class batch do."""

    most: int = 1000
    most_bytes: int = 256 * 1024 * 1024
    """Of their requests together."""
    batch_wait: float = 120.0
    """Seconds; calls of the other classes wait for `Timeouts.queue_wait`."""
    for_cache: float = 10.0
    """Seconds that a call waits at most for the key that holds its prompt cache, while others are free; 0: never."""
    usd_per_hour: float = 60.0
    """What an hour of such waiting is worth."""


GroupsLearned = Literal["infer", "suggest", "off"]
"""They are treated as one quota group, the owner is told only, or it is not looked for."""


@dataclass(frozen=True, slots=True)
class LearningSettings:
    """Whether limits that nobody states are learned."""

    enabled: bool = True
    groups: GroupsLearned = "infer"
    """What becomes of keys that seem to share a quota."""


@dataclass(frozen=True, slots=True)
class SteadySettings:
    """Which of the ways to spare a failing provider are used."""

    retry_budget: bool = True
    """Second tries are bounded while a provider fails."""
    breaker: bool = True
    """A provider that is down is left alone but for probes, where the cooldown profile is adaptive."""
    learned_concurrency: bool = True
    """How many attempts an upstream bears at once is learned from its overloads."""


@dataclass(frozen=True, slots=True)
class HedgingSettings:
    """Whose slow answers are asked for a second time, of another quota group."""

    routes: tuple[str, ...]
    """Names as clients ask for them, with shell wildcards."""
    percentile: float = 95.0
    """An answer is slow when so many of a hundred like it had begun by then."""
    most_requests: float = 0.02
    """Second requests, as a share of those that are watched."""
    most_cost: float = 0.05
    """What they may cost, as a share of what all of them cost."""


@dataclass(frozen=True, slots=True)
class OpenTelemetrySettings:
    """Where traces and metrics go over OTLP: whole URLs, empty for what is not exported."""

    traces: str
    metrics: str
    service: str = ""
    """`OTEL_SERVICE_NAME`; empty leaves it to `OTEL_RESOURCE_ATTRIBUTES`, else it is `keyturn`."""
    headers: Mapping[str, Secret] = field(default_factory=dict)


WithoutRedis = Literal["local_share", "open", "closed"]
Durability = Literal["normal", "full"]


@dataclass(frozen=True, slots=True)
class RedisSettings:
    """The live state that many gateways share."""

    url: Secret
    """`redis://`, `rediss://` or `unix://`; it may hold a password."""
    prefix: str = "keyturn"
    """Of every key in it: gateways with the same prefix share their limits."""
    without: WithoutRedis = "local_share"
    """What becomes of providers' limits while it is away; those in money are closed in any case."""
    least_replicas: int = 1
    """By how many a limit is divided at least while it is away."""


@dataclass(frozen=True, slots=True)
class LedgerSettings:
    """The durable record of calls. Sizes in bytes."""

    enabled: bool = True
    database_url: Secret | None = None
    """PostgreSQL, `postgresql://…`; None: SQLite in the data folder."""
    durable: Durability = "normal"
    """`full`: on the disk before a request is sent, so that a loss of power loses nothing either."""
    keep_days: float = 90.0
    """Days that single calls are kept; sums per day stay."""
    most_spooled: int = 1024 * 1024 * 1024
    """What may lie in the data folder waiting for a database that is away."""


@dataclass(frozen=True, slots=True)
class ResponsesSettings:
    """Whether `/v1/responses` keeps what it answered, for `previous_response_id` and `GET /v1/responses/{id}`."""

    store: bool = False
    keep_days: float = 30.0


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Where the gateway listens and what it accepts. Sizes in bytes."""

    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    allowed_hosts: tuple[str, ...] = ()
    """Host names answered for besides the one that is bound and the loopback names."""
    trust_local: bool = False
    """Loopback peers with an allowed Host need no caller key."""
    log_requests: bool = False
    log_format: LogFormat = "console"
    max_body: int = 32 * 1024 * 1024
    max_headers: int = 32 * 1024
    drain_seconds: float = 30.0
    grace_seconds: float = 0.0
    """How long calls are still taken after SIGTERM, while `/readyz` already says that this gateway stops."""
    max_connections: int = 10_000
    """Open connections of clients, all together; one more is answered 503 and closed."""
    max_connections_per_ip: int = 0
    """The same from one address; 0: no such bound. Loopback and a reverse proxy are one address each."""
    memory_limit: int = 0
    """Resident bytes from 85 % of which on large requests are refused; 0: what the container or the system allows."""
    metrics: bool = True
    """`METRICS_ENABLED`: figures are kept and `/metrics` shows them."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says; None where it says nothing. It wins over the environment and the env file."""

    host: str | None = None
    port: int | None = None
    workers: int | None = None
    data: Path | None = None
    config: Path | None = None
    trust_local: bool | None = None
    log_requests: bool | None = None
    log_format: LogFormat | None = None


class FileStamp(NamedTuple):
    """A file that the configuration was read from, or would be if it were there."""

    path: Path
    present: bool


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that was configured. Mappings are keyed by the provider's canonical name."""

    providers: Mapping[str, Provider]
    """Those that can be used: with a credential, or reached without one."""
    credentials: Mapping[str, tuple[Credential, ...]]
    """In natural order (bare variable, then 1, 2, … 10), blanks and duplicates left out; same keys as *providers*."""
    strategies: Mapping[str, Strategy]
    tiers: Mapping[str, int]
    """Only where `PROVIDER_PRIORITY_<P>` says otherwise than the catalog."""
    max_concurrent: Mapping[str, int]
    """Calls in flight per credential; a provider that is missing here has no such bound."""
    limits: Mapping[str, tuple[LimitSpec, ...]]
    static_models: Mapping[str, tuple[str, ...]]
    chat_models: Mapping[str, str]
    """What a provider is asked for when a call names no model; where nothing is said, the catalog's."""
    timeouts: Timeouts
    server: ServerSettings
    caller_key: Secret | None
    """`PROXY_API_KEY`; None means the one in the data folder."""
    data: Path
    use_paid: bool
    price_tiers: frozenset[str] | None
    """`ALLOWED_MODEL_TIERS`; None allows every price tier that *use_paid* allows."""
    demo: bool
    """True when nothing is configured: only models named `demo/…` are served."""
    notes: tuple[str, ...]
    """What the owner should know; none of it stops the program."""
    origins: Mapping[str, str]
    """Where each setting came from: setting or variable → `environment`, `.env:3`, `--port`."""
    env_file: Path | None
    """The env file that was read, if any."""
    folder: Path | None = None
    """The folder of configuration files, None when there is none."""
    files: tuple[FileStamp, ...] = ()
    """All files to watch, the env file among them."""
    rotations: Mapping[str, Rotation] = field(default_factory=dict)
    limit_rules: Mapping[str, tuple[LimitRule, ...]] = field(default_factory=dict)
    """From limits.yaml, by provider, in the order of the file; *limits* (`LIMITS_<P>`) wins over them."""
    default_limits: tuple[LimitSpec, ...] = ()
    """For credentials of plan free on models that no rule names."""
    routes: Mapping[str, tuple[Deployment, ...]] = field(default_factory=dict)
    """Route id -> its deployments, of `provider_routes` and of the older `models` section."""
    facts: Mapping[Deployment, ModelFacts] = field(default_factory=dict)
    names: Mapping[str, Route] = field(default_factory=dict)
    """Roles and aliases by name."""
    unset: Mapping[str, str] = field(default_factory=dict)
    """Providers that models.yaml names and that have no key -> the variables to set."""
    spent: Mapping[str, int] = field(default_factory=dict)
    """Role -> nano-dollars that were spent this month before Keyturn counted (`budgets.current_usage`)."""
    callers: Mapping[str, Caller] = field(default_factory=dict)
    """SHA-256 of the key (hex) -> the caller that presents it, of callers.yaml."""
    default_caller: Caller = field(default_factory=Caller)
    """Who presents `PROXY_API_KEY` (or the key in the data folder): may have limits in callers.yaml too."""
    cooldown: CooldownProfile = "adaptive"
    embedding_models: Mapping[str, str] = field(default_factory=dict)
    """The same as *chat_models* for embeddings."""
    equivalents: Equivalents = field(default_factory=Equivalents)
    """Who serves the same model as whom."""
    cache: CacheSettings | None = None
    coalesce: CoalesceSettings | None = None
    steady: SteadySettings = field(default_factory=SteadySettings)
    hedging: HedgingSettings | None = None
    stream: StreamSettings = field(default_factory=StreamSettings)
    waiting: WaitingSettings = field(default_factory=WaitingSettings)
    otel: OpenTelemetrySettings | None = None
    """None: nothing is exported."""
    redis: RedisSettings | None = None
    """`REDIS_URL`; None: the live state is this process's own."""
    ledger: LedgerSettings = field(default_factory=LedgerSettings)
    responses: ResponsesSettings = field(default_factory=ResponsesSettings)
    modes: Modes = field(default_factory=Modes)
    """How keys are used beyond their order."""
    learning: LearningSettings = field(default_factory=LearningSettings)
    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The sections of settings.toml that other programs than the gateway read: general, discord, vault, …"""

    def tier_of(self, provider: str) -> int:
        """The provider tier of *provider*, 1 first: of any name or alias, configured or not."""
        row = self.providers.get(provider) or known(provider)
        name = row.name if row is not None else plain_name(provider)
        if row is None and name in self.providers:
            row = self.providers[name]
        return self.tiers.get(name, row.tier if row is not None else Provider(name).tier)

    def by_tier(self) -> tuple[str, ...]:
        """The providers that can be used, by provider tier, then by name; a last resort whose tier nobody set last."""
        return tuple(sorted(self.providers, key=lambda name: (self.last_resort(name), self.tier_of(name), name)))

    def last_resort(self, provider: str) -> bool:
        """Whether *provider* is asked only when nobody else can answer: by the catalog, unless its tier was set."""
        return self.providers[provider].last_resort and provider not in self.tiers

    def find_keys(self, text: str) -> tuple[Credential, ...]:
        """The credentials that *text* names: a label `groq-2`, the shown form, a whole provider,
        a fingerprint, or as much of it as is shown."""
        return tuple(
            key
            for keys in self.credentials.values()
            for key in keys
            if text in (key.label, key.shown, key.provider, key.fingerprint, key.fingerprint[:6])
        )
