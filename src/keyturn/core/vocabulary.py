"""The codes and words that errors are recognised by: data for `meanings`, no logic.

Words are looked for in lower-case text without web addresses; "a … b" means a, and b somewhere behind it. Codes are
lower snake case; a tuple holds parts of codes, a frozenset whole ones. What only one provider says is in the catalog.
"""

from __future__ import annotations

Phrases = tuple[tuple[str, ...], ...]


def _phrases(text: str) -> Phrases:
    """Phrases between bars and line ends, each as the parts that must follow one another."""
    phrases = (phrase for line in text.splitlines() for phrase in line.split("|") if phrase.strip())
    return tuple(tuple(part.strip() for part in phrase.split("…")) for phrase in phrases)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_CODES_OF = {
    400: "invalid_request_error invalid_request invalid_argument bad_request invalid_prompt "
    "bad_request_error failed_precondition out_of_range unprocessable invalid_image",
    401: "authentication_error authentication unauthenticated unauthorized invalid_api_key",
    402: "billing_error payment_required",
    403: "permission_error permission_denied forbidden permissions_error",
    404: "not_found_error not_found model_not_found",
    429: "rate_limit_error rate_limit_exceeded rate_limited resource_exhausted too_many_requests insufficient_quota",
    500: "server_error api_error internal_server_error internal_error internal server",
    502: "provider_unavailable bad_gateway upstream_error",
    503: "service_unavailable unavailable unavailable_error provider_overloaded",
    504: "timeout timeout_error deadline_exceeded gateway_timeout",
    529: "overloaded_error",
}
CODE_STATUS = {code: status for status, codes in _CODES_OF.items() for code in codes.split()}
"""The status that a code stands for, where an answer has none: an error after HTTP 200."""

# --- the place of the caller ---

REGION_CODES = _words("unsupported_country region_restricted ip_not_authorized ip_address_blocked")
REGION = _phrases("""
    location is not supported | country, region, or territory not supported | not available in your country
    not available in your region | not supported in your country | unsupported countries | unsupported country
    request not allowed | firewall rules | public access is disabled | ip address is not
    ip is not authorized | you have been blocked | error code: 1020
""")

# --- money ---

MONEY_CODES = _words("""
    billing payment spend_limit spending_limit credit_balance insufficient_quota insufficient_balance
    insufficient_credit insufficient_fund credits_exhausted out_of_credit no_credit budget_exceeded budget_limit arrear
    usage_limit_exceeded prepay current_quota insufficient_account_balance
""")
MONEY = _phrases("""
    insufficient balance | insufficient credit | insufficient fund | insufficient account
    not enough credit | not enough balance | credit balance | balance is too low | balance is negative
    negative balance | out of credits | have no credits | no credits left
    no credits available | have any credits | run out of credits
    used all available credits | credits are depleted | credits depleted | credits used up | credits exhausted
    more credits, or fewer | credits remaining | can only afford | included credits | credit limit exceeded
    credit limit reached | key limit exceeded | prepayment credits | prepay credit | payment required
    payment method | payment is past due | past due | past invoices | billing hard limit | billing limit
    maximum billing | billing is not active | billing not active | billing to be enabled | requires billing
    billed users | your extra usage
    of extra usage | extra usage is required | enable billing | 余额不足
    spending limit | spend limit | spending cap | spend cap | budget limit | budget exceeded
    budget has been exceeded | exceeded its budget | exceeded your budget | api usage limits | account is not active
    insufficient_quota | trial has ended | trial has expired | trial credits | please recharge | to top up
    please top up
""")
BIG_ASK = _phrases("fewer max_tokens | can only afford | prompt tokens limit exceeded")
"""This request alone asks for more than the credit allows."""
OWN_QUOTA = _phrases("exceeded … current quota")
"""OpenAI means money by this; Google says it of every limit."""

# --- content ---

CONTENT_CODES = _words("""
    content_filter content_policy contentfilter responsible_ai moderation prohibited_content sensitive_
    data_inspection guardrail policy_violation refusal prompt_blocked blocklist safety_ recitation
    cyber_policy bio_policy
""")
CONTENT = _phrases("""
    content management policy | content policy | content filter | usage policy | usage policies
    usage guidelines | content violates | content exists risk | safety system | safety settings
    input was flagged | prompt was flagged | was flagged as | flagged as potentially | flagged by
    requires moderation | moderation block | considered high risk | prohibited use policy | prompt injection
    guardrail | inappropriate content | harmful content | content for safety reasons
""")

# --- the key ---

KEY_CODES = frozenset(
    _words("""
        account_deactivated api_key_invalid authentication authentication_error expired_token incorrect_api_key
        invalid_api_key invalid_authentication invalid_authentication_error invalid_credentials invalid_key
        invalid_subscription_key invalid_token token_expired unrecognized_client_exception wrong_api_key
    """)
)
KEY = _phrases("""
    incorrect api key | invalid api key | invalid api-key | invalid x-api-key | invalid access token
    invalid api token | invalid auth token | invalid bearer | invalid subscription key
    invalid credential | invalid authentication | invalid authorization | invalid username or password
    wrong api key | malformed api key | api key … is invalid | api key is not valid | api key not valid
    api key not found | api key expired | api key has expired | api key has been | api key is disabled
    api key was | api key is blocked | api key … revoked | api key … disabled | token is invalid | token has expired
    token expired | token is expired | token has been revoked
    your key is invalid | key has been revoked | key has been disabled
    bad credentials | security token … invalid | security token … expired | could not validate credentials
    no such user
""")
NO_KEY = _phrases("""
    missing authentication | auth credentials found | no api key | api key required | api key is required
    provide an api key | pass a valid api key | missing api key | authentication failed | authentication required
    unregistered callers | expected oauth 2 access token
""")
"""A key is missing or was refused, without a word on why."""

# --- size ---

SIZE_CODES = _words("""
    context_length context_window context_size context_overflow exceed_context tokens_limit_reached
    too_many_prompt_tokens prompt_too_long input_too_long too_many_tokens max_tokens_per_request
""")
SIZE = _phrases("""
    context length | context window | context size | context limit | maximum context | prompt is too long
    prompt too long | input is too long | input too long | too many tokens | input token count … exceed
    maximum number of tokens | maximum prompt length | maximum input length | maximum model length
    maximum allowed input length | total length of all messages | reduce the length of | reduce your prompt
    reduce your message | input length … exceed | inputs` tokens + `max_new_tokens | request too large for
    body too large for … tokens | must have less than … tokens | max size … tokens
    tokens … exceeds the model | number of tokens cannot exceed | physical batch size | max … tokens per request
    content': string too long | text': string too long | 'input': string too long
""")
TOO_LARGE = _phrases("request too large for")
"""The size error that comes as a 429."""

# --- limits ---

LIMIT_CODES = _words("rate_limit ratelimit too_many_requests throttl quota_exceeded")
LIMITED = _phrases(
    "rate limit | rate-limit | rate_limit | ratelimit | too many requests | throttl | quota exceeded"
    " | out of call volume"
)

# --- load ---

LOAD_CODES = _words(
    "overloaded capacity queue_exceeded queue_full server_busy too_busy slow_down temporarily_unavailable"
)
LOAD = _phrases("""
    overloaded | over capacity | at capacity | out of capacity | capacity exceeded | no capacity
    insufficient capacity | capacity limit | high demand | high traffic | high load | heavy load | server busy
    server is busy | too busy | queue is full | queue full | pending requests | loading model
    model is loading | is currently loading | is being loaded | temporarily unavailable
    total request limit reached | 负载已饱和 | resource exhausted … again later
""")

# --- permission ---

DENIED_CODES = _words("""
    restricted on_hold suspended terminated permission_ _permission access_denied no_access terms_required
    is_forbidden
""")
DENIED = _phrases("""
    has been restricted | organization has been | account has been | has been suspended | is suspended
    is on hold | terms acceptance
    must be verified | gated repo | does not have access to | don't have access to | do not have permission
    does not have permission | insufficient permission | sufficient permissions | permission is required
    missing scopes | only authorized for use with | not accessible by integration | not allowed to use publisher
""")
GROUPED = _phrases("organization | organisation | project | workspace | consumer | your team | your resource has been")
"""Who is denied, when it is more than the key."""
OF_MODEL = _phrases(
    "access to model | access to the model | access to this model | to use the model | to use this model"
)
"""What is denied, when it is this model alone."""

# --- absence ---

ABSENT_CODES = frozenset(
    _words("""
        dedicated_endpoint_not_running deployment_not_found free_variant_ended no_endpoints not_found
        not_found_error resource_not_found resource_not_found_exception unknown_model wrong_endpoint
    """)
)
ABSENT_SUFFIXES = _words("""
    not_found not_exist not_support not_available unavailable unknown invalid_model decommission deprecat
    retired not_allowed unsupported_model no_such not_active
""")
"""What makes a code with `model` in it one of absence."""
ABSENT = _phrases("""
    model … not found | model … does not exist | model … doesn't exist | model … not exist
    model … is not available | model … isn't available | model … not supported by | model is not supported
    model … not supported for task | model … decommissioned | model … been deprecated
    model … is deprecated | model … in deprecation
    model … no longer available | model … no longer supported
    model … end of life | model … end of its life | model … was removed | model … is not allowed
    model identifier is invalid | no such model | unknown model | invalid model | unsupported model
    not a valid model | non-serverless model | not a chat model | does not support chat
    does not support generate | does not support embeddings | operation does not work with the specified model
    no endpoints found | no allowed providers | deployment … does not exist | endpoint … is not running
    try pulling it | not found for account | is not found for api version
""")
NO_PATH = _phrases("""
    server not found | page not found | providernotfound | invalid url | unknown request url | unknown path
    route not found | no route | cannot post | endpoint not found | path not found
""")
"""Not the model is missing, but the path or the server."""

# --- time ---

TIME_CODES = frozenset(_words("deadline_exceeded gateway_timeout request_timeout timeout timeout_error"))
TIMEOUTS = frozenset((408, 425, 499, 504, 522, 524, 598, 599))

# --- windows of limits ---

_WORDS_OF = {
    "second": "per second | per sec | per-second | /second | /sec | qps | (rps | rps | 10s exceeded | concurren",
    "minute": "per minute | per-minute | per min | per-min | /minute | / minute | /min | / min | "
    "(rpm | (tpm | max rpm | rpm | tpm | byminute | per_minute | free-models-per-min",
    "hour": "per hour | per-hour | /hour | / hour | hourly | per_hour | (rph | (tph",
    "day": "per day | per-day | /day | / day | daily | per_day | (rpd | "
    "(tpd | rpd | tpd | byday | per 24 hour | per 24h | today's | for today",
    "week": "per week | per-week | /week | / week | weekly | this week",
    "month": "per month | per-month | /month | / month | monthly | this month",
    "session": "session usage limit | session limit | 5-hour | for 5 hour | past 5 hour",
}
WINDOWS = tuple((phrase[0], window) for window, words in _WORDS_OF.items() for phrase in _phrases(words))
"""Word and window. The first one that a text names is the window of its limit."""
LONG_WINDOWS = frozenset(("day", "week", "month", "session"))
RESOURCE_BLOCKED = _phrases("temporarily blocked")
"""A whole resource was blocked for its content: not this request."""
