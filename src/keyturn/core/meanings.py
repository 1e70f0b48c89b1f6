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
from .vocabulary import (
    ABSENT,
    ABSENT_CODES,
    ABSENT_SUFFIXES,
    BIG_ASK,
    CODE_STATUS,
    CONTENT,
    CONTENT_CODES,
    DENIED,
    DENIED_CODES,
    KEY,
    KEY_CODES,
    LIMIT_CODES,
    LIMITED,
    LOAD,
    LOAD_CODES,
    LONG_WINDOWS,
    MONEY,
    MONEY_CODES,
    NO_KEY,
    NO_PATH,
    OWN_QUOTA,
    REGION,
    REGION_CODES,
    RESOURCE_BLOCKED,
    SIZE,
    SIZE_CODES,
    TIME_CODES,
    TIMEOUTS,
    TOO_LARGE,
    WINDOWS,
    Phrases,
)

PAGES: dict[int, Meaning] = {
    401: "invalid_key",
    402: "insufficient_credit",
    403: "forbidden",
    404: "not_found",
    410: "not_found",
    429: "rate_limited",
}
"""What an HTML page means by its status; not a word of it counts."""


class Finding(NamedTuple):
    """A meaning, how sure it is, and the window of a limit when it is one."""

    meaning: Meaning
    explicit: bool = False
    zero: bool = False
    """A limit of nothing: never offered, waiting never helps."""
    window: str = ""
    place: str = ""
    """What the scope depends on: `region`, `path` and `page` are the provider's, `request` is this request's alone."""


def _places(text: str, phrases: Phrases) -> Iterator[int]:
    """Where each of *phrases* that *text* holds begins, the parts of each in order."""
    for phrase in phrases:
        start = at = text.find(phrase[0])
        for part in phrase[1:]:
            if at >= 0:
                at = text.find(part, at + 1)
        if at >= 0:
            yield start


def says(text: str, phrases: Phrases) -> bool:
    """Whether *text* holds one of *phrases*."""
    return next(_places(text, phrases), -1) >= 0


def _coded(codes: Iterable[str], parts: Iterable[str]) -> bool:
    """Whether a code contains one of *parts*."""
    return any(part in code for code in codes for part in parts)


def effective_status(found: Evidence, status: int | None) -> int | None:
    """The status that judges: the answer's own, or after a 2xx the one that the body states or implies."""
    if status is not None and not 200 <= status < 300:
        return status
    if found.page:  # it may quote any number
        return None
    if found.number is not None and found.number >= 400:
        return found.number
    for code in found.codes:
        if code in CODE_STATUS:
            return CODE_STATUS[code]
    return status_in(found.text)


def find_meaning(found: Evidence, status: int | None, rules: Rules) -> Finding:
    """The meaning of an error; *status* is the effective one, None when there is none."""
    if status is not None and status < 400:
        return Finding("unknown", place="path")
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
        return Finding("forbidden", place="region")
    if _is_money(found, status):
        return Finding("insufficient_credit", place="request" if says(text, BIG_ASK) else "")
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
    bare = PAGES.get(status)
    if bare is not None:
        return Finding(bare, place="page" if bare != "invalid_key" else "")
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
    blocked = says(found.text, RESOURCE_BLOCKED)
    return not blocked and (_coded(found.codes, CONTENT_CODES) or says(found.text, CONTENT))


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
    if status not in (400, 403, 413, 422, 500, None):
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
        while end < len(text) and text[end] in "0123456789" and end - at < 16:
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
        return Finding("not_found", place="path" if status == 405 or says(found.text, NO_PATH) else "")
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
