"""What an error means: ordered tests on its codes, its words and its status, the most telling first.

The order matters, since one status means many things and sentences mention what they are not about:

     1  outright         what the provider's own rules say of a code, a phrase or a status
     2  region           the place of the caller: no key helps
     3  money            codes and words of billing, wherever they appear (429, 400, 402, 403, 412)
     4  content          the prompt or the answer was filtered
     5  the key          401, and codes and words of a bad key at 400 and 403
     6  size             the prompt is longer than the model or the plan takes
     7  limits           day, week and month before capacity before minutes
     8  permission       403, and what else says "not for you"
     9  absence          the model or the path is not there
    10  load             overloaded, starting, out of capacity
    11  time             timeouts
    12  the status       5xx, then 4xx

Words are looked for in lower-case text without web addresses, codes in lower snake case. "a … b" means a, and b
somewhere behind it. Specialities of one provider belong in the catalog, not here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from .evidence import Evidence, status_in
from .model import Meaning
from .rules import Rules


class Finding(NamedTuple):
    """A meaning, how sure it is, and the window of a limit when it is one."""

    meaning: Meaning
    explicit: bool = False
    zero: bool = False
    """A limit of nothing: never offered, waiting never helps."""
    window: str = ""
    stage: str = ""


def _phrases(text: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(part.strip() for part in line.split("…")) for line in text.strip().splitlines())


def _places(text: str, phrases: Iterable[tuple[str, ...]]) -> Iterator[int]:
    """Where each of *phrases* that *text* holds begins, the parts of each in order."""
    for phrase in phrases:
        start = at = text.find(phrase[0])
        for part in phrase[1:]:
            if at >= 0:
                at = text.find(part, at + 1)
        if at >= 0:
            yield start


def says(text: str, phrases: Iterable[tuple[str, ...]]) -> bool:
    """Whether *text* holds one of *phrases*."""
    return next(_places(text, phrases), -1) >= 0


def _coded(codes: Iterable[str], parts: Iterable[str]) -> bool:
    """Whether a code contains one of *parts*."""
    return any(part in code for code in codes for part in parts)


CODE_STATUS: dict[str, int] = {
    **dict.fromkeys(
        ("invalid_request_error", "invalid_request", "invalid_argument", "bad_request", "invalid_prompt"), 400
    ),
    **dict.fromkeys(
        ("bad_request_error", "failed_precondition", "out_of_range", "unprocessable", "invalid_image"), 400
    ),
    **dict.fromkeys(
        ("authentication_error", "authentication", "unauthenticated", "unauthorized", "invalid_api_key"), 401
    ),
    **dict.fromkeys(("billing_error", "payment_required"), 402),
    **dict.fromkeys(("permission_error", "permission_denied", "forbidden", "permissions_error"), 403),
    **dict.fromkeys(("not_found_error", "not_found", "model_not_found"), 404),
    **dict.fromkeys(("rate_limit_error", "rate_limit_exceeded", "rate_limited", "resource_exhausted"), 429),
    **dict.fromkeys(("too_many_requests", "insufficient_quota"), 429),
    **dict.fromkeys(
        ("server_error", "api_error", "internal_server_error", "internal_error", "internal", "server"), 500
    ),
    **dict.fromkeys(("provider_unavailable", "bad_gateway", "upstream_error"), 502),
    **dict.fromkeys(("service_unavailable", "unavailable", "unavailable_error", "provider_overloaded"), 503),
    **dict.fromkeys(("timeout", "timeout_error", "deadline_exceeded", "gateway_timeout"), 504),
    "overloaded_error": 529,
}
"""The status that a code stands for, where an answer has none: an error after HTTP 200."""

REGION_CODES = ("unsupported_country", "region_restricted", "ip_not_authorized", "ip_address_blocked")
REGION = _phrases("""
    location is not supported
    country, region, or territory not supported
    not available in your country
    not available in your region
    not supported in your country
    unsupported countries
    unsupported country
    request not allowed
    firewall rules
    ip address is not
    ip is not authorized
    you have been blocked
    error code: 1020
""")
MONEY_CODES = (
    "billing payment spend_limit spending_limit credit_balance insufficient_quota insufficient_balance "
    "insufficient_credit insufficient_fund credits_exhausted out_of_credit no_credit budget arrear usage_limit_exceeded "
    "prepay current_quota insufficient_account_balance"
).split()
MONEY = _phrases("""
    insufficient balance
    insufficient credit
    insufficient … fund
    insufficient account balance
    not enough credit
    not enough balance
    credit balance
    balance is too low
    balance is negative
    negative balance
    out of credits
    no credits
    have any credits
    run out of credits
    used all available credits
    credits are depleted
    credits depleted
    credits used up
    credits exhausted
    more credits, or fewer
    credits remaining
    can only afford
    included credits
    credit limit exceeded
    credit limit reached
    key limit exceeded
    prepayment credits
    prepay credit
    payment required
    payment method
    payment is past due
    past due
    past invoices
    billing hard limit
    billing limit
    maximum billing
    billing is not active
    billing not active
    billing to be enabled
    requires billing
    spending limit
    spend limit
    spending cap
    spend cap
    budget limit
    budget exceeded
    budget has been exceeded
    exceeded … budget
    api usage limits
    account is not active
    insufficient_quota
    trial has ended
    trial has expired
    trial credits
    please recharge
    top up
    have a subscription or credits
""")
BIG_ASK = _phrases("""
    fewer max_tokens
    can only afford
""")
OWN_QUOTA = _phrases("exceeded … current quota")
CONTENT_CODES = (
    "content_filter content_policy contentfilter responsible_ai moderation prohibited_content sensitive_ "
    "data_inspection guardrail policy_violation refusal prompt_blocked blocklist safety_ recitation cyber_policy bio_policy"
).split()
CONTENT = _phrases("""
    content management policy
    content policy
    content filter
    usage policy
    usage policies
    usage guidelines
    content violates
    content exists risk
    safety system
    safety settings
    input was flagged
    prompt was flagged
    was flagged as
    flagged as potentially
    flagged by
    requires moderation
    moderation block
    considered high risk
    prohibited use policy
    prompt injection
    guardrail
    inappropriate content
    harmful content
""")
KEY_CODES = frozenset(
    "invalid_api_key wrong_api_key api_key_invalid incorrect_api_key invalid_key authentication_error authentication "
    "invalid_authentication invalid_authentication_error invalid_token token_expired expired_token invalid_credentials "
    "account_deactivated invalid_subscription_key unrecognized_client_exception".split()
)
KEY = _phrases("""
    incorrect api key
    invalid api key
    invalid api-key
    invalid … api key
    invalid x-api-key
    invalid api token
    invalid token
    invalid bearer
    invalid key
    invalid subscription key
    invalid credential
    invalid authentication
    invalid authorization
    invalid username or password
    wrong api key
    malformed api key
    api key … is invalid
    api key is not valid
    api key not valid
    api key not found
    api key expired
    api key has expired
    api key has been
    api key is disabled
    api key was
    api key … revoked
    api key … disabled
    token is invalid
    token has expired
    token expired
    token is expired
    key is invalid
    key has been revoked
    key has been disabled
    bad credentials
    security token … invalid
    security token … expired
    could not validate credentials
    no such user
""")
NO_KEY = _phrases("""
    missing authentication
    auth credentials found
    no api key
    api key required
    api key is required
    provide an api key
    missing api key
    authentication failed
    authentication required
    unregistered callers
    expected oauth 2 access token
""")
SIZE_CODES = (
    "context_length context_window context_size context_overflow exceed_context tokens_limit_reached "
    "too_many_prompt_tokens prompt_too_long input_too_long too_many_tokens"
).split()
SIZE = _phrases("""
    context length
    context window
    context size
    context limit
    maximum context
    prompt is too long
    prompt too long
    input is too long
    input too long
    too many tokens
    input token count … exceed
    maximum number of tokens
    maximum prompt length
    maximum input length
    maximum model length
    maximum allowed input length
    total length of all messages
    reduce the length of
    reduce your prompt
    reduce your message
    input length … exceed
    inputs` tokens + `max_new_tokens
    request too large for
    body too large for … tokens
    must have less than … tokens
    max size … tokens
    tokens … exceeds the model
""")
TOO_LARGE = _phrases("request too large for")
LIMIT_CODES = ("rate_limit", "ratelimit", "too_many_requests", "throttl", "quota_exceeded")
LIMITED = _phrases("""
    rate limit
    rate-limit
    ratelimit
    too many requests
    throttl
    quota exceeded
""")
LOAD_CODES = (
    "overloaded capacity queue_exceeded queue_full server_busy too_busy slow_down temporarily_unavailable".split()
)
LOAD = _phrases("""
    overloaded
    over capacity
    at capacity
    out of capacity
    capacity exceeded
    no capacity
    insufficient capacity
    capacity limit
    high demand
    high traffic
    high load
    heavy load
    server busy
    server is busy
    too busy
    queue is full
    queue full
    pending requests
    loading model
    model is loading
    is currently loading
    is being loaded
    temporarily unavailable
    total request limit reached
    负载已饱和
    resource exhausted … again later
""")
DENIED_CODES = (
    "restricted on_hold suspended terminated permission_ _permission access_denied no_access terms_required is_forbidden"
).split()
DENIED = _phrases("""
    has been restricted
    has been disabled
    has been suspended
    is suspended
    on hold
    terms acceptance
    must be verified
    gated repo
    does not have access to
    don't have access to
    do not have permission
    does not have permission
    insufficient permission
    sufficient permissions
    permission is required
    missing scopes
    not accessible by integration
    not allowed to use publisher
""")
GROUPED = _phrases("""
    organization
    organisation
    project
    workspace
    consumer
    your team
    your resource has been
""")
ABSENT_CODES = frozenset(
    "not_found not_found_error unknown_model deployment_not_found resource_not_found dedicated_endpoint_not_running "
    "no_endpoints wrong_endpoint free_variant_ended resource_not_found_exception".split()
)
ABSENT_SUFFIXES = (
    "not_found not_exist not_support not_available unavailable unknown invalid_model decommission deprecat retired "
    "not_allowed unsupported_model no_such not_active".split()
)
ABSENT = _phrases("""
    model … not found
    model … does not exist
    model … doesn't exist
    model … not exist
    model … is not available
    model … isn't available
    model … not supported by
    model is not supported
    model … decommissioned
    model … deprecated
    model … in deprecation
    model … no longer
    model … end of life
    model … end of its life
    model … removed
    model … is not allowed
    model identifier is invalid
    no such model
    unknown model
    invalid model
    unsupported model
    not a valid model
    non-serverless model
    not a chat model
    does not support chat
    does not support generate
    does not support embeddings
    operation does not work with the specified model
    no endpoints found
    no allowed providers
    deployment … does not exist
    endpoint … is not running
    try pulling it
    not found for account
    is not found for api version
""")
NO_PATH = _phrases("""
    server not found
    page not found
    providernotfound
    invalid url
    unknown request url
    unknown path
    route not found
    no route
    cannot post
    endpoint not found
    path not found
""")
TIME_CODES = frozenset("timeout timeout_error deadline_exceeded request_timeout gateway_timeout".split())
TIMEOUTS = frozenset((408, 425, 499, 504, 522, 524, 598, 599))

WINDOWS: tuple[tuple[str, str], ...] = tuple(
    (word.strip(), window)
    for window, words in {
        "second": "per second,per sec,per-second,/second,/sec,qps,(rps, rps,10s exceeded,concurren",
        "minute": "per minute,per-minute,per min,per-min,/minute,/ minute,/min,/ min,(rpm,(tpm,max rpm, rpm, tpm,"
        "byminute,per_minute,free-models-per-min",
        "hour": "per hour,per-hour,/hour,/ hour,hourly,per_hour,(rph,(tph",
        "day": "per day,per-day,/day,/ day,daily,per_day,(rpd,(tpd, rpd, tpd,byday,per 24 hour,per 24h,today's,for today",
        "week": "per week,per-week,/week,/ week,weekly,this week",
        "month": "per month,per-month,/month,/ month,monthly,this month",
        "session": "session usage limit,session limit,5-hour,5 hour",
    }.items()
    for word in words.split(",")
)
LONG_WINDOWS = frozenset(("day", "week", "month", "session"))


def effective_status(found: Evidence, status: int | None) -> int | None:
    """The status that judges: the answer's own, or after a 2xx the one that the body states or implies."""
    if status is not None and not 200 <= status < 300:
        return status
    if found.number is not None and found.number >= 400:
        return found.number
    for code in found.codes:
        if code in CODE_STATUS:
            return CODE_STATUS[code]
    return status_in(found.text)


def find_meaning(found: Evidence, status: int | None, rules: Rules) -> Finding:
    """The meaning of an error; *status* is the effective one, None when there is none."""
    if status is not None and status < 400:
        return Finding("unknown", stage="redirect")
    outright = _outright(found, status, rules)
    if outright is not None and outright != "rate_limited":
        return Finding(outright, explicit=outright == "invalid_key", window="day" if outright == "daily_quota" else "")
    if found.page:
        return _by_page(status)
    if outright is not None or _is_plain_limit(found, status):
        return _limit(found, rules)
    text, codes = found.text, found.codes
    client = status is None or status < 500
    if client and (_coded(codes, REGION_CODES) or says(text, REGION)) and status not in (401, 404, 429):
        return Finding("forbidden", stage="region")
    if _is_money(found, status):
        return Finding("insufficient_credit", stage="request" if says(text, BIG_ASK) else "")
    if client and status not in (401, 404, 408, 413, 429) and _is_content(found):
        return Finding("content_filter")
    if (key := _key(found, status)) is not None:
        return key
    if _is_size(found, status):
        return Finding("context_length")
    if status == 429 or (client and status not in (404, 408, 413, 422) and _is_limit(found)):
        return _limit(found, rules)
    if status in (403, 451) or (client and status != 404 and (_coded(codes, DENIED_CODES) or says(text, DENIED))):
        return Finding("forbidden")
    return _by_absence(found, status) or _by_load(found, status) or _by_status(found, status)


def _outright(found: Evidence, status: int | None, rules: Rules) -> Meaning | None:
    """What the provider's own rules say."""
    if rules.codes:
        for code in found.codes:
            if code in rules.codes:
                return rules.codes[code]
    for phrase, meaning in rules.texts.items():
        if phrase in found.text:
            return meaning
    return rules.statuses.get(status) if status is not None and rules.statuses else None


def _by_page(status: int | None) -> Finding:
    """An HTML page speaks of the way to the provider, not of a key: only its status counts."""
    if status is None:
        return Finding("server_error")
    if status in (401, 402, 403, 404, 410, 429):
        bare: dict[int, Meaning] = {
            401: "invalid_key",
            402: "insufficient_credit",
            403: "forbidden",
            429: "rate_limited",
        }
        return Finding(bare.get(status, "not_found"), stage="page" if status not in (401, 402) else "")
    return _by_load(Evidence(), status) or _by_status(Evidence(), status)


def _is_plain_limit(found: Evidence, status: int | None) -> bool:
    """A 429 that names its quota (Google): its text speaks of billing whatever the cause."""
    return status == 429 and bool(found.quotas or "quota exceeded for metric" in found.text)


def _is_money(found: Evidence, status: int | None) -> bool:
    if status == 402:
        return True
    if status is not None and (status >= 500 or status in (404, 408, 413, 422)):
        return False
    if _coded(found.codes, MONEY_CODES):
        return True
    if status == 401:
        return False
    if says(found.text, OWN_QUOTA):
        return "resource_exhausted" not in found.codes
    money = min(_places(found.text, MONEY), default=-1)
    if money < 0 or status != 429:
        return money >= 0
    before, window = _first_window(found.text)  # "… requests per min. … adding a payment method" is about the requests
    return window in ("", "week", "month") or money < before


def _is_content(found: Evidence) -> bool:
    blocked = says(found.text, _RESOURCE_BLOCKED)
    return not blocked and (_coded(found.codes, CONTENT_CODES) or says(found.text, CONTENT))


_RESOURCE_BLOCKED = _phrases("temporarily blocked")


def _key(found: Evidence, status: int | None) -> Finding | None:
    if status not in (400, 401, 403, None):
        return None
    coded = any(code in KEY_CODES for code in found.codes) or (
        _coded(found.codes, ("api_key",))
        and _coded(found.codes, ("invalid", "expired", "revoked", "wrong", "incorrect"))
    )
    if coded or says(found.text, KEY):
        return Finding("invalid_key", explicit=True)
    if status == 401 and (_coded(found.codes, ("permission",)) or says(found.text, DENIED)):
        return None
    return Finding("invalid_key") if status == 401 or says(found.text, NO_KEY) else None


def _is_size(found: Evidence, status: int | None) -> bool:
    if status == 429:
        return says(found.text, TOO_LARGE)
    if status not in (400, 413, 422, 500, None):
        return False
    return _coded(found.codes, SIZE_CODES) or says(found.text, SIZE)


def _is_limit(found: Evidence) -> bool:
    return _coded(found.codes, LIMIT_CODES) or "resource_exhausted" in found.codes or says(found.text, LIMITED)


def _limit(found: Evidence, rules: Rules) -> Finding:
    """One of: nothing offered, a long quota, capacity, a short limit."""
    if found.zero or limit_of_nothing(found.text):
        return Finding("forbidden", zero=True)
    window = window_of(found)
    if window in LONG_WINDOWS:
        return Finding("daily_quota", window=window)
    if not window and (_coded(found.codes, LOAD_CODES) or says(found.text, LOAD)):
        return Finding("overloaded")
    return Finding("rate_limited", window=window)


def window_of(found: Evidence) -> str:
    """The window of the limit that was hit: what the quota ids say, else the first one that the text names."""
    if found.quotas:
        for word in ("day", "week", "month"):
            if f"per{word}" in found.quotas or f"per_{word}" in found.quotas:
                return word
        for word in ("minute", "second", "hour"):
            if f"per{word}" in found.quotas or f"per_{word}" in found.quotas:
                return word
    text = found.text
    if found.codes or found.quotas:
        text = f"{text} {' '.join(found.codes).replace('_', ' ')} {found.quotas.replace('_', ' ')}"
    return _first_window(text)[1]


def _first_window(text: str) -> tuple[int, str]:
    """The first window that *text* names, and where; its length and an empty name when there is none."""
    first, window = len(text), ""
    for word, name in WINDOWS:
        if 0 <= (at := text.find(word, 0, first)) < first:
            first, window = at, name
    return first, _seconds_window(text, first) or window


def _seconds_window(text: str, before: int) -> str:
    """`per 86400s`, `per 60s`: a window in seconds that stands before any other."""
    at = text.find("per ", 0, before)
    while at >= 0:
        end = at + 4
        while end < len(text) and text[end].isdigit() and end - at < 16:
            end += 1
        if end > at + 4 and text[end : end + 2].strip().startswith("s"):
            seconds = int(text[at + 4 : end])
            return "day" if seconds >= 86400 else "hour" if seconds >= 3600 else "minute" if seconds >= 60 else "second"
        at = text.find("per ", end, before)
    return ""


def limit_of_nothing(text: str) -> bool:
    """`limit: 0`, `Limit 0, Used 0`, `(actual/limit): 0/0`: the model is not offered to this account."""
    if "(actual/limit): 0/0" in text:
        return True
    at = text.find("limit")
    while at >= 0:
        rest = text[at + 5 : at + 12].lstrip(": =")
        if rest[:1] == "0" and rest[1:2] not in tuple("0123456789.") and not text[at + 5 : at + 6].isalnum():
            return True
        at = text.find("limit", at + 5)
    return False


def _by_absence(found: Evidence, status: int | None) -> Finding | None:
    if status == 404 and found.retryable:
        return Finding("overloaded")
    if status in (404, 405, 410):
        return Finding("not_found", stage="page" if status == 405 or says(found.text, NO_PATH) else "")
    if status is not None and status >= 500:
        return None
    coded = any(
        code in ABSENT_CODES or ("model" in code and any(end in code for end in ABSENT_SUFFIXES))
        for code in found.codes
    )
    return Finding("not_found") if coded or says(found.text, ABSENT) else None


def _by_load(found: Evidence, status: int | None) -> Finding | None:
    if status in (503, 529):
        return Finding("rate_limited" if _coded(found.codes, ("rate_limit",)) else "overloaded")
    if status is not None and status < 500 and status != 498:
        return None
    loaded = status == 498 or _coded(found.codes, LOAD_CODES) or says(found.text, LOAD)
    return Finding("overloaded") if loaded else None


def _by_status(found: Evidence, status: int | None) -> Finding:
    if status in TIMEOUTS or ((status is None or status >= 500) and (any(code in TIME_CODES for code in found.codes))):
        return Finding("timeout")
    if status is None:
        timed_out = "timed out" in found.text or "timeout" in found.text
        return Finding("timeout" if timed_out else "server_error")
    if status >= 500 and status != 501:
        return Finding("server_error")
    return Finding("bad_request")
