"""What is served where, with which method and for whom: a table, matched on the raw path as it came."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple
from urllib.parse import unquote

from keyturn.dispatch import GEMINI_METHODS
from keyturn.errors import MethodNotAllowed, UnknownPath
from keyturn.wire import OPERATIONS

Need = Literal["nothing", "caller", "local_or_caller", "admin"]
"""What a request must prove: nothing, a caller key, a loopback peer or a caller key, loopback and the admin key."""

Name = Literal[
    "chat",
    "completions",
    "embeddings",
    "responses",
    "messages",
    "gemini",
    "images",
    "audio",
    "moderations",
    "rerank",
    "input_tokens",
    "count_tokens",
    "models",
    "model",
    "token_count",
    "cost_estimate",
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
    dialect: str = "openai_chat"
    """In which its errors are written; `GET /v1/models` has that of who asks."""
    argument: str = ""
    """What its path says beside its name."""

    def check_method(self, method: str, argument: str = "") -> None:
        """Raises WrongMethod, and UnknownPath for a method of Gemini's that is not served. What answers GET answers
        HEAD."""
        if method == "POST" and self.name == "model" and ":" in argument:
            said = ", ".join(GEMINI_METHODS)
            raise UnknownPath(
                f"{argument.rpartition(':')[2][:80]!r} is not served; of Gemini's methods there are {said}"
            )
        if method != self.method and not (method == "HEAD" and self.method == "GET"):
            raise WrongMethod(self)


class WrongMethod(MethodNotAllowed):
    """*allow* is what the Allow header must say."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.allow = "GET, HEAD" if endpoint.method == "GET" else endpoint.method
        super().__init__(f"{endpoint.path} is served with {self.allow}")


PATHED: tuple[Name, ...] = ("images", "audio")
"""What has several operations below its name."""
ENDPOINTS = (
    Endpoint("chat", "/v1/chat/completions", "POST", "caller"),
    Endpoint("completions", "/v1/completions", "POST", "caller"),
    Endpoint("embeddings", "/v1/embeddings", "POST", "caller"),
    Endpoint("responses", "/v1/responses", "POST", "caller"),
    Endpoint("input_tokens", "/v1/responses/input_tokens", "POST", "caller"),
    Endpoint("messages", "/v1/messages", "POST", "caller", "anthropic"),
    Endpoint("count_tokens", "/v1/messages/count_tokens", "POST", "caller", "anthropic"),
    Endpoint("gemini", "/v1beta/models/{id}:{method}", "POST", "caller", "gemini"),
    *(
        Endpoint(kind, f"/v1/{kind}/{operation}", "POST", "caller", argument=operation)
        for kind in PATHED
        for operation in OPERATIONS[kind]
    ),
    Endpoint("moderations", "/v1/moderations", "POST", "caller"),
    Endpoint("rerank", "/v1/rerank", "POST", "caller"),
    Endpoint("models", "/v1/models", "GET", "caller"),
    Endpoint("model", "/v1/models/{id}", "GET", "caller"),
    Endpoint("models", "/v1beta/models", "GET", "caller", "gemini"),
    Endpoint("model", "/v1beta/models/{id}", "GET", "caller", "gemini"),
    Endpoint("token_count", "/v1/token-count", "POST", "caller"),
    Endpoint("cost_estimate", "/v1/cost-estimate", "POST", "caller"),
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

_LONGEST_ECHO = 200
_GEMINI_VERSIONS = ("v1beta", "v1", "v1alpha", "v1beta1")
"""Under which Google's clients ask; its SDK asks under v1, the Gemini CLI under v1beta."""
_RESOURCES = ("models", "tunedModels", "publishers/google/models")
_METHOD = re.compile(rb"(?::|%3[Aa])(" + "|".join(GEMINI_METHODS).encode() + rb")\Z")


def _of(name: Name, dialect: str = "openai_chat") -> Endpoint:
    return next(each for each in ENDPOINTS if each.name == name and each.dialect == dialect)


def _spellings(path: str) -> tuple[str, ...]:
    """*path* itself and, for what lives under `/v1`, the same with the prefix missing or doubled."""
    return (path, path.removeprefix("/v1"), "/v1" + path) if path.startswith("/v1/") else (path,)


_EXACT = {
    spelling.encode(): endpoint
    for endpoint in ENDPOINTS
    if "{" not in endpoint.path
    for spelling in _spellings(endpoint.path)
}
_BEGINNINGS = [
    (spelling.encode(), endpoint)
    for endpoint in ENDPOINTS
    if endpoint.name == "model"
    for spelling in _spellings(endpoint.path.partition("{")[0])
]
_GEMINI = _of("gemini", "gemini")
_GEMINI_BEGINNINGS = [
    (f"{start}/{version}/{resource}/".encode(), resource)
    for version in _GEMINI_VERSIONS
    for resource in _RESOURCES
    for start in ("", "/v1beta", "/v1")
]


def find(raw_path: bytes) -> tuple[Endpoint, str]:
    """The endpoint of a path, with the part of it that varies: a model's id, `<model>:<method>`. Raises UnknownPath."""
    endpoint = _EXACT.get(raw_path)
    if endpoint is not None:
        return endpoint, endpoint.argument
    if method := _METHOD.search(raw_path):
        for beginning, resource in _GEMINI_BEGINNINGS:
            if raw_path.startswith(beginning) and method.start() > len(beginning):
                model = unquote(raw_path[len(beginning) : method.start()].decode("latin-1"))
                kept = f"{resource}/" if resource == "tunedModels" else ""
                return _GEMINI, f"{kept}{model}:{method[1].decode()}"
    for beginning, endpoint in _BEGINNINGS:
        if raw_path.startswith(beginning) and len(raw_path) > len(beginning):
            return endpoint, unquote(raw_path[len(beginning) :].decode("latin-1"))
    shown = repr(raw_path[:_LONGEST_ECHO])[2:-1]
    raise UnknownPath(f"nothing is served at {shown}; served are {_served()}")


def spoken(raw_path: bytes, headers: Mapping[bytes, bytes]) -> str:
    """The dialect in which a request to *raw_path* wants its errors and its lists of models, known or not."""
    try:
        endpoint, _ = find(raw_path)
    except UnknownPath:
        if raw_path.startswith((b"/v1beta", b"/v1alpha")):
            return "gemini"
        return "anthropic" if raw_path.startswith((b"/v1/messages", b"/messages")) else _asking(headers)
    if endpoint.name in ("models", "model") and endpoint.dialect == "openai_chat":
        return _asking(headers)
    return endpoint.dialect


def _asking(headers: Mapping[bytes, bytes]) -> str:
    """The dialect of whose SDK sends *headers*."""
    if b"anthropic-version" in headers:
        return "anthropic"
    return "gemini" if b"x-goog-api-key" in headers or b"x-goog-api-client" in headers else "openai_chat"


def _served() -> str:
    return ", ".join(f"{endpoint.method} {endpoint.path}" for endpoint in ENDPOINTS if endpoint.need != "admin")
