"""What the ledger is told of attempts and calls: rows made from a run, by the wall clock and in nano-dollars.

Each attempt is told twice, so its rows are written as the lines that they become: making an object and encoding all of
that would cost more than all else that the ledger does for a call.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import msgspec

from keyturn.core import Attempt, Entry, Pick, Price, Trail, Usage, charged
from keyturn.stores import CallRow, Shared

from .run import Grant, Run

if TYPE_CHECKING:
    from .gateway import Gateway

MOST_PLANNED = 20
"""Names of a plan that are written down."""
LONGEST_NAME = 200
"""Characters of what a client may have made up."""
MOST_NAMED = 64
"""Callers and names of one candidate whose part of a line is kept."""


def intent(gateway: Gateway, run: Run, grant: Grant) -> tuple[bytearray, Shared]:
    """The line of an `AttemptRow`: *grant* is about to be sent; what is held stands for what will be used. It holds
    until the next one is made. And what it shares with others."""
    attempt, at = grant.attempt, int(gateway.clock.wall() * 1000)
    who, entry = (run.caller.name, run.trail.route, run.role, attempt.resend), grant.entry
    named = entry.recorded.get(who) or _named(run, entry, who, attempt.tier)
    grant.begun = at, named
    # Nobody needed an estimate of this call: one in passing will do, as it counts only if this process dies.
    input, output, held, likely = run.call.text_bytes // 4 or 1, 0, 0, None
    if run.costs or named.price is not None:
        input, output, held, likely = _expected(run, grant, named, input)
    line, own = named.line, (attempt.id, run.trail.call, at, input, output, held, likely, None, None, 0, 0, 0)
    shared = named.begins
    _encode_into((own, shared.number), line)
    line += b"\n"
    return line, shared


def _expected(run: Run, grant: Grant, named: Named, input: int) -> tuple[int, int, int, int | None]:
    """Input and output, what is held for them, and what they are expected to cost, where something is known of that."""
    cost, output = run.costs.get(grant.entry.candidate.deployment) if run.costs else None, 0
    if cost is not None:
        input, output = cost.input, cost.output
    if grant.budget is not None:
        return input, output, grant.budget.cost, grant.budget.cost
    return input, output, 0, None if named.price is None else named.price.of(Usage(input, output))


def outcome(gateway: Gateway, run: Run, grant: Grant, attempt: Attempt) -> tuple[bytearray, Shared | None, int]:
    """The line of an `AttemptRow`: *attempt*, made with *grant*, is over, until the next one is made; what it shares
    with others; and what budgets are charged. Without usage nothing was delivered, and no tokens are counted."""
    began, first, usage = attempt.started, attempt.first_token, attempt.usage
    if grant.begun is not None and attempt is grant.attempt:
        at, named = grant.begun
    else:
        who = (run.caller.name, run.trail.route, run.role, attempt.resend)
        named = grant.entry.recorded.get(who) or _named(run, grant.entry, who, attempt.tier)
        at = _wall_ms(gateway, began)
    input, output, cached, reasoning, exact, cost, written = usage or _NOTHING
    if cost is None and named.price is not None and usage is not None:
        cost = named.price.of(usage)
    # Where no budget applies the price is what is charged: a budget that is set later in the month counts it.
    paid = cost or 0 if grant.budget is None else charged(grant.budget, usage)
    took = int(((attempt.ended or began) - began) * 10_000 + 0.5) / 10  # as `_ms` has it
    waited = None if first is None else _ms(first - began)
    own = (attempt.id, run.trail.call, at, input, output, paid, cost, took, waited, cached, written, reasoning)
    line, shared = named.line, None
    if exact and attempt.meaning == "ok" and attempt.status == 200 and not attempt.detail:
        shared = named.ends_well
        _encode_into((own, shared.number), line)
    else:
        _encode_into((own, named.ends(attempt.meaning, attempt.status, exact, attempt.detail)), line)
    line += b"\n"
    return line, shared, paid


class Named:
    """What the lines of many attempts share: who asked whom by which key, as JSON, and what that costs."""

    __slots__ = ("_names", "begins", "ends_well", "line", "price")

    def __init__(self, names: Iterable[str], tier: int, resend: bool, price: Price | None) -> None:
        self._names = (*map(_whole, names), tier, resend)
        self.price = price
        self.line = bytearray()
        """The last line that was made with it: a new one each time would cost more than what is written into it."""
        self.begins = Shared(_encode(("i", *self._names, "", None, False, "")))
        self.ends_well = Shared(bytes(self.ends("ok", 200, True, "")))

    def ends(self, meaning: str, status: int | None, exact: bool, detail: str) -> msgspec.Raw:
        """The second part of the line of an attempt that is over."""
        return msgspec.Raw(_encode(("f", *self._names, meaning, status or None, exact, _whole(detail))))


def _named(run: Run, entry: Entry, who: tuple[str, str, str, bool], tier: int) -> Named:
    """What the lines of attempts of *who* with *entry* share: made for the first of them."""
    if len(entry.recorded) >= MOST_NAMED:
        entry.recorded.clear()
    caller, route, role, resend = who
    deployment, credential = entry.candidate
    provider, model = deployment
    names = (caller, route[:LONGEST_NAME], role, provider, model[:LONGEST_NAME], credential.shown)
    price = run.generation.prices.of(deployment)
    named = entry.recorded[who] = Named((*names, credential.fingerprint), tier, resend, price)
    return named


def _whole(text: str) -> str:
    """*text* as JSON takes it; half of a character, from a client or an upstream, is replaced."""
    return text.encode(errors="replace").decode()


def says_it_all(trail: Trail) -> bool:
    """Whether the only attempt of a call tells all of it: then the call needs no row of its own."""
    if trail.status != 200 or trail.refusals or trail.notes or trail.code or trail.waited or trail.shared:
        return False
    if len(trail.attempts) != 1:
        return False
    (only,) = trail.attempts
    return only.meaning == "ok" and not only.resend


def ending(gateway: Gateway, run: Run) -> CallRow:
    """The call of *run* is over."""
    trail = run.trail
    return CallRow(
        "c",
        trail.call,
        _wall_ms(gateway, trail.started),
        run.caller.name,
        trail.route[:LONGEST_NAME],
        trail.status,
        trail.code,
        _ms(trail.ended - trail.started) if trail.ended else 0.0,
        _ms(trail.waited) if trail.waited else 0.0,
        len(trail.attempts),
        trail.stream,
        trail.refusals,
        [*trail.notes, *circumstances(trail)],
    )


def circumstances(trail: Trail) -> Iterator[str]:
    """In words, what a row has no place for: who might be asked, how keys were chosen, what it was to wait, and by when
    it had to be answered. As `keyturn trace` says it of a call that is still in memory."""
    if len(trail.plan) > 1:
        how = "" if trail.ordered == "in_order" else f" ({trail.ordered} first)"
        yield f"planned{how}: {', '.join(map(str, trail.plan[:MOST_PLANNED]))}"
    for number, attempt in enumerate(trail.attempts, 1):
        said = []
        if attempt.pick is not None:
            said.append(f"{attempt.key} was chosen of {Pick(*attempt.pick).said()}")
        if attempt.content_by is not None:
            within = attempt.content_by - attempt.started
            said.append(f"its first content was to come within {within:.1f} s")
        if said:
            yield f"attempt {number}: {'; '.join(said)}"
    if trail.position is not None:
        expected = "" if trail.expected_wait is None else f", to wait {trail.expected_wait:.1f} s"
        yield f"it began to wait at place {trail.position}{expected}"
    if trail.bounds is not None:
        deadline, content_by, patience = trail.bounds
        total, content = deadline - trail.started, content_by - trail.started
        until = f"{content:.0f} s until its first content, " if content < total else ""
        yield f"deadlines: {total:.0f} s in all, {until}{patience:.0f} s waiting for a key"


_NOTHING = Usage(0, 0)
_encode, _encode_into = msgspec.json.Encoder().encode, msgspec.json.Encoder().encode_into


def _ms(seconds: float) -> float:
    """Milliseconds, rounded to tenths: `round` takes three times as long."""
    return int(seconds * 10_000 + 0.5) / 10


def _wall_ms(gateway: Gateway, mono: float) -> int:
    return int((mono + gateway.live.wall_offset) * 1000)
