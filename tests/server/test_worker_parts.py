"""What several workers are made of: who is started again and who not, questions, figures, log lines, folders."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from keyturn.config import DataFolder, WorkerFolder, load
from keyturn.core import TimerHandle
from keyturn.dispatch import SystemClock, left_by_others, take_in
from keyturn.errors import DataFolderInUse, KeyturnError
from keyturn.server import UNOPENED, Job, Seat, Supervisor, WorkerLog
from keyturn.server.channel import Channel, Frame
from keyturn.server.figures import joined
from keyturn.server.gathering import MOST_OPEN, Gathering
from keyturn.server.siblings import Answers, Siblings
from tests.cli.recorded_calls import GROQ, SERVED, attempt

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="several workers need a Unix system")


class Hasty(SystemClock):
    """Pauses are a thousandth of what they should be; durations are as they are."""

    __slots__ = ("pauses",)

    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[float] = []

    def call_at(self, when: float, callback: Callable[[], object]) -> TimerHandle:
        seconds = when - self.mono()
        self.pauses.append(round(seconds, 1))
        return super().call_at(self.mono() + seconds / 1000, callback)


class Kept:
    """A supervisor over small programs, and what it said."""

    def __init__(self, *programs: str, tmp_path: Path) -> None:
        self.said: list[str] = []
        self.clock = Hasty()
        self.ready = 0
        self.log = tmp_path / "log"
        self._programs = programs

    def command(self, number: int, listening: int, channel: int) -> list[str]:
        return [sys.executable, "-c", self._programs[number - 1], str(listening), str(channel)]

    def run(self) -> int:
        with socket.create_server(("127.0.0.1", 0)) as listening, self.log.open("wb") as out:
            log = WorkerLog(out.fileno())
            job = Job(self.command, len(self._programs), listening, 60.0)
            supervisor = Supervisor(job, self.clock, log, self.said.append, self._on_ready)
            try:
                return asyncio.run(supervisor.run())
            finally:
                log.close(5.0)

    def _on_ready(self) -> None:
        self.ready += 1


READY = f"""
import os, socket, sys, time
channel = socket.socket(fileno=int(sys.argv[2]))
content = bytes.fromhex("{msgspec.msgpack.encode(Frame("ready")).hex()}")
channel.sendall(len(content).to_bytes(4, "big") + content)
"""
"""What a worker says when it listens."""


def test_a_worker_that_never_starts_is_given_up_with_its_last_lines(tmp_path: Path) -> None:
    kept = Kept("import sys; print('no Redis at this address', file=sys.stderr); sys.exit(1)", tmp_path=tmp_path)
    assert kept.run() == 1
    pauses = [float(line.rpartition(" in ")[2].removesuffix(" s")) for line in kept.said[:-1]]
    assert pauses == [0.1, 0.2, 0.4, 0.8]
    assert kept.said[-1].endswith("all are stopped. Its last lines: " + " | ".join(["no Redis at this address"] * 5))
    assert kept.log.read_text() == "[1] no Redis at this address\n" * 5
    assert kept.ready == 0


def test_a_worker_is_handed_nothing_but_its_seat(tmp_path: Path) -> None:
    """Were the channel of another one among it, that would never learn that its keeper is gone."""
    told = "print(sorted(os.listdir('/dev/fd')), flush=True)"  # before its keeper ends, and ends it too
    program = f"import os, signal; {told}; os.kill(os.getppid(), signal.SIGTERM)"
    kept = Kept(program, program, tmp_path=tmp_path)
    kept.run()
    seen = [line for line in kept.log.read_text().splitlines() if line.startswith("[")]
    assert seen
    assert {line.count("'") // 2 for line in seen} == {6}, "three standard ones, two of its own, the listing itself"


def test_who_connects_when_the_workers_have_closed_is_refused_while_they_end(tmp_path: Path) -> None:
    program = """
listening = socket.socket(fileno=int(sys.argv[1]))
address = listening.getsockname()
listening.close()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.kill(os.getppid(), signal.SIGTERM)
for _ in range(300):
    try:
        socket.create_connection(address).close()
    except ConnectionRefusedError:
        print("refused")
        break
    time.sleep(0.01)
"""
    kept = Kept(f"import signal{READY}{program}", tmp_path=tmp_path)
    assert kept.run() == 0
    assert kept.log.read_text() == "[1] refused\n"


def test_when_no_worker_can_open_a_store_all_end_with_the_reason(tmp_path: Path) -> None:
    program = f"import sys; print('Redis is away', file=sys.stderr); sys.exit({UNOPENED})"
    kept = Kept(program, program, tmp_path=tmp_path)
    assert kept.run() == 1
    assert kept.said[-1] == "no worker could open its stores, all are stopped: Redis is away"
    assert len(kept.log.read_text().splitlines()) in (2, 3), "who is first may have been started again"


def test_one_worker_that_cannot_open_a_store_does_not_end_the_others(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    once = f"""
import os, signal, sys
from pathlib import Path
if not (seen := Path({str(seen)!r})).exists():
    seen.touch()
    sys.exit({UNOPENED})
{READY}
os.kill(os.getppid(), signal.SIGTERM)
"""
    kept = Kept(once, "import time; time.sleep(60)", tmp_path=tmp_path)
    assert kept.run() == 0
    assert kept.said == ["worker 1 could not open a store; it is started again in 0.1 s", *kept.said[1:]]
    assert kept.ready == 1


@pytest.mark.parametrize("code", [2, 3])
def test_a_mistake_at_the_start_is_not_tried_again(tmp_path: Path, code: int) -> None:
    kept = Kept(f"import sys; sys.exit({code})", tmp_path=tmp_path)
    assert kept.run() == code
    assert len(kept.said) == 1


def test_a_mistake_that_came_later_does_not_end_those_that_serve(tmp_path: Path) -> None:
    """The second worker finds broken files ten times, more than are given up for, until it stops all by a signal."""
    count = tmp_path / "count"
    later = f"""
import os, signal, sys, time
from pathlib import Path
count = Path({str(count)!r})
seen = len(count.read_bytes()) if count.exists() else 0
count.write_bytes(b"x" * (seen + 1))
if seen == 0:
    while not Path({str(tmp_path / "first")!r}).exists():
        time.sleep(0.01)
if seen == 9:
    os.kill(os.getppid(), signal.SIGTERM)
    time.sleep(60)
sys.exit(3)
"""
    first = READY + f"open({str(tmp_path / 'first')!r}, 'w').close(); channel.recv(1)"
    kept = Kept(first, later, tmp_path=tmp_path)
    assert kept.run() == 0
    assert len(count.read_bytes()) == 10
    assert kept.ready == 1
    assert kept.said[-1] == "stopping all workers; a second signal stops them at once"
    assert kept.said[-2].endswith("it is started again in 5 s")


def test_one_that_does_not_end_is_killed(tmp_path: Path) -> None:
    stubborn = f"import os, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.kill(os.getppid(), 15){READY}"
    kept = Kept(stubborn + "time.sleep(60)", tmp_path=tmp_path)
    assert kept.run() == 0
    assert 67.0 in kept.clock.pauses, "after the patience and 7 s"


def test_a_program_that_is_missing_is_told_of(tmp_path: Path) -> None:
    kept = Kept("", tmp_path=tmp_path)
    kept.command = lambda number, listening, channel: ["/nonexistent/python"]  # type: ignore[method-assign]
    assert kept.run() == 1
    assert "it cannot be started: No such file" in kept.said[-1]


class Wire:
    """In the place of a channel: keeps what is sent."""

    def __init__(self, open: bool = True) -> None:
        self.open = open
        self.sent: list[Frame] = []

    def send(self, frame: Frame) -> bool:
        if self.open:
            self.sent.append(frame)
        return self.open

    @property
    def answers(self) -> list[Answers]:
        found = [each.content for each in self.sent if each.kind == "answers"]
        return [msgspec.msgpack.decode(each, type=Answers) for each in found]


def test_answers_come_together_and_who_is_silent_is_named() -> None:
    async def story() -> None:
        clock = SystemClockAt()
        gathering, (asker, quick, slow) = Gathering(clock), [Wire(), Wire(), Wire()]
        others = [(2, quick), (3, slow), (4, None), (5, Wire(open=False))]
        gathering.ask(asker, Frame("question", 9, "status", b"x"), others)  # type: ignore[arg-type]
        (asked,) = quick.sent
        assert (asked.kind, asked.what, asked.content) == ("question", "status", b"x")
        gathering.answered(2, Frame("answer", asked.number, content=b"two"))
        gathering.answered(2, Frame("answer", asked.number, content=b"twice"))
        assert asker.sent == []
        clock.fire()
        assert asker.answers == [Answers({2: b"two"}, [3, 4, 5])]
        assert asker.sent[0].number == 9
        gathering.answered(3, Frame("answer", asked.number, content=b"late"))
        assert len(asker.sent) == 1

    asyncio.run(story())


class SystemClockAt(SystemClock):
    """Its timers fire when they are told to."""

    __slots__ = ("timers",)

    def __init__(self) -> None:
        super().__init__()
        self.timers: list[Callable[[], object]] = []

    def call_at(self, when: float, callback: Callable[[], object]) -> TimerHandle:
        self.timers.append(callback)
        return asyncio.get_running_loop().call_later(3600, lambda: None)

    def fire(self) -> None:
        timers, self.timers = self.timers, []
        for callback in timers:
            callback()


def test_questions_are_bounded() -> None:
    async def story() -> None:
        gathering, asker, other = Gathering(SystemClockAt()), Wire(), Wire()
        for number in range(MOST_OPEN + 1):
            gathering.ask(asker, Frame("question", number), [(2, other)])  # type: ignore[arg-type, list-item]
        assert len(other.sent) == MOST_OPEN
        assert asker.answers == [Answers({}, [2])]
        gathering.close()

    asyncio.run(story())


def test_a_worker_asks_the_others_over_the_pair_and_learns_that_its_owner_is_gone() -> None:
    async def story() -> None:
        ours, theirs = socket.socketpair()
        gone, silent = asyncio.Event(), Siblings(Seat(1, ours, theirs), SystemClock())
        got: list[Frame] = []

        def took(frame: Frame) -> None:
            got.append(frame)
            if frame.kind == "question":
                answers = msgspec.msgpack.encode(Answers({2: b"m" * 300_000}, []))
                channel.send(Frame("answers", frame.number, content=answers))
            if frame.kind == "answer":
                answered.set()

        async def answer(what: str, content: bytes) -> bytes:
            return b"%s of 1" % what.encode()

        answered, channel = asyncio.Event(), Channel(took, lambda: None)
        await channel.open(ours)
        silent.answer = answer
        await silent.open(gone.set)
        silent.ready()
        assert (await silent.ask("metrics")).said == {2: b"m" * 300_000}
        channel.send(Frame("question", 7, "status"))
        await answered.wait()
        assert [each.kind for each in got] == ["ready", "question", "answer"]
        assert (got[-1].number, got[-1].content) == (7, b"status of 1")
        assert not gone.is_set()
        await channel.close()
        await gone.wait()
        assert await silent.ask("metrics") == Answers(lost=True)
        await silent.close()

    asyncio.run(story())


def test_pages_of_several_workers_make_one_that_prometheus_reads() -> None:
    page = b"# HELP a_total What a is.\n# TYPE a_total counter\n" + b'a_total{x="1 } {"} 2.0\n' + b"a_total 1e+06\n"
    other = page + b"# HELP b Only here.\n# TYPE b gauge\nb{} 5.0\n"
    found = joined({2: other, 1: page}, (3,))
    families = {each.name: each for each in text_string_to_metric_families(found.decode())}
    assert [(row.labels, row.value) for row in families["a"].samples] == [
        ({"worker": "1", "x": "1 } {"}, 2.0),
        ({"worker": "1"}, 1e6),
        ({"worker": "2", "x": "1 } {"}, 2.0),
        ({"worker": "2"}, 1e6),
    ]
    assert [(row.labels, row.value) for row in families["b"].samples] == [({"worker": "2"}, 5.0)]
    up = {row.labels["worker"]: row.value for row in families["keyturn_worker_up"].samples}
    assert up == {"1": 1.0, "2": 1.0, "3": 0.0}
    for line in (b"# HELP a_total What a is.", b"# TYPE a_total counter", b"# TYPE keyturn_worker_up gauge"):
        assert found.count(line) == 1


@pytest.mark.parametrize(
    ("as_json", "line", "copied"),
    [
        (False, b"one", b"[2] one\n"),
        (True, b'{"event":"note"}', b'{"worker":2,"event":"note"}\n'),
        (True, b"Traceback", b"[2] Traceback\n"),
    ],
)
def test_lines_of_workers_are_whole_and_marked(tmp_path: Path, as_json: bool, line: bytes, copied: bytes) -> None:
    with (tmp_path / "log").open("wb") as out:
        log = WorkerLog(out.fileno(), as_json=as_json)
        pipes = [os.pipe() for _ in range(3)]
        last: deque[bytes] = deque(maxlen=5)
        threads = [log.copy(reading, 2, last) for reading, _ in pipes]
        for _ in range(500):
            for _, writing in pipes:
                half = len(line) // 2
                os.write(writing, line[:half])
                os.write(writing, line[half:] + b"\n")
        for _, writing in pipes:
            os.write(writing, line)  # without its end: the process was killed
            os.close(writing)
        for thread in threads:
            thread.join(20.0)
        log.say("of the owner")
        log.close(5.0)
    assert (tmp_path / "log").read_bytes() == copied * 1503 + b"of the owner\n"
    assert list(last) == [line] * 5


def test_a_log_that_nobody_reads_holds_up_nobody() -> None:
    reading, writing = os.pipe()
    log = WorkerLog(writing)
    for _ in range(5_000):
        log.say("x" * 100)
    log.close(0.0)
    os.close(reading)  # and so the thread ends
    log._thread.join(20.0)
    assert not log._thread.is_alive()
    os.close(writing)


def test_a_worker_has_a_folder_of_its_own_and_the_keys_of_the_whole(tmp_path: Path) -> None:
    whole = DataFolder(tmp_path / "data")
    whole.lock()
    first, second = WorkerFolder(whole.path, 1), WorkerFolder(whole.path, 2)
    with pytest.raises(KeyturnError, match=r"admin\.key is missing"):
        first.new_admin_key()
    key, admin = whole.caller_key(), whole.new_admin_key()
    for folder in (first, second):
        folder.lock()
        folder.publish("http://127.0.0.1:1")
        assert (folder.caller_key(), folder.new_admin_key()) == (key, admin)
    first.write_disabled({"0123456789abcdef": "groq-1:012345"})
    assert second.disabled() == whole.disabled() == {"0123456789abcdef": "groq-1:012345"}
    second.release()
    assert whole.admin_key() == admin
    assert sorted(path.name for path in whole.path.iterdir()) == [
        "admin.key", "caller.key", "disabled.json", "lock", "workers",
    ]  # fmt: skip
    with pytest.raises(DataFolderInUse):
        DataFolder(whole.path).lock()
    first.release()
    whole.release()


def test_rotation_and_spend_go_on_from_one_to_many_and_back(tmp_path: Path) -> None:
    whole, first, third = DataFolder(tmp_path), WorkerFolder(tmp_path, 1), WorkerFolder(tmp_path, 3)
    whole.write_rotation_index("gemini", 4)
    whole.write_spent("2026-11", {"role/dev": 5_000_000_000, "caller/a": 1_000_000_000})
    assert (first.rotation_index("gemini"), first.rotation_index("groq")) == (4, 0)
    first.write_rotation_index("gemini", 2)
    third.write_rotation_index("gemini", 3)
    os.utime(first.index_file("gemini"), ns=(1, 2**62))
    first.write_spent("2026-11", {"role/dev": 7_000_000_000})
    third.write_spent("2026-11", {"role/dev": 6_000_000_000})
    for folder in (whole, WorkerFolder(tmp_path, 2), third):
        assert folder.rotation_index("gemini") == 2, "the one that was written last"
        assert folder.spent("2026-11") == {"role/dev": 7_000_000_000, "caller/a": 1_000_000_000}


def test_a_worker_waits_for_the_one_before_it(tmp_path: Path) -> None:
    """As when the owner was killed and its workers still finish their answers."""
    before, after = WorkerFolder(tmp_path, 1), WorkerFolder(tmp_path, 1)
    before.lock()
    told, telling = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(20)
        before.disown()
        after.lock(lambda text: os.write(telling, text.encode()))
        os._exit(7)
    os.close(telling)
    assert os.read(told, 1000).startswith(b"waits for an earlier worker")
    os.close(told)
    assert os.waitpid(child, os.WNOHANG)[0] == 0
    before.release()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_rows_of_workers_that_are_not_started_any_more_come_into_the_ledger(tmp_path: Path) -> None:
    config = load({"GROQ_API_KEY": "a", "KEYTURN_DATA": str(tmp_path)}, cwd=tmp_path)
    line = msgspec.json.encode(attempt(SERVED, 3, "2026-11-27 09:58:57", GROQ, "m", input=7, cost=1))
    folder = DataFolder(tmp_path)
    for part in (folder, *(WorkerFolder(tmp_path, number) for number in (1, 2, 3))):
        (part.path / "journal").mkdir(parents=True)
        (part.path / "journal" / "000000000001.jsonl").write_bytes(line + b"\n")
    clock = SystemClock()
    found = {workers: left_by_others(folder, workers, clock.wall()) for workers in (1, 2)}
    names = {workers: [part.path.name for part in parts] for workers, parts in found.items()}
    assert names == {1: ["1", "2", "3"], 2: [tmp_path.name, "3"]}
    still = DataFolder(found[1][1].path)
    still.lock()  # the worker of an owner that was killed, which still finishes an answer
    folder.lock()
    asyncio.run(take_in(config, folder, found[1], clock))
    folder.release()
    still.release()
    assert [part.path.name for part in left_by_others(folder, 1, clock.wall())] == ["2"]
    assert (tmp_path / "state.sqlite").exists()
