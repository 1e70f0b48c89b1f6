"""What the ledger tells of calls, as JSON for commands and admin pages: sums of usage, and the story of one call."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from keyturn.core import Attempt, Deployment, Trail, cost_of, dollars
from keyturn.errors import BadRequest, StoreError, TransportError
from keyturn.stores import AttemptRow, CallStory, UsageQuery, UsageRow

from .clock import Watch

if TYPE_CHECKING:
    from .gateway import Gateway

PATIENCE = 3.0
"""Seconds that a question waits for what was recorded last: while the database is away it is answered without."""
SHORTEST_PREFIX, SHORTEST_END = 8, 6
"""Digits of an id that are enough to look for it. Ids begin with their time: 8 last a minute; their end is drawn."""
MOST_CALLS = 1000
"""Single calls that are listed at most: each is looked up by itself."""
MOST_SEARCHED = 10_000
"""Calls that are looked at to find those whose ids begin alike."""
MOST_NEAR = 5
ID_DIGITS = 32
HEX = frozenset("0123456789abcdef")
TIME_DIGITS = 12
"""The leading hex digits of an id that are its time, in milliseconds."""
BEFORE, AFTER = 2_000, (10_000, 600_000, 3_600_000)
"""Milliseconds between the time of an id and that of its attempts: few, unless a body or a key was waited for."""
LATEST = (3_600_000, 86_400_000)
"""How far back, in milliseconds, the latest calls are looked for first: of a long time that is soon done."""
EVER = 2**62


class Reader(Protocol):
    """What answers questions: a ledger, or the database behind one. Raises StoreError."""

    async def usage(self, query: UsageQuery) -> Sequence[UsageRow]: ...
    async def story(self, call: str) -> CallStory | None: ...


async def recorded(gateway: Gateway) -> bool:
    """Wait for what was recorded so far; False when it could not be had in time, and the latest rows are missing."""
    watch = Watch(gateway.clock, gateway.clock.mono() + PATIENCE, "ledger")
    try:
        with watch:
            await gateway.ledger.flush()
    except (TransportError, StoreError):
        return False
    finally:
        watch.close()
    return True


async def usage_told(reader: Reader, query: UsageQuery) -> list[dict[str, object]]:
    """The rows of `keyturn usage --json`: days in their order, of single calls with what became of each."""
    rows = await (_latest_calls(reader, query) if query.by == "call" else reader.usage(query))
    if not rows and query.name:
        rows = await _named_in_short(reader, query)
    if query.by == "day":
        rows = sorted(rows)
    told = [_summed(row) for row in rows]
    if query.by == "call":
        for row, each in zip(rows, told, strict=True):
            story = await reader.story(row.name)
            if story is not None:
                each |= _outline(story)
    return told


async def _named_in_short(reader: Reader, query: UsageQuery) -> Sequence[UsageRow]:
    """The rows of keys that are named by their label, fingerprint or provider, and of calls by their beginning."""
    name = query.name.strip().lower()
    if query.by == "key":
        keys = await reader.usage(query._replace(name="", most=MOST_SEARCHED))
        return [row for row in keys if _is_called(row.name, name)][: query.most]
    if query.by != "call" or not SHORTEST_PREFIX <= len(name.replace("-", "")) < ID_DIGITS:
        return ()
    calls = (await _beginning(reader, name))[: min(query.most, MOST_CALLS)]
    return [row for call in calls for row in await reader.usage(query._replace(name=call, most=1))]


def _is_called(key: str, name: str) -> bool:
    """Whether *name* is the label, the fingerprint or the provider of what is shown as *key*, `groq-1:9f3a1c`."""
    label, _, fingerprint = key.partition(":")
    return name in (label, fingerprint, label.rpartition("-")[0])


async def _latest_calls(reader: Reader, query: UsageQuery) -> Sequence[UsageRow]:
    query = query._replace(most=min(query.most, MOST_CALLS))
    for back in LATEST:
        since = query.until - back
        if query.name or since <= query.since:
            break
        rows = await reader.usage(query._replace(since=since))
        if len(rows) == query.most:
            return rows
    return await reader.usage(query)


def _summed(row: UsageRow) -> dict[str, object]:
    return {
        "name": row.name,
        "attempts": row.attempts,
        "failed": row.failed,
        "input": row.input,
        "cached": row.cached,
        "output": row.output,
        "reasoning": row.reasoning,
        "cost_usd": dollars(row.cost),
        "cost_nano": row.cost,
        "unpriced": row.unpriced,
        "estimated": row.estimated,
    }


def _outline(story: CallStory) -> dict[str, object]:
    """Of one call what stands beside its sums."""
    told = story_told(story)
    last = story.attempts[-1] if story.attempts else None
    outline = {name: told[name] for name in ("at", "caller", "route", "status", "code", "ms")}
    return outline | {
        "model": f"{last.provider}/{last.model}" if last is not None else None,
        "key": last.key if last is not None else None,
    }


UNRECORDED: dict[str, object] = {"plan": [], "ordered": None, "deadlines": None, "wait": None, "shared": None}
"""What only the process knows that answered a call; the ledger has it in words, among the notes."""


def story_told(story: CallStory) -> dict[str, object]:
    """One call as `keyturn trace --json` prints it; status None: it is under way, or ended with a crash."""
    call, attempts = story.call, story.attempts
    first = attempts[0] if attempts else None
    stands_for = call or first
    assert stands_for is not None, "a story has a call or an attempt"
    return {
        "call": call.id if call is not None else first.call if first is not None else "",
        "at": moment(stands_for.at),
        "caller": stands_for.caller,
        "route": stands_for.route,
        "status": call.status if call is not None else None,
        "code": call.code if call is not None else "",
        "ms": call.ms if call is not None else None,
        "waited_ms": call.waited_ms if call is not None else 0.0,
        "stream": call.stream if call is not None else None,
        "attempts": [_attempt(each) for each in attempts],
        "refusals": list(call.refusals) if call is not None else [],
        "notes": list(call.notes) if call is not None else [],
        **UNRECORDED,
        "wait": _waited(call.waited_ms if call is not None else 0.0),
    }


def _waited(ms: float) -> dict[str, object] | None:
    return {"position": None, "expected_ms": None, "actual_ms": ms} if ms else None


async def told_call(reader: Reader, call: str) -> dict[str, object] | None:
    """The story of the call with the id *call*; None when it is not recorded."""
    story = await reader.story(call)
    return None if story is None else story_told(story)


def _attempt(row: AttemptRow) -> dict[str, object]:
    return {
        "provider": row.provider,
        "model": row.model,
        "key": row.key,
        "meaning": row.meaning or "unfinished",
        "status": row.status,
        "ms": row.ms,
        "detail": row.detail,
        "resend": row.resend,
        "pick": None,
        "content_by_ms": None,
        "at": moment(row.at),
        "tier": row.tier,
        "role": row.role,
        "first_token_ms": row.first_token_ms,
        "input": row.input,
        "cached": row.cached,
        "output": row.output,
        "reasoning": row.reasoning,
        "exact": row.exact,
        "cost_usd": None if row.cost is None else dollars(row.cost),
        "cost_nano": row.cost,
    }


def trail_told(gateway: Gateway, trail: Trail) -> dict[str, object]:
    """The same of a call that this process remembers, with what it alone knows."""
    offset = gateway.live.wall_offset
    ms = None if trail.ended is None else round((trail.ended - trail.started) * 1000, 1)
    return {
        **trail.told(),
        "at": moment(int((trail.started + offset) * 1000)),
        "caller": trail.caller or None,
        "ms": ms,
        "stream": trail.stream,
        "attempts": [_remembered(gateway, each, offset) for each in trail.attempts],
    }


def _remembered(gateway: Gateway, attempt: Attempt, offset: float) -> dict[str, object]:
    usage, first = attempt.usage, attempt.first_token
    price = gateway.generation.prices.of(Deployment(attempt.provider, attempt.model))
    cost = cost_of(usage, price) if usage is not None else None
    return {
        **attempt.told(),
        "at": moment(int((attempt.started + offset) * 1000)),
        "tier": attempt.tier,
        "role": None,
        "first_token_ms": None if first is None else round((first - attempt.started) * 1000, 1),
        "input": usage.input if usage is not None else 0,
        "cached": usage.cached if usage is not None else 0,
        "output": usage.output if usage is not None else 0,
        "reasoning": usage.reasoning if usage is not None else 0,
        "exact": usage is not None and usage.exact,
        "cost_usd": None if cost is None else dollars(cost),
        "cost_nano": cost,
    }


def moment(at: int) -> str:
    """Unix milliseconds as `2026-11-28T09:58:55.123Z`."""
    try:
        return f"{datetime.fromtimestamp(at / 1000, UTC):%Y-%m-%dT%H:%M:%S}.{at % 1000:03d}Z"
    except (ValueError, OverflowError, OSError):
        return str(at)  # a wall clock that was set beyond every calendar


async def told_of(reader: Reader, call: str, now: int) -> dict[str, object]:
    """`{"story": …}` of the call that *call* names, by its whole id, its beginning or its end; else `{"story": None}`.

    Then `near` has the outlines of calls whose ids begin or end so, of the latest ones when none does.
    """
    story = await reader.story(call)
    if story is not None:
        return {"story": story_told(story)}
    near = await _beginning(reader, call) or await _ending(reader, call)
    if len(near) == 1:
        story = await reader.story(near[0])
        if story is not None:
            return {"story": story_told(story)}
    alike = bool(near)
    if not near:
        near = await _latest(reader, now)
    stories = [(name, await reader.story(name)) for name in near[:MOST_NEAR]]
    return {
        "story": None,
        "alike": alike,
        "near": [{"call": name, **_outline(each)} for name, each in stories if each is not None],
    }


async def _beginning(reader: Reader, start: str) -> list[str]:
    """Ids of the latest calls that begin with *start*, the latest first."""
    digits = start.replace("-", "")
    if len(digits) < SHORTEST_PREFIX or not HEX.issuperset(digits):
        return []
    first = int(digits[:TIME_DIGITS].ljust(TIME_DIGITS, "0"), 16)
    last = int(digits[:TIME_DIGITS].ljust(TIME_DIGITS, "f"), 16)
    found: set[str] = set()
    for after in AFTER:
        rows = await reader.usage(UsageQuery("call", first - BEFORE, last + after, MOST_SEARCHED))
        found |= {row.name for row in rows if row.name.replace("-", "").startswith(digits)}
        if len(rows) == MOST_SEARCHED:
            break  # a longer time would only show later ones
    return sorted(found, reverse=True)


async def _ending(reader: Reader, end: str) -> list[str]:
    """Ids that end with *end* among the latest calls, the latest first."""
    digits = end.replace("-", "")
    if len(digits) == ID_DIGITS or not HEX.issuperset(digits):
        return []
    rows = await reader.usage(UsageQuery("call", 0, EVER, MOST_SEARCHED))
    return sorted((row.name for row in rows if row.name.replace("-", "").endswith(digits)), reverse=True)


def names_call(given: str, call: str) -> bool:
    """Whether *given*, as `call_named` has it, is the beginning or the end of the id *call*."""
    digits, whole = given.replace("-", ""), call.replace("-", "")
    return whole.endswith(digits) or (len(digits) >= SHORTEST_PREFIX and whole.startswith(digits))


async def _latest(reader: Reader, now: int) -> list[str]:
    for since in (*(now - back for back in LATEST), 0):
        rows = await reader.usage(UsageQuery("call", since, EVER, MOST_NEAR))
        if len(rows) == MOST_NEAR:
            break
    return [row.name for row in rows]


def call_named(text: str) -> str:
    """*text* as an id, or the beginning or the end of one. Raises BadRequest when it is too short to be any."""
    call = text.strip().lower()
    digits = len(call.replace("-", ""))
    if not SHORTEST_END <= digits <= ID_DIGITS:
        said = f"at least its last {SHORTEST_END} or its first {SHORTEST_PREFIX} characters"
        raise BadRequest(f"give the call's id, or {said}", param="call")
    return call
