"""One attempt: the request handed to the transport, its answer judged, what it reserved settled exactly once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING

from keyturn.core import (
    FEW,
    PAGE,
    Facts,
    HttpRequest,
    LocalRequest,
    Outcome,
    Redactor,
    Reply,
    Request,
    UpstreamRequest,
    UpstreamResponse,
    Usage,
    answered_at,
    classify,
)
from keyturn.errors import DeadlineExceeded, TransportError
from keyturn.providers import Provider, asking, fits, prepare
from keyturn.wire import (
    AnswerStream,
    Context,
    Translation,
    dialect,
)

from .bounds import given_up, observed, watch_of
from .clock import new_id
from .judging import judged
from .reading import hold, most_of, read
from .recording import outcome as outcome_line
from .reporting import reported
from .run import Failed, Grant, Run
from .signing_in import another_token

if TYPE_CHECKING:
    from .gateway import Gateway

BYTES_PER_TOKEN = 4
WORDS = {
    "garbage": "its answer is no completion",
    "cut": "its stream ended before any content",
    "first_token": "no first token came in time",
    "no_content": "no content came in time",
}
"""What faults that the transport does not put into words are called in the log and in errors."""
OK = Outcome("ok", "request", None, False, False, False, {})


def traced(request: UpstreamRequest, headers: tuple[tuple[str, str], ...]) -> None:
    """Have *request* carry *headers*, which tell its upstream of our trace; a command line tool is told nothing."""
    if isinstance(request, LocalRequest):
        request = request.http
    if isinstance(request, HttpRequest):
        request.trace = headers


class Exchange:
    """Carries one attempt. After `perform` it either answered (plain: `reply`, stream: `stream`) or `Failed`."""

    __slots__ = (
        "answered",
        "body",
        "chunks",
        "crowd",
        "gateway",
        "grant",
        "held",
        "how",
        "media_type",
        "now",
        "provider",
        "reply",
        "request",
        "response",
        "run",
        "stream",
        "timeouts",
        "watch",
    )

    def __init__(self, gateway: Gateway, run: Run, grant: Grant) -> None:
        self.gateway = gateway
        self.run = run
        self.grant = grant
        self.crowd = grant.entry.active
        """How many attempts its key had under way when it began, itself included."""
        generation, deployment = run.generation, grant.entry.candidate.deployment
        self.now = gateway.clock.mono
        self.timeouts = generation.config.timeouts
        self.answered = False
        self.provider: Provider = generation.config.providers[deployment.provider]
        grant.attempt.tier = generation.tiers[deployment.provider]
        self.response: UpstreamResponse | None = None
        self.reply: Reply | None = None
        self.body = b""
        self.media_type = ""
        """Of an answer that is no JSON and no events."""
        self.how = asking(self.provider, run.call, deployment.model)
        self.request: UpstreamRequest | None = None
        self.stream: AnswerStream | None = None
        self.chunks: AsyncIterator[bytes] | None = None
        self.held = b""
        self.watch = watch_of(gateway, run, grant, self.provider)

    @property
    def redactor(self) -> Redactor:
        """Takes keys out of what upstreams say."""
        return self.gateway.redactor

    def wall(self) -> float:
        """Unix seconds."""
        return self.gateway.clock.wall()

    def prepare(self) -> None:
        """Write the request. Raises Untranslatable when this upstream's dialect cannot say it, and BadRequest."""
        run, candidate, how = self.run, self.grant.entry.candidate, self.how
        if how.relayed and (
            (run.seam is not None and run.seam.before)
            or self.gateway.signatures.foreign(run.call, candidate)
            or (how.dialect != "openai_chat" and not fits(self.provider, run.call, candidate.deployment.model))
        ):
            how = self.how = how._replace(anew=True)
        notes: list[str] = []
        self.request = prepare(self.provider, run.call, candidate, notes, how, self._neutral, self.grant.entry.heads)
        if run.trail.trace is not None:
            traced(self.request, run.trail.trace.sending(self.grant.attempt))
        if notes:
            run.trail.notes.extend(note for note in notes if note not in run.trail.notes)

    def _neutral(self) -> Request:
        """The whole call in neutral form; read once, whoever is asked."""
        run = self.run
        if run.neutral is None:
            request = dialect(run.call.dialect).read_request(run.call)
            request = self.gateway.signatures.recalled(request)
            run.neutral = request if run.seam is None else run.seam.asked(request)
        return run.neutral

    def context(self) -> Context:
        """What writing the answer in the client's dialect needs to know."""
        run = self.run
        identity = run.trail.call.replace("-", "")
        model = self.grant.entry.candidate.deployment.model
        return Context(run.call, identity, int(self.wall()), model, self.estimate())

    async def perform(self) -> Failed | None:
        """Send it, once it is on record, and read until the answer is complete or, for a stream, has begun. None: there
        is an answer to relay; in all other cases nothing is left open.

        Raises DeadlineExceeded when the call's own time is up.
        """
        gateway, request, over = self.gateway, self.request, False
        fault, detail, body = None, "", b""
        failed: Failed | None = None
        assert request is not None
        try:
            on_record = gateway.intended(self.run, self.grant)
            if on_record is not None:
                await on_record
            try:
                with self.watch:
                    try:
                        response = await gateway.transport.send(request, self._sent)
                    except TransportError as error:
                        if error.kind != "stale":
                            raise
                        self._stale(error)
                        response = await gateway.transport.send(request, self._sent)
                    self.response = response
                    if response.status == 401 and self.grant.entry.candidate.credential.tokens is not None:
                        response = await self._with_another_token(response)
                    if most := most_of(self, response):
                        fault, body = read(self, response, await response.read(most))
                    else:
                        fault, body = await hold(self, response)
            except TransportError as error:
                fault, detail = self._phase(error), error.message
                if self.timeouts.adaptive and self.provider.tool is None and self.watch.expired:
                    given_up(gateway, self.run, self.grant)
            if self.answered:
                self._observed()
            else:
                failed = self._failed(fault, detail, body)
            over = True
        finally:
            if not over:
                self.close()
        return failed

    def _observed(self) -> None:
        """There is an answer, or the beginning of a stream: whoever learns from that is told."""
        run, grant = self.run, self.grant
        reported(self, OK)
        begun = grant.attempt.first_token
        if begun is not None and (grant.entry.active > FEW or begun >= grant.entry.onset_due):
            self.gateway.adapting.begun(self, begun)
        if self.timeouts.adaptive and self.provider.tool is None:
            observed(self.gateway, run, grant)
        if run.place is not None:
            run.generation.reserving.answered(run, grant)
        if run.generation.measures:
            now = self.now()
            grant.pool.observed(grant.entry, now - grant.attempt.started, now)

    def _failed(self, fault: str | None, detail: str, body: bytes) -> Failed:
        """What *fault*, or the answer that began with *body*, means; the attempt is over."""
        run, grant, gateway = self.run, self.grant, self.gateway
        status, headers = (0, {}) if self.response is None else (self.response.status, self.response.headers)
        in_stream = run.call.stream and 200 <= status < 300
        body = self.redactor.data(body)  # while it is whole: half a key is not recognised
        now, rules = answered_at(headers, gateway.clock.wall()), self.provider.rules
        outcome = classify(Facts(status or None, headers, body, now, stream=in_stream, fault=fault, rules=rules))
        reported(self, outcome)
        grant.attempt.status = status or None
        # Of a fault after the request was sent nobody knows how far the upstream came: budgets keep what was held.
        usage = self.unstated() if fault is not None and grant.sent else None
        told = detail or outcome.message or WORDS.get(fault or "", "") or self._redirection(status)
        if outcome.code == PAGE:
            told = f"a web page came instead of an answer: {told}"
        self.finish(outcome, usage, told)
        return Failed(grant.entry, outcome, status, headers.get("content-type", ""), body, self.how.dialect)

    def _stale(self, error: TransportError) -> None:
        """The peer had closed the idle connection before it saw the request: nobody's fault, sent again at once.

        It counts as an attempt of its own; the reservation is the same, as the provider has counted nothing.
        """
        self._lost("server_error", error.message)

    async def _with_another_token(self, refused: UpstreamResponse) -> UpstreamResponse:
        """What the upstream answers to another token; *refused*, as it is, when there is none to be had."""
        assert self.request is not None
        if not await another_token(self.grant.entry.candidate.credential, self.request):
            return refused
        refused.close()
        self._lost("invalid_key", "the token was refused; another one was got")
        self.prepare()
        self.response = response = await self.gateway.transport.send(self.request, self._sent)
        return response

    def _lost(self, meaning: str, detail: str) -> None:
        """The request was in vain and is sent again on the same credential."""
        run, attempt, now = self.run, self.grant.attempt, self.now()
        lost = replace(attempt, id=new_id(self.wall()), meaning=meaning, detail=detail, ended=now)
        run.trail.attempts.insert(run.trail.attempts.index(attempt), lost)
        run.progress.attempts += 1
        attempt.started, attempt.resend, self.grant.begun = now, True, None
        if self.gateway.ledger.keeps:
            line, shared, _ = outcome_line(self.gateway, run, self.grant, lost)
            self.gateway.ledger.finish(line, shared)

    def _redirection(self, status: int) -> str:
        variable = f"{(self.provider.variables or ('',))[0]}_API_BASE"
        return f"it redirects elsewhere, which is never followed: check {variable}" if 300 <= status < 400 else ""

    def remember_signatures(self) -> None:
        """A stream is complete: who made the signatures in it."""
        stream, signatures = self.stream, self.gateway.signatures
        if stream is not None and stream.signatures:
            signatures.made(stream.signatures, self.grant.entry.candidate)
        elif isinstance(stream, Translation) and stream.signed:
            signatures.called(stream.signed)

    def _phase(self, error: TransportError) -> str:
        """The fault that *error* is; our own deadline is nobody's fault and ends the call."""
        if self.watch.expired:
            if self.watch.reason == "deadline":
                self.grant.attempt.meaning = "timeout"
                self.grant.attempt.detail = "the call's own deadline"
                self.close()
                raise DeadlineExceeded("the call's deadline passed before an upstream had answered") from error
            return self.watch.reason
        return error.kind

    def _sent(self) -> None:
        grant = self.grant
        grant.sent = True
        self.gateway.live.counted(grant.attempt.id, self.now())

    def succeeded(self) -> None:
        """The upstream has begun to answer well: clear what stood against the candidate."""
        if self.run.conversation is not None:
            self.holds()
        judged(self, OK)

    def holds(self) -> None:
        """The account that answers has the conversation in its prompt cache from now on."""
        grant, conversation = self.grant, self.run.conversation
        if conversation is not None and len(grant.pool.entries) > 1:
            grant.pool.holds(grant.entry, conversation[0], self.now())

    def finish(self, outcome: Outcome, usage: Usage | None, detail: str = "") -> None:
        """Settle, cool, record: once, whoever calls first."""
        if self._end(outcome.meaning, usage):
            if detail:
                self.grant.attempt.detail = self.redactor.text(detail)[:300]
            if outcome.meaning != "ok":
                self.run.last, self.run.last_asked = outcome.meaning, self.grant.pool.scope[-1]
            judged(self, outcome)
            self._over()

    def close(self, usage: Usage | None = None) -> None:
        """The client left, or our own deadline came: nobody's fault; what was sent stays charged."""
        if usage is None and self.grant.sent:  # the upstream may have worked: the caller's own limits keep the charge
            usage = self.unstated()
        if self._end("cancelled", usage):
            self._over()

    def unstated(self) -> Usage:
        """What a plain answer probably used, where the upstream says nothing of it."""
        return Usage(self.estimate(), len(self.body) // BYTES_PER_TOKEN, exact=False)

    def estimate(self) -> int:
        """The input tokens that this call probably costs."""
        return self.gateway.estimator.estimate(self.run.call).likely

    def _end(self, meaning: str, usage: Usage | None) -> bool:
        """Let the upstream go and settle; False when that was done before."""
        grant, gateway, response, now = self.grant, self.gateway, self.response, self.now()
        self.watch.close()
        if response is not None:
            response.close()
        if not grant.shut():
            return False
        attempt, pool = grant.attempt, grant.pool
        if usage is not None and usage.cost is not None and not self.provider.states_cost:
            usage = usage._replace(cost=None)
        attempt.ended, attempt.usage = now, usage
        attempt.meaning = attempt.meaning or meaning
        if grant.sent or response is not None:  # some upstreams answer before they have read everything
            self.run.counted = True
            gateway.live.settle(attempt.id, usage, now)
        else:
            grant.reservation.close()
        pool.done(grant.entry)
        if pool.capped:
            self.run.generation.reserving.rest_at_cap(grant.entry, now)
        return True

    def _over(self) -> None:
        gateway, run, attempt = self.gateway, self.run, self.grant.attempt
        run.generation.reserving.over(attempt)
        ledger = gateway.ledger
        if ledger.keeps:
            line, shared, charged = outcome_line(gateway, run, self.grant, attempt)
            ledger.finish(line, shared)
            if charged:
                gateway.carried.charged(run.caller.name, run.role, charged, run.own)
        if run.paying:
            gateway.carried.spending(run.own)
