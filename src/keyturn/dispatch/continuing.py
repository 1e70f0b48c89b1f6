"""An answer that was cut, taken up by somebody else: who can, how it is asked, and what of it the client gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from keyturn.core import Deployment, Entry, Origin, Outcome, Refuse, Relay, Request, Usage, advance
from keyturn.errors import KeyturnError
from keyturn.providers import asking, goes_on
from keyturn.wire import Context, GoingOn, Told, added, begun_with, dialect

from .reply import Reply

if TYPE_CHECKING:
    from .exchange import Exchange
    from .gateway import Gateway
    from .holding import Cut, Guard
    from .run import Run

CHARACTERS_PER_TOKEN = 4


class Seam:
    """The place where a stream was cut, and what whoever takes it up has to know."""

    __slots__ = ("before", "detail", "entry", "gateway", "number", "outcome", "request", "spent", "told")

    def __init__(
        self, exchange: Exchange, told: Told, outcome: Outcome, detail: str, request: Request, before: str
    ) -> None:
        self.gateway: Gateway = exchange.gateway
        self.entry: Entry = exchange.grant.entry
        self.number = exchange.run.trail.attempts.index(exchange.grant.attempt) + 1
        """Which attempt of the call was cut, from 1."""
        self.told = told
        self.outcome = outcome
        self.detail = detail
        self.request = request
        """What the client asked for, without the beginning of its answer."""
        self.before = before
        """The text so far, without the white space at its end, which some refuse; empty: the client has none."""
        self.spent: Usage | None = None
        """What the attempts whose text the client has used together."""

    def asked(self, request: Request) -> Request:
        """*request* as it is put to who takes the answer up."""
        return begun_with(request, self.before) if self.before else request

    def stream(self, upstream: str, origin: Origin, context: Context) -> GoingOn:
        """What reads the rest from an upstream that is spoken to in *upstream*."""
        return GoingOn(upstream, origin, context, self.told, self.before, self.spent)


def seam_of(exchange: Exchange, told: Told, cut: Cut, guard: Guard, said: int) -> Seam | str:
    """The seam at *cut*, behind *said* characters of text that its attempt gave; or why nobody can go on.

    Prepares the run of *exchange* for who does: the deployments that can, what they are charged, until when.
    """
    run, outcome = exchange.run, cut.outcome
    assert outcome is not None
    earlier = run.seam
    text = told.text
    try:
        request = run.neutral if earlier is None else earlier.request
        if request is None:
            request = exchange.gateway.signatures.recalled(dialect(run.call.dialect).read_request(run.call))
    except KeyturnError as error:
        return error.message
    seam = Seam(exchange, told, outcome, cut.detail, request, text.rstrip())
    if seam.before:
        if why := forbidden(request):
            return why
        able = able_to_go_on(run, request, exchange.grant.entry.candidate.deployment, elsewhere=guard.elsewhere)
        if not able:
            return "nobody can be told to go on with a text that has begun"
        run.deployments = able
        seam.spent = _together(earlier.spent if earlier is not None else None, exchange.grant.attempt.usage, said)
        begun = len(seam.before.encode("utf-8", "replace"))
        run.call = replace(run.call, text_bytes=run.call.text_bytes + begun) if earlier is None else run.call
    return seam


def forbidden(request: Request) -> str:
    """Why an answer to *request* that has begun must not be gone on with by another; empty when it may."""
    cited = any(getattr(part, "cited", False) for message in request.messages for part in message.parts)
    for found, why in (
        ((request.n or 1) > 1, "several answers were asked for"),
        (request.logprobs, "log probabilities were asked for"),
        (request.shape is not None, "its text is to be JSON"),
        (bool(request.hosted), "a tool of the provider's own was asked for"),
        (cited, "sources were asked for"),
    ):
        if found:
            return why
    return ""


def able_to_go_on(run: Run, request: Request, first: Deployment, *, elsewhere: bool) -> tuple[Deployment, ...]:
    """The deployments of the plan that can be told to go on with what *first* began: the same model, or with
    *elsewhere* any."""
    config, found = run.generation.config, []
    same = {_key(each) for each in (first, *config.equivalents.of(first))}
    for each in run.deployments:
        if not elsewhere and _key(each) not in same and each.model.lower() != first.model.lower():
            continue
        provider = config.providers[each.provider]
        if goes_on(provider, asking(provider, run.call, each.model).dialect, each.model, request):
            found.append(each)
    return tuple(found)


async def take_up(seam: Seam, run: Run) -> Exchange | str:
    """Find somebody who goes on at *seam*: the exchange that has the rest, or why there is none."""
    gateway = seam.gateway
    move = advance(run.progress, seam.entry, seam.outcome, gateway.clock.mono())
    if isinstance(move, Refuse):
        return move.why
    if isinstance(move, Relay):
        return "another would be told the same"
    run.seam, run.neutral = seam, seam.asked(seam.request)
    run.content_by = run.deadline
    run.costs.clear()
    try:
        got = await gateway.obtain(run, seam.entry)
    except KeyturnError as error:
        return gateway.redact(error.message)
    if isinstance(got, Reply):
        got.close()
        return "who was asked to go on refused"
    exchange, grant, begun = got, got.grant, False
    try:
        response = exchange.response
        grant.attempt.status = response.status if response is not None else None
        exchange.succeeded()
        _note(run, seam, grant.entry)
        begun = True
    finally:
        if not begun:
            exchange.close()
    return exchange


def _note(run: Run, seam: Seam, entry: Entry) -> None:
    """Tell in the trail who went on after which attempt."""
    deployment, credential = entry.candidate
    if seam.before:
        did = f"went on behind {len(seam.before)} characters of text"
    else:
        did = "answered from the start, as the client had none of the answer"
    run.trail.notes.append(f"attempt {seam.number} was cut; {deployment} with {credential.shown} {did}")


def _together(spent: Usage | None, used: Usage | None, said: int) -> Usage:
    """What was *spent* before, and what a cut attempt used that gave *said* characters: its own figures come at the
    end of an answer."""
    used = used or Usage(exact=False)
    output = max(used.output, -(-said // CHARACTERS_PER_TOKEN))
    return added(spent, used._replace(output=output, exact=used.exact and output == used.output))


def _key(deployment: Deployment) -> tuple[str, str]:
    return deployment.provider.lower(), deployment.model.lower()
