"""The frozen configuration: every setting that the rest of the program reads, already checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from keyturn.core import Credential, Secret
from keyturn.providers import Provider

Strategy = Literal["balanced", "round_robin", "sequential", "weighted"]
LogFormat = Literal["console", "json"]


class LimitSpec(NamedTuple):
    """One declared limit, counted per quota group and model. *window* is `inflight` for concurrency only."""

    metric: Literal["requests", "tokens", "concurrency"]
    window: Literal["minute", "day", "inflight"]
    capacity: int


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

    def find_keys(self, text: str) -> tuple[Credential, ...]:
        """The credentials that *text* names: a label `groq-2`, the shown form, a whole provider,
        a fingerprint, or as much of it as is shown."""
        return tuple(
            key
            for keys in self.credentials.values()
            for key in keys
            if text in (key.label, key.shown, key.provider, key.fingerprint, key.fingerprint[:6])
        )
