"""Who may ask, and from where: Host and Origin checks, the caller key, the admin key.

A page in the owner's browser can reach a loopback port, and with DNS rebinding it is even same-origin; only the Host
header gives it away. So every request must name a host that this gateway answers for, and what a browser marks as
coming from another site is refused. Nothing is ever answered with CORS headers.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Iterable, Mapping

from keyturn.core import Caller, Secret
from keyturn.errors import InvalidCallerKey, RouteNotAllowed, WrongHost

from .paths import Need

RawHeaders = Mapping[bytes, bytes]
Peer = tuple[str, int] | None

CALLER = Caller()
NOBODY_ELSE: Mapping[str, Caller] = {}
ADMIN_HEADER = b"x-keyturn-admin"

_AUTHORITY = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,253})(?::([0-9]{1,5}))?")
_FORWARDED = (b"x-forwarded-for", b"forwarded", b"x-real-ip")
_REMEMBERED_HOSTS = 64


class Access:
    """The checks of one gateway. Compares secrets in constant time; without a key to compare with, nobody passes."""

    def __init__(
        self,
        *,
        bound_host: str,
        allowed_hosts: Iterable[str],
        caller_key: Secret | None,
        admin_key: Secret | None,
        trust_local: bool = False,
        callers: Mapping[str, Caller] = NOBODY_ELSE,
        default: Caller = CALLER,
    ) -> None:
        self._listed = frozenset(host.strip().lower() for host in allowed_hosts)
        self._bound = f"[{bound_host.lower()}]" if ":" in bound_host else bound_host.lower()
        self._caller_key = caller_key.reveal().encode() if caller_key else None
        self._admin_key = admin_key.reveal().encode() if admin_key else None
        self._trust_local = trust_local
        self._callers = callers
        self._default = default
        self._good_hosts: set[bytes] = set()

    def adopt(
        self,
        *,
        allowed_hosts: Iterable[str],
        caller_key: Secret | None,
        trust_local: bool,
        callers: Mapping[str, Caller],
        default: Caller,
    ) -> None:
        """The configuration changed: who may ask from now on."""
        self._listed = frozenset(host.strip().lower() for host in allowed_hosts)
        self._caller_key = caller_key.reveal().encode() if caller_key else None
        self._trust_local = trust_local
        self._callers, self._default = callers, default
        self._good_hosts.clear()

    def check_host(self, headers: RawHeaders) -> None:
        """Raises WrongHost unless the Host header names this gateway, with or without its port."""
        host = headers.get(b"host", b"")
        if host in self._good_hosts:
            return
        if not self._answers_for(host.decode("latin-1").lower()):
            raise WrongHost(
                "this gateway does not answer for the host of this request; it answers for localhost, the address it "
                "is bound to, and the names listed in KEYTURN_ALLOWED_HOSTS"
            )
        if len(self._good_hosts) < _REMEMBERED_HOSTS:
            self._good_hosts.add(host)

    def check_origin(self, headers: RawHeaders) -> None:
        """Raises RouteNotAllowed for what a browser sends on behalf of another site."""
        origin = headers.get(b"origin")
        if origin is not None and not self._same_site(origin, headers.get(b"host", b"")):
            raise RouteNotAllowed("requests of web pages from another origin are refused")
        if headers.get(b"sec-fetch-site") == b"cross-site":
            raise RouteNotAllowed("requests of web pages from another site are refused")

    def admit(self, need: Need, peer: Peer, headers: RawHeaders) -> Caller:
        """The caller of a request to an endpoint with that *need*. Raises InvalidCallerKey, RouteNotAllowed."""
        if need == "caller":
            return self.identify(peer, headers)
        if need == "local_or_caller":
            return self._default if is_local(peer, headers) else self.identify(peer, headers)
        if need == "admin":
            self._check_admin(peer, headers)
        return self._default

    def identify(self, peer: Peer, headers: RawHeaders) -> Caller:
        """Recognises the caller by its key, or a trusted local peer. Raises InvalidCallerKey."""
        key = self._caller_key
        presented = _presented_keys(headers)
        for value in presented:
            if key is not None and hmac.compare_digest(value, key):
                return self._default
            if self._callers:  # found by its hash: how long that takes tells nothing of the key
                caller = self._callers.get(hashlib.sha256(value).hexdigest())
                if caller is not None:
                    return caller
        if self._trust_local and is_local(peer, headers):
            return self._default
        if presented:
            raise InvalidCallerKey(
                "this is no caller key of this gateway (PROXY_API_KEY or its caller.key file, or callers.yaml)"
            )
        raise InvalidCallerKey(
            "no caller key: send the gateway's key (PROXY_API_KEY, else its caller.key file) as "
            "`Authorization: Bearer`, `x-api-key` or `x-goog-api-key`"
        )

    def _check_admin(self, peer: Peer, headers: RawHeaders) -> None:
        if not is_local(peer, headers):
            raise RouteNotAllowed("/admin is for commands on the gateway's own machine")
        key = self._admin_key
        if key is None or not hmac.compare_digest(headers.get(ADMIN_HEADER, b""), key):
            raise InvalidCallerKey("/admin needs the gateway's admin key (its admin.key file) in `x-keyturn-admin`")

    def _answers_for(self, authority: str) -> bool:
        parts = _AUTHORITY.fullmatch(authority)
        if parts is None:
            return False
        name = parts[1]
        return name == self._bound or _is_loopback_name(name) or name in self._listed or authority in self._listed

    def _same_site(self, origin: bytes, host: bytes) -> bool:
        scheme, separator, authority = origin.decode("latin-1").lower().partition("://")
        if not separator or scheme not in ("http", "https"):
            return False
        parts = _AUTHORITY.fullmatch(authority)
        if parts is None:
            return False
        return authority == host.decode("latin-1").lower() or parts[1] in self._listed or authority in self._listed


def is_local(peer: Peer, headers: RawHeaders) -> bool:
    """True for a peer on this machine that does not pass on somebody else's request, as a local proxy does."""
    if peer is None or not (peer[0] == "::1" or peer[0].startswith(("127.", "::ffff:127."))):
        return False
    return not any(name in headers for name in _FORWARDED)


def _presented_keys(headers: RawHeaders) -> list[bytes]:
    authorization = headers.get(b"authorization", b"")
    keys = [authorization[7:].strip()] if authorization[:7].lower() == b"bearer " else []
    for name in (b"x-api-key", b"x-goog-api-key"):
        if name in headers:
            keys.append(headers[name].strip())
    return keys


def _is_loopback_name(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False
