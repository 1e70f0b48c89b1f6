"""Command line tools as upstreams: run, fed through stdin, read as they print, and ended with all that they started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

from keyturn.core import Clock, Interpreter, ProcessRequest, TimerHandle, ToolReply, UpstreamRequest
from keyturn.errors import TransportError

from .answer import Answer

LARGEST_OUTPUT = 64 * 1024 * 1024
"""Bytes that one run may print on stdout."""
MOST_COMPLAINTS = 64 * 1024
"""Bytes of stderr that are kept, the last."""
CHECK_SECONDS = 5.0
"""What `<program> --version` may take."""
CHECKED_AGAIN = 60.0
"""Seconds after which a program that failed its check is checked again."""
GRACE = 1.0
"""Seconds that the end of the output may stay away once the program itself has ended."""
FOLDER = "keyturn-run-"
STREAM = {"content-type": "text/event-stream"}
NEW_GROUP: dict[str, Any] = {"start_new_session": True}
if sys.platform == "win32":
    NEW_GROUP = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
ADVICE = "install it, put its folder on PATH, or change `cmd` of this provider in config/models.yaml"


class ProcessTransport:
    """A `Transport` for ProcessRequest. A program is checked by `--version` before its first run."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._running: set[_Run] = set()
        self._removing: set[asyncio.Future[None]] = set()
        self._checked: dict[str, _Check] = {}
        self._checking: dict[str, asyncio.Event] = {}

    @property
    def acquired(self) -> int:
        """Programs that run or are being ended; 0 when idle."""
        return len(self._running)

    async def send(self, request: UpstreamRequest, on_sent: Callable[[], None]) -> ProcessAnswer:
        """See `Transport`: returns with the first content, or once the program has ended.

        A program that is missing or broken is `refused`; one that takes too long is a `timeout`.
        """
        if not isinstance(request, ProcessRequest):
            raise TypeError(f"ProcessTransport cannot send a {type(request).__name__}")
        program = _find(request)
        await self._check(program, request)
        return await self._start(program, request, on_sent)

    async def close(self) -> None:
        """End every program and wait until it is gone."""
        running = list(self._running)
        for run in running:
            run.close()
        for run in running:
            await run.over.wait()
        if self._removing:
            await asyncio.wait(self._removing)

    def _ended(self, run: _Run) -> None:
        self._running.discard(run)
        if run.removing is not None:
            self._removing.add(run.removing)
            run.removing.add_done_callback(self._removing.discard)

    async def _start(self, program: str, request: ProcessRequest, on_sent: Callable[[], None]) -> ProcessAnswer:
        run = _Run(self._clock, request, on_sent, self._ended)
        self._running.add(run)
        answer: ProcessAnswer | None = None
        try:
            run.start(program)
            answer = ProcessAnswer(*await run.head(), run)
            return answer
        finally:
            if answer is None:
                run.close()

    async def _check(self, program: str, request: ProcessRequest) -> None:
        """Once per program, and one caller for all who wait. Raises TransportError when it cannot be used."""
        while (found := self._checked.get(program)) is None or found.until <= self._clock.mono():
            underway = self._checking.get(program)
            if underway is not None:
                await underway.wait()
                continue
            underway = self._checking[program] = asyncio.Event()
            try:
                flaw = await self._flaw(program, request)
                until = self._clock.mono() + CHECKED_AGAIN if flaw else float("inf")
                self._checked[program] = _Check(flaw, until)
            finally:
                del self._checking[program]
                underway.set()
        if found.flaw:
            raise TransportError("refused", found.flaw)

    async def _flaw(self, program: str, request: ProcessRequest) -> str:
        """What is wrong with *program*; empty when it answers `--version`."""
        argv = (request.argv[0], "--version")
        probe = ProcessRequest(argv, b"", request.environ, CHECK_SECONDS, _Version())
        try:
            answer = await self._start(program, probe, lambda: None)
            said = (await answer.read(MOST_COMPLAINTS)).decode("utf-8", "replace").strip()
        except TransportError as error:
            return f"{argv[0]} --version: {error.message}; {ADVICE}"
        if answer.status == 200:
            return ""
        return f"{argv[0]} --version failed: {said[-300:] or 'it gave no reason'}; {ADVICE}"


class ProcessAnswer(Answer):
    """What a program answers. Letting go of it ends the program."""

    __slots__ = ("_run",)

    def __init__(self, status: int, headers: dict[str, str], run: _Run) -> None:
        super().__init__(status, headers)
        self._run = run

    async def take(self) -> bytes:
        try:
            return await self._run.take()
        except asyncio.CancelledError:
            self.close()
            raise

    def close(self) -> None:
        """Let go at once. May be called twice."""
        self._run.close()


class _Check(NamedTuple):
    """What is known of a program, until when (monotonic seconds)."""

    flaw: str
    until: float


class _Version(Interpreter):
    """Reads what `--version` prints: only whether it worked counts."""

    def feed(self, data: bytes, now: float) -> bytes:
        return b""

    def end(self, code: int, stderr: bytes, now: float) -> ToolReply:
        return ToolReply(200 if code == 0 else 502, {}, stderr)


class _Run(asyncio.SubprocessProtocol):
    """One run of a program: from its start until it is reaped, its children are dead and its folder is removed."""

    def __init__(
        self, clock: Clock, request: ProcessRequest, on_sent: Callable[[], None], ended: Callable[[_Run], None]
    ) -> None:
        self.over = asyncio.Event()
        """Nothing of it is left."""
        self._clock = clock
        self._request = request
        self._name = request.argv[0]
        self._on_sent = on_sent
        self._ended = ended
        self._starting: asyncio.Task[object] | None = None
        self._transport: asyncio.SubprocessTransport | None = None
        self._timer: TimerHandle | None = None
        self._folder = ""
        self.removing: asyncio.Future[None] | None = None
        """What is left of its folder goes in a thread."""
        self._open = {1, 2}
        """The outputs that have not ended."""
        self._exited = False
        self._refused = False
        """It closed its stdin before anything was written."""
        self._sent = False
        self._printed = 0
        self._complaints = bytearray()
        self._waiting: list[bytes] = []
        self._begun = False
        self._reply: ToolReply | None = None
        self._fault: TransportError | None = None
        self._arrived = asyncio.Event()

    def start(self, program: str) -> None:
        """Begin; what goes wrong is told by `head`."""
        request, loop = self._request, asyncio.get_running_loop()
        try:
            self._folder = tempfile.mkdtemp(prefix=FOLDER)
        except OSError as error:
            self._cannot_start(error)
            return
        self._timer = self._clock.call_at(self._clock.mono() + request.timeout, self._out_of_time)
        # A task of its own: a caller that leaves must not stop it half-way, between a program and its owner.
        self._starting = loop.create_task(
            loop.subprocess_exec(
                lambda: self,
                program,
                *request.argv[1:],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=self._folder,
                env={**request.environ, **dict.fromkeys(("TMPDIR", "TMP", "TEMP"), self._folder)},
                **NEW_GROUP,
            )
        )
        self._starting.add_done_callback(self._started)

    async def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers, once there is content or the program has ended. Raises TransportError."""
        while not self._begun and self._reply is None:
            await self._news()
        if self._begun or self._reply is None:
            return 200, dict(STREAM)
        return self._reply.status, dict(self._reply.headers)

    async def take(self) -> bytes:
        """All bytes of the answer that wait for the reader; b"" at the end."""
        while not self._waiting:
            if self._reply is not None:
                return b""
            await self._news()
        data = b"".join(self._waiting)
        self._waiting.clear()
        return data

    def close(self) -> None:
        """Nobody wants the rest: end the program, unless it has ended."""
        self._waiting.clear()
        self._fail(TransportError("closed", "the answer was let go", sent=self._sent))

    async def _news(self) -> None:
        if self._fault is not None:
            raise self._fault
        self._arrived.clear()
        await self._arrived.wait()

    # --- what asyncio tells ---

    def _started(self, starting: asyncio.Task[object]) -> None:
        error = asyncio.CancelledError() if starting.cancelled() else starting.exception()
        if error is not None and self._transport is None:
            self._cannot_start(error)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.SubprocessTransport, transport)  # those of uvloop are of no such class
        if self._fault is not None:
            self._kill()
            return
        stdin = cast(asyncio.WriteTransport, self._transport.get_pipe_transport(0))
        self._refused = stdin.is_closing()  # it did not wait for anything, and a write would be dropped unsaid
        stdin.write(self._request.stdin)
        stdin.close()

    def pipe_data_received(self, fd: int, data: bytes | str) -> None:
        assert isinstance(data, bytes)
        if self._fault is not None:
            return
        if fd != 1:
            self._complaints += data
            del self._complaints[:-MOST_COMPLAINTS]
            return
        self._printed += len(data)
        if self._printed > LARGEST_OUTPUT:
            said = f"{self._name} printed more than {LARGEST_OUTPUT:,} bytes and was ended"
            self._fail(TransportError("too_large", said, sent=True))
        elif piece := self._request.interpreter.feed(data, self._clock.wall()):
            self._begun = True
            self._waiting.append(piece)
            self._arrived.set()

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == 0:
            if exc is None and not (self._sent or self._refused) and self._fault is None:
                self._sent = True
                self._on_sent()
            return
        self._open.discard(fd)
        self._finish_when_quiet()

    def process_exited(self) -> None:
        self._exited = True
        self._kill()  # what it left behind holds its outputs open
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.call_at(self._clock.mono() + GRACE, self._finish)
        self._finish_when_quiet()

    # --- ends ---

    def _out_of_time(self) -> None:
        self._timer = None
        said = f"{self._name} had not finished after {self._request.timeout:g} s and was ended"
        self._fail(TransportError("timeout", said, sent=self._sent))

    def _cannot_start(self, error: BaseException) -> None:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        self._fail(TransportError("refused", f"{self._name} cannot be started: {reason}"))
        self._finish()

    def _fail(self, fault: TransportError) -> None:
        """The first fault counts, and only before the answer is complete."""
        if self._fault is None and self._reply is None:
            self._fault = fault
            self._arrived.set()
            self._kill()

    def _kill(self) -> None:
        """The program and everything in its process group, which is its own."""
        if self._transport is None or self.over.is_set():
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left, or only who awaits its reaper
            if sys.platform == "win32":
                self._transport.kill()
            else:
                os.killpg(self._transport.get_pid(), signal.SIGKILL)

    def _finish_when_quiet(self) -> None:
        if self._exited and not self._open:
            self._finish()

    def _finish(self) -> None:
        """It is over: let go of everything, then tell."""
        if self.over.is_set():
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.close()
        if self._folder:
            self.removing = _remove(self._folder)
        if self._fault is None:
            self._take_over()
        self.over.set()
        self._arrived.set()
        self._ended(self)

    def _take_over(self) -> None:
        code = self._transport.get_returncode() if self._transport is not None else None
        code = -1 if code is None else code
        reply = self._request.interpreter.end(code, bytes(self._complaints), self._clock.wall())
        if reply.body:
            self._waiting.append(reply.body)
        self._reply = reply


def _find(request: ProcessRequest) -> str:
    """Where the program is, by the PATH that it will see. Raises TransportError when it is nowhere."""
    name = request.argv[0]
    found = shutil.which(name, path=request.environ.get("PATH", os.defpath))
    if found is None:
        raise TransportError("refused", f"there is no program {name!r} that could be run: {ADVICE}")
    return os.path.abspath(found)


def _remove(folder: str) -> asyncio.Future[None] | None:
    """Remove the folder of a run; one that the tool has filled is emptied in a thread."""
    try:
        os.rmdir(folder)
    except OSError:
        remove = partial(shutil.rmtree, folder, ignore_errors=True)
        return asyncio.get_running_loop().run_in_executor(None, remove)
    return None
