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
from .addresses import is_loopback
from .credentials import find_providers, key_flaw
from .environment import choose_env_file, merge
from .model import Config, Options, ServerSettings, Timeouts
from .names import Names
from .report import Report, listed
from .settings import Settings, as_integer, choose
from .variables import VARIABLES

NO_OPTIONS = Options()
DEMO = "demo"
DATA_FOLDER = ".cache"
PRICE_TIERS = ("free", "cheap", "budget", "performance", "ultra")
HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?(:[0-9]+)?\Z|\[[0-9A-Fa-f:.]+\](:[0-9]+)?\Z")
CONFIG_FILES = ("models.yaml", "roles.yaml", "limits.yaml", "callers.yaml", "settings.toml")
WITHOUT_EFFECT = {
    "TIMEOUT_WRITE": "has no effect: writing a request is bounded by TIMEOUT_TOTAL",
    "TIMEOUT_POOL": "has no effect: calls never wait for a connection, only for a key (TIMEOUT_QUEUE_WAIT)",
}
OLD_NAMES = frozenset({"TIMEOUT_READ_STREAMING", "TIMEOUT_READ_NON_STREAMING", *WITHOUT_EFFECT})


def load(
    environ: Mapping[str, str], *, env_file: Path | None = None, cwd: Path, options: Options = NO_OPTIONS
) -> Config:
    """The configuration that *environ*, the env file and *options* describe.

    Reads the env file and nothing else. Raises ConfigError with every mistake at once; no message holds a secret.
    """
    path = choose_env_file(environ, env_file, cwd)
    values, notes = merge(environ, path, cwd)
    report = Report(values)
    report.notes.extend(notes)
    settings = Settings(values, Names(), report)
    providers, credentials = find_providers(settings)
    demo = not providers
    if demo:
        providers, credentials = {DEMO: CATALOG[DEMO]}, {DEMO: (Credential.of(DEMO, "", origin="built in"),)}
    modes = pools.strategies(settings)
    config = Config(
        providers=providers,
        credentials=credentials,
        strategies=modes,
        tiers=pools.tiers(settings),
        max_concurrent=pools.max_concurrent(settings, modes),
        limits=pools.limits(settings),
        static_models=pools.static_models(settings),
        chat_models=pools.chat_models(settings),
        timeouts=_timeouts(settings),
        server=_server(settings, options),
        caller_key=_caller_key(settings),
        data=_data(settings, options, cwd),
        use_paid=_use_paid(settings),
        price_tiers=_price_tiers(settings),
        demo=demo,
        notes=(),
        origins={},
        env_file=path,
    )
    _note_oddities(settings, config)
    _note_what_is_not_read(settings, options.config or cwd / "config")
    report.finish()
    return replace(config, notes=tuple(dict.fromkeys(report.notes)), origins=_origins(settings, options))


def _timeouts(settings: Settings) -> Timeouts:
    usual = Timeouts()
    for name, said in WITHOUT_EFFECT.items():
        if settings.is_set(name):
            settings.report.note(name, said)
    silence = settings.seconds("TIMEOUT_READ_STREAMING", usual.silence)
    total = settings.seconds("TIMEOUT_READ_NON_STREAMING", usual.total)
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
    )


def _server(settings: Settings, options: Options) -> ServerSettings:
    given: dict[str, Any] = {
        "host": settings.text("KEYTURN_HOST"),
        "port": _port(settings),
        "allowed_hosts": _allowed_hosts(settings),
    }
    for name in ("host", "port", "workers", "trust_local", "log_requests", "log_format"):
        said = getattr(options, name)
        given[name] = given.get(name) if said is None else said
    server = ServerSettings(**{name: value for name, value in given.items() if value is not None})
    if not HOST.match(f"[{server.host}]" if ":" in server.host else server.host):
        name = "KEYTURN_HOST" if options.host is None else "--host"
        settings.report.problem(name, f"{settings.report.quote(server.host)} is not an address such as 127.0.0.1")
    if server.workers > 1:
        settings.report.problems.append(
            "--workers: more than one would multiply every limit without shared state (REDIS_URL); run one"
        )
    return server


def _port(settings: Settings) -> int | None:
    text = settings.text("KEYTURN_PORT")
    port = as_integer(text) if text else None
    if text and (port is None or not 0 <= port <= 65535):
        settings.report.problem("KEYTURN_PORT", f"{settings.report.quote(text)} is not a port from 0 to 65535")
    return port


def _allowed_hosts(settings: Settings) -> tuple[str, ...]:
    hosts = settings.words("KEYTURN_ALLOWED_HOSTS")
    for host in hosts:
        if not HOST.match(host):
            quoted = settings.report.quote(host)
            settings.report.problem("KEYTURN_ALLOWED_HOSTS", f"{quoted} is not a host name such as llm.example.com")
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


def _use_paid(settings: Settings) -> bool:
    paid, free_only = settings.switch("USE_PAID_MODELS"), settings.switch("FREE_ONLY_MODE")
    if paid and free_only:
        settings.report.note("FREE_ONLY_MODE", "contradicts USE_PAID_MODELS=true; paid models are not used")
    return bool(paid) and not free_only


def _price_tiers(settings: Settings) -> frozenset[str] | None:
    words = settings.words("ALLOWED_MODEL_TIERS")
    for word in words:
        if word.lower() not in PRICE_TIERS:
            settings.report.problem("ALLOWED_MODEL_TIERS", choose(settings.report, word, PRICE_TIERS))
    return frozenset(map(str.lower, words)) or None


def _note_oddities(settings: Settings, config: Config) -> None:
    server = config.server
    if not is_loopback(server.host) and not server.allowed_hosts:
        settings.report.note(
            "KEYTURN_ALLOWED_HOSTS",
            f"Keyturn listens on {server.host}; name here the hosts that callers use, others are refused",
        )
    for name, provider in config.providers.items():
        parts = urlsplit(provider.base_url)
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


def _note_what_is_not_read(settings: Settings, folder: Path) -> None:
    """Names that look like ours but are not, and files that this version does not read."""
    known = [variable.name for variable in VARIABLES if "<" not in variable.name]
    for name in sorted(settings.values):
        if (
            not name.startswith(("KEYTURN_", "TIMEOUT_"))
            or name in known
            or name in OLD_NAMES
            or not settings.is_set(name)
        ):
            continue
        near = nearest(name, known)
        if near:
            settings.report.note(name, f"is not read; did you mean {near}?")
    present = [name for name in CONFIG_FILES if (folder / name).is_file()]
    if present:
        settings.report.notes.append(
            f"{folder}: {listed(present)} not read: this version is configured by variables only"
        )


def _origins(settings: Settings, options: Options) -> dict[str, str]:
    said = {name: value for name, value in asdict(options).items() if value is not None}
    return settings.origins | {name: f"--{name.replace('_', '-')}" for name in said}
