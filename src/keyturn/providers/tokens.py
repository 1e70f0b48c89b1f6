"""What is asked of token endpoints, and what their answers mean. No signing, no clock: `now` is Unix seconds."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode

import msgspec

from keyturn.core import Account, HttpRequest, Redactor, Secret, one_line

from .asking import USER_AGENT

JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
JWT_LIFE = 3600
"""Seconds: the longest that Google takes."""
BACKDATED = 10
"""Seconds by which a signed request is dated back: a clock that is a little fast must not make it one of the future."""
USUAL_LIFE = 3600.0
"""Seconds, where an answer does not say how long its token holds."""
LONGEST_TEXT = 200
LONGEST_CODE = 60
FORM = "application/x-www-form-urlencoded"
PASSING = frozenset({"temporarily_unavailable", "server_error", "slow_down"})
PASSING_STATUSES = frozenset({408, 425, 429})
"""Refusals that end by themselves, although their status says that the request is to blame."""


class Granted(NamedTuple):
    """A token, for how many seconds it holds, and the refresh token that replaces the one used, if there is one."""

    token: Secret
    lifetime: float
    refresh: Secret | None = None
    scope: str = ""


class Denied(NamedTuple):
    """Why there is no token. *final*: the same question will get the same answer."""

    code: str
    message: str
    final: bool


def token_request(account: Account, refresh: Secret, assertion: str = "") -> HttpRequest:
    """The question for a token of *account*. *refresh* is the refresh token in use, *assertion* the signed JWT of a
    service account; each is needed by its own kind only."""
    if account.kind == "google_metadata":
        return question(f"{account.token_url}?{urlencode({'scopes': ','.join(account.scopes)})}", METADATA_GOOGLE)
    if account.kind == "azure_metadata":
        asked = {"api-version": "2018-02-01", "resource": _resource(account.scopes)}
        if account.client_id:
            asked["client_id"] = account.client_id
        return question(f"{account.token_url}?{urlencode(asked)}", (("metadata", "true"),))
    if account.kind == "service_account":
        return form(account.token_url, {"grant_type": JWT_GRANT, "assertion": assertion})
    members = {"client_id": account.client_id}
    if account.client_secret:
        members["client_secret"] = account.client_secret.reveal()
    if account.kind == "client_secret":
        members |= {"grant_type": "client_credentials", "scope": " ".join(account.scopes)}
    else:
        members |= {"grant_type": "refresh_token", "refresh_token": refresh.reveal()}
    return form(account.token_url, members)


METADATA_GOOGLE = (("metadata-flavor", "Google"),)


def _resource(scopes: tuple[str, ...]) -> str:
    """What Azure's metadata server calls a scope."""
    return scopes[0].removesuffix(".default") if scopes else ""


def form(url: str, members: Mapping[str, str]) -> HttpRequest:
    """A POST of *members* as a form. Secrets among them are in the body, never in the URL."""
    return HttpRequest("POST", url, (*_HEADERS, ("content-type", FORM)), urlencode(members).encode())


def question(url: str, headers: tuple[tuple[str, str], ...] = (), token: Secret | None = None) -> HttpRequest:
    """A GET, with *token* as its authorization."""
    auth = None if token is None else ("authorization", "Bearer ", token)
    return HttpRequest("GET", url, (*_HEADERS, *headers), auth=auth)


_HEADERS = (("accept", "application/json"), ("accept-encoding", "identity"), ("user-agent", USER_AGENT))


def jwt_to_sign(account: Account, now: float) -> bytes:
    """Header and claims of a service account's request for a token (RFC 7523), as they are signed with RS256."""
    issued = int(now) - BACKDATED
    header: dict[str, object] = {"alg": "RS256", "typ": "JWT"}
    if account.key_id:
        header["kid"] = account.key_id
    claims = {
        "iss": account.client_id,
        "scope": " ".join(account.scopes),
        "aud": account.token_url,
        "iat": issued,
        "exp": issued + JWT_LIFE,
    }
    return b".".join(_base64(msgspec.json.encode(part)) for part in (header, claims))


def signed_jwt(to_sign: bytes, signature: bytes) -> str:
    """The whole JWT."""
    return b".".join((to_sign, _base64(signature))).decode()


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def read_token(status: int, body: bytes, *sent: Secret) -> Granted | Denied:
    """What a token endpoint answered. A message that quotes one of the secrets that it was *sent* is given without."""
    members = json_object(body)
    token = members.get("access_token")
    if 200 <= status < 300 and isinstance(token, str) and sendable(token):
        refresh = members.get("refresh_token")
        scope = members.get("scope")
        return Granted(
            Secret(token),
            _lifetime(members.get("expires_in")),
            Secret(refresh) if isinstance(refresh, str) and writable(refresh) else None,
            scope if isinstance(scope, str) else "",
        )
    if 200 <= status < 300:
        return Denied("no_token", "its answer holds no token", False)
    return denial(status, members, *sent)


def denial(status: int, members: Mapping[str, Any], *sent: Secret) -> Denied:
    """What an error of an authorisation server says (RFC 6749 §5.2; Google and others nest it).

    Without an error code it is not that server which speaks, but what stands before it: that is never final.
    """
    error, text = members.get("error"), members.get("error_description") or members.get("message")
    if isinstance(error, dict):
        text, error = error.get("message"), error.get("code") or error.get("status")
    hidden = Redactor(sent)
    code = one_line(hidden.text(str(error)), LONGEST_CODE) if error else f"status {status}"
    message = one_line(hidden.text(str(text)), LONGEST_TEXT) if text else ""
    final = bool(error) and 400 <= status < 500 and status not in PASSING_STATUSES and code not in PASSING
    return Denied(code, message, final)


def json_object(body: bytes) -> dict[str, Any]:
    """The members of a JSON object; empty for anything else."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def sendable(token: str) -> bool:
    """Whether a token can stand in a header."""
    return bool(token) and token.isascii() and token.isprintable() and " " not in token


def writable(secret: str) -> bool:
    """Whether a secret can stand in a form and in a file: RFC 6749 allows printable ASCII, spaces among it."""
    return bool(secret) and secret.isascii() and secret.isprintable()


def _lifetime(stated: object) -> float:
    """Seconds; Azure's metadata server writes them as a string."""
    try:
        seconds = float(stated)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return USUAL_LIFE
    return seconds if 0 < seconds < 366 * 86_400 else USUAL_LIFE


def renewal(lifetime: float) -> float:
    """After how many seconds of its *lifetime* a token is replaced: 5 minutes or a tenth before its end, whichever is
    earlier; a short one at half its life."""
    return lifetime - min(max(300.0, lifetime / 10), lifetime / 2)
