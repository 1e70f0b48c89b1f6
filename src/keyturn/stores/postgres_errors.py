"""What PostgreSQL's and the network's errors mean, in words that say what to do; never with a password."""

from __future__ import annotations

import socket
import ssl
from urllib.parse import parse_qs, unquote, urlsplit

from keyturn.core import Secret
from keyturn.errors import RowsRefused, StoreAway, StoreError

NO_EXTRA = 'DATABASE_URL needs asyncpg: pip install "keyturn[postgres]"'
LONGEST = 300
"""Characters of a server's own words."""

_FINAL = {
    "28P01": "the user or its password is not accepted; set both in DATABASE_URL",
    "28000": "the server does not let this user in; see pg_hba.conf, and whether it demands TLS (?sslmode=require)",
    "3D000": "this database does not exist; make it with `createdb`, or name another in DATABASE_URL",
    "3F000": "no schema to put tables into; make one, or name it in DATABASE_URL (?search_path=…)",
    "42501": (
        "the user may not do this; the first start makes tables: GRANT CREATE, USAGE ON SCHEMA public TO the user, "
        "or let its owner run `keyturn stores migrate`"
    ),
    "42704": "DATABASE_URL has a parameter that the server does not know",
    "42P07": "there are tables of these names that this ledger did not make; use another database or schema",
}
"""SQLSTATE -> what does not pass by itself."""

_PASSING = {
    "53300": "too many connections are open; raise max_connections, or put a pooler before it",
    "53100": "the server's disk is full; make room there",
    "53200": "the server is out of memory",
    "57P03": "the server is starting or stopping",
    "57P01": "the server is being stopped",
    "57P02": "the server crashed and starts again",
    "57014": "it took too long: a lock of another session, or a server that is overloaded",
    "55P03": "it took too long: another session holds a lock",
    "25006": "this is a read-only standby; name the primary, or several hosts and ?target_session_attrs=primary",
    "42P01": "a table of the ledger is missing; run `keyturn stores migrate`",
}
"""SQLSTATE -> what may be over in a while."""


def said(url: Secret, error: BaseException) -> StoreError:
    """*error*, met at *url*: StoreAway when it may pass by itself, RowsRefused when rows can never be taken."""
    if isinstance(error, StoreError):
        return error
    where = f"PostgreSQL at {shown(url)}"
    state = str(getattr(error, "sqlstate", None) or "")
    if state:
        return _of_server(where, state, scrubbed(url, str(error)))
    if isinstance(error, ssl.SSLError):
        return StoreError(f"{where}: TLS fails ({scrubbed(url, str(error))}); see ?sslmode and ?sslrootcert")
    if isinstance(error, ConnectionError) and "SSL" in str(error):
        return StoreError(f"{where}: the server does not offer TLS, which DATABASE_URL demands (?sslmode)")
    if isinstance(error, OSError | TimeoutError):
        return StoreAway(f"{where}: {_of_network(error)}")
    name = type(error).__name__
    if isinstance(error, UnicodeError):
        return StoreError(f"{where}: DATABASE_URL has a host that no name can be")
    if name == "TargetServerAttributeNotMatched":
        return StoreAway(f"{where}: none of the hosts is what ?target_session_attrs asks for")
    if name in ("ClientConfigurationError", "UnsupportedClientFeatureError"):
        return StoreError(f"{where}: DATABASE_URL is not understood: {scrubbed(url, str(error))}")
    return StoreAway(f"{where}: the connection broke off ({name})")


def shown(url: Secret) -> str:
    """Where *url* leads, without user and password: `db.example:5432/keyturn`, `/run/postgresql/keyturn`.

    Only the name of the variable where it cannot be said for sure what of it is the password."""
    text = url.reveal()
    if "#" in text or not set("/?").isdisjoint(text.partition("://")[2].rpartition("@")[0]):
        return "DATABASE_URL"
    try:
        parts = urlsplit(text)
        asked = parse_qs(parts.query)
        hosts = parts.netloc.rpartition("@")[2] or ",".join(asked.get("host", ["localhost"]))
        return f"{unquote(hosts)}/{parts.path.strip('/') or ''.join(asked.get('database', asked.get('dbname', [])))}"
    except ValueError:
        return "DATABASE_URL"


def scrubbed(url: Secret, text: str) -> str:
    """*text*, one line, without what *url* keeps secret."""
    for word in sorted(_secrets(url.reveal()), key=len, reverse=True):
        text = text.replace(word, "***")
    return " ".join(text.split())[:LONGEST]


def _of_server(where: str, state: str, words: str) -> StoreError:
    if state in _FINAL:
        return StoreError(f"{where}: {_FINAL[state]} ({words})")
    if state in _PASSING:
        return StoreAway(f"{where}: {_PASSING[state]} ({words})")
    if state[:2] in ("22", "23"):
        return RowsRefused(f"{where}: it cannot take this ({words})")
    if state[:2] in ("08", "40", "53", "55", "57", "58"):
        return StoreAway(f"{where}: {words}")
    return StoreError(f"{where}: {words} ({state}){StoreError.SAYS_MORE}")


def _of_network(error: OSError | TimeoutError) -> str:
    if isinstance(error, socket.gaierror):
        return "the host is not found; see its name in DATABASE_URL, and the network"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there; start the server, or set the port in DATABASE_URL"
    if isinstance(error, FileNotFoundError):
        return "there is no such socket; start the server, or set ?host= in DATABASE_URL"
    if isinstance(error, PermissionError):
        return "the socket may not be opened; see its permissions"
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    return f"it cannot be reached ({error.strerror or type(error).__name__})"


def _secrets(url: str) -> set[str]:
    """The whole address, and its passwords as written and as meant."""
    words = {url}
    written = [url.partition("://")[2].rpartition("@")[0].partition(":")[2]]
    query = url.partition("?")[2]
    written += [pair.partition("=")[2] for pair in query.split("&") if pair.partition("=")[0].endswith("password")]
    for each in written:
        words |= {each, unquote(each)}
    return {word for word in words if word}
