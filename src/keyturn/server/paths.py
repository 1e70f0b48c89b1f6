"""What is served where, with which method and for whom: a table, matched on the raw path as it came."""

from __future__ import annotations

from typing import Literal, NamedTuple
from urllib.parse import unquote

from keyturn.errors import MethodNotAllowed, UnknownPath

Need = Literal["nothing", "caller", "local_or_caller", "admin"]
"""What a request must prove: nothing, a caller key, a loopback peer or a caller key, loopback and the admin key."""

Name = Literal[
    "chat",
    "embeddings",
    "models",
    "model",
    "providers",
    "quota_stats",
    "home",
    "healthz",
    "readyz",
    "metrics",
    "admin_keys",
    "admin_reset",
    "admin_disable",
    "admin_enable",
    "admin_models",
    "admin_status",
    "admin_trace",
    "admin_explain",
    "admin_reload",
]


class Endpoint(NamedTuple):
    """One served path. Its *need* has no default: nothing is open by omission."""

    name: Name
    path: str
    method: Literal["GET", "POST"]
    need: Need

    def check_method(self, method: str) -> None:
        """Raises WrongMethod. What answers GET answers HEAD."""
        if method != self.method and not (method == "HEAD" and self.method == "GET"):
            raise WrongMethod(self)


class WrongMethod(MethodNotAllowed):
    """*allow* is what the Allow header must say."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.allow = "GET, HEAD" if endpoint.method == "GET" else endpoint.method
        super().__init__(f"{endpoint.path} is served with {self.allow}")


ENDPOINTS = (
    Endpoint("chat", "/v1/chat/completions", "POST", "caller"),
    Endpoint("embeddings", "/v1/embeddings", "POST", "caller"),
    Endpoint("models", "/v1/models", "GET", "caller"),
    Endpoint("model", "/v1/models/{id}", "GET", "caller"),
    Endpoint("providers", "/v1/providers", "GET", "caller"),
    Endpoint("quota_stats", "/v1/quota-stats", "GET", "caller"),
    Endpoint("home", "/", "GET", "nothing"),
    Endpoint("healthz", "/healthz", "GET", "nothing"),
    Endpoint("readyz", "/readyz", "GET", "nothing"),
    Endpoint("metrics", "/metrics", "GET", "local_or_caller"),
    Endpoint("admin_keys", "/admin/keys", "GET", "admin"),
    Endpoint("admin_reset", "/admin/keys/reset", "POST", "admin"),
    Endpoint("admin_disable", "/admin/keys/disable", "POST", "admin"),
    Endpoint("admin_enable", "/admin/keys/enable", "POST", "admin"),
    Endpoint("admin_models", "/admin/models", "GET", "admin"),
    Endpoint("admin_status", "/admin/status", "GET", "admin"),
    Endpoint("admin_trace", "/admin/trace", "POST", "admin"),
    Endpoint("admin_explain", "/admin/explain", "POST", "admin"),
    Endpoint("admin_reload", "/admin/reload", "POST", "admin"),
)

_MODEL = next(endpoint for endpoint in ENDPOINTS if endpoint.name == "model")
_MODEL_PREFIXES = (b"/v1/models/", b"/models/", b"/v1/v1/models/")
_LONGEST_ECHO = 200


def _spellings(path: str) -> tuple[str, ...]:
    """*path* itself and, for what lives under `/v1`, the same with the prefix missing or doubled."""
    return (path, path.removeprefix("/v1"), "/v1" + path) if path.startswith("/v1/") else (path,)


_EXACT = {
    spelling.encode(): endpoint
    for endpoint in ENDPOINTS
    if endpoint is not _MODEL
    for spelling in _spellings(endpoint.path)
}


def find(raw_path: bytes) -> tuple[Endpoint, str]:
    """The endpoint of a path, with the model id where the path holds one. Raises UnknownPath."""
    endpoint = _EXACT.get(raw_path)
    if endpoint is not None:
        return endpoint, ""
    for prefix in _MODEL_PREFIXES:
        if raw_path.startswith(prefix) and len(raw_path) > len(prefix):
            return _MODEL, unquote(raw_path[len(prefix) :].decode("latin-1"))
    shown = repr(raw_path[:_LONGEST_ECHO])[2:-1]
    raise UnknownPath(f"nothing is served at {shown}; served are {_served()}")


def _served() -> str:
    return ", ".join(f"{endpoint.method} {endpoint.path}" for endpoint in ENDPOINTS if endpoint.need != "admin")
