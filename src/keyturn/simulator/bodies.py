"""What providers say when they refuse: one row per provider and case, in the shape and with the codes of the real one.

Data only. `{name}` in a text or header is filled in by `personas.render`; ids and organisations are invented. The
shapes and most codes follow the providers' documentation and published recordings of their answers (2024 to 2026);
where a case of a provider was never recorded, its wording is ours, in the provider's shape: no evidence of anything.

Cases are named by what they mean; `too_large` is one request above a whole minute's tokens, `not_offered` a model with
`limit: 0` on the plan, `rejected_member` a request member that the provider does not know. Names available to a text:
key, masked, model, org, limit, used, requested, wait (seconds), wait_go (`6m0s`), wait_s (whole seconds, up),
hint (the seconds that Gemini states), reset_ms (Unix milliseconds), metric (requests, tokens), per (minute, day),
per_short (min, day), abbreviation (RPM, TPD), capacity (of the context), member, quota_metric, quota_id.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Row(NamedTuple):
    """A status, a body (an object is sent as JSON, text as it is), and headers beside the usual ones."""

    status: int
    body: Any
    headers: tuple[tuple[str, str], ...] = ()


def _openai(
    status: int, message: str, kind: str | None, code: str | None, param: str | None = None, **more: Any
) -> Row:
    """The OpenAI envelope; *more* are headers, underscores standing for dashes."""
    headers = tuple((name.replace("_", "-"), value) for name, value in more.items())
    return Row(status, {"error": {"message": message, "type": kind, "param": param, "code": code}}, headers)


def _groq(status: int, message: str, kind: str, code: str | None = None, **headers: str) -> Row:
    error = {"message": message, "type": kind} | ({"code": code} if code else {})
    return Row(status, {"error": error}, tuple((name.replace("_", "-"), value) for name, value in headers.items()))


def _together(status: int, message: str, kind: str, code: str | None = None) -> Row:
    return Row(status, {"id": "{request}", "error": {"message": message, "type": kind, "param": None, "code": code}})


def _openrouter(status: int, message: str, *headers: tuple[str, str], **metadata: Any) -> Row:
    error: dict[str, Any] = {"message": message, "code": status}
    if metadata or headers:
        error["metadata"] = metadata | ({"headers": dict(headers)} if headers else {})
    return Row(status, {"error": error, "user_id": "user_{org}"}, headers)


def _gemini(code: int, status: str, message: str, *details: dict[str, Any]) -> Row:
    """Google's envelope, which the OpenAI-compatible endpoint wraps in an array of one."""
    error: dict[str, Any] = {"code": code, "message": message, "status": status}
    if details:
        error["details"] = list(details)
    return Row(code, [{"error": error}])


def _mistral(status: int, message: Any, kind: str, code: str | None) -> Row:
    return Row(status, {"object": "error", "message": message, "type": kind, "param": None, "code": code})


_GOOGLE = "type.googleapis.com/google.rpc."
_QUOTA_TEXT = (
    "You exceeded your current quota, please check your plan and billing details. For more information on this error, "
    "head to: https://ai.google.dev/gemini-api/docs/rate-limits.\n* Quota exceeded for metric: "
    "generativelanguage.googleapis.com/{quota_metric}, limit: {limit}, model: {model}\nPlease retry in {hint}s."
)
_QUOTA_DETAILS = (
    {
        "@type": _GOOGLE + "QuotaFailure",
        "violations": [
            {
                "quotaMetric": "generativelanguage.googleapis.com/{quota_metric}",
                "quotaId": "{quota_id}",
                "quotaDimensions": {"location": "global", "model": "{model}"},
                "quotaValue": "{limit}",
            }
        ],
    },
    {
        "@type": _GOOGLE + "Help",
        "links": [
            {
                "description": "Learn more about Gemini API quotas",
                "url": "https://ai.google.dev/gemini-api/docs/rate-limits",
            }
        ],
    },
    {"@type": _GOOGLE + "RetryInfo", "retryDelay": "{hint}s"},
)
_OPENAI_RATE = (
    "Rate limit reached for {model} in organization org-{org} on {metric} per {per_short} ({abbreviation}): "
    "Limit {limit}, Used {used}, Requested {requested}. Please try again in {wait_go}. "
    "Visit https://platform.openai.com/account/rate-limits to learn more."
)
_GROQ_RATE = (
    "Rate limit reached for model `{model}` in organization `org_{org}` service tier `on_demand` on {metric} per {per} "
    "({abbreviation}): Limit {limit}, Used {used}, Requested {requested}. Please try again in {wait_go}. "
    "Need more tokens? Upgrade to Dev Tier today at https://console.groq.com/settings/billing"
)

OPENAI: dict[str, Row] = {
    "invalid_key": _openai(
        401,
        "Incorrect API key provided: {masked}. You can find your API key at https://platform.openai.com/account/api-keys.",
        "invalid_request_error",
        "invalid_api_key",
    ),
    "insufficient_credit": _openai(
        429,
        "You exceeded your current quota, please check your plan and billing details. For more information on this "
        "error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors.",
        "insufficient_quota",
        "insufficient_quota",
    ),
    "rate_limited": _openai(
        429, _OPENAI_RATE, "{metric}", "rate_limit_exceeded", retry_after="{wait_s}", retry_after_ms="{wait_ms}"
    ),
    "daily_quota": _openai(429, _OPENAI_RATE, "{metric}", "rate_limit_exceeded", retry_after="{wait_s}"),
    "too_large": _openai(
        429,
        "Request too large for {model} in organization org-{org} on tokens per min (TPM): Limit {limit}, Requested "
        "{requested}. The input or output tokens must be reduced in order to run successfully.",
        "tokens",
        "rate_limit_exceeded",
    ),
    "forbidden": _openai(403, "You are not allowed to sample from this model", "invalid_request_error", None),
    "not_found": _openai(
        404,
        "The model `{model}` does not exist or you do not have access to it.",
        "invalid_request_error",
        "model_not_found",
    ),
    "context_length": _openai(
        400,
        "This model's maximum context length is {capacity} tokens. However, your messages resulted in {requested} "
        "tokens. Please reduce the length of the messages.",
        "invalid_request_error",
        "context_length_exceeded",
        "messages",
    ),
    "content_filter": _openai(
        400,
        "Your request was rejected as a result of our safety system.",
        "invalid_request_error",
        "content_policy_violation",
    ),
    "bad_request": _openai(400, "{why}", "invalid_request_error", None, "{member}"),
    "rejected_member": _openai(
        400,
        "Unrecognized request argument supplied: {member}",
        "invalid_request_error",
        None,
    ),
    "unknown_parameter": _openai(400, "{why}", "invalid_request_error", "unknown_parameter", "{member}"),
    "unverified": _openai(400, "{why}", "invalid_request_error", "invalid_encrypted_content"),
    "no_item": _openai(404, "{why}", "invalid_request_error", None, "{member}"),
    "no_previous_response": _openai(400, "{why}", "invalid_request_error", "previous_response_not_found", "{member}"),
    "overloaded": _openai(503, "The engine is currently overloaded, please try again later", "server_error", None),
    "server_error": _openai(
        500,
        "The server had an error while processing your request. Sorry about that!",
        "server_error",
        None,
    ),
    "timeout": Row(504, "upstream request timeout", (("content-type", "text/plain"),)),
}

GROQ: dict[str, Row] = {
    "invalid_key": _groq(401, "Invalid API Key", "invalid_request_error", "invalid_api_key"),
    "insufficient_credit": _groq(
        400,
        "API access is blocked: the organization has reached its monthly spend limit.",
        "invalid_request_error",
        "blocked_api_access",
    ),
    "rate_limited": _groq(429, _GROQ_RATE, "{metric}", "rate_limit_exceeded", retry_after="{wait_s}"),
    "daily_quota": _groq(429, _GROQ_RATE, "{metric}", "rate_limit_exceeded", retry_after="{wait_s}"),
    "too_large": _groq(
        413,
        "Request too large for model `{model}` in organization `org_{org}` service tier `on_demand` on tokens per "
        "minute (TPM): Limit {limit}, Requested {requested}, please reduce your message size and try again. Need more "
        "tokens? Upgrade to Dev Tier today at https://console.groq.com/settings/billing",
        "tokens",
        "rate_limit_exceeded",
    ),
    "forbidden": _groq(
        403,
        "The model `{model}` is blocked at the project level. Please have a project admin enable this model in the "
        "project settings at https://console.groq.com/settings/project/limits",
        "permissions_error",
        "model_permission_blocked_project",
    ),
    "not_found": _groq(
        404,
        "The model `{model}` does not exist or you do not have access to it.",
        "invalid_request_error",
        "model_not_found",
    ),
    "context_length": _groq(
        400,
        "Please reduce the length of the messages or completion.",
        "invalid_request_error",
        "context_length_exceeded",
    ),
    "bad_request": _groq(400, "{why}", "invalid_request_error"),
    "rejected_member": _groq(400, "property '{member}' is unsupported", "invalid_request_error"),
    "overloaded": _groq(
        503,
        "{model} is currently over capacity. Please try again and back off exponentially. Visit https://groqstatus.com "
        "to see if there is an active incident.",
        "internal_server_error",
    ),
    "server_error": _groq(500, "Internal Server Error", "internal_server_error"),
}

TOGETHER: dict[str, Row] = {
    "invalid_key": _together(
        401,
        "Invalid API key provided. You can find your API key at https://api.together.xyz/settings/api-keys.",
        "invalid_request_error",
        "invalid_api_key",
    ),
    "insufficient_credit": _together(
        402,
        "Credit limit exceeded. Please navigate to https://api.together.xyz/settings/billing to add credit or upgrade "
        "your plan.",
        "credit_limit",
    ),
    "rate_limited": _together(
        429,
        "You have reached the rate limit specific to this model {model}. The maximum rate limit for this model is "
        "{limit}.0 queries per {per}. This limit differs from the general rate limits published at Together AI rate "
        "limits documentation (https://docs.together.ai/docs/rate-limits).",
        "model_rate_limit",
    ),
    "not_found": _together(
        400,
        "Unable to access model {model}. Please visit https://api.together.ai/models to view the list of supported "
        "models.",
        "invalid_request_error",
        "model_not_available",
    ),
    "context_length": _together(
        422,
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= {capacity}. Given: {requested} `inputs` "
        "tokens and 0 `max_new_tokens`",
        "invalid_request_error",
    ),
    "bad_request": _together(400, "{why}", "invalid_request_error"),
    "overloaded": _together(503, "Service Unavailable", "service_unavailable"),
    "server_error": _together(500, "Internal server error", "server_error"),
}

OPENROUTER: dict[str, Row] = {
    "invalid_key": _openrouter(401, "No cookie auth credentials found"),
    "insufficient_credit": _openrouter(
        402,
        "Insufficient credits. Add more using https://openrouter.ai/settings/credits",
    ),
    "key_limit": _openrouter(
        403,
        "Key limit exceeded (total limit). Manage it using https://openrouter.ai/settings/keys",
    ),
    "rate_limited": _openrouter(
        429,
        "Rate limit exceeded: free-models-per-min. ",
        ("X-RateLimit-Limit", "{limit}"),
        ("X-RateLimit-Remaining", "0"),
        ("X-RateLimit-Reset", "{reset_ms}"),
    ),
    "daily_quota": _openrouter(
        429,
        "Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 free model requests per day",
        ("X-RateLimit-Limit", "{limit}"),
        ("X-RateLimit-Remaining", "0"),
        ("X-RateLimit-Reset", "{reset_ms}"),
        limit_source="openrouter_free_tier_daily",
    ),
    "upstream_limited": _openrouter(
        429,
        "Provider returned error",
        provider_name="Fictive",
        raw="{model} is temporarily rate-limited upstream. Please retry shortly, or add your own key to accumulate "
        "your rate limits: https://openrouter.ai/settings/integrations",
    ),
    "forbidden": _openrouter(
        403,
        "This key does not have permission to use {model}.",
        error_type="permission_denied",
    ),
    "not_found": _openrouter(404, "No endpoints found for {model}."),
    "context_length": _openrouter(
        400,
        "This endpoint's maximum context length is {capacity} tokens. However, you requested about {requested} tokens "
        "({requested} of text input). Please reduce the length of either one, or use the context-compression plugin to "
        "compress your prompt automatically.",
        provider_name=None,
    ),
    "content_filter": _openrouter(
        403,
        "{model} requires moderation on Fictive. Your input was flagged for harassment.",
        error_type="content_policy_violation",
        reasons=["harassment"],
        provider_name="Fictive",
    ),
    "bad_request": _openrouter(400, "{why}", error_type="invalid_request"),
    "overloaded": _openrouter(503, "Service temporarily unavailable", error_type="provider_overloaded"),
    "server_error": _openrouter(502, "Provider returned error", error_type="provider_unavailable"),
    "timeout": _openrouter(408, "Operation timed out. Please try again later."),
}

GEMINI: dict[str, Row] = {
    "invalid_key": _gemini(
        400,
        "INVALID_ARGUMENT",
        "API key not valid. Please pass a valid API key.",
        {
            "@type": _GOOGLE + "ErrorInfo",
            "reason": "API_KEY_INVALID",
            "domain": "googleapis.com",
            "metadata": {"service": "generativelanguage.googleapis.com"},
        },
    ),
    "insufficient_credit": _gemini(
        429,
        "RESOURCE_EXHAUSTED",
        "Your prepayment credits are depleted. Please go to AI Studio to top up.",
    ),
    "rate_limited": _gemini(429, "RESOURCE_EXHAUSTED", _QUOTA_TEXT, *_QUOTA_DETAILS),
    "daily_quota": _gemini(429, "RESOURCE_EXHAUSTED", _QUOTA_TEXT, *_QUOTA_DETAILS),
    "not_offered": _gemini(429, "RESOURCE_EXHAUSTED", _QUOTA_TEXT.replace("{limit}", "0")),
    "forbidden": _gemini(403, "PERMISSION_DENIED", "The caller does not have permission"),
    "not_found": _gemini(
        404,
        "NOT_FOUND",
        "models/{model} is not found for API version v1main, or is not supported for generateContent. Call "
        "ModelService.ListModels to see the list of available models and their supported methods.",
    ),
    "context_length": _gemini(
        400,
        "INVALID_ARGUMENT",
        "The input token count ({requested}) exceeds the maximum number of tokens allowed ({capacity}).",
    ),
    "bad_request": _gemini(400, "INVALID_ARGUMENT", "{why}"),
    "rejected_member": _gemini(
        400,
        "INVALID_ARGUMENT",
        'Invalid JSON payload received. Unknown name "{member}": Cannot find field.',
        {
            "@type": _GOOGLE + "BadRequest",
            "fieldViolations": [
                {"description": 'Invalid JSON payload received. Unknown name "{member}": Cannot find field.'}
            ],
        },
    ),
    "overloaded": _gemini(503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
    "shared_capacity": _gemini(
        429,
        "RESOURCE_EXHAUSTED",
        "Resource exhausted. Please try again later. Please refer to "
        "https://cloud.google.com/vertex-ai/generative-ai/docs/error-code-429 for more details.",
    ),
    "server_error": _gemini(
        500,
        "INTERNAL",
        "An internal error has occurred. Please retry or report in "
        "https://developers.generativeai.google/guide/troubleshooting",
    ),
    "timeout": _gemini(504, "DEADLINE_EXCEEDED", "The request timed out. Please try again."),
}

MISTRAL: dict[str, Row] = {
    "invalid_key": Row(401, {"detail": "Invalid API Key"}),
    "insufficient_credit": Row(402, {"detail": "Payment required"}),
    "rate_limited": Row(
        429,
        {
            "object": "error",
            "message": "Rate limit exceeded",
            "type": "rate_limited",
            "param": None,
            "code": "1300",
            "raw_status_code": 429,
        },
    ),
    "forbidden": Row(403, {"detail": "You are not allowed to use {model}"}),
    "not_found": _mistral(400, "Invalid model: {model}", "invalid_model", "1500"),
    "context_length": _mistral(
        400,
        "Prompt contains {requested} tokens, too large for model with {capacity} maximum context length",
        "invalid_request_error",
        None,
    ),
    "bad_request": _mistral(400, "{why}", "invalid_request_error", None),
    "rejected_member": _mistral(
        422,
        {
            "detail": [
                {
                    "type": "extra_forbidden",
                    "loc": ["body", "{member}"],
                    "msg": "Extra inputs are not permitted",
                    "input": None,
                }
            ]
        },
        "invalid_request_error",
        None,
    ),
    "overloaded": _mistral(
        429,
        "Service tier capacity exceeded for this model.",
        "service_tier_capacity_exceeded",
        "3505",
    ),
    "server_error": _mistral(500, "Internal Server Error", "internal_server_error", "1000"),
}

DEEPSEEK: dict[str, Row] = {
    "invalid_key": _openai(
        401,
        "Authentication Fails, Your api key: {masked} is invalid",
        "authentication_error",
        "invalid_request_error",
    ),
    "insufficient_credit": _openai(402, "Insufficient Balance", "unknown_error", "invalid_request_error"),
    "rate_limited": Row(429, {"error": {"message": "Rate Limit Reached"}}),
    "not_found": _openai(400, "Model Not Exist", "invalid_request_error", "invalid_request_error"),
    "context_length": _openai(
        400,
        "This model's maximum context length is {capacity} tokens. However, you requested {requested} tokens "
        "({requested} in the messages, 0 in the completion). Please reduce the length of the messages or completion.",
        "invalid_request_error",
        "invalid_request_error",
        content_type="application/octet-stream",
    ),
    "content_filter": _openai(400, "Content Exists Risk", "invalid_request_error", "invalid_request_error"),
    "bad_request": Row(422, {"error": {"message": "Invalid Parameters: {why}"}}),
    "overloaded": Row(503, {"error": {"message": "Server Overloaded"}}),
    "server_error": Row(500, {"error": {"message": "Server Error"}}),
}


def _g4f(status: int, message: str) -> Row:
    """What one of the upstreams behind it answered, by the name of an exception; its own refusals name nobody."""
    return Row(status, {"error": {"message": message}, "model": "{model}", "provider": "SimulatedUpstream"})


G4F: dict[str, Row] = {
    "invalid_key": Row(401, {"error": {"message": "Invalid G4F API key"}}),
    "insufficient_credit": _g4f(429, "RateLimitError: Response 402: Rate limit"),
    "rate_limited": _g4f(429, "RateLimitError: Response 429: Rate limit"),
    "daily_quota": Row(
        429,
        {
            "error": {
                "message": "Request limit ({limit} per day) exceeded for new tier. Made: {used} requests.",
                "type": "rate_limit_exceeded",
                "tier": "new",
                "window": "day",
            }
        },
        (("retry-after", "{wait_s}"),),
    ),
    "forbidden": _g4f(500, "CloudflareError: Response 403: Cloudflare detected"),
    "not_found": Row(404, {"error": {"message": "ModelNotFoundError: Model not found: {model}"}, "model": "{model}"}),
    "bad_request": Row(422, {"detail": [{"loc": ["body", "messages"], "message": "{why}", "type": "value_error"}]}),
    "rejected_member": Row(422, {"detail": [{"loc": ["body", "{member}"], "message": "{why}", "type": "extra"}]}),
    "overloaded": _g4f(500, "ResponseStatusError: Response 503: Service Unavailable"),
    "server_error": _g4f(500, "ResponseStatusError: Response 502: Bad Gateway"),
    "timeout": _g4f(429, "RateLimitError: Response 504: Gateway Timeout "),
}
