"""Files dropped into an inbox: answered once, whatever happens in between."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from keyturn.cli.announcing import announce
from keyturn.cli.watch import Desk, Watcher
from keyturn.client.failures import exhausted
from keyturn.config import DataFolder
from keyturn.core import Secret
from keyturn.errors import BadRequest, CallerLimit, Capacity, KeyturnError
from tests.support import virtual

from .conftest import Terminal


class Pool:
    """Answers with role and question, after the *errors* that are in the way."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.asked: list[tuple[str, str]] = []
        self.began = asyncio.Event()
        self.hold: asyncio.Event | None = None

    async def complete(self, role: str, prompt: str, model_id: str | None = None) -> str:
        self.asked.append((role, prompt))
        self.began.set()
        if self.hold is not None:
            await self.hold.wait()
        if self.errors:
            raise self.errors.pop(0)
        return f"{role} answers {len(prompt)}"


class Place:
    """An inbox with tasks in it."""

    def __init__(self, folder: Path, *roles: str) -> None:
        self.inbox, self.outbox = folder / "inbox", folder / "outbox"
        self.inbox.mkdir()
        self.desk = Desk(self.inbox, self.outbox, roles or ("senior",), ("senior", "junior"))

    def drop(self, name: str, text: str = "Why?") -> Path:
        path = self.inbox / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    def watch(self, pool: Pool, *, settled: bool = True, most: int = 5) -> None:
        """Answers everything that is there."""

        async def main() -> None:
            watcher = Watcher(pool, virtual.VirtualClock(), self.desk)  # type: ignore[arg-type]
            watcher.look(most)
            while watcher.look(most, settled=settled):
                await watcher.until_one_ends()

        virtual.run(main)

    def answers(self) -> list[str]:
        return sorted(path.name.rpartition("--")[0] for path in self.outbox.glob("*.md"))


def test_BOT_05_a_dropped_file_is_answered_and_put_aside(tmp_path: Path) -> None:
    place, pool = Place(tmp_path), Pool()
    place.drop("sky.md")
    place.watch(pool)
    assert place.answers() == ["sky--senior"]
    assert [path.name for path in (place.inbox / "done").iterdir()] == ["sky.md"]
    (answer,) = place.outbox.glob("*.md")
    assert answer.read_text() == "senior answers 4"
    assert answer.stat().st_mode & 0o777 == 0o600


def test_BOT_05_roles_answer_one_after_the_other_and_see_what_was_said(tmp_path: Path) -> None:
    place, pool = Place(tmp_path, "senior", "junior"), Pool()
    place.drop("sky.md")
    place.watch(pool)
    assert [role for role, _ in pool.asked] == ["senior", "junior"]
    assert "Answer of senior:\n\nsenior answers 4" in pool.asked[1][1]
    assert place.answers() == ["sky--junior", "sky--senior"]


def test_a_file_in_the_folder_of_a_role_goes_to_that_role(tmp_path: Path) -> None:
    place, pool = Place(tmp_path), Pool()
    place.drop("junior/sky.md")
    place.drop("nobody/sky.md")
    place.watch(pool)
    assert place.answers() == ["sky--junior"]


def test_BOT_05_what_was_answered_before_a_crash_is_not_asked_again(tmp_path: Path) -> None:
    place, pool = Place(tmp_path, "senior", "junior"), Pool()
    place.drop("sky.md")
    place.watch(pool)
    (place.inbox / "done" / "sky.md").rename(place.inbox / "sky.md")  # as if it had ended before this
    next(place.outbox.glob("*junior*")).unlink()
    again = Pool()
    place.watch(again)
    assert [role for role, _ in again.asked] == ["junior"]


def test_the_same_name_with_other_content_is_another_task(tmp_path: Path) -> None:
    place, pool = Place(tmp_path), Pool()
    place.drop("sky.md", "Why?")
    place.watch(pool)
    place.drop("sky.md", "Why is it blue?")
    place.watch(pool)
    assert len(pool.asked) == 2
    assert len([*place.outbox.glob("*.md")]) == 2
    assert sorted(path.name for path in (place.inbox / "done").iterdir()) == ["sky-2.md", "sky.md"]


def test_cancelled_in_the_middle_it_leaves_nothing_and_begins_anew(tmp_path: Path) -> None:
    place, pool = Place(tmp_path), Pool()
    place.drop("sky.md")

    async def main() -> None:
        pool.hold = asyncio.Event()
        watcher = Watcher(pool, virtual.VirtualClock(), place.desk)  # type: ignore[arg-type]
        assert watcher.look(5, settled=True) == 1
        await asyncio.wait_for(pool.began.wait(), 5)
        await watcher.close()

    virtual.run(main)
    assert (place.inbox / "sky.md").exists()
    assert not place.outbox.exists()
    place.watch(Pool())
    assert place.answers() == ["sky--senior"]


def test_a_file_that_still_grows_is_left_alone(tmp_path: Path) -> None:
    place, pool = Place(tmp_path), Pool()

    async def main() -> None:
        watcher = Watcher(pool, virtual.VirtualClock(), place.desk)  # type: ignore[arg-type]
        for text in ("W", "Wh", "Why?"):
            place.drop("sky.md", text)
            assert watcher.look(5) == 0
        assert watcher.look(5) == 1
        await watcher.until_one_ends()
        watcher.look(5)

    virtual.run(main)
    assert pool.asked == [("senior", "Why?")]


@pytest.mark.parametrize("name", [".hidden.md", "~lock.md", "half.part", "half.md.tmp"])
def test_files_that_are_no_tasks_are_left_alone(tmp_path: Path, name: str) -> None:
    place, pool = Place(tmp_path), Pool()
    place.drop(name)
    place.watch(pool)
    assert pool.asked == []
    assert (place.inbox / name).exists()


def test_while_nobody_can_answer_it_is_asked_again(tmp_path: Path) -> None:
    place = Place(tmp_path)
    pool = Pool(Capacity("all keys rest", retry_after=90.0), Capacity("all keys rest"))
    place.drop("sky.md")
    place.watch(pool)
    assert len(pool.asked) == 3
    assert place.answers() == ["sky--senior"]


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfe\x00"], ids=["empty", "blank", "no text"])
def test_what_is_no_task_is_set_aside_with_the_reason(tmp_path: Path, content: bytes) -> None:
    place, pool = Place(tmp_path), Pool()
    (place.inbox / "x.md").write_bytes(content)
    place.watch(pool)
    assert pool.asked == []
    failed = place.inbox / "failed"
    assert (failed / "x.md").read_bytes() == content
    assert (failed / "x.md.why.txt").read_text().startswith("it ")


def test_what_asking_again_cannot_mend_is_set_aside(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.drop("x.md")
    place.watch(Pool(BadRequest("no such parameter")))
    assert "senior cannot answer it: no such parameter" in (place.inbox / "failed" / "x.md.why.txt").read_text()


def test_no_more_than_so_many_at_the_same_time(tmp_path: Path) -> None:
    place, pool = Place(tmp_path), Pool()
    for number in range(4):
        place.drop(f"{number}.md", str(number))

    async def main() -> None:
        watcher = Watcher(pool, virtual.VirtualClock(), place.desk)  # type: ignore[arg-type]
        assert watcher.look(3, settled=True) == 3
        while watcher.look(3, settled=True):
            await watcher.until_one_ends()

    virtual.run(main)
    assert len(pool.asked) == 4


@pytest.mark.realtime
def test_BOT_04_what_a_role_answered_is_told_to_its_webhook() -> None:
    got: list[Any] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204 if len(got) == 1 else 429)
            self.end_headers()

        def log_message(self, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Hook) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        hooks = {"webhooks": {"senior": Secret(f"http://127.0.0.1:{server.server_port}/planted-hook")}}
        assert announce(hooks, "senior", "x" * 3000) is None
        failed = announce(hooks, "senior", "again")
        server.shutdown()
        thread.join()
    assert len(got[0]["content"]) == 2000
    assert got[0]["allowed_mentions"] == {"parse": []}
    assert failed == "the webhook of senior does not take it: 429"
    assert announce(hooks, "junior", "nobody listens") is None
    assert "no https" in (announce({"webhooks": {"senior": Secret("ftp://planted")}}, "senior", "x") or "")


@pytest.mark.realtime
def test_BOT_05_the_command_answers_what_is_there(terminal: Terminal, simulator: str) -> None:
    terminal.set(GROQ_API_KEY="gsk_good_1", GROQ_API_BASE=f"{simulator}/groq/v1")
    (terminal.cwd / "inbox").mkdir()
    (terminal.cwd / "inbox" / "sky.md").write_text("Why is the sky blue?")
    said = terminal.run("watch", "--once", "--role", "groq/llama-3.1-8b-instant")
    assert said.exit_code == 0, said.output
    (answer,) = (terminal.cwd / "outbox").iterdir()
    assert answer.name.startswith("sky--groq_llama-3.1-8b-instant--")
    assert "Why is the sky blue?" in answer.read_text()
    assert terminal.run("watch", "--once").exit_code == 0
    assert len(list((terminal.cwd / "outbox").iterdir())) == 1


def test_one_inbox_has_one_watcher(terminal: Terminal) -> None:
    terminal.set(GROQ_API_KEY="gsk_good_1")
    alone = DataFolder(terminal.cwd / "inbox" / ".watch")
    alone.lock()
    said = terminal.run("watch", "--once")
    alone.release()
    assert said.exit_code == 1
    assert "inbox is watched already" in said.output


def test_what_the_system_is_in_the_way_of_stops_that_file_and_no_other(tmp_path: Path) -> None:
    place, pool = Place(tmp_path), Pool()
    place.drop("good.md")
    place.drop("x" * 240 + ".md")
    place.drop("blocked.md", "Why not?")
    digest = hashlib.sha256(b"Why not?").hexdigest()[:8]
    (place.outbox / f"blocked--senior--{digest}.md").mkdir(parents=True)
    place.watch(pool)
    assert [path.name for path in place.inbox.glob("*.md")] == ["blocked.md"]
    assert place.answers() == ["blocked--senior", "good--senior", "x" * 100 + "--senior"]


def test_a_file_that_is_taken_away_or_changed_while_it_is_answered(tmp_path: Path) -> None:
    place, pool = Place(tmp_path), Pool()
    taken, changed = place.drop("taken.md", "Take me"), place.drop("changed.md", "Change me")

    async def main() -> None:
        pool.hold = asyncio.Event()
        watcher = Watcher(pool, virtual.VirtualClock(), place.desk)  # type: ignore[arg-type]
        watcher.look(5, settled=True)
        await asyncio.wait_for(pool.began.wait(), 5)
        while len(pool.asked) < 2:  # noqa: ASYNC110 - threads read the files
            await asyncio.sleep(0)
        taken.unlink()
        changed.write_text("Another question")
        pool.hold.set()
        while watcher.look(5, settled=True):
            await watcher.until_one_ends()

    virtual.run(main)
    assert sorted(prompt for _, prompt in pool.asked) == ["Another question", "Change me", "Take me"]
    assert [path.name for path in (place.inbox / "done").iterdir()] == ["changed.md"]


def test_a_large_file_is_not_even_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, pool = Place(tmp_path), Pool()
    with place.drop("huge.md").open("r+b") as file:
        file.truncate(1 << 40)
    place.watch(pool)
    assert [path.name for path in (place.inbox / "failed").glob("*.md")] == ["huge.md"]


@pytest.mark.parametrize(
    "error",
    [CallerLimit("rpm", retry_after=3.0), KeyturnError("the gateway broke off before it had answered")],
    ids=["caller limit", "gateway gone"],
)
def test_what_passes_by_itself_is_asked_again(tmp_path: Path, error: KeyturnError) -> None:
    place, pool = Place(tmp_path), Pool(error)
    place.drop("sky.md")
    place.watch(pool)
    assert (len(pool.asked), place.answers()) == (2, ["sky--senior"])


def test_without_any_key_a_task_is_set_aside_with_what_to_set(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.drop("sky.md")
    place.watch(Pool(exhausted("Set GROQ_API_KEY", "no_valid_credentials", 503, None, {})))
    assert "Set GROQ_API_KEY" in (place.inbox / "failed" / "sky.md.why.txt").read_text()


@pytest.mark.realtime
def test_a_webhook_that_answers_badly_or_elsewhere_stops_nothing_and_tells_no_address() -> None:
    heard: list[str] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(self.path)
            self.rfile.read(int(self.headers["content-length"]))
            if self.path == "/planted-garbage":
                self.wfile.write(b"garbage\r\n\r\n")
            else:
                self.send_response(302)
                self.send_header("location", "/elsewhere")
                self.end_headers()

        def log_message(self, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Hook) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        at = f"http://127.0.0.1:{server.server_port}"
        places = (
            f"{at}/planted-garbage",
            f"{at}/planted-redirect",
            f"{at}/planted a\x00b",
            "http://127.0.0.1.planted/x",
        )
        said = [announce({"webhooks": {"senior": Secret(place)}}, "senior", "x") or "" for place in places]
        server.shutdown()
        thread.join()
    assert heard == ["/planted-garbage", "/planted-redirect"]
    assert said == [
        "the webhook of senior cannot be reached",
        "the webhook of senior does not take it: 302",
        "the webhook of senior cannot be reached",
        "the webhook of senior is no https address",
    ]
