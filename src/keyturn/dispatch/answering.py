"""What a client is answered: the upstream's answer, its own refusal as it came, or an error of ours, in its dialect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from keyturn.core import Deployment, Entry, Fallback
from keyturn.errors import KeyturnError, UpstreamRefused
from keyturn.wire import dialect, error_headers, upstream_message

from .exchange import OK, Exchange
from .relay import RelayStream
from .reply import Reply
from .run import Failed, Run

if TYPE_CHECKING:
    from .gateway import Gateway

Headers = list[tuple[bytes, bytes]]
JSON = (b"content-type", b"application/json")
SSE = (b"content-type", b"text/event-stream; charset=utf-8")
CODES = {
    "bad_request": "bad_request",
    "not_found": "model_not_found",
    "context_length": "context_length_exceeded",
    "content_filter": "content_filter",
}
"""What an upstream's refusal is called in another dialect; clients look for OpenAI's words."""


def relayed(gateway: Gateway, run: Run, exchange: Exchange) -> Reply:
    """A good answer on its way to the client."""
    grant, response = exchange.grant, exchange.response
    grant.attempt.status = response.status if response is not None else None
    headers = _headers(run, grant.entry)
    if exchange.stream is not None:
        exchange.succeeded()
        guards = run.generation.guards
        if guards is None and not run.call.on_cut:
            stream = RelayStream(exchange, run, gateway.stream_ended, gateway.keep_answer)
        else:
            stream = guarded(gateway, run, exchange)
        run.trail.status = 200
        return Reply(200, [_media_type(run, exchange), *headers], stream=stream)
    said = exchange.reply
    usage = said.usage if said is not None else None
    if run.trail.trace is not None and said is not None:
        grant.attempt.answered_as, grant.attempt.stop = said.model, said.stop or ""
    if run.conversation is not None:
        exchange.holds()
    exchange.finish(OK, usage or exchange.unstated())
    if usage is not None and run.costs:
        gateway.estimator.learn(str(grant.entry.candidate.deployment), run.call, usage)
    return Reply(200, [JSON, *headers], exchange.body)


def guarded(gateway: Gateway, run: Run, exchange: Exchange) -> RelayStream:
    """The stream of *exchange*, of a route that may hold it back or have it go on, or of a caller who asks for that."""
    from .holding import GuardedStream, Guards

    guard = (run.generation.guards or Guards()).of(run.call)
    if guard is None:
        return RelayStream(exchange, run, gateway.stream_ended, gateway.keep_answer)
    return GuardedStream(exchange, run, gateway.stream_ended, gateway.keep_answer, guard)


def fallback_of(run: Run, answers: Deployment) -> Fallback:
    """What *answers*, not the very first to be asked, stands for: the last of several tiers, a later step or tier."""
    config = run.generation.config
    tier = config.tier_of(answers.provider)
    first = min((config.tier_of(each.provider) for each in run.first), default=0)
    if answers in run.first and tier <= first:
        return "none"
    return "last" if first < tier == max(map(config.tier_of, config.providers)) else "later"


def _media_type(run: Run, exchange: Exchange) -> tuple[bytes, bytes]:
    if exchange.media_type:
        return (b"content-type", exchange.media_type.encode("latin-1", "replace"))
    return JSON if run.call.form == "array" else SSE


def as_it_came(gateway: Gateway, run: Run, failed: Failed) -> Reply:
    """The upstream's own answer to a client's mistake: its status and its body, without any key it may echo.

    What another dialect said is put into the client's own.
    """
    run.trail.code = failed.outcome.meaning
    status = failed.status if failed.status >= 400 else 400
    headers = _headers(run, failed.entry) + _unafforded(run)
    body = gateway.redactor.data(failed.body)
    if failed.dialect != run.call.dialect:
        message = upstream_message(body) or failed.outcome.message or "the upstream refused the request"
        refusal = UpstreamRefused(message, status, CODES.get(failed.outcome.meaning, "bad_request"))
        said = dialect(run.call.dialect).error_body(refusal, run.trail.call, _attempts(run))
        return Reply(status, [JSON, *headers], said)
    content_type = failed.content_type if failed.status >= 400 else "application/json"
    head = (b"content-type", gateway.redact(content_type).encode("latin-1", "replace") or JSON[1])
    return Reply(status, [head, *headers], body)


def refused(gateway: Gateway, run: Run, error: KeyturnError) -> Reply:
    """An error of ours, in the client's dialect."""
    run.trail.code = error.code
    error.message = gateway.redact(error.message)  # it quotes the client, who may have put a key in the wrong place
    run.trail.refusals.append(error.message)
    attempts = _attempts(run)
    headers = [(name.encode(), value.encode()) for name, value in error_headers(error)]
    headers += request_ids(run.call.dialect, run.trail.call)
    headers.append((b"x-keyturn-attempts", b"%d" % len(attempts)))
    headers += _unafforded(run)
    body = dialect(run.call.dialect).error_body(error, run.trail.call, attempts)
    reply = Reply(error.status, [JSON, *headers], body)
    # The frames of its traceback hold the call and this reply: only the collector of garbage would let go of that.
    reply.error = error.with_traceback(None)
    return reply


def _unafforded(run: Run) -> Headers:
    """Says of an error that it would have been tried again, had its provider's budget not been spent."""
    return [(b"x-keyturn-retry", b"budget")] if run.unafforded else []


def request_ids(spoken: str, call_id: str) -> Headers:
    """The call's id, also under the name that Anthropic's clients look for; the server adds `x-request-id`."""
    identity = call_id.encode()
    if spoken == "anthropic":
        return [(b"x-keyturn-call", identity), (b"request-id", identity)]
    return [(b"x-keyturn-call", identity)]


def _attempts(run: Run) -> Sequence[dict[str, object]]:
    return [attempt.brief() for attempt in run.trail.attempts]


def _headers(run: Run, entry: Entry) -> Headers:
    """The headers that tell what answered."""
    if entry.answer_headers is None:
        (provider, model), credential = entry.candidate
        entry.answer_headers = (
            (b"x-keyturn-provider", provider.encode()),
            (b"x-keyturn-model", model.encode("ascii", "replace")),
            (b"x-keyturn-key", credential.shown.encode()),
        )
    trail, deployment = run.trail, entry.candidate.deployment
    headers = request_ids(run.call.dialect, trail.call)
    headers += entry.answer_headers
    headers.append((b"x-keyturn-attempts", b"%d" % len(trail.attempts)))
    if deployment not in run.first:
        headers.append((b"x-fallback-provider", deployment.provider.encode()))
    if not run.first or deployment != run.deployments[0]:
        trail.fallback = fallback_of(run, deployment)
    return headers
