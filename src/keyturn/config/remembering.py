"""What is remembered, where, and what is learned: those sections of settings.toml, their variables over them."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

from keyturn.core import Secret

from .model import LearningSettings, LedgerSettings, RedisSettings, ResponsesSettings
from .sections import Filled
from .settings import Settings, as_integer, choose

REDIS_SCHEMES = ("redis", "rediss", "unix")
DATABASE_SCHEMES = ("postgresql", "postgres")
OTHER_DATABASES = ("mysql", "mariadb", "sqlite", "sqlite3", "mssql", "oracle", "mongodb")
"""Schemes of a `DATABASE_URL` that was set for another program."""
POLICIES = ("local_share", "open", "closed")
DURABILITIES = ("normal", "full")
GROUPS = ("infer", "suggest", "off")
ESCAPES = {sign: f"%{ord(sign):02X}" for sign in "@/?#[]"}
"""What means something in an address, and how it is written where it shall mean nothing."""
ESCAPE_THEM = (
    "has a sign in its user or password, or behind its host, that means something in an address: write "
    + ", ".join(f"{code} for {sign}" for sign, code in ESCAPES.items())
)
DAY = 86_400.0


def remembering_of(filled: Filled, settings: Settings) -> dict[str, Any]:
    """The members of `Config` that say what is remembered and where."""
    return {
        "redis": redis_of(filled, settings),
        "ledger": ledger_of(filled, settings),
        "responses": responses_of(filled, settings),
        "learning": learning_of(filled, settings),
    }


def redis_of(filled: Filled, settings: Settings) -> RedisSettings | None:
    """The live state that many share; None without `REDIS_URL`."""
    url = _url("REDIS_URL", REDIS_SCHEMES, "redis://localhost:6379/0", settings)
    given: dict[str, Any] = {
        "prefix": settings.text("REDIS_PREFIX") or filled.value("redis", "prefix"),
        "without": _word("REDIS_WITHOUT", POLICIES, settings) or filled.value("redis", "without"),
        "least_replicas": _count("REDIS_LEAST_REPLICAS", settings) or filled.value("redis", "least_replicas"),
    }
    prefix = given["prefix"]
    if prefix is not None and not (prefix.isascii() and prefix.isprintable() and not set(prefix) & set("{}* ")):
        settings.report.problem("REDIS_PREFIX", f"{settings.report.quote(prefix)} is not a plain word such as keyturn")
    return None if url is None else RedisSettings(url, **_said(given))


def ledger_of(filled: Filled, settings: Settings) -> LedgerSettings:
    """Whether calls are recorded, and where."""
    enabled = settings.switch("LEDGER_ENABLED")
    spooled = _count("LEDGER_MOST_SPOOLED", settings)
    given: dict[str, Any] = {
        "enabled": filled.value("ledger", "enabled") if enabled is None else enabled,
        "database_url": _database(settings),
        "durable": _word("LEDGER_DURABLE", DURABILITIES, settings) or filled.value("ledger", "durable"),
        "keep_days": _days("LEDGER_KEEP_DAYS", settings) or filled.value("ledger", "keep_days"),
        "most_spooled": filled.value("ledger", "most_spooled") if spooled is None else spooled,
    }
    return LedgerSettings(**_said(given))


def responses_of(filled: Filled, settings: Settings) -> ResponsesSettings:
    """Whether answers of the Responses API are kept here."""
    store = settings.switch("RESPONSES_STORE")
    given: dict[str, Any] = {
        "store": filled.value("responses", "store") if store is None else store,
        "keep_days": _days("RESPONSES_KEEP_DAYS", settings) or filled.value("responses", "keep_days"),
    }
    return ResponsesSettings(**_said(given))


def learning_of(filled: Filled, settings: Settings) -> LearningSettings:
    """Whether limits, and which keys share one, are learned from what providers refuse."""
    enabled = settings.switch("LEARNING_ENABLED")
    given: dict[str, Any] = {
        "enabled": filled.value("learning", "enabled") if enabled is None else enabled,
        "groups": _word("LEARNING_GROUPS", GROUPS, settings) or filled.value("learning", "groups"),
    }
    return LearningSettings(**_said(given))


def _database(settings: Settings) -> Secret | None:
    """`DATABASE_URL`, a name that programs share: what names another kind of database is not meant for us. But many
    gateways that share live state must share the sums of their budgets too.

    A driver in its scheme (`postgresql+asyncpg`) is left out, for it is meant for another program's library.
    """
    text = settings.text("DATABASE_URL")
    if text is None:
        return None
    scheme, colon, rest = text.partition(":")
    scheme = scheme.partition("+")[0].lower()
    if scheme in OTHER_DATABASES and settings.is_set("REDIS_URL"):
        settings.report.problem(
            "DATABASE_URL",
            f"names a database of {scheme}; gateways that share REDIS_URL share their budgets too, so their ledger "
            "must be in PostgreSQL: set such an address, or leave DATABASE_URL empty for one file each",
        )
        return None
    if scheme in OTHER_DATABASES:
        settings.report.note("DATABASE_URL", f"names a database of {scheme}, not PostgreSQL; the ledger is a file")
        return None
    url = f"{scheme}{colon}{rest}"
    if _ambiguous(text):
        settings.report.problem("DATABASE_URL", ESCAPE_THEM)
    elif not text.isprintable() or scheme not in DATABASE_SCHEMES or not _has_hosts(url):
        example = "postgresql://user:password@host/keyturn or postgresql:///keyturn?host=/run/postgresql"
        settings.report.problem("DATABASE_URL", f"is not an address such as {example}")
    return Secret(url)


def _ambiguous(url: str) -> bool:
    """Whether nobody can say where the password in *url* ends. One `@` may stand in it, in front of the host, and what
    is before that must have none of the signs that end a host."""
    rest = url.partition("://")[2]
    login, at, _ = rest.rpartition("@")
    return "#" in rest or (bool(at) and not ESCAPES.keys().isdisjoint(login))


def _has_hosts(url: str) -> bool:
    """Whether *url* names a host, several (`a:5432,b:5432`), or the folder of a socket."""
    try:
        parts = urlsplit(url)
        named = parts.netloc.rpartition("@")[2] or ",".join(parse_qs(parts.query).get("host", ()))
    except ValueError:
        return False
    hosts = [host if host.startswith("/") else _split_host(host) for host in named.split(",")]
    return all(hosts)


def _split_host(text: str) -> str:
    """The host of `host:port`; empty when either is none."""
    if text.endswith("]") or ":" not in text:
        return text
    host, _, port = text.rpartition(":")
    return host if port.isdecimal() and 0 < int(port) < 65_536 else ""


def _said(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}


def _url(name: str, schemes: tuple[str, ...], example: str, settings: Settings) -> Secret | None:
    """The address that a variable holds; a problem, which does not quote it, when it is none."""
    text = settings.text(name)
    if text is None:
        return None
    if _ambiguous(text):
        settings.report.problem(name, ESCAPE_THEM)
        return Secret(text)
    try:
        parts = urlsplit(text)
        fine = parts.scheme in schemes and bool(parts.hostname or parts.scheme == "unix") and (parts.port or 1) > 0
    except ValueError:
        fine = False
    if not fine or not text.isprintable():
        settings.report.problem(name, f"is not an address such as {example}")
    return Secret(text)


def _word(name: str, valid: tuple[str, ...], settings: Settings) -> str | None:
    text = settings.text(name)
    if text and text.lower() not in valid:
        settings.report.problem(name, choose(settings.report, text, valid))
    return text.lower() if text else None


def _count(name: str, settings: Settings) -> int | None:
    text = settings.text(name)
    number = as_integer(text) if text else None
    if text and (number is None or number <= 0):
        settings.report.problem(name, f"{settings.report.quote(text)} is not a whole number above 0")
    return number


def _days(name: str, settings: Settings) -> float | None:
    text = settings.text(name)
    try:
        days = float(text) if text else None
    except ValueError:
        days = -1.0
    if days is not None and not 0.0 < days <= 36_500.0:
        settings.report.problem(name, f"{settings.report.quote(text or '')} is not a number of days above 0")
    return days
