"""Reaches a Redis and looks whether it may be used: address, password, version, eviction, role."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar, cast
from urllib.parse import urlsplit

from keyturn.core import Clock, Secret
from keyturn.errors import StoreError

from .redis_presence import Presence
from .redis_wire import FINAL, MEANINGS, STRANGE, Wire, breathe, causes, code_of, exchange, hang_up, within

T = TypeVar("T")
CONNECT_PATIENCE = 2.0
"""Seconds that connecting and greeting may take, and the looks at the server after it as well."""
PINGS = 5
LEAST_TIMEOUT, MOST_TIMEOUT = 0.050, 0.250
TRIPS = 10
"""An operation may take so many round trips, within the two bounds above (seconds)."""
FAR = 0.005
"""Seconds of a round trip from which on the distance is worth a warning: each call waits for one."""
OLDEST = (6, 2)
SWITCHES = ("ssl_check_hostname", "ssl_cert_reqs", "ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
"""What the address may say after its `?`."""


_TLS = re.compile(
    "certificate has expired|self[- ]signed certificate|unable to get (?:local )?issuer certificate|Hostname mismatch|"
    "IP address mismatch|wrong version number|record layer failure|CERTIFICATE_VERIFY_FAILED"
)


class Unreachable(StoreError):
    """Redis cannot be reached, or not be used yet: waiting may mend it."""


class Refused(StoreError):
    """Redis must not be used as it is: waiting does not mend it."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where Redis is. `shown` is its place without user and password."""

    shown: str
    make: Callable[[], Wire]
    """A connection that is not connected yet."""
    tls: bool = False


class Greeting(NamedTuple):
    """A connected wire, and what became known of the server."""

    wire: Wire
    trip: float
    """Seconds of the fastest round trip."""
    lost: bool
    """Redis no longer knows what it knew at the greeting before."""
    warnings: tuple[str, ...]


def address_of(url: Secret) -> Address:
    """What an address says. Raises StoreError: redis-py is missing, or the address is none."""
    try:
        from redis.asyncio import connection as connections
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ImportError as error:
        raise StoreError('REDIS_URL needs redis-py: pip install "keyturn[redis]"') from error
    try:
        given: dict[str, Any] = dict(connections.parse_url(url.reveal()))
    except ValueError as error:
        raise Refused("REDIS_URL is not an address such as redis://:password@host:6379/0") from error
    make = cast("type[Any]", given.pop("connection_class", connections.Connection))
    database = urlsplit(url.reveal()).path.strip("/")
    if make is not connections.UnixDomainSocketConnection and database and not database.isdecimal():
        raise Refused("REDIS_URL ends in something that is no number of a database: /0 to /15 by default")
    path = str(given.get("path", ""))
    shown = path or f"{given.get('host', 'localhost')}:{given.get('port', 6379)}"
    kept: dict[str, Any] = {
        name: given[name] for name in ("host", "port", "path", "db", "username", "password") if name in given
    }
    if make is connections.SSLConnection:
        kept |= {name: given[name] for name in SWITCHES if name in given}
        kept.setdefault("ssl_check_hostname", kept.get("ssl_cert_reqs") != "none")
    # Every timeout is ours, and it is we who connect again: redis-py's own would hide a loss from us.
    kept |= {"protocol": 2, "socket_timeout": None, "socket_connect_timeout": None, "decode_responses": False}
    return Address(
        f"{shown}/{given['db']}" if given.get("db") else shown,
        lambda: make(retry=Retry(NoBackoff(), 0), **kept),
        tls=make is connections.SSLConnection,
    )


async def connect(address: Address, clock: Clock) -> Wire:
    """A connected and authenticated wire. Raises Unreachable and Refused."""
    from redis.exceptions import RedisError

    wire = address.make()
    try:
        await within(clock, CONNECT_PATIENCE, wire.connect())
    except TimeoutError as error:
        await hang_up(wire)
        what = "does a firewall let us through"
        if address.tls:
            what += ", and does this port speak TLS (if not, write redis:// in REDIS_URL)"
        raise Unreachable(f"{named(address)} does not answer: is it up, and {what}?") from error
    except (RedisError, *STRANGE) as error:
        await hang_up(wire)
        raise refusal(address, error) from error
    except BaseException:
        await hang_up(wire)
        raise
    return wire


async def greet(address: Address, clock: Clock, presence: Presence, scripts: Iterable[str]) -> Greeting:
    """Connect, look at the server, hand it the scripts and join the others. Raises Unreachable and Refused."""
    wire = await connect(address, clock)
    return await _asked(address, wire, clock, _join(address, wire, clock, presence, scripts))


async def look(url: Secret, clock: Clock) -> tuple[str, Sequence[str]]:
    """Which Redis it is, and what is worth a look at it, without joining those who share it. Raises Unreachable and
    Refused."""
    address = address_of(url)
    wire = await connect(address, clock)
    seen = await _asked(address, wire, clock, _look(address, wire, clock))
    await hang_up(wire)
    return named(address), seen.warnings


async def _asked(address: Address, wire: Wire, clock: Clock, work: Coroutine[Any, Any, T]) -> T:
    """What *work*, which asks *wire*, returns in time. Raises Unreachable and Refused, and hangs up."""
    from redis.exceptions import RedisError

    try:
        return await within(clock, CONNECT_PATIENCE, work)
    except TimeoutError as error:
        await hang_up(wire)
        raise Unreachable(f"{named(address)} accepts connections, but does not answer") from error
    except (RedisError, *STRANGE) as error:
        await hang_up(wire)
        raise refusal(address, error) from error
    except BaseException:
        await hang_up(wire)
        raise


async def _join(address: Address, wire: Wire, clock: Clock, presence: Presence, scripts: Iterable[str]) -> Greeting:
    seen = await _look(address, wire, clock)
    for source in (*scripts, presence.source):
        await exchange(wire, "SCRIPT", "LOAD", source)
    began = clock.mono()
    await wire.send_packed_command((presence.beat(),), check_health=False)
    lost = presence.heard(await wire.read_response(disable_decoding=True), began, clock.mono())
    return Greeting(wire, seen.trip, lost, seen.warnings)


class _Seen(NamedTuple):
    trip: float
    warnings: tuple[str, ...]


async def _look(address: Address, wire: Wire, clock: Clock) -> _Seen:
    from redis.exceptions import ResponseError

    trips = []
    for _ in range(PINGS):
        before = clock.mono()
        await breathe()
        began = clock.mono()
        await exchange(wire, "PING")
        # Less what a turn of our own loop takes: a busy gateway must not take itself for a slow Redis.
        trips.append(max(0.0, clock.mono() - began - (began - before)))
        if trips[-1] > MOST_TIMEOUT:
            break
    trip = min(trips)
    if trip > MOST_TIMEOUT:
        raise Unreachable(
            f"{named(address)} answers only after {trip * 1000:.0f} ms: no call may wait that long for it"
        )
    warnings: list[str] = []
    facts: dict[str, str] = {}
    try:
        facts = read_facts(await exchange(wire, "INFO"))
    except ResponseError as error:
        if code_of(error) not in ("", "NOPERM"):
            raise
        warnings.append("its version and settings are unknown, for this user may not ask (INFO); they are not checked")
    if wrong := unfit(facts):
        raise Refused(f"{named(address)} {wrong}")
    warnings += worries(facts)
    if trip > FAR:
        warnings.append(f"a round trip takes {trip * 1000:.1f} ms, and each call waits for one: a nearer Redis helps")
    return _Seen(trip, tuple(warnings))


def timeout_for(trip: float) -> float:
    """Seconds that an operation may take, where a round trip takes *trip*."""
    return min(MOST_TIMEOUT, max(LEAST_TIMEOUT, TRIPS * trip))


def named(address: Address) -> str:
    return f"Redis at {address.shown}"


def read_facts(text: bytes) -> dict[str, str]:
    """The lines of INFO."""
    pairs = (line.partition(":") for line in bytes(text).decode("utf-8", "replace").splitlines())
    return {name: value.strip() for name, colon, value in pairs if colon}


def unfit(facts: Mapping[str, str]) -> str:
    """Why a server must not be used, with what to do; empty when it may be."""
    version = facts.get("redis_version", "")
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if facts.get("redis_mode") == "sentinel":
        return "is a Sentinel, which keeps no data: point REDIS_URL at the primary that it watches"
    if facts.get("redis_mode") == "cluster" or facts.get("cluster_enabled") == "1":
        return MEANINGS["CLUSTER"]
    if numbers and numbers < OLDEST:
        return f"is version {version}: Redis 6.2 or newer is needed, or any Valkey"
    if facts.get("role") in ("slave", "replica"):
        return MEANINGS["READONLY"]
    policy = facts.get("maxmemory_policy", "")
    if policy.startswith("allkeys-"):
        return (
            f"may throw away any key when its memory is full ({policy}), and with a key a limit is forgotten: "
            "CONFIG SET maxmemory-policy noeviction (and in redis.conf), or use another Redis than the cache's"
        )
    return ""


def worries(facts: Mapping[str, str]) -> list[str]:
    """What the owner should know of a server that may be used."""
    found = []
    policy = facts.get("maxmemory_policy", "")
    if policy.startswith("volatile-"):
        found.append(
            f"may throw away counters when its memory is full ({policy}): CONFIG SET maxmemory-policy noeviction"
        )
    if facts.get("aof_enabled") == "0":
        found.append(
            "keeps no append-only file, so when it restarts each gateway has to tell it again what it remembers, and "
            "what gateways that are gone by then had used is forgotten: CONFIG SET appendonly yes (and in redis.conf)"
        )
    return found


def refusal(address: Address, error: BaseException) -> StoreError:
    """The error for the owner of what redis-py or the system said; no word of it is quoted, it may hold anything."""
    code, who = code_of(error), named(address)
    text = " ".join(map(str, causes(error)))
    if code:
        return (Refused if code in FINAL else Unreachable)(f"{who} {MEANINGS[code]}")
    if "SSL" in text or "CERTIFICATE" in text.upper():
        return Refused(
            f"{who}: the TLS connection failed ({_tls(text)}): rediss:// is for a port that speaks TLS, and a private "
            "authority is named by ?ssl_ca_certs=/path/to/ca.pem"
        )
    if isinstance(error, ValueError) or type(error).__name__ in ("InvalidResponse", "ResponseError"):
        return Refused(f"{who} does not answer as a Redis does: is this the right port, and is TLS (rediss://) needed?")
    return Unreachable(f"{who} cannot be reached ({_why(text)}): see that it runs, and that REDIS_URL names it")


def _tls(text: str) -> str:
    found = _TLS.findall(text)
    return found[-1] if found else "handshake"


def _why(text: str) -> str:
    lower = text.lower()
    if "refused" in lower or "connect call failed" in lower:
        return "connection refused"
    if "not known" in lower or "name resolution" in lower or "nodename" in lower or "no address" in lower:
        return "no such host name"
    if "no such file" in lower:
        return "no such socket file"
    if "permission" in lower:
        return "no permission for its socket"
    if "closed" in lower or "reset" in lower:
        return "it closed the connection"
    return "connection failed"
