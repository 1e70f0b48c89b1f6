"""One attempt: the request handed to the transport, its answer judged, what it reserved settled exactly once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from keyturn.core import (
    PAGE,
    PROFILES,
    Answer,
    Facts,
    HttpRequest,
    LocalRequest,
    Outcome,
    Reply,
    Report,
    Request,
    UpstreamRequest,
    UpstreamResponse,
    Usage,
    answered_at,
    classify,
    judge,
    parse_limits,
    seconds_to_reset,
)
from keyturn.errors import DeadlineExceeded, TransportError
from keyturn.providers import Provider, asking, fits, origin_of, prepare
from keyturn.wire import (
    PASSED_ON,
    AnswerStream,
    BytesWatch,
    Context,
    Translation,
    dialect,
    read_passed_on,
    read_reply,
    signed_calls,
    thin,
    translate_embeddings,
    translated,
    watched,
    with_call_ids,
)

from .bounds import given_up, observed, watch_of
from .clock import draw, new_id
from .declared import SECONDS, window_of
from .recording import outcome as outcome_row
from .run import Failed, Grant, Run
from .signing_in import another_token

if TYPE_CHECKING:
    from .gateway import Gateway

BYTES_PER_TOKEN = 4
LARGEST_ANSWER = 64 * 1024 * 1024
LARGEST_ERROR = 1024 * 1024
LARGEST_PAGE = 16 * 1024
"""Bytes that are looked at of what came instead of an answer."""
MOST_HELD = 4 * 1024 * 1024
"""Bytes of preamble that are held back before a stream's first content."""
REPORT_EVERY = 5.0
"""Seconds between two looks at the limit headers of one quota group and model."""
METRICS = {
    name + window: name
    for name in ("requests", "tokens", "input_tokens", "output_tokens")
    for window in ("", "_second", "_minute", "_hour", "_day")
}
"""What a provider may call a limit -> the metric that it is. Others (per month, per image) are not kept."""
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


async def _rest(opening: bytes, chunks: AsyncIterator[bytes]) -> bytes:
    """What began with *opening*, as far as it is looked at."""
    while len(opening) < LARGEST_PAGE:
        try:
            opening += await anext(chunks)
        except StopAsyncIteration:
            break
    return opening


class Exchange:
    """Carries one attempt. After `perform` it either answered (plain: `reply`, stream: `stream`) or `Failed`."""

    __slots__ = (
        "_gateway",
        "_grant",
        "_run",
        "answered",
        "body",
        "chunks",
        "held",
        "how",
        "media_type",
        "now",
        "provider",
        "redactor",
        "reply",
        "request",
        "response",
        "stream",
        "timeouts",
        "wall",
        "watch",
    )

    def __init__(self, gateway: Gateway, run: Run, grant: Grant) -> None:
        self._gateway = gateway
        self._run = run
        self._grant = grant
        self.now = gateway.clock.mono
        self.wall = gateway.clock.wall
        self.redactor = gateway.redactor
        self.timeouts = run.generation.config.timeouts
        self.answered = False
        self.provider: Provider = run.generation.config.providers[grant.entry.candidate.deployment.provider]
        grant.attempt.tier = run.generation.config.tier_of(self.provider.name)
        self.response: UpstreamResponse | None = None
        self.reply: Reply | None = None
        self.body = b""
        self.media_type = ""
        """Of an answer that is no JSON and no events."""
        self.how = asking(self.provider, run.call, grant.entry.candidate.deployment.model)
        self.request: UpstreamRequest | None = None
        self.stream: AnswerStream | None = None
        self.chunks: AsyncIterator[bytes] | None = None
        self.held = b""
        self.watch = watch_of(gateway, run, grant, self.provider)

    def prepare(self) -> None:
        """Write the request. Raises Untranslatable when this upstream's dialect cannot say it, and BadRequest."""
        run, candidate, how = self._run, self._grant.entry.candidate, self.how
        if how.relayed and (
            self._gateway.signatures.foreign(run.call, candidate)
            or (how.dialect != "openai_chat" and not fits(self.provider, run.call, candidate.deployment.model))
        ):
            how = self.how = how._replace(anew=True)
        notes: list[str] = []
        self.request = prepare(self.provider, run.call, candidate, notes, how, self._neutral)
        if run.trail.trace is not None:
            traced(self.request, run.trail.trace.sending(self._grant.attempt))
        if notes:
            run.trail.notes.extend(note for note in notes if note not in run.trail.notes)

    def _neutral(self) -> Request:
        """The whole call in neutral form; read once, whoever is asked."""
        run = self._run
        if run.neutral is None:
            request = dialect(run.call.dialect).read_request(run.call)
            run.neutral = self._gateway.signatures.recalled(request)
        return run.neutral

    def _context(self) -> Context:
        """What writing the answer in the client's dialect needs to know."""
        run = self._run
        identity = run.trail.call.replace("-", "")
        model = self._grant.entry.candidate.deployment.model
        return Context(run.call, identity, int(self.wall()), model, self.estimate())

    async def perform(self) -> Failed | None:
        """Send, and read until the answer is complete or, for a stream, has begun. None: there is an answer to relay.

        Raises DeadlineExceeded when the call's own time is up.
        """
        run, grant, gateway, request = self._run, self._grant, self._gateway, self.request
        assert request is not None
        fault, detail, body = None, "", b""
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
                if response.status == 401 and grant.entry.candidate.credential.tokens is not None:
                    response = await self._with_another_token(response)
                fault, body = await self._read(response)
        except TransportError as error:
            fault, detail = self._phase(error), error.message
            if self.timeouts.adaptive and self.provider.tool is None and self.watch.expired:
                given_up(gateway, run, grant)
        if self.answered:
            self._report(OK)
            if self.timeouts.adaptive and self.provider.tool is None:
                observed(gateway, run, grant)
            if run.generation.measures:
                now = self.now()
                grant.pool.observed(grant.entry, now - grant.attempt.started, now)
            return None
        status, headers = (0, {}) if self.response is None else (self.response.status, self.response.headers)
        in_stream = run.call.stream and 200 <= status < 300
        body = self.redactor.data(body)  # while it is whole: half a key is not recognised
        now, rules = answered_at(headers, gateway.clock.wall()), self.provider.rules
        outcome = classify(Facts(status or None, headers, body, now, stream=in_stream, fault=fault, rules=rules))
        self._report(outcome)
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
        if not await another_token(self._grant.entry.candidate.credential, self.request):
            return refused
        refused.close()
        self._lost("invalid_key", "the token was refused; another one was got")
        self.prepare()
        self.response = response = await self._gateway.transport.send(self.request, self._sent)
        return response

    def _lost(self, meaning: str, detail: str) -> None:
        """The request was in vain and is sent again on the same credential."""
        run, attempt, now = self._run, self._grant.attempt, self.now()
        lost = replace(attempt, id=new_id(self.wall()), meaning=meaning, detail=detail, ended=now)
        run.trail.attempts.insert(-1, lost)
        run.progress.attempts += 1
        attempt.started, attempt.resend = now, True
        if self._gateway.ledger.keeps:
            self._gateway.ledger.finish(outcome_row(self._gateway, run, self._grant, lost))

    def _redirection(self, status: int) -> str:
        variable = f"{(self.provider.variables or ('',))[0]}_API_BASE"
        return f"it redirects elsewhere, which is never followed: check {variable}" if 300 <= status < 400 else ""

    async def _read(self, response: UpstreamResponse) -> tuple[str | None, bytes]:
        """Read what came; sets `answered`, or returns the fault and the body to classify."""
        if not 200 <= response.status < 300:
            return None, await response.read(LARGEST_ERROR)
        call = self._run.call
        plain = not call.stream
        if call.kind in PASSED_ON:
            self.media_type = response.headers.get("content-type", "application/octet-stream")
            plain = "json" in self.media_type
        if not plain:
            return await self._hold(response)
        body = await response.read(LARGEST_ANSWER)
        if self.how.relayed and call.dialect == "openai_chat" and call.kind == "chat":
            self.body, found = body, read_reply(body, "chat")
        else:
            found = self._found(body)
        if not isinstance(found, Reply):
            return ("garbage", body[:LARGEST_PAGE]) if found is None else (None, found)
        if found.empty and call.kind in ("chat", "completions"):
            return "garbage", b""
        self.reply, self.answered = found, True
        return None, b""

    def _found(self, body: bytes) -> Reply | bytes | None:
        """What a whole answer holds: sets `body` to what the client gets. An error to classify, None for garbage."""
        call, how = self._run.call, self.how
        spoken, candidate = dialect(how.dialect), self._grant.entry.candidate
        self.body = body
        if call.kind in PASSED_ON or call.kind == "count":
            return read_passed_on(body)
        if how.relayed or call.kind == "embeddings":
            assert spoken.read_reply is not None
            found = spoken.read_reply(body, call.kind)
            if isinstance(found, Reply) and not how.relayed:
                self.body = translate_embeddings(body, call, how.dialect, candidate.deployment.model)
            elif isinstance(found, Reply) and found.signatures:
                self._gateway.signatures.made(found.signatures, candidate)
            return found
        assert spoken.read_answer is not None
        answer = spoken.read_answer(body, origin_of(candidate))
        if not isinstance(answer, Answer):
            return answer
        reply = thin(answer)
        if not reply.empty:
            answer = with_call_ids(answer, self._context().id)
            self._gateway.signatures.called(signed_calls(answer))
            self.body = dialect(call.dialect).write_answer(answer, self._context())
        return reply

    async def _hold(self, response: UpstreamResponse) -> tuple[str | None, bytes]:
        """Read a stream until its first content. A web page in its place is garbage."""
        call = self._run.call
        stream = self.stream = self._opened()
        chunks = self.chunks = response.chunks()
        held: list[bytes] = []
        size = 0
        opening = b""
        html = "html" in response.headers.get("content-type", "")
        async for chunk in chunks:
            if not opening:
                opening = chunk
                if (html or call.kind not in PASSED_ON) and chunk[:64].lstrip().startswith(b"<"):
                    return "garbage", await _rest(opening, chunks)
            piece = stream.feed(chunk)
            if piece:
                held.append(piece)
                size += len(piece)
            if stream.error is not None or stream.started or size > MOST_HELD:
                break
        begun = stream.started  # it may have nothing to show yet: the arguments of a tool that is written whole
        complete = begun or stream.end()
        if stream.error is not None:
            return None, stream.error
        self.held = b"".join(held) + stream.tail
        nothing_said = stream.done and not stream.relayed_bytes
        empty = not self.held and not begun
        if not complete or empty or nothing_said:  # a plain answer, say, from a server that ignores `stream`
            return ("cut", b"") if held and not html else ("garbage", opening)
        self.answered = True
        self._grant.attempt.first_token = self._gateway.clock.mono()
        return None, b""

    def _opened(self) -> AnswerStream:
        """What reads the stream: as it comes, or into the client's dialect."""
        call, how = self._run.call, self.how
        if call.kind in PASSED_ON:
            return BytesWatch()
        if how.relayed:
            return watched(call, how.dialect)
        return translated(how.dialect, origin_of(self._grant.entry.candidate), self._context())

    def remember_signatures(self) -> None:
        """A stream is complete: who made the signatures in it."""
        stream, signatures = self.stream, self._gateway.signatures
        if stream is not None and stream.signatures:
            signatures.made(stream.signatures, self._grant.entry.candidate)
        elif isinstance(stream, Translation) and stream.signed:
            signatures.called(stream.signed)

    def _phase(self, error: TransportError) -> str:
        """The fault that *error* is; our own deadline is nobody's fault and ends the call."""
        if self.watch.expired:
            if self.watch.reason == "deadline":
                self._grant.attempt.meaning = "timeout"
                self._grant.attempt.detail = "the call's own deadline"
                self.close()
                raise DeadlineExceeded("the call's deadline passed before an upstream had answered") from error
            return self.watch.reason
        return error.kind

    def _sent(self) -> None:
        grant = self._grant
        grant.sent = True
        self._gateway.live.counted(grant.attempt.id, self._gateway.clock.mono())

    def _report(self, outcome: Outcome) -> None:
        """Take over the limits that the provider stated in its headers."""
        response, gateway, entry = self.response, self._gateway, self._grant.entry
        now = gateway.clock.mono()
        if response is None or (outcome is OK and now < entry.report_due) or self._run.call.kind == "count":
            return
        entry.report_due = now + REPORT_EVERY
        stated = outcome.limits or parse_limits(response.headers, self.provider.rules, gateway.clock.wall())
        scope, changed = entry.limit_scopes[0], False
        for name, row in stated.items():
            if not isinstance(row, Mapping):
                continue
            metric = METRICS.get(name, "")
            window, capacity, remaining = str(row.get("window")), row.get("limit"), row.get("remaining")
            if metric and window in SECONDS and isinstance(capacity, int) and capacity > 0:
                left = remaining if isinstance(remaining, int) else None
                span = window_of(self.provider, metric, window)
                changed = gateway.live.report(scope, metric, span, capacity, now, left) or changed
        if changed and self._grant.pool.capped:
            self._run.generation.pools.cap(self._grant.pool, entry)

    def succeeded(self) -> None:
        """The upstream has begun to answer well: clear what stood against the candidate."""
        if self._run.conversation is not None:
            self.holds()
        self._judge(OK)

    def holds(self) -> None:
        """The account that answers has the conversation in its prompt cache from now on."""
        grant, conversation = self._grant, self._run.conversation
        if conversation is not None and len(grant.pool.entries) > 1:
            grant.pool.holds(grant.entry, conversation[0], self.now())

    def finish(self, outcome: Outcome, usage: Usage | None, detail: str = "") -> None:
        """Settle, cool, record: once, whoever calls first."""
        if self._end(outcome.meaning, usage):
            if detail:
                self._grant.attempt.detail = self.redactor.text(detail)[:300]
            self._judge(outcome)
            self._over()

    def close(self, usage: Usage | None = None) -> None:
        """The client left, or our own deadline came: nobody's fault; what was sent stays charged."""
        if usage is None and self._grant.sent:  # the upstream may have worked: the caller's own limits keep the charge
            usage = self.unstated()
        if self._end("cancelled", usage):
            self._over()

    def unstated(self) -> Usage:
        """What a plain answer probably used, where the upstream says nothing of it."""
        return Usage(self.estimate(), len(self.body) // BYTES_PER_TOKEN, exact=False)

    def estimate(self) -> int:
        """The input tokens that this call probably costs."""
        return self._gateway.estimator.estimate(self._run.call).likely

    def _end(self, meaning: str, usage: Usage | None) -> bool:
        """Let the upstream go and settle; False when that was done before."""
        grant, gateway = self._grant, self._gateway
        self.watch.close()
        if self.response is not None:
            self.response.close()
        if not grant.shut():
            return False
        attempt, now = grant.attempt, gateway.clock.mono()
        if usage is not None and usage.cost is not None and not self.provider.states_cost:
            usage = usage._replace(cost=None)
        attempt.ended, attempt.usage = now, usage
        attempt.meaning = attempt.meaning or meaning
        if grant.sent or self.response is not None:  # some upstreams answer before they have read everything
            self._run.counted = True
            gateway.live.settle(attempt.id, usage, now)
        else:
            grant.reservation.close()
        grant.pool.done(grant.entry)
        if grant.pool.capped:
            self._run.generation.reserving.rest_at_cap(grant.entry, now)
        return True

    def _over(self) -> None:
        attempt = self._grant.attempt
        self._run.generation.reserving.over(attempt)
        gateway, run = self._gateway, self._run
        if gateway.ledger.keeps:
            row = outcome_row(gateway, run, self._grant, attempt)
            gateway.ledger.finish(row)
            if row.charged:
                gateway.carried.charged(row.caller, row.role, row.charged, run.own)
        if run.paying:
            gateway.carried.spending(run.own)

    def _first_step(self) -> float | None:
        rotation = self._run.generation.config.rotations.get(self.provider.name)
        return rotation.cooldown_seconds if rotation is not None else None

    def _judge(self, outcome: Outcome) -> None:
        grant, gateway = self._grant, self._gateway
        if outcome is OK and not gateway.marks:
            return
        if self._run.call.kind == "count" and outcome.meaning in ("rate_limited", "daily_quota", "overloaded"):
            return  # its limits are its own
        candidate = grant.entry.candidate
        verdict = judge(
            gateway.marks,
            Report(
                candidate,
                grant.entry.scopes,
                outcome,
                grant.attempt.started,
                gateway.clock.mono(),
                len(grant.pool.entries),
                len(self._run.deployments) > 1,
                seconds_to_reset(self.provider.rules, gateway.clock.wall()) if outcome is not OK else None,
                self._first_step(),
                PROFILES[self._run.generation.config.cooldown],
                self.provider.longest_rests,
            ),
            draw,
        )
        if verdict.transitions or verdict.alarm:
            gateway.cool(verdict, candidate)
        if grant.pool.cycle is not None and outcome is not OK:
            now = gateway.clock.mono()
            grant.pool.exhausted(grant.entry, gateway.marks.blocked(grant.entry.own_scopes, now), now)
        if outcome.meaning in ("rate_limited", "daily_quota"):
            grant.pool.strategy.moved(grant.pool, grant.entry, grant.attempt.started, gateway.clock.mono())
