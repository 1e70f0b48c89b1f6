"""Every error that Keyturn raises or answers, in one tree.

KeyturnError
├── ConfigError              config invalid: every mistake at once (exit code 3)
├── RequestError             the client's request cannot be served as it stands
│   ├── BadRequest           400 bad_request
│   │   └── Untranslatable   400 bad_request: what this upstream's dialect cannot say; another may
│   ├── RequestExceedsLimit  400 request_exceeds_limit
│   ├── PaidRoute            400 paid_route
│   ├── InvalidCallerKey     401 invalid_api_key
│   ├── BudgetExhausted      402 budget_exhausted
│   ├── RouteNotAllowed      403 route_not_allowed
│   ├── ModelNotFound        404 model_not_found
│   ├── ResponseNotFound     404 response_not_found
│   ├── UnknownCall          404 unknown_call
│   ├── PreviousResponseNotFound 400 previous_response_not_found
│   ├── UnknownPath          404 unknown_path
│   ├── MethodNotAllowed     405 method_not_allowed
│   ├── TooLarge             413 too_large
│   ├── UnsupportedEncoding  415 unsupported_encoding
│   ├── WrongHost            421 wrong_host
│   ├── CallerLimit          429 caller_limit (with Retry-After)
│   ├── HeadersTooLarge      431 headers_too_large
│   └── UpstreamRefused      an upstream's own answer to a client's mistake, told in another dialect
├── PoolError                nothing could answer
│   ├── Capacity             429 capacity (with Retry-After)
│   ├── BadUpstream          502 bad_upstream
│   ├── NoValidCredentials   503 no_valid_credentials
│   ├── Draining             503 draining
│   ├── Overloaded           503 overloaded
│   ├── LimiterUnavailable   503 limiter_unavailable
│   ├── ResponsesUnavailable 503 responses_unavailable
│   ├── UpstreamInterrupted  (event) upstream_interrupted: a stream cut after output
│   ├── DeadlineExceeded     504 deadline
│   └── ProviderExhaustedError  what the library raises for all of these but a cut stream; a RuntimeError too
├── DataFolderInUse          another process owns the data folder
├── StoreError               a store (ledger, snapshot, Redis) cannot be used; its message says what to do
│   ├── StoreAway            it cannot be reached or written just now; it is tried again
│   └── RowsRefused          a database will never take some of these rows
├── NoToken                  an account got no token; never leaves dispatch
└── TransportError           an upstream could not be reached or broke off; never leaves dispatch

`code` is stable and documented; `status` is the HTTP status that the edge answers with.
"""

from __future__ import annotations

from collections.abc import Mapping


class KeyturnError(Exception):
    """Base of all errors. *message* says what is wrong and how to mend it; it never holds a secret."""

    code: str = "internal_error"
    status: int = 500
    should_retry: bool | None = None
    more: Mapping[str, object] | None = None
    """What else a client is told beside the call and its attempts: the limit in its way, its place in the line."""
    trail: Mapping[str, object] | None = None
    """In the library: the story of the call that failed, its attempts, refusals and notes; else None."""

    def __init__(self, message: str, *, param: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after
        """Seconds until it is worth trying again, when that is known."""


class ConfigError(KeyturnError):
    """The configuration has mistakes; *problems* lists all of them, a line each."""

    code = "config_invalid"

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class RequestError(KeyturnError):
    """The request itself is the cause; sending it again as it is cannot help."""

    code = "bad_request"
    status = 400


class BadRequest(RequestError):
    """Broken JSON, a missing or wrong field."""


class Untranslatable(BadRequest):
    """The request holds what the dialect of this upstream cannot say; one that speaks another may answer it."""


class RequestExceedsLimit(RequestError):
    """Even its lower bound is above a declared or reported limit."""

    code = "request_exceeds_limit"


class PaidRoute(RequestError):
    """Only models are left that the owner does not want to pay for."""

    code = "paid_route"


class BudgetExhausted(RequestError):
    """The month's budget of the caller or of the role is spent."""

    code = "budget_exhausted"
    status = 402
    should_retry = False


class CallerLimit(RequestError):
    """The caller's own limit is reached; `retry_after` says for how long."""

    code = "caller_limit"
    status = 429


class InvalidCallerKey(RequestError):
    """The caller's own key is missing or wrong."""

    code = "invalid_api_key"
    status = 401


class RouteNotAllowed(RequestError):
    """The caller may not use this route."""

    code = "route_not_allowed"
    status = 403


class ModelNotFound(RequestError):
    """No configured provider offers the name that was asked for."""

    code = "model_not_found"
    status = 404


class ResponseNotFound(RequestError):
    """The caller has no kept response of this id."""

    code = "response_not_found"
    status = 404


class UnknownCall(RequestError):
    """No call of this id is known, or it was not this caller's."""

    code = "unknown_call"
    status = 404


class PreviousResponseNotFound(RequestError):
    """The response that a request goes on from is not kept, or one of those before it."""

    code = "previous_response_not_found"


class UnknownPath(RequestError):
    """Nothing is served at this path."""

    code = "unknown_path"
    status = 404


class MethodNotAllowed(RequestError):
    """The path is served, but not with this method."""

    code = "method_not_allowed"
    status = 405


class TooLarge(RequestError):
    """The request body is larger than the gateway accepts."""

    code = "too_large"
    status = 413


class UnsupportedEncoding(RequestError):
    """The request body is compressed; the gateway reads plain bodies only."""

    code = "unsupported_encoding"
    status = 415


class WrongHost(RequestError):
    """The Host header names a host that this gateway does not answer for."""

    code = "wrong_host"
    status = 421


class HeadersTooLarge(RequestError):
    """The request headers are larger than the gateway accepts."""

    code = "headers_too_large"
    status = 431


class UpstreamRefused(RequestError):
    """An upstream's own answer to a client's mistake, on its way into another dialect: its status, its words."""

    def __init__(self, message: str, status: int = 400, code: str = "bad_request") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class PoolError(KeyturnError):
    """Nothing in the pool could answer."""

    code = "bad_upstream"
    status = 502


class Capacity(PoolError):
    """Only limits stand in the way; `retry_after` says when they no longer do."""

    code = "capacity"
    status = 429


class BadUpstream(PoolError):
    """Upstreams failed or answered garbage."""


class NoValidCredentials(PoolError):
    """No usable key is left for what was asked."""

    code = "no_valid_credentials"
    status = 503
    should_retry = False


class Draining(PoolError):
    """The gateway is shutting down."""

    code = "draining"
    status = 503


class Overloaded(PoolError):
    """The gateway itself has too much to do, and sheds what can wait."""

    code = "overloaded"
    status = 503


class LimiterUnavailable(PoolError):
    """A limit in money, or one that is closed without Redis: what keeps count of it cannot be reached or written."""

    code = "limiter_unavailable"
    status = 503


class ResponsesUnavailable(PoolError):
    """Kept responses cannot be read just now; `retry_after` says when to ask again."""

    code = "responses_unavailable"
    status = 503


class UpstreamInterrupted(PoolError):
    """A stream was cut after output had reached the client; sent as an event, never as a status."""

    code = "upstream_interrupted"


class DeadlineExceeded(PoolError):
    """The call's deadline passed."""

    code = "deadline"
    status = 504


class ProviderExhaustedError(PoolError, RuntimeError):
    """What a call of the library raises when nothing could answer; its text begins with "All API keys exhausted".

    *code* and *status* say why, as the gateway would: `capacity` 429, `bad_upstream` 502, `no_valid_credentials` 503,
    `deadline` 504 and so on.
    """

    code = "no_valid_credentials"
    status = 503

    def __init__(
        self,
        message: str,
        *,
        code: str = "no_valid_credentials",
        status: int = 503,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.code = code
        self.status = status


NoAvailableKeysError = ProviderExhaustedError
"""The older name of the same."""


class DataFolderInUse(KeyturnError):
    """Another process owns the data folder."""

    code = "data_folder_in_use"


class StoreError(KeyturnError):
    """A store cannot be used: the ledger, the snapshot or the shared live state. The message says what to do."""

    code = "store_unavailable"
    SAYS_MORE = "; `keyturn stores check` says more"
    """The end of a message that leaves the rest to this command, which has nobody to leave it to."""


class StoreAway(StoreError):
    """The store cannot be reached or written just now. What was to be written waits and is tried again."""


class RowsRefused(StoreError):
    """A database will never take some of these rows: it is not to be asked again, but for each row alone."""


class NoToken(KeyturnError):
    """An account got no token. *final*: asking again is of no use until its owner has done something.

    Otherwise *retry_after* says in how many seconds to ask again.
    """

    code = "no_token"
    status = 502

    def __init__(self, message: str, *, final: bool = False, retry_after: float = 0.0) -> None:
        super().__init__(message, retry_after=retry_after)
        self.final = final


class TransportError(KeyturnError):
    """An upstream could not be reached, or broke off.

    *kind* is one of: dns, refused, unreachable, tls, connect_timeout, stale, reset, closed, protocol, too_large,
    timeout. `stale` is a reused connection that the peer had closed before any byte of an answer; `closed` is an
    end before the announced length; *sent* tells whether the whole request had been written.
    """

    code = "transport"
    status = 502

    def __init__(self, kind: str, message: str, *, sent: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.sent = sent
