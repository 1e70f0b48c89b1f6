"""What is served where, with which method and for whom: a table, matched on the raw path as it came."""

from __future__ import annotations

from typing import Literal, NamedTuple
from urllib.parse import unquote

from keyturn.dispatch import GEMINI_METHODS, PLACES, Door, spellings, varying
from keyturn.errors import MethodNotAllowed, UnknownPath

Need = Literal["nothing", "caller", "local_or_caller", "admin"]
"""What a request must prove: nothing, a caller key, a loopback peer or a caller key, loopback and the admin key."""

Name = Literal[
    Door,
    "models",
    "model",
    "response",
    "input_items",
    "token_count",
    "cost_estimate",
    "providers",
    "quota_stats",
    "headroom",
    "call",
    "home",
    "healthz",
    "readyz",
    "metrics",
    "admin_keys",
    "admin_reset",
    "admin_disable",
    "admin_enable",
    "admin_groups",
    "admin_ungroup",
    "admin_models",
    "admin_status",
    "admin_headroom",
    "admin_trace",
    "admin_explain",
    "admin_reload",
    "admin_usage",
    "admin_story",
    "admin_stores",
    "admin_limits",
    "admin_limits_pin",
    "admin_limits_clear",
]


class Endpoint(NamedTuple):
    """One served path. Its *need* has no default: nothing is open by omission."""

    name: Name
    path: str
    method: Literal["GET", "POST"]
    need: Need
    dialect: str = "openai_chat"
    """In which its errors are written; `GET /v1/models` has that of who asks."""
    argument: str = ""
    """What its path says beside its name."""
    deletes: bool = False
    """It is also served with DELETE."""

    def check_method(self, method: str, argument: str = "") -> None:
        """Raises WrongMethod, and UnknownPath for a method of Gemini's that is not served. What answers GET answers
        HEAD."""
        if method == "POST" and self.name == "model" and ":" in argument:
            said = ", ".join(GEMINI_METHODS)
            raise UnknownPath(
                f"{argument.rpartition(':')[2][:80]!r} is not served; of Gemini's methods there are {said}"
            )
        if method == "DELETE" and self.deletes:
            return
        if method != self.method and not (method == "HEAD" and self.method == "GET"):
            raise WrongMethod(self)


class WrongMethod(MethodNotAllowed):
    """*allow* is what the Allow header must say."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.allow: str = "GET, HEAD" if endpoint.method == "GET" else endpoint.method
        if endpoint.deletes:
            self.allow += ", DELETE"
        super().__init__(f"{endpoint.path} is served with {self.allow}")


ENDPOINTS = (
    *(Endpoint(each.name, each.path, each.method, "caller", each.dialect, each.argument) for each in PLACES),
    Endpoint("response", "/v1/responses/{id}", "GET", "caller", deletes=True),
    Endpoint("input_items", "/v1/responses/{id}/input_items", "GET", "caller"),
    Endpoint("token_count", "/v1/token-count", "POST", "caller"),
    Endpoint("cost_estimate", "/v1/cost-estimate", "POST", "caller"),
    Endpoint("providers", "/v1/providers", "GET", "caller"),
    Endpoint("quota_stats", "/v1/quota-stats", "GET", "caller"),
    Endpoint("headroom", "/v1/headroom", "GET", "caller"),
    Endpoint("call", "/v1/calls/{id}", "GET", "caller"),
    Endpoint("home", "/", "GET", "nothing"),
    Endpoint("healthz", "/healthz", "GET", "nothing"),
    Endpoint("readyz", "/readyz", "GET", "nothing"),
    Endpoint("metrics", "/metrics", "GET", "local_or_caller"),
    Endpoint("admin_keys", "/admin/keys", "GET", "admin"),
    Endpoint("admin_reset", "/admin/keys/reset", "POST", "admin"),
    Endpoint("admin_disable", "/admin/keys/disable", "POST", "admin"),
    Endpoint("admin_enable", "/admin/keys/enable", "POST", "admin"),
    Endpoint("admin_groups", "/admin/keys/groups", "GET", "admin"),
    Endpoint("admin_ungroup", "/admin/keys/ungroup", "POST", "admin"),
    Endpoint("admin_models", "/admin/models", "GET", "admin"),
    Endpoint("admin_status", "/admin/status", "GET", "admin"),
    Endpoint("admin_headroom", "/admin/headroom", "GET", "admin"),
    Endpoint("admin_trace", "/admin/trace", "POST", "admin"),
    Endpoint("admin_explain", "/admin/explain", "POST", "admin"),
    Endpoint("admin_reload", "/admin/reload", "POST", "admin"),
    Endpoint("admin_usage", "/admin/usage", "POST", "admin"),
    Endpoint("admin_story", "/admin/story", "POST", "admin"),
    Endpoint("admin_stores", "/admin/stores", "POST", "admin"),
    Endpoint("admin_limits", "/admin/limits", "GET", "admin"),
    Endpoint("admin_limits_pin", "/admin/limits/pin", "POST", "admin"),
    Endpoint("admin_limits_clear", "/admin/limits/clear", "POST", "admin"),
)

_LONGEST_ECHO = 200
_EXACT = {
    spelling.encode(): endpoint
    for endpoint in ENDPOINTS
    if "{" not in endpoint.path
    for spelling in spellings(endpoint.path)
}
_KEPT = tuple(spelling.encode() for spelling in spellings("/v1/responses/"))
_ITEMS = b"/input_items"
_CALLS = tuple(spelling.encode() for spelling in spellings("/v1/calls/"))
_VARYING = {endpoint.path: endpoint for endpoint in ENDPOINTS if "{" in endpoint.path}


def find(raw_path: bytes) -> tuple[Endpoint, str]:
    """The endpoint of a path, with the part of it that varies: a model's id, `<model>:<method>`. Raises UnknownPath."""
    endpoint = _EXACT.get(raw_path)
    if endpoint is not None:
        return endpoint, endpoint.argument
    found = varying(raw_path)
    if found is not None:
        place, argument = found
        return _VARYING[place.path], argument
    if raw_path.startswith(_KEPT) and (kept := _kept(raw_path)) is not None:
        return kept
    if raw_path.startswith(_CALLS) and (call := _rest(raw_path, _CALLS)):
        return _VARYING["/v1/calls/{id}"], call
    shown = repr(raw_path[:_LONGEST_ECHO])[2:-1]
    raise UnknownPath(f"nothing is served at {shown}; served are {_served()}")


def is_watching(raw_path: bytes, *, local: bool) -> bool:
    """Whether this is a question of who looks after the gateway, not of its callers: health, figures, and what
    commands ask from this machine (*local*)."""
    endpoint = _EXACT.get(raw_path)
    if endpoint is None:
        return False
    return endpoint.name in ("healthz", "readyz", "metrics") or (endpoint.need == "admin" and local)


def _kept(raw_path: bytes) -> tuple[Endpoint, str] | None:
    """The endpoint of a path below `/v1/responses/`, with the response's id."""
    id = raw_path[next(len(each) for each in _KEPT if raw_path.startswith(each)) :]
    name = "/v1/responses/{id}"
    if id.endswith(_ITEMS):
        id, name = id.removesuffix(_ITEMS), "/v1/responses/{id}/input_items"
    if not id or b"/" in id:
        return None
    return _VARYING[name], unquote(id.decode("latin-1"))


def _rest(raw_path: bytes, beginnings: tuple[bytes, ...]) -> str:
    """What follows one of *beginnings*, if it is one part of a path; else nothing."""
    rest = raw_path[next(len(each) for each in beginnings if raw_path.startswith(each)) :]
    return "" if b"/" in rest else unquote(rest.decode("latin-1"))


def _served() -> str:
    return ", ".join(f"{endpoint.method} {endpoint.path}" for endpoint in ENDPOINTS if endpoint.need != "admin")
