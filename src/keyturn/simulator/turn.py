"""One request, from its arrival to the last byte of its answer, as a provider handles it."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from . import shapes, wording
from .answers import Answer, Unusable, answer_to, check, max_output, prompt_tokens
from .connection import Connection
from .personas import Headers, Persona, rate_headers, render
from .quotas import KeyRule, Quota, Refusal
from .record import Exchange, Result
from .script import Fault

if TYPE_CHECKING:
    from .app import Simulator

HTML = b"<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body><h1>Bad Gateway</h1></body></html>\n"
HUGE = 10_000_000
MOST_CHOICES = 8
NO_FAULT = Fault()


class Turn:
    """Answers one exchange. A provider looks at the key first, then at the request, then at its limits."""

    def __init__(self, simulator: Simulator, connection: Connection, exchange: Exchange, persona: Persona) -> None:
        self._simulator = simulator
        self._connection = connection
        self._exchange = exchange
        self._persona = persona
        self._fault = NO_FAULT
        self._rule = KeyRule()
        self._quota: Quota | None = None
        self._id = f"{persona.id_prefix}sim{exchange.number:09d}"

    async def run(self) -> Result:
        """Answer, and tell how it ended. Raises ClientLeft."""
        raw = await self._connection.read()
        self._note(raw)
        rule = self._simulator.quotas.rule(self._persona.name, self._exchange.key)
        if rule is None or rule.state != "ok":
            return await self._refuse("invalid_key" if rule is None else rule.state)
        self._rule = rule
        body: dict[str, Any] = {}
        if self._exchange.kind != "models":
            try:
                body = _read(raw)
            except Unusable as error:
                return await self._refuse("bad_request", why=error.why, member=error.member)
            self._quota = self._simulator.quotas.quota(self._persona, rule, self._exchange.key, self._exchange.model)
            problem = self._problem(body)
            if problem is not None:
                case, more = problem
                return await self._refuse(case, **more)
            refusal = self._admit(body, self._quota)
            if refusal is not None:
                return await self._limit(refusal, self._quota)
        self._meet_fault()
        try:
            return await self._serve(body)
        finally:
            if self._quota is not None:
                self._quota.leave()

    def _note(self, raw: bytes) -> None:
        """Put into the log what can be known of a request that may prove unusable."""
        exchange = self._exchange
        if self._simulator.keep_bodies:
            exchange.body = raw
        try:
            body = json.loads(raw)
        except ValueError:
            return
        if isinstance(body, dict):
            model = body.get("model")
            exchange.model = model if isinstance(model, str) else ""
            exchange.stream = body.get("stream") is True

    def _problem(self, body: dict[str, Any]) -> tuple[str, dict[str, object]] | None:
        """Why this request cannot be served, as a case and what its text states."""
        exchange, persona = self._exchange, self._persona
        if not self._simulator.offers(persona, exchange.model):
            return "not_found", {}
        if self._rule.models is not None and exchange.model not in self._rule.models:
            return "forbidden", {}
        for member in sorted(persona.rejects & body.keys()):
            return "rejected_member", {"member": member, "why": f"Unknown member {member}"}
        exchange.input_tokens = prompt_tokens(body)
        if exchange.input_tokens > persona.context:
            return "context_length", {"requested": exchange.input_tokens}
        return None

    def _admit(self, body: dict[str, Any], quota: Quota) -> Refusal | None:
        cost = self._exchange.input_tokens
        if quota.charge == "max_output":
            cost += max_output(body) or 0
        self._exchange.refusal = quota.admit(self._simulator.now(), cost)
        return self._exchange.refusal

    async def _limit(self, refusal: Refusal, quota: Quota) -> Result:
        await self._error(wording.case_of(refusal), refusal, quota)
        return "limited" if self._exchange.status == 429 else "refused"

    async def _refuse(self, case: str, **more: object) -> Result:
        await self._error(case, wording.invented(case, None), None, **more)
        return "refused"

    def _meet_fault(self) -> None:
        exchange, simulator = self._exchange, self._simulator
        met = simulator.script.meet(
            exchange.provider,
            exchange.key,
            exchange.model,
            exchange.kind,
            exchange.stream,
            simulator.elapsed(),
            simulator.draw,
        )
        if met is not None:
            exchange.fault = self._fault = met

    async def _serve(self, body: dict[str, Any]) -> Result:
        fault, exchange = self._fault, self._exchange
        await self._delay()
        if not fault.midway:
            if fault.does:
                return await self._strike()
            if fault.case:
                await self._error(fault.case, wording.invented(fault.case, fault.wait), self._quota)
                return "faulted"
        if fault.quirks & {"html", "redirect"} or fault.body is not None:
            return await self._replace()
        if exchange.kind == "models":
            offered = self._simulator.models_of(self._persona)
            return await self._plain(shapes.models_list(self._persona, offered, int(self._simulator.now())))
        if exchange.kind == "embeddings":
            self._exchange.status = 200
            return await self._plain(shapes.embeddings(body, exchange.model, exchange.input_tokens))
        return await self._chat(body)

    async def _delay(self) -> None:
        latency = self._fault.latency
        if latency is None:
            latency = self._simulator.latency_of(self._persona, self._exchange.model)
        if latency > 0:
            await self._connection.pause(latency)

    async def _chat(self, body: dict[str, Any]) -> Result:
        exchange, persona, quirks = self._exchange, self._persona, self._fault.quirks
        name = f"{persona.name}/{exchange.model}"
        eager = persona.behaviour(exchange.model).eager_tools
        answer = answer_to(body, name, eager_tools=eager, reasons="reason" in exchange.model)
        if "huge" in quirks:
            answer = Answer(["x" * HUGE])
        answers = [] if "empty" in quirks else [answer] * min(body.get("n") or 1, MOST_CHOICES)
        usage = shapes.usage_of(exchange.input_tokens, answers)
        exchange.output_tokens = usage["completion_tokens"]
        told = None if "no_usage" in quirks else usage
        envelope = shapes.Envelope(persona, self._id, int(self._simulator.now()), exchange.model, told)
        if not exchange.stream:
            result = await self._plain(shapes.completion(envelope, answers))
            self._settle(exchange.output_tokens)
            return result
        asked = (body.get("stream_options") or {}).get("include_usage") is True
        return await self._stream(shapes.stream(envelope, answers, include_usage=asked), envelope)

    def _settle(self, tokens: int) -> None:
        if self._quota is not None and self._quota.charge == "output":
            self._quota.settle(self._simulator.now(), tokens)

    async def _stream(self, events: Iterable[bytes], envelope: shapes.Envelope) -> Result:
        fault, connection = self._fault, self._connection
        pace = self._pace()
        connection.watch()
        encoding = [("content-encoding", "gzip")] if "gzip" in fault.quirks else []
        await self._start(200, [("content-type", "text/event-stream; charset=utf-8"), *encoding])
        if "pings_only" in fault.quirks:
            while True:
                await connection.write(b": ping\n\n")
                await connection.pause(pace or 1.0)
        sent = number = 0
        try:
            for number, event in enumerate(_mangled(events, fault.quirks)):
                if number and pace > 0:
                    await connection.pause(pace)
                cut = _cut(fault, number, sent, event)
                if cut is not None:
                    if cut:
                        await connection.write(event[:cut])
                    return await self._strike(envelope)
                await self._write(event)
                sent += len(event)
        finally:
            self._settle(min(number, self._exchange.output_tokens))
        await connection.write(b"", more=False)
        return "served"

    async def _strike(self, envelope: shapes.Envelope | None = None) -> Result:
        """What the script says happens now."""
        fault, connection = self._fault, self._connection
        if fault.does == "hang":
            await connection.pause(math.inf)
        elif fault.does == "reset":
            await connection.drop()
        elif fault.does == "end":
            if self._exchange.status is None:
                await self._start(200, [("content-type", "application/json")])
            await connection.write(b"", more=False)
        elif envelope is not None:
            names = self._names(wording.invented(fault.case, fault.wait))
            status, _, body = render(self._persona, fault.case, names, echo=self._echo())
            self._exchange.case = fault.case
            await connection.write(shapes.error_events(self._persona, body, status, envelope), more=False)
        return "faulted"

    async def _plain(self, value: Any) -> Result:
        """A whole JSON answer, mangled as the script says."""
        fault, connection = self._fault, self._connection
        data = shapes.to_json(value)
        headers: Headers = [("content-type", "application/json")]
        if "truncated_json" in fault.quirks:
            data = data[: len(data) // 2]
        if "blank_lines" in fault.quirks:
            data = b"\n\n\n" + data
        if "gzip" in fault.quirks:
            data = gzip.compress(data, mtime=0)
            headers.append(("content-encoding", "gzip"))
        if not (fault.midway and fault.does == "end"):
            headers.append(("content-length", str(len(data))))
        await self._start(200, headers)
        if fault.midway:
            if part := data[: fault.at_byte or 0]:
                await connection.write(part)
            return await self._strike()
        await self._write(data, more=False)
        return "served"

    async def _replace(self) -> Result:
        """Something that is no answer at all."""
        fault = self._fault
        status, kind, data = fault.status or 200, "text/html", HTML
        if fault.body is not None:
            kind, data = "application/json", fault.body.encode()
        headers: Headers = [("content-type", kind)]
        if "redirect" in fault.quirks:
            status, data = 302, b""
            headers.append(("location", "http://127.0.0.1:9/elsewhere"))
        await self._whole(status, [*headers, *fault.headers.items()], data)
        return "faulted"

    async def _error(self, case: str, refusal: Refusal, quota: Quota | None, **more: object) -> None:
        """The provider's own error for *case*; a scripted one may change its status, headers and body."""
        fault, persona = self._fault, self._persona
        status, headers, data = render(persona, case, self._names(refusal) | more, echo=self._echo())
        self._exchange.case = case
        if quota is not None:
            headers += rate_headers(persona, quota.meters, self._simulator.now(), self._exchange.input_tokens)
        if fault.body is not None:
            data = fault.body.encode()
        if fault.headers:
            changed = {name.lower(): value for name, value in fault.headers.items()}
            headers = [row for row in headers if row[0] not in changed] + list(changed.items())
        await self._whole(fault.status or status, headers, data)

    async def _whole(self, status: int, headers: Headers, data: bytes) -> None:
        self._exchange.status = status
        await self._connection.start(status, [*headers, ("content-length", str(len(data)))])
        await self._connection.write(data, more=False)

    async def _start(self, status: int, headers: Headers) -> None:
        self._exchange.status = status
        limits: Headers = []
        if self._quota is not None:
            now, tokens = self._simulator.now(), self._exchange.input_tokens
            limits = rate_headers(self._persona, self._quota.meters, now, tokens)
        own = [("x-request-id", f"req_{self._id}"), *self._fault.headers.items()]
        await self._connection.start(status, [*headers, *limits, *own])

    async def _write(self, data: bytes, *, more: bool = True) -> None:
        if "bytewise" in self._fault.quirks:
            for position in range(len(data) - 1):
                await self._connection.write(data[position : position + 1])
            data = data[-1:]
        await self._connection.write(data, more=more)

    def _pace(self) -> float:
        pace = self._fault.pace
        return self._simulator.pace_of(self._persona, self._exchange.model) if pace is None else pace

    def _echo(self) -> str:
        return self._exchange.key if "echo_key" in self._fault.quirks else ""

    def _names(self, refusal: Refusal) -> dict[str, object]:
        exchange = self._exchange
        return wording.names(refusal, self._simulator.now()) | {
            "key": exchange.key,
            "masked": wording.masked(exchange.key),
            "model": exchange.model,
            "org": wording.organisation(self._rule.project or exchange.key),
            "request": self._id,
            "capacity": self._persona.context,
            "member": "messages",
            "why": "The simulator was told to refuse this request.",
        }


def _read(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except ValueError:
        raise Unusable("We could not parse the JSON body of your request.", "body") from None
    check(body)
    return dict(body)


def _cut(fault: Fault, number: int, sent: int, event: bytes) -> int | None:
    """How many bytes of *event* go out before the fault strikes; None when it does not strike within it."""
    if fault.at_byte is not None:
        return fault.at_byte - sent if sent + len(event) > fault.at_byte else None
    if fault.at_chunk is None or number < fault.at_chunk:
        return None
    if fault.inside == "event":
        return len(event) // 2
    if fault.inside == "character":
        return next((place + 1 for place, byte in enumerate(event) if byte >= 0x80), None)
    return 0


def _mangled(events: Iterable[bytes], quirks: frozenset[str]) -> Iterator[bytes]:
    compressor = zlib.compressobj(wbits=31) if "gzip" in quirks else None
    for event in events:
        if "no_done" in quirks and event == shapes.DONE:
            continue
        data = b": ping\n\n" + event if "pings" in quirks else event
        if "crlf" in quirks:
            data = data.replace(b"\n", b"\r\n")
        yield data if compressor is None else compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)
    if compressor is not None:
        yield compressor.flush()
