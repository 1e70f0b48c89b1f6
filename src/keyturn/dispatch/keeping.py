"""Answers of the Responses API that are kept here: what a call goes on from, and what it leaves for the next one.

Whoever answers sees one whole conversation and keeps nothing. An answer is written behind the call; until then who asks
for it in this process has it from memory, and who asks another gateway on the same database is given a moment more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast

from keyturn.core import Call
from keyturn.errors import (
    BadRequest,
    DeadlineExceeded,
    PreviousResponseNotFound,
    ResponseNotFound,
    ResponsesUnavailable,
    StoreAway,
    StoreError,
    TooLarge,
    TransportError,
)
from keyturn.stores import ResponseRow, Responses
from keyturn.wire import AnswerWatch, going_on, is_id, items_of, read_kept

from .clock import Watch
from .reply import ByteStream, Reply
from .run import Run

if TYPE_CHECKING:
    from .gateway import Gateway

SETTING = "the gateway keeps them with `[responses] store = true` in settings.toml, or RESPONSES_STORE=true"
STATELESS = "Keyturn keeps no responses; send the whole conversation in `input`, with `store` false"
MOST_TURNS = 100
"""Turns that a conversation may go back."""
MOST_WAITING = 64 * 1024 * 1024
"""Bytes of answers that wait to be written."""
MOST_WRITTEN, MOST_ASKED = 16, 32
"""Answers that are written, and questions that are asked, at a time; the others wait for their turn. A database takes
few at a time and refuses the rest, and the ledger writes into the same one."""
PATIENCE = 5.0
"""Seconds that a question waits for its turn."""
WEIGHT = 1024
"""Bytes that one counts beside its content."""
AGAIN = (0.5, 2.0)
"""Seconds after which an answer that could not be written is tried again."""
LOOK_AGAIN = (0.1, 0.4)
"""Seconds after which one that is not there is looked for again: another gateway may be writing it."""

T = TypeVar("T")
_log = logging.getLogger("keyturn")


class _Writing(NamedTuple):
    """An answer on its way into the database."""

    row: ResponseRow
    task: asyncio.Task[None]


class KeptResponses:
    """What one gateway keeps of the Responses API. Each caller sees its own alone."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._writing: dict[tuple[str, str], _Writing] = {}
        self._waiting = 0
        self._writes = asyncio.Semaphore(MOST_WRITTEN)
        self._questions = asyncio.Semaphore(MOST_ASKED)
        self.lost = 0
        """Answers that could not be kept."""

    async def begin(self, run: Run) -> Callable[[Reply], Reply] | None:
        """Puts before the input of *run* what it goes on from. What its answer must pass to be kept; None: it is not.

        Raises BadRequest when nothing is kept here, PreviousResponseNotFound, TooLarge, ResponsesUnavailable,
        DeadlineExceeded.
        """
        call, asked = run.call, run.call.previous
        if call.kind != "chat":
            return None
        if not run.generation.config.responses.store:
            _refuse(call)
            return None
        if call.store is None:
            call.store = True
        if not (call.store or asked):
            return None
        responses, own = self._responses(), items_of(call.members["input"])
        if asked:
            watch = Watch(self._gateway.clock, min(run.deadline, run.content_by), "kept responses")
            try:
                with watch:
                    run.go_on(going_on(call, await self._turns(responses, run.caller.name, asked)))
            except TransportError as error:
                raise DeadlineExceeded("the call's deadline passed while its conversation was fetched") from error
            finally:
                watch.close()
        return (lambda reply: self._followed(run, own, reply)) if call.store else None

    async def find(self, caller: str, id: str) -> ResponseRow:
        """One answer of *caller*. Raises ResponseNotFound, BadRequest, ResponsesUnavailable."""
        row = await self._find(self._responses(), caller, id)
        if row is None:
            raise ResponseNotFound(f"Response with id '{id[:200]}' not found.")
        return row

    async def forget(self, caller: str, id: str) -> None:
        """Keep one answer of *caller* no longer. Raises as `find`."""
        responses = self._responses()
        await self.find(caller, id)
        if (writing := self._writing.get((caller, id))) is not None:
            await self._written_out(writing.task)
        if not await self._ask(lambda: responses.forget(caller, id)):
            raise ResponseNotFound(f"Response with id '{id[:200]}' not found.")

    async def close(self) -> None:
        """Wait for what is being written; who has no time for that gives it up."""
        try:
            while self._writing:
                await asyncio.wait([each.task for each in self._writing.values()])
        finally:
            for row, task in self._writing.values():
                task.cancel()
                self._miss(row.id, "the gateway ended before it was written")

    def _responses(self) -> Responses:
        if not self._gateway.config.responses.store:
            raise BadRequest(f"no responses are kept here; {SETTING}")
        sink = self._gateway.ledger.sink
        if sink is None:
            raise BadRequest("no responses are kept here: they are part of the ledger, and LEDGER_ENABLED is false")
        return cast(Responses, sink)  # every database of the ledger keeps them too

    async def _turns(self, responses: Responses, caller: str, id: str) -> list[bytes]:
        """The items of all turns up to answer *id*, the first one first."""
        turns: list[bytes] = []
        size, most = 0, self._gateway.config.server.max_body
        while id:
            if len(turns) >= 2 * MOST_TURNS:
                raise BadRequest(
                    f"`previous_response_id` leads back more than {MOST_TURNS} turns; begin anew, with what matters "
                    "in `input`",
                    param="previous_response_id",
                )
            row = await self._find(responses, caller, id)
            answer = read_kept(row.response) if row is not None else None
            if row is None or answer is None:
                raise PreviousResponseNotFound(
                    f"Previous response with id '{id[:200]}' not found.", param="previous_response_id"
                )
            turns += (answer.output, row.input)
            size += len(answer.output) + len(row.input)
            if size > most:
                raise TooLarge(
                    f"the conversation behind `previous_response_id` is larger than {most // (1024 * 1024)} MiB, the "
                    "most that is accepted",
                    param="previous_response_id",
                )
            id = row.previous
        turns.reverse()
        return turns

    async def _find(self, responses: Responses, caller: str, id: str) -> ResponseRow | None:
        if not is_id(id):
            return None
        writing = self._writing.get((caller, id))
        if writing is not None:
            return writing.row
        row = await self._ask(lambda: responses.find(caller, id))
        clock = self._gateway.clock
        for seconds in LOOK_AGAIN if row is None and self._shared() else ():
            await clock.sleep_until(clock.mono() + seconds)
            row = await self._ask(lambda: responses.find(caller, id))
            if row is not None:
                break
        return row

    async def _ask(self, question: Callable[[], Awaitable[T]]) -> T:
        """What a database answers. Raises ResponsesUnavailable, which does not tell callers where it is."""
        clock = self._gateway.clock
        latest = clock.mono() + PATIENCE
        async with self._questions:
            try:
                if clock.mono() > latest:
                    raise StoreAway("more is asked of their database than it answers")
                return await question()
            except StoreError as error:
                _log.warning("kept responses cannot be reached: %s", error.message)
                raise _unreachable() from error

    async def _written_out(self, task: asyncio.Task[None]) -> None:
        """Wait until *task*, which writes an answer, is over. Raises ResponsesUnavailable when that takes long."""
        clock = self._gateway.clock
        watch = Watch(clock, clock.mono() + PATIENCE, "kept responses")
        try:
            with watch:
                await asyncio.wait([task])
        except TransportError as error:
            raise _unreachable() from error
        finally:
            watch.close()

    def _shared(self) -> bool:
        """Whether other processes write into the same database."""
        config = self._gateway.config
        return config.ledger.database_url is not None or config.server.workers > 1

    def _followed(self, run: Run, own: bytes, reply: Reply) -> Reply:
        """*reply* on its way to the client; it is kept once it is whole."""
        if reply.status == 200 and reply.stream is None:
            self._keep(run, own, reply.body)
        elif reply.stream is not None:
            reply.stream = _Followed(reply.stream, lambda response: self._keep(run, own, response))
        return reply

    def _keep(self, run: Run, own: bytes, response: bytes) -> None:
        answer = read_kept(response)
        if answer is None:
            return
        if answer.id == run.call.previous:
            self._miss(answer.id, "its upstream gave it the id of the answer that it goes on from")
            return
        caller, clock = run.caller.name, self._gateway.clock
        row = ResponseRow(answer.id, caller, int(clock.wall() * 1000), run.call.previous, own, response)
        size = len(own) + len(response) + WEIGHT
        if self._waiting + size > MOST_WAITING:
            self._miss(row.id, "too much waits to be written")
            return
        self._waiting += size
        key = (caller, row.id)
        before = self._writing.get(key)
        task = asyncio.get_running_loop().create_task(self._write(row, before.task if before is not None else None))
        self._writing[key] = _Writing(row, task)
        task.add_done_callback(lambda done: self._written(key, done, size))

    def _written(self, key: tuple[str, str], task: asyncio.Task[None], size: int) -> None:
        self._waiting -= size
        if (writing := self._writing.get(key)) is not None and writing.task is task:
            del self._writing[key]
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("an answer was not kept", exc_info=error)

    async def _write(self, row: ResponseRow, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        clock = self._gateway.clock
        for seconds in (*AGAIN, None):
            try:
                async with self._writes:
                    await self._responses().keep(row)
                return
            except (StoreError, BadRequest) as error:
                if seconds is None:
                    self._miss(row.id, error.message)
                    return
            await clock.sleep_until(clock.mono() + seconds)

    def _miss(self, id: str, why: str) -> None:
        self.lost += 1
        _log.warning("%s is not kept, so that nothing can go on from it: %s", id, why)


class _Followed:
    """A stream that is relayed as it is; its whole answer is handed over before the client has it."""

    __slots__ = ("_keep", "_stream", "_watch")

    def __init__(self, stream: ByteStream, keep: Callable[[bytes], None]) -> None:
        self._stream = stream
        self._keep = keep
        self._watch = AnswerWatch()

    def __aiter__(self) -> _Followed:
        return self

    async def __anext__(self) -> bytes:
        piece = await self._stream.__anext__()
        response = self._watch.feed(piece)
        if response is not None:
            self._keep(response)
        return piece

    def close(self) -> None:
        self._stream.close()


def _unreachable() -> ResponsesUnavailable:
    return ResponsesUnavailable("kept responses cannot be reached just now; ask again", retry_after=2.0)


def _refuse(call: Call) -> None:
    """Nothing is kept: who counts on it is told."""
    for name, wanted in (("previous_response_id", bool(call.previous)), ("store", call.store)):
        if wanted:
            means = "cannot be used" if name != "store" else "cannot be true"
            raise BadRequest(f"`{name}` {means}. {STATELESS}; or {SETTING}", param=name)
