"""Several worker processes behind one listening socket: starts them, again when they die, and ends them together."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from keyturn.core import Clock, TimerHandle

from .channel import Channel, Frame
from .gathering import Gathering
from .workerlog import LAST_LINES, WorkerLog

FIRST_PAUSE = 0.1
"""Seconds from a worker's end to its next start; doubled each time."""
LONGEST_PAUSE = 5.0
YOUNG = 60.0
"""Seconds from its start within which the end of a worker counts as failing to start."""
MOST_FAILURES = 5
"""So many in a row of one worker, and all is given up."""
KILLED_AFTER = 7.0
"""Seconds beyond those that running answers get, until a worker that does not end is killed."""
LOG_PATIENCE = 1.0
"""Seconds that the last lines of a worker have to come."""
FAILED = 1
UNOPENED = 75
"""Exit code of a worker that could not open a store, such as Redis."""
MISTAKES = (2, 3)
"""Exit codes of mistakes in the command and in the configuration: trying again does not help."""


class Job(NamedTuple):
    """What the workers are to do."""

    command: Callable[[int, int, int], list[str]]
    """The command line of a worker, from its number and the descriptors of the listening socket and the channel."""
    workers: int
    listening: socket.socket
    patience: float
    """Seconds that running answers get when all is ended."""


class Worker:
    """One place among the workers, and the process that has it now."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: asyncio.subprocess.Process | None = None
        self.channel: Channel | None = None
        self.ready = False
        self.wake = asyncio.Event()
        """Ends the pause before its next start."""
        self.failures = 0
        """How often in a row it ended soon after its start."""
        self.unopened = False
        """Whether it ever ended because it could not open a store."""
        self.last: deque[bytes] = deque(maxlen=LAST_LINES)
        """Its latest log lines."""

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the process, if there is one."""
        if self.process is not None and self.process.returncode is None:
            try:
                self.process.send_signal(number)
            except ProcessLookupError:
                pass


class Supervisor:
    """Keeps the workers of *job* running until a signal ends all. *on_ready* is called when the first one listens."""

    def __init__(
        self,
        job: Job,
        clock: Clock,
        log: WorkerLog,
        say: Callable[[str], None],
        on_ready: Callable[[], object] = lambda: None,
    ) -> None:
        self._job = job
        self._clock = clock
        self._log = log
        self._say = say
        self._on_ready = on_ready
        self._workers = [Worker(number) for number in range(1, job.workers + 1)]
        self._gathering = Gathering(clock)
        self._stopping = False
        self._served = False
        """Whether any worker ever listened."""
        self._code = 0
        self._killing: TimerHandle | None = None

    async def run(self) -> int:
        """Runs them; the exit code. To be called once, on the loop of the main thread."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._told, number)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        keeping = [asyncio.create_task(self._keep(worker)) for worker in self._workers]
        try:
            await asyncio.gather(*keeping)
        finally:
            self._stopping = True
            for worker in self._workers:
                worker.wake.set()
                worker.signal(signal.SIGKILL)
            await asyncio.gather(*keeping, return_exceptions=True)
            if self._killing is not None:
                self._killing.cancel()
            self._gathering.close()
        return self._code

    def _told(self, number: signal.Signals) -> None:
        """SIGINT or SIGTERM: running answers are finished first; at the second one nothing is."""
        if self._killing is None:
            self._say("stopping all workers; a second signal stops them at once")
        self._end(number)

    def _reload(self) -> None:
        for worker in self._workers:
            if worker.ready:  # one that is being started reads the files anyway, and would die of it
                worker.signal(signal.SIGHUP)

    def _end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Has every worker end. Each finishes what it answers, unless it is told twice."""
        self._stopping = True
        self._job.listening.close()  # who connects when the workers are gone is refused, and waits for nobody
        for worker in self._workers:
            worker.wake.set()
            worker.signal(number if worker.ready else signal.SIGTERM)
        if self._killing is None:
            until = self._clock.mono() + self._job.patience + KILLED_AFTER
            self._killing = self._clock.call_at(until, self._kill)

    def _kill(self) -> None:
        for worker in self._workers:
            worker.signal(signal.SIGKILL)

    async def _keep(self, worker: Worker) -> None:
        """Has a process in the place of *worker* until all is ended."""
        pause = FIRST_PAUSE
        while not self._ending():
            born = self._clock.mono()
            code = await self._live(worker)
            if self._ending():
                return
            if self._clock.mono() - born >= YOUNG:
                worker.failures, pause = 0, FIRST_PAUSE
            elif code not in MISTAKES or not any(self._listening(worker)):
                worker.failures += 1  # a mistake in files that changed since must not end those that still serve
            worker.unopened |= code == UNOPENED
            if worker.failures >= MOST_FAILURES or (not self._served and self._is_hopeless(code)):
                self._give_up(worker, code)
                return
            self._say(f"worker {worker.number} {_how(code)}; it is started again in {pause:g} s")
            await self._wait(worker, pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _is_hopeless(self, code: int) -> bool:
        """Whether no worker will ever listen, as none has yet and this one ended with *code*: each has waited for the
        stores as long as one process would."""
        return code in MISTAKES or (code == UNOPENED and all(each.unopened for each in self._workers))

    def _give_up(self, worker: Worker, code: int) -> None:
        if code in MISTAKES and not self._served:
            self._code = code
            self._say(f"worker {worker.number} {_how(code)}: see its lines above")
        elif code == UNOPENED and not self._served:
            self._code = FAILED
            last = worker.last[-1].decode(errors="replace") if worker.last else "(no line says why)"
            self._say(f"no worker could open its stores, all are stopped: {last}")
        else:
            self._code = FAILED
            last = b" | ".join(worker.last).decode(errors="replace")
            self._say(
                f"worker {worker.number} {_how(code)}, the {MOST_FAILURES}th time within {YOUNG:g} s of its start: "
                f"all are stopped. Its last lines: {last or '(none)'}"
            )
        self._end()

    async def _live(self, worker: Worker) -> int:
        """Starts a process for *worker* and returns its exit code, or minus the signal that ended it."""
        ours, theirs = socket.socketpair()
        reading, writing = os.pipe()
        listening = self._job.listening.fileno()
        try:
            worker.process = process = await asyncio.create_subprocess_exec(
                *self._job.command(worker.number, listening, theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                pass_fds=(listening, theirs.fileno()),
                process_group=0,  # the Ctrl-C of a terminal is for this process, which passes it on once
            )
        except OSError as error:
            ours.close()
            os.close(reading)
            worker.last.append(f"it cannot be started: {error.strerror or error}".encode())
            return FAILED
        finally:
            theirs.close()
            os.close(writing)
        copying = self._log.copy(reading, worker.number, worker.last)
        worker.channel = channel = Channel(lambda frame: self._took(worker, frame), lambda: None)
        try:
            await channel.open(ours)
            if self._ending():
                worker.signal(signal.SIGTERM)
            return await process.wait()
        finally:
            worker.ready, worker.channel = False, None
            await channel.close()
            await asyncio.to_thread(copying.join, LOG_PATIENCE)

    def _took(self, worker: Worker, frame: Frame) -> None:
        if frame.kind == "ready":
            worker.ready = True
            if not self._served:
                self._served = True
                self._on_ready()
        elif frame.kind == "question" and worker.channel is not None:
            others = ((each.number, each.channel if each.ready else None) for each in self._workers if each != worker)
            self._gathering.ask(worker.channel, frame, others)
        elif frame.kind == "answer":
            self._gathering.answered(worker.number, frame)

    def _ending(self) -> bool:
        """Whether all is to end. Asked anew after each wait."""
        return self._stopping

    def _listening(self, but: Worker) -> Iterator[bool]:
        return (each.ready for each in self._workers if each is not but)

    async def _wait(self, worker: Worker, seconds: float) -> None:
        """Waits so long, or until all is ended."""
        worker.wake.clear()
        timer = self._clock.call_at(self._clock.mono() + seconds, worker.wake.set)
        try:
            await worker.wake.wait()
        finally:
            timer.cancel()


def _how(code: int) -> str:
    """How a process ended, in words."""
    if code == UNOPENED:
        return "could not open a store"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
