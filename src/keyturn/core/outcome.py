"""classify: what an upstream's answer means, whom it concerns, how long to wait, and what may be tried next.

`meanings` says what it is, this file adds the scope, the provider's own word on waiting, and the flags. Any bytes give
a class, never an exception.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .evidence import Evidence, read_evidence
from .hints import LONGEST, delay_in, retry_after, sane, to_midnight
from .meanings import Finding, effective_status, find_meaning, says
from .model import Meaning, Scope
from .rate_headers import parse_limits, window_seconds
from .rules import GENERIC, Rules
from .vocabulary import GROUPED, OF_MODEL

__all__ = ["GENERIC", "Facts", "Outcome", "Rules", "classify", "parse_limits", "seconds_to_reset"]

TIMEOUT_FAULTS = frozenset(("connect_timeout", "timeout", "first_token", "silence", "no_content"))
SHORT_MOST = 600.0
"""A minute's limit that asks for more than ten minutes is not believed."""
HOUR_MOST = 7200.0
LOAD_MOST = 3600.0
PAGE = "page"
"""The code of an outcome that is read from a web page."""
SENTENCE = 2048
"""Bytes of an answer in plain text that may be a refusal in words; longer ones are something else."""
DATA = (b"{", b"[", b'"', b"data:", b"event:", b"id:", b"retry:", b":")
"""How answers begin that are data, however broken: what they hold may be words of a model."""
REFUSALS: frozenset[Meaning] = frozenset(
    ("rate_limited", "daily_quota", "insufficient_credit", "invalid_key", "forbidden", "overloaded")
)
"""What a sentence in place of an answer may mean. It is never taken for the client's mistake."""
WORDS = {"second": "second", "sec": "second", "minute": "minute", "min": "minute", "hour": "hour", "day": "day"}
NAMED = re.compile(
    r"\b(requests|tokens) per (second|sec|minute|min|hour|day)\b(?: \([a-z]{1,6}\))?: limit ([1-9][0-9]{0,14}), used "
)
"""`on requests per minute (RPM): Limit 30, Used 30, Requested 1` (OpenAI, Groq and their kind)."""
QUOTA_WINDOWS = {"perminute": "minute", "perday": "day"}
"""In the ids of Google's quotas, whose size stands beside them."""
HONOURED = frozenset((403, 408, 429, 498, 503, 529))
"""The statuses whose `Retry-After` counts. Some providers send one with every answer; 403 is GitHub's second limit."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one answer, or of the fault that there is instead.

    *status* None: no HTTP status, or an error inside a stream that began with 200. *body*: of a stream, the event that
    tells of the error, or all of it. *now*: Unix seconds of the answer (its `date` header, else the clock). *fault*: a
    `TransportError.kind`, or first_token, silence, no_content (a phase's timeout), garbage (a 200 that is no answer;
    what it says of itself counts when *body* is a web page or a sentence), cut (a stream without its end).
    """

    status: int | None
    headers: Mapping[str, str]
    body: bytes
    now: float
    stream: bool = False
    fault: str | None = None
    rules: Rules = GENERIC


@dataclass(frozen=True, slots=True)
class Outcome:
    """The judged result of one attempt, the only input of cooldowns and failover.

    *scope*: what it holds for. *wait_s*: what the provider itself states, in seconds, without jitter; None when it
    states nothing, or something past or absurd. *limits*: the limits that its headers state (`parse_limits`).
    """

    meaning: Meaning
    scope: Scope
    wait_s: float | None
    retry_same: bool
    try_other_key: bool
    try_other_provider: bool
    limits: Mapping[str, Any] = field(default_factory=dict)
    status: int | None = None
    """The answer's status; of an error after HTTP 200, the one that it states or implies."""
    code: str = ""
    message: str = ""
    """The upstream's own words on one line, at most 300 characters. Untrusted: may echo a key."""
    explicit: bool = False
    """invalid_key by a code or a text that leaves no doubt."""
    no_quota: bool = False
    """A limit of 0: this model is not offered to this account."""
    stated: tuple[str, str, int] | None = None
    """Of a refusal: the limit that it names itself, by metric, window (`minute`, `day`) and capacity."""

    def as_json(self) -> dict[str, Any]:
        """The form that `keyturn classify` prints."""
        return {
            "meaning": self.meaning,
            "scope": self.scope,
            "wait_s": self.wait_s,
            "retry_same": self.retry_same,
            "try_other_key": self.try_other_key,
            "try_other_provider": self.try_other_provider,
            "limits": dict(self.limits),
        }


def classify(facts: Facts) -> Outcome:
    """The meaning of an answer. Never raises, whatever the bytes."""
    status = facts.status
    failed = status is not None and not 200 <= status < 300
    if facts.fault is not None and not (failed and status is not None and status >= 400):
        return _in_words(facts) or _of_fault(facts.fault, status)
    headers = facts.headers
    if not all(name.islower() for name in headers):
        headers = {name.lower(): value for name, value in headers.items()}
    rules = facts.rules
    limits = parse_limits(headers, rules, facts.now)
    found = read_evidence(facts.body, failed=failed, stream=facts.stream)
    if not found.error:
        if status is None:
            return _outcome("unknown", "model", None, None, limits, found)
        return _outcome("ok", "request", None, status, limits, found)
    told = effective_status(found, status)
    if kind := headers.get("x-ratelimit-type"):  # GitHub Models: UserByModelByDay
        found.quotas += f" {kind[:80].lower()}".replace("byday", "perday").replace("byminute", "perminute")
    finding = find_meaning(found, told, rules)
    hit = limits or parse_limits(found.headers, rules, facts.now)
    meaning, wait = _wait(finding, found, hit, headers if failed and told in HONOURED else {}, facts)
    if failed and told in HONOURED and (stated := sane(retry_after(headers, facts.now))) is not None:
        limits["retry_after_s"] = stated
    scope = _scope(finding, meaning, found, facts, told, bool(_exhausted_window(hit)))
    return _outcome(meaning, scope, wait, status, limits, found, finding, told)


def seconds_to_reset(rules: Rules, now: float) -> float | None:
    """Seconds until this provider's day quotas reset; None when that is not known, or they refill continuously."""
    return to_midnight(rules.day_zone, now) if rules.day_zone else None


def _in_words(facts: Facts) -> Outcome | None:
    """What garbage says of itself, when it is a web page or a short sentence; None when it is anything else."""
    body = facts.body.lstrip() if facts.fault == "garbage" else b""
    if not body or body.startswith(DATA) or (len(body) > SENTENCE and not body.startswith(b"<")):
        return None
    said = classify(replace(facts, fault=None))
    known = said.meaning in REFUSALS or (said.meaning == "server_error" and said.code == PAGE)
    return said if known else None


def _of_fault(fault: str, status: int | None) -> Outcome:
    meaning: Meaning = "timeout" if fault in TIMEOUT_FAULTS else "server_error"
    scope: Scope = "model" if meaning == "timeout" else "provider"
    return Outcome(meaning, scope, None, False, True, True, status=status, code=fault)


def _outcome(
    meaning: Meaning,
    scope: Scope,
    wait: float | None,
    status: int | None,
    limits: Mapping[str, Any],
    found: Evidence,
    finding: Finding | None = None,
    told: int | None = None,
) -> Outcome:
    """Add the flags."""
    same, key, provider = _flags(meaning, scope, status)
    return Outcome(
        meaning,
        scope,
        wait,
        same,
        key,
        provider,
        limits,
        told if told is not None else status,
        PAGE if found.page else found.code[:80],
        found.message,
        finding is not None and finding.explicit,
        finding is not None and finding.zero,
        _named(found) if meaning in ("rate_limited", "daily_quota") else None,
    )


def _named(found: Evidence) -> tuple[str, str, int] | None:
    """The limit that a refusal names with its number; None where it names none, or several."""
    named = {(each[1], WORDS[each[2]], int(each[3])) for each in NAMED.finditer(found.text)}
    quotas, sizes = found.quotas, set(found.values)
    if quotas and len(sizes) == 1:
        windows = [window for word, window in QUOTA_WINDOWS.items() if word in quotas]
        if len(windows) == 1:
            named.add(("tokens" if "token" in quotas else "requests", windows[0], sizes.pop()))
    return named.pop() if len(named) == 1 else None


def _flags(meaning: Meaning, scope: Scope, status: int | None) -> tuple[bool, bool, bool]:
    """(same credential, other credential, other provider): which of them may be tried next."""
    if meaning in ("ok", "bad_request", "content_filter"):
        return False, False, False
    if meaning == "server_error":
        return status == 500, True, True
    if scope == "provider" or meaning in ("overloaded", "not_found", "context_length"):
        return False, False, True
    if meaning in ("rate_limited", "insufficient_credit") and scope == "request":
        return False, False, True
    return meaning == "timeout" and status in (408, 425), True, True


# --- scope ----------------------------------------------------------------------------------------------------------


def _scope(finding: Finding, meaning: Meaning, found: Evidence, facts: Facts, told: int | None, spent: bool) -> Scope:
    """*spent*: the headers name a limit that is used up, so it is the caller's own."""
    rules, text = facts.rules, found.text
    relayed = _is_relayed(found, facts)
    if finding.place in ("page", "path", "region"):
        return "provider"
    if meaning in ("bad_request", "content_filter", "context_length", "timeout"):
        return "request"
    if meaning in ("rate_limited", "daily_quota"):
        return _limit_scope(meaning, text, rules, relayed, spent)
    if meaning == "overloaded":
        return _load_scope(text, rules, told)
    if meaning == "insufficient_credit":
        if finding.place == "request":
            return "request"
        if relayed and (found.named or rules.relays == "exception"):
            return "provider"
        return "key" if "key limit" in text or "for this api key" in text else "quota_group"
    if meaning == "invalid_key":
        return "provider" if relayed else "key"
    if meaning == "forbidden":
        if "scope" in text:
            return "key"
        if finding.zero or relayed or says(text, OF_MODEL) or ("model" in text and "permission" not in text):
            return "model"
        return "quota_group" if says(text, GROUPED) else "key"
    return "provider" if meaning == "server_error" else "model"


def _is_relayed(found: Evidence, facts: Facts) -> bool:
    """Whether an aggregator passes on what its upstream said: its own key and limits are fine then."""
    how = facts.rules.relays
    if how == "named":
        in_band = facts.status is None or 200 <= facts.status < 300
        return found.named or in_band or "upstream" in found.text or "provider returned error" in found.text
    if how == "exception":
        first = found.message.partition(":")[0]
        return found.relayed and first.isalnum() and first.endswith(("Error", "Exception"))
    return False


def _limit_scope(meaning: Meaning, text: str, rules: Rules, relayed: bool, spent: bool) -> Scope:
    if any(shared in text for shared in rules.shared_texts):
        return "quota_group"
    if relayed or "specific to this model" in text or "rate limit for this model" in text:
        return "model"
    owned = spent or any(own in text for own in ("your", "organization", "account"))
    if rules.unowned_scope is not None and not owned:
        return rules.unowned_scope
    if meaning == "daily_quota" and rules.quota_scope is not None:
        return rules.quota_scope
    return rules.minute_scope


def _load_scope(text: str, rules: Rules, told: int | None) -> Scope:
    if rules.overload_scope is not None and told != 529:
        return rules.overload_scope
    return "model" if "model" in text or "over capacity" in text else "provider"


# --- waiting --------------------------------------------------------------------------------------------------------


def _wait(
    finding: Finding, found: Evidence, limits: Mapping[str, Any], headers: Mapping[str, str], facts: Facts
) -> tuple[Meaning, float | None]:
    """The meaning, and the provider's own word on waiting. Where no window is named, the limit that is used up tells
    it, or the wait itself: a limit that asks for more than ten minutes is not a minute's."""
    meaning, window, now = finding.meaning, finding.window, facts.now
    if meaning in ("insufficient_credit", "overloaded", "timeout"):
        most = LONGEST if meaning == "insufficient_credit" else LOAD_MOST
        return meaning, _stated(found, headers, now, most)
    if meaning not in ("rate_limited", "daily_quota"):
        return meaning, None
    window = window or _exhausted_window(limits)
    if window_seconds(window) >= 86400:
        meaning = "daily_quota"
    short = meaning == "rate_limited" and window
    most = LONGEST if not short else HOUR_MOST if window_seconds(window) >= 3600 else SHORT_MOST
    wait = _stated(found, headers, now, most) or sane(_reset_of_hit(limits, found, window, now), most)
    if wait is not None and wait > SHORT_MOST and not window:
        meaning = "daily_quota"
    if wait is not None and meaning == "daily_quota" and facts.rules.day_hints_mislead:
        wait = seconds_to_reset(facts.rules, now)
    return meaning, wait


def _stated(found: Evidence, headers: Mapping[str, str], now: float, most: float) -> float | None:
    """The first valid word: the body's, the longest of several, then `Retry-After`."""
    said = [seconds for seconds in (*found.delays, delay_in(found.text, now)) if seconds is not None]
    said = [seconds for seconds in said if sane(seconds, most) is not None]
    if said:
        return max(said)
    return sane(retry_after(headers, now), most) or sane(retry_after(found.headers, now), most)


def _exhausted_window(limits: Mapping[str, Any]) -> str:
    """The longest window among the limits of which nothing remains; empty when there is none."""
    spent = [row["window"] for row in limits.values() if row.__class__ is dict and row["remaining"] == 0]
    return max(spent, key=window_seconds, default="")


def _reset_of_hit(limits: Mapping[str, Any], found: Evidence, window: str, now: float) -> float | None:
    """When the limit that was hit is free again: the latest of those with nothing left, else of those that the text
    names by metric and window."""
    rows = {name: row for name, row in limits.items() if row.__class__ is dict}
    spent = [row for row in rows.values() if row["remaining"] == 0]
    if not spent:
        metric = next((metric for metric in ("tokens", "requests") if metric[:-1] in found.text), "none")
        spent = [row for name, row in rows.items() if metric in name and row["window"] == window]
    spent = [row for row in spent if row["window"] == window] or spent
    return max((seconds for row in spent if (seconds := _until(row, now)) is not None), default=None)


def _until(row: Mapping[str, Any], now: float) -> float | None:
    epoch_ms = row.get("reset_epoch_ms")
    seconds: float | None = row["reset_s"] if epoch_ms is None else epoch_ms / 1000.0 - now
    return seconds
