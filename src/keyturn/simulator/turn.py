"""One request, from its arrival to the last byte of its answer, as a provider handles it."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from . import anthropic_shapes, dialects, gemini_shapes, other_shapes, shapes, wording
from .answers import Answer, Counts, Question, Unusable, answer_to
from .checks import Asking, check_types
from .connection import Connection
from .personas import Headers, Persona, rate_headers, render
from .quotas import KeyRule, Quota, Refusal
from .record import Exchange, Result
from .reply import Reply, to_json
from .routes import Route
from .script import Fault

if TYPE_CHECKING:
    from .app import Simulator

HTML = b"<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body><h1>Bad Gateway</h1></body></html>\n"
BLOCK_PAGE = (
    b'<!DOCTYPE html><html lang="en-US"><head><title>Just a moment...</title></head><body>'
    b"<div>Enable JavaScript and cookies to continue</div></body></html>\n"
)
PLAIN_REFUSAL = b"Rate limit reached, please try again later.\n"
ADVERT = "\n\nNeed proxies cheaper than the market?"
HUGE = 10_000_000
MOST_CHOICES = 8
CACHED_FROM = 32
"""Tokens of input from which on OpenAI's older endpoints tell of a prompt cache; the other formats always do."""
NO_FAULT = Fault()


class Turn:
    """Answers one exchange. A provider looks at the key first, then at the request, then at its limits."""

    def __init__(
        self,
        simulator: Simulator,
        connection: Connection,
        exchange: Exchange,
        persona: Persona,
        route: Route,
        headers: Mapping[str, str],
    ) -> None:
        self._simulator = simulator
        self._connection = connection
        self._exchange = exchange
        self._persona = persona
        self._route = route
        self._headers = headers
        self._fault = NO_FAULT
        self._rule = KeyRule()
        self._quota: Quota | None = None
        self._question = Question()
        self._number = f"sim{exchange.number:09d}"
        self._id = f"{persona.id_prefix}{self._number}"

    async def run(self) -> Result:
        """Answer, and tell how it ended. Raises ClientLeft."""
        raw = await self._connection.read()
        body = self._note(raw)
        rule = self._simulator.quotas.rule(self._persona.name, self._exchange.key)
        if not self._exchange.key and self._route.dialect in ("anthropic", "gemini"):
            return await self._refuse("no_key")
        if rule is None or rule.state != "ok":
            return await self._refuse("invalid_key" if rule is None else rule.state)
        self._rule = rule
        if self._exchange.kind == "models":
            if self._route.dialect == "anthropic" and "anthropic-version" not in self._headers:
                return await self._refuse("bad_request", why="anthropic-version: header is required")
        else:
            try:
                self._question = self._read(body)
            except Unusable as error:
                return await self._refuse(error.case, why=error.why, member=error.member)
            problem = self._problem()
            if problem is not None:
                case, more = problem
                return await self._refuse(case, **more)
            self._quota = self._simulator.quotas.quota(self._persona, rule, self._exchange.key, self._exchange.model)
            refusal = self._admit(self._quota) if self._exchange.kind != "count" else None
            if refusal is not None:
                return await self._limit(refusal, self._quota)
        self._meet_fault()
        try:
            return await self._serve()
        finally:
            if self._quota is not None and self._exchange.kind != "count":
                self._quota.leave()

    def _note(self, raw: bytes) -> Any:
        """The body, None for none that can be read; what can be known of an unusable request is put into the log."""
        exchange, route = self._exchange, self._route
        if self._simulator.keep_bodies:
            exchange.body = raw
        exchange.model, exchange.stream = route.model, route.stream is True
        kind = self._headers.get("content-type", "")
        try:
            body = other_shapes.form(kind, raw) if kind.startswith("multipart/") else json.loads(raw)
        except ValueError:
            return None
        if isinstance(body, dict) and route.dialect != "gemini":
            model = body.get("model")
            exchange.model = model if isinstance(model, str) else exchange.model
            exchange.stream = body.get("stream") in (True, "true")
        return body

    def _read(self, body: Any) -> Question:
        """What is asked for. Raises Unusable for what no provider would accept."""
        exchange, route = self._exchange, self._route
        if not isinstance(body, dict):
            raise Unusable("We could not parse the JSON body of your request.", "body")
        if not exchange.model and route.kind != "moderations":
            told = "model: Field required" if route.dialect == "anthropic" else "you must provide a model parameter"
            raise Unusable(told, "model")
        owner = self._owner()
        asking = Asking(self._persona, exchange.model, owner, self._headers, route.action, exchange.stream)
        try:
            question = dialects.reader(route)(body, asking)
            check_types(question)
        except (AttributeError, TypeError, KeyError, ValueError) as error:  # a member of quite another type
            raise Unusable(f"Invalid type for a member of the request: {error}", "body") from None
        return question

    def _owner(self) -> str:
        return self._rule.project or self._exchange.key

    def _problem(self) -> tuple[str, dict[str, object]] | None:
        """Why this request cannot be served, as a case and what its text states."""
        exchange, persona = self._exchange, self._persona
        if not self._simulator.offers(persona, exchange.model):
            return "not_found", {}
        if self._rule.models is not None and exchange.model not in self._rule.models:
            return "forbidden", {}
        if self._route.dialect != persona.native:
            for member in sorted(persona.rejects & self._question.more.keys()):
                return "rejected_member", {"member": member, "why": f"Unknown member {member}"}
        exchange.input_tokens = self._question.tokens
        if exchange.input_tokens > persona.context:
            return "context_length", {"requested": exchange.input_tokens}
        return None

    def _admit(self, quota: Quota) -> Refusal | None:
        cost = self._exchange.input_tokens
        if quota.charge == "max_output":
            cost += self._question.bound or 0
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
            exchange.dialect,
            exchange.stream,
            simulator.elapsed(),
            simulator.draw,
        )
        if met is not None:
            exchange.fault = self._fault = met

    async def _serve(self) -> Result:
        fault, exchange = self._fault, self._exchange
        await self._delay()
        if not fault.midway:
            if fault.does:
                return await self._strike()
            if fault.case:
                await self._error(fault.case, wording.invented(fault.case, fault.wait), self._quota)
                return "faulted"
        if fault.quirks & {"html", "block_page", "plain_text", "redirect"} or fault.body is not None:
            return await self._replace()
        if exchange.kind == "models":
            return await self._list()
        if exchange.kind in ("chat", "completions"):
            return await self._converse()
        reply = self._reply([], Counts(exchange.input_tokens, 0))
        if self._route.action == "audio/speech":
            return await self._speak()
        try:
            answer = dialects.whole(self._route, reply)
        except (AttributeError, TypeError, KeyError, ValueError) as error:
            return await self._refuse("bad_request", why=f"Invalid type for a member of the request: {error}")
        return await self._plain(answer)

    async def _delay(self) -> None:
        latency = self._fault.latency
        if latency is None:
            latency = self._simulator.latency_of(self._persona, self._exchange.model)
        if latency > 0:
            await self._connection.pause(latency)

    async def _list(self) -> Result:
        """The provider's models, or one of them."""
        persona, dialect, wanted = self._persona, self._route.dialect, self._route.model
        offered, now = self._simulator.models_of(persona), int(self._simulator.now())
        if wanted and not self._simulator.offers(persona, wanted):
            return await self._refuse("not_found")
        if dialect == "anthropic":
            listed = anthropic_shapes.model_row(wanted, now) if wanted else anthropic_shapes.models_list(offered, now)
            return await self._plain(listed)
        if dialect == "gemini":
            return await self._plain(gemini_shapes.model_row(wanted) if wanted else gemini_shapes.models_list(offered))
        if wanted:
            row = {"id": wanted, "object": "model", "created": now, "owned_by": persona.name}
            return await self._plain(row)
        return await self._plain(shapes.models_list(persona, offered, now))

    async def _speak(self) -> Result:
        """Sound, in pieces."""
        sound = other_shapes.SOUND
        size = other_shapes.SOUND_PIECE
        reply = self._reply([], Counts(self._exchange.input_tokens, 0))
        pieces = (sound[place : place + size] for place in range(0, len(sound), size))
        return await self._stream(pieces, reply, "audio/mpeg")

    async def _converse(self) -> Result:
        exchange, persona, question = self._exchange, self._persona, self._question
        quirks, dialect = self._fault.quirks, dialects.DIALECTS[self._route.dialect]
        name = f"{persona.name}/{exchange.model}"
        eager = persona.behaviour(exchange.model).eager_tools
        answer = answer_to(question, name, eager_tools=eager, reasons="reason" in exchange.model)
        if "huge" in quirks:
            answer = Answer(["x" * HUGE])
        if "advert" in quirks:
            answer = replace(answer, pieces=[*answer.pieces, ADVERT])
        answers = [] if "empty" in quirks else [answer] * min(question.choices, MOST_CHOICES)
        counts = self._counts(answers)
        reply = self._reply(answers, counts)
        if exchange.stream:
            kind = "text/event-stream; charset=utf-8" if self._route.events else "application/json; charset=utf-8"
            return await self._stream(dialect.stream(reply), reply, kind)
        result = await self._plain(dialect.plain(reply))
        self._settle(exchange.output_tokens)
        return result

    def _counts(self, answers: Sequence[Answer]) -> Counts:
        """What the answer costs. A prompt that began alike before, with this key, is half from a cache."""
        exchange = self._exchange
        output = sum(answer.tokens for answer in answers)
        thinking = sum(len(answer.reasoning) for answer in answers)
        exchange.output_tokens = output
        place = (self._persona.name, self._owner(), exchange.model, self._question.prefix)
        seen = self._simulator.seen(place)
        half = exchange.input_tokens // 2
        short = exchange.dialect in ("openai_chat", "openai_completions") and exchange.input_tokens < CACHED_FROM
        exchange.cached_tokens = half if seen and not short else 0
        written = half if self._question.marked and not seen else 0
        return Counts(exchange.input_tokens, output, thinking, exchange.cached_tokens, written)

    def _reply(self, answers: Sequence[Answer], counts: Counts) -> Reply:
        return Reply(
            self._persona,
            self._number,
            int(self._simulator.now()),
            self._exchange.model,
            self._owner(),
            self._question,
            answers,
            counts,
            told="no_usage" not in self._fault.quirks,
            action=self._route.action,
            events=self._route.events,
        )

    def _settle(self, tokens: int) -> None:
        if self._quota is not None and self._quota.charge == "output":
            self._quota.settle(self._simulator.now(), tokens)

    async def _stream(self, events: Iterable[bytes], reply: Reply, kind: str) -> Result:
        fault, connection = self._fault, self._connection
        pace = self._pace()
        connection.watch()
        encoding = [("content-encoding", "gzip")] if "gzip" in fault.quirks else []
        await self._start(200, [("content-type", kind), *encoding])
        if "pings_only" in fault.quirks:
            await self._ping()
        sent = number = 0
        try:
            for number, event in enumerate(_mangled(events, fault.quirks, self._route)):
                if number and pace > 0:
                    await connection.pause(pace)
                cut = _cut(fault, number, sent, event)
                if cut is not None:
                    if cut:
                        await connection.write(event[:cut])
                    return await self._strike(reply, number)
                await self._write(event)
                sent += len(event)
        finally:
            self._settle(min(number, self._exchange.output_tokens))
        await connection.write(b"", more=False)
        return "served"

    async def _ping(self, sent: int = 0) -> None:
        """Comments for ever, one per pace, behind *sent* events."""
        pace = self._pace() or 1.0
        while True:
            await self._connection.write(dialects.ping_of(self._route, sent))
            sent += 1
            await self._connection.pause(pace)

    async def _strike(self, reply: Reply | None = None, sent: int = 0) -> Result:
        """What the script says happens now, *sent* events after the beginning of a stream."""
        fault, connection = self._fault, self._connection
        if fault.does == "hang":
            await connection.pause(math.inf)
        elif fault.does == "reset":
            await connection.drop()
        elif fault.does == "ping":
            await self._ping(sent)
        elif fault.does == "end":
            if self._exchange.status is None:
                await self._start(200, [("content-type", "application/json")])
            await connection.write(b"", more=False)
        elif reply is not None:
            names = self._names(wording.invented(fault.case, fault.wait))
            status, _, body = self._render(fault.case, names)
            self._exchange.case = fault.case
            spoken = dialects.DIALECTS.get(self._route.dialect, dialects.DIALECTS["openai_chat"])
            await connection.write(spoken.fail(reply, body, status, sent), more=False)
        return "faulted"

    def _render(self, case: str, names: Mapping[str, object]) -> tuple[int, Headers, bytes]:
        """The provider's own error for *case*, in the format of the request."""
        status = self._fault.status
        return render(self._persona, case, names, echo=self._echo(), dialect=self._route.dialect, status=status)

    async def _plain(self, value: Any) -> Result:
        """A whole JSON answer, mangled as the script says."""
        fault, connection = self._fault, self._connection
        data = value.encode() if isinstance(value, str) else to_json(value)
        headers: Headers = [("content-type", "text/plain" if isinstance(value, str) else "application/json")]
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
        status, kind, data = fault.status or 200, "text/html", BLOCK_PAGE if "block_page" in fault.quirks else HTML
        if "plain_text" in fault.quirks:
            kind, data = "text/plain; charset=utf-8", PLAIN_REFUSAL
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
        status, headers, data = self._render(case, self._names(refusal) | more)
        self._exchange.case = case
        if self._route.dialect == "anthropic":
            headers.append(("request-id", f"req_{self._id}"))
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
        named = "request-id" if self._route.dialect == "anthropic" else "x-request-id"
        own = [(named, f"req_{self._id}"), *self._fault.headers.items()]
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


def _mangled(events: Iterable[bytes], quirks: frozenset[str], route: Route) -> Iterator[bytes]:
    compressor = zlib.compressobj(wbits=31) if "gzip" in quirks else None
    ends = dialects.DIALECTS[route.dialect].ends if route.dialect in dialects.DIALECTS else ()
    for number, event in enumerate(events):
        if "no_done" in quirks and ends and event.startswith(ends):
            continue
        data = dialects.ping_of(route, number) + event if "pings" in quirks else event
        if "crlf" in quirks:
            data = data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        yield data if compressor is None else compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)
    if compressor is not None:
        yield compressor.flush()
