"""Puts the configuration together: command line over environment over env file over defaults."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from keyturn.core import Credential, Secret
from keyturn.providers import CATALOG, nearest

from . import pools
from .accounts import find_accounts
from .addresses import is_loopback
from .ceilings import find_callers, key_variables_of, limit_rules, specs_of
from .credentials import find_providers, key_flaw
from .environment import choose_env_file, merge
from .equivalents import find_equivalents
from .filed import filed_providers
from .files import Files, read_files
from .model import Config, FileStamp, Options, ServerSettings, Timeouts
from .names import Names
from .otel import otel_of
from .pressed import pressed_of
from .remembering import remembering_of
from .report import Report, listed
from .routing import ProviderNames, add_endpoints, find_routing
from .sections import Filled, cooldown_of, sections_of, timeouts_of
from .settings import Settings, as_integer, as_number, choose
from .sharing import sharing_of
from .variables import VARIABLES

NO_OPTIONS = Options()
DEMO = "demo"
DATA_FOLDER = ".cache"
SERVER_MEMBERS = (
    "trust_local",
    "log_requests",
    "log_format",
    "drain_seconds",
    "grace_seconds",
    "workers",
    "max_connections",
    "max_connections_per_ip",
)
PRICE_TIERS = ("free", "cheap", "budget", "performance", "ultra")
HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?(:[0-9]+)?\Z|\[[0-9A-Fa-f:.]+\](:[0-9]+)?\Z")
WITHOUT_EFFECT = {
    "TIMEOUT_WRITE": "has no effect: writing a request is bounded by TIMEOUT_TOTAL",
    **dict.fromkeys(
        ("G4F_FALLBACK_ENABLED", "MODEL_FALLBACK_GROUPS"),
        "has no effect: who stands in for whom is said by equivalents: in models.yaml and PROVIDER_PRIORITY_<P>",
    ),
    **dict.fromkeys(
        ("TRANSIENT_RETRY_DELAY", "TRANSIENT_RETRY_JITTER", "SMALL_COOLDOWN_RETRY_THRESHOLD"),
        "has no effect: nothing sleeps while another key is free",
    ),
    "STREAM_RETRY_ON_REASONING_ONLY": "has no effect: nothing is asked again after output has reached the client",
    "OVERRIDE_TEMPERATURE_ZERO": "has no effect: a request is passed on with the temperature that it states",
    "MODEL_INFO_REFRESH_INTERVAL": "has no effect: prices are shipped with each release",
    "OPENROUTER_MAX_TOKENS": "has no effect: a call states its own max_tokens",
    "TIMEOUT_POOL": "has no effect: calls never wait for a connection, only for a key (TIMEOUT_QUEUE_WAIT)",
    "OAUTH_REFRESH_INTERVAL": "has no effect: each token is renewed some minutes before its own end",
    "SKIP_OAUTH_INIT_CHECK": "has no effect: no start ever asks anybody to log in",
}
OLD_NAMES = frozenset({"TIMEOUT_READ_STREAMING", "TIMEOUT_READ_NON_STREAMING", *WITHOUT_EFFECT})


def load(
    environ: Mapping[str, str], *, env_file: Path | None = None, cwd: Path, options: Options = NO_OPTIONS
) -> Config:
    """The configuration that *environ*, the env file, the files of the configuration folder and *options* describe.

    Reads those files and nothing else. Raises ConfigError with every mistake at once; no message holds a secret.
    """
    path = choose_env_file(environ, env_file, cwd)
    values, notes = merge(environ, path, cwd)
    report = Report(values)
    report.notes.extend(notes)
    settings = Settings(values, Names(), report)
    config = _assembled(settings, read_files(options.config, cwd, report), options, cwd, path)
    _note_oddities(settings, config)
    _note_misspelled(settings)
    report.finish()
    return replace(config, notes=tuple(dict.fromkeys(report.notes)))


def _assembled(settings: Settings, files: Files, options: Options, cwd: Path, env_file: Path | None) -> Config:
    """Everything that is said anywhere; what is wrong with it goes into the report."""
    filled = Filled(files)
    filed = filed_providers(files, settings)
    add_endpoints(files, filed, settings)
    data = _data(settings, options, cwd)
    accounts = find_accounts(settings, data, cwd)
    providers, credentials, unset = find_providers(settings, filed, key_variables_of(files), accounts)
    demo = all(provider.tool is not None for provider in providers.values())
    if demo:
        providers = {DEMO: CATALOG[DEMO], **providers}
        credentials = {DEMO: (Credential.of(DEMO, "", origin="built in"),), **credentials}
    modes = filed.strategies | pools.strategies(settings)
    names, routing = ProviderNames(settings, filed), find_routing(files, filed, settings)
    callers = find_callers(files, settings)
    keys = tuple(FileStamp(path, path.exists()) for path in accounts.files)
    config = Config(
        providers=providers,
        credentials=credentials,
        strategies=modes,
        tiers=filed.tiers | pools.tiers(settings),
        max_concurrent=pools.max_concurrent(settings, modes, filed.max_concurrent),
        limits=pools.limits(settings),
        static_models=_joined(filed.static_models, pools.static_models(settings)),
        chat_models=filed.chat_models | pools.default_models(settings, "_CHAT_MODEL"),
        embedding_models=filed.embedding_models | pools.default_models(settings, "_EMBEDDING_MODEL"),
        equivalents=find_equivalents(files, filled, settings, names),
        timeouts=_timeouts(settings, timeouts_of(filled, settings)),
        server=_server(settings, options, filled),
        caller_key=_caller_key(settings),
        data=data,
        use_paid=_use_paid(settings, filled),
        price_tiers=_price_tiers(settings, filled),
        demo=demo,
        notes=(),
        origins={},
        env_file=env_file,
        folder=files.folder,
        files=(*files.stamps, *keys, FileStamp(env_file or cwd / ".env", env_file is not None)),
        rotations=filed.rotations,
        limit_rules=limit_rules(files, settings, names),
        default_limits=specs_of(files.limits.content.default_limits) if files.limits is not None else (),
        routes=routing.routes,
        facts=routing.facts,
        names=routing.names,
        spent=routing.spent,
        callers=callers.by_key,
        default_caller=callers.own,
        cooldown=cooldown_of(filled),
        **sharing_of(filled, settings),
        **pressed_of(filled, settings),
        modes=pools.modes(settings, modes, filed),
        otel=otel_of(settings),
        **remembering_of(filled, settings),
        sections=sections_of(filled, settings),
        unset=unset,
    )
    named = {f"names.{name}": place for name, place in routing.origins.items()}
    return replace(config, origins=_origins(settings, options) | filed.origins | filled.origins | named | files.counted)


def _joined(filed: Mapping[str, tuple[str, ...]], said: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """The models of both, each once."""
    names = {**filed, **said}
    return {name: tuple(dict.fromkeys((*filed.get(name, ()), *said.get(name, ())))) for name in names}


def _timeouts(settings: Settings, usual: Timeouts) -> Timeouts:
    for name, said in WITHOUT_EFFECT.items():
        if settings.is_set(name):
            settings.report.note(name, said)
    silence = settings.seconds("TIMEOUT_READ_STREAMING", usual.silence)
    total = settings.seconds("TIMEOUT_READ_NON_STREAMING", usual.total)
    adaptive = settings.switch("TIMEOUT_ADAPTIVE")
    return Timeouts(
        connect=settings.seconds("TIMEOUT_CONNECT", usual.connect),
        tls=settings.seconds("TIMEOUT_TLS", usual.tls),
        first_token=settings.seconds("TIMEOUT_FIRST_TOKEN", usual.first_token),
        reasoning_first_token=settings.seconds("TIMEOUT_REASONING_FIRST_TOKEN", usual.reasoning_first_token),
        silence=settings.seconds("TIMEOUT_SILENCE", silence),
        no_content=settings.seconds("TIMEOUT_NO_CONTENT", usual.no_content),
        total=settings.seconds("TIMEOUT_TOTAL", total),
        to_content=settings.seconds("GLOBAL_TIMEOUT", usual.to_content),
        queue_wait=settings.seconds("TIMEOUT_QUEUE_WAIT", usual.queue_wait),
        models_ttl=usual.models_ttl,
        adaptive=usual.adaptive if adaptive is None else adaptive,
        adaptive_floor=settings.seconds("TIMEOUT_ADAPTIVE_FLOOR", usual.adaptive_floor),
    )


def _server(settings: Settings, options: Options, filled: Filled) -> ServerSettings:
    largest = filled.value("server", "max_body_mib", "server.max_body")
    given: dict[str, Any] = {
        "host": settings.text("KEYTURN_HOST") or filled.value("server", "host"),
        "port": filled.value("server", "port"),
        "allowed_hosts": _allowed_hosts(settings, filled),
        "max_body": None if largest is None else int(largest * 1024 * 1024),
    }
    for name in SERVER_MEMBERS:
        given[name] = filled.value("server", name)
    memory = filled.value("server", "memory_limit_mib", "server.memory_limit")
    given["memory_limit"] = None if memory is None else int(memory * 1024 * 1024)
    if (port := _port(settings)) is not None:
        given["port"] = port
    if (grace := _grace(settings)) is not None:
        given["grace_seconds"] = grace
    metrics = settings.switch("METRICS_ENABLED")
    given["metrics"] = filled.value("server", "metrics") if metrics is None else metrics
    for name in ("host", "port", "workers", "trust_local", "log_requests", "log_format"):
        said = getattr(options, name)
        given[name] = given.get(name) if said is None else said
    server = ServerSettings(**{name: value for name, value in given.items() if value is not None})
    if not HOST.match(f"[{server.host}]" if ":" in server.host else server.host):
        filed = "KEYTURN_HOST" if settings.is_set("KEYTURN_HOST") else filled.origins.get("server.host", "KEYTURN_HOST")
        name = filed if options.host is None else "--host"
        settings.report.problem(name, f"{settings.report.quote(server.host)} is not an address such as 127.0.0.1")
    if server.workers > 1 and not settings.is_set("REDIS_URL"):
        name = "--workers" if options.workers is not None else filled.origins.get("server.workers", "server.workers")
        settings.report.problems.append(
            f"{name}: more than one worker would multiply every limit without shared state: set REDIS_URL, or run one"
        )
    return server


def _grace(settings: Settings) -> float | None:
    text = settings.text("KEYTURN_GRACE_SECONDS")
    grace = as_number(text) if text else None
    if text and (grace is None or grace < 0):
        quoted = settings.report.quote(text)
        settings.report.problem("KEYTURN_GRACE_SECONDS", f"{quoted} is not a number of seconds from 0")
    return grace


def _port(settings: Settings) -> int | None:
    text = settings.text("KEYTURN_PORT")
    port = as_integer(text) if text else None
    if text and (port is None or not 0 <= port <= 65535):
        settings.report.problem("KEYTURN_PORT", f"{settings.report.quote(text)} is not a port from 0 to 65535")
    return port


def _allowed_hosts(settings: Settings, filled: Filled) -> tuple[str, ...]:
    said = settings.words("KEYTURN_ALLOWED_HOSTS")
    hosts = said or filled.value("server", "allowed_hosts") or ()
    for host in hosts:
        if not HOST.match(host):
            quoted = settings.report.quote(host)
            name = "KEYTURN_ALLOWED_HOSTS" if said else filled.origins["server.allowed_hosts"]
            settings.report.problem(name, f"{quoted} is not a host name such as llm.example.com")
    return tuple(host.lower() for host in hosts)


def _caller_key(settings: Settings) -> Secret | None:
    key = settings.text("PROXY_API_KEY")
    if key is not None and (flaw := key_flaw(key)):
        settings.report.problem("PROXY_API_KEY", flaw)
    return Secret(key) if key is not None else None


def _data(settings: Settings, options: Options, cwd: Path) -> Path:
    text = settings.text("KEYTURN_DATA") or DATA_FOLDER
    if not text.isprintable():
        settings.report.problem("KEYTURN_DATA", "is not the name of a folder")
    data = options.data if options.data is not None else Path(text)
    try:
        return cwd / data.expanduser()
    except RuntimeError:
        settings.report.problem("KEYTURN_DATA", "starts with ~, but there is no such home folder")
        return cwd / data


def _use_paid(settings: Settings, filled: Filled) -> bool:
    paid, free_only = settings.switch("USE_PAID_MODELS"), settings.switch("FREE_ONLY_MODE")
    filed = filled.value("providers", "use_paid_models", "use_paid")
    if paid and free_only:
        settings.report.note("FREE_ONLY_MODE", "contradicts USE_PAID_MODELS=true; paid models are not used")
    return bool(filed if paid is None else paid) and not free_only


def _price_tiers(settings: Settings, filled: Filled) -> frozenset[str] | None:
    filed = filled.value("providers", "allowed_model_tiers", "price_tiers")
    words = settings.words("ALLOWED_MODEL_TIERS")
    for word in words:
        if word.lower() not in PRICE_TIERS:
            settings.report.problem("ALLOWED_MODEL_TIERS", choose(settings.report, word, PRICE_TIERS))
    return frozenset(map(str.lower, words)) or frozenset(filed or ()) or None


def _note_oddities(settings: Settings, config: Config) -> None:
    server = config.server
    if not is_loopback(server.host) and not server.allowed_hosts:
        settings.report.note(
            "KEYTURN_ALLOWED_HOSTS",
            f"Keyturn listens on {server.host}; name here the hosts that callers use, others are refused",
        )
    for name, provider in config.providers.items():
        for url in dict.fromkeys((provider.base_url, *provider.endpoints.values())):
            parts = urlsplit(url)
            if parts.port and parts.port == server.port and is_loopback(parts.hostname or ""):
                settings.report.notes.append(
                    f"{name} is reached at port {parts.port} of this machine, which is Keyturn's own port"
                )
    for name, keys in config.credentials.items():
        numbers = [key.number for key in keys]
        twice = sorted({number for number in numbers if numbers.count(number) > 1})
        if twice:
            origins = listed(key.origin for key in keys if key.number in twice)
            settings.report.notes.append(f"{name}: {origins} share a number; they are told apart by their fingerprints")


def _note_misspelled(settings: Settings) -> None:
    """Names that look like ours but are not."""
    known = [variable.name for variable in VARIABLES if "<" not in variable.name]
    for name in sorted(settings.values):
        if (
            not name.startswith(("KEYTURN_", "TIMEOUT_", "CACHE_ROUTE", "COALESCE_"))
            or name in known
            or name in OLD_NAMES
            or not settings.is_set(name)
        ):
            continue
        near = nearest(name, known)
        if near:
            settings.report.note(name, f"is not read; did you mean {near}?")


def _origins(settings: Settings, options: Options) -> dict[str, str]:
    said = {name: value for name, value in asdict(options).items() if value is not None}
    return settings.origins | {name: f"--{name.replace('_', '-')}" for name in said}
