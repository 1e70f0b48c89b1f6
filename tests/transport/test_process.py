"""Programs as upstreams: what is written and read, what ends them, and that nothing of them is left."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from keyturn.core import HttpRequest, ProcessRequest
from keyturn.errors import TransportError
from keyturn.transport.process import GRACE, LARGEST_OUTPUT, MOST_COMPLAINTS, ProcessTransport
from tests.support.tools import Echo, Tools, all_gone, is_alive, run_folders

from .peers import LoopClock, ignore, run

pytestmark = [
    pytest.mark.realtime,
    pytest.mark.skipif(sys.platform == "win32", reason="the stubs are shell scripts"),
]
LIMIT = 1 << 20
CHILD = 'sleep 60 & echo $! >> "$NOTES"; echo $$ >> "$NOTES"'
"""Notes two processes: a child and the program itself."""


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    return Tools(tmp_path)


def with_transport(loop: str, main: Callable[[ProcessTransport], Awaitable[None]]) -> None:
    """Runs *main*, and checks that it leaves neither a run nor a folder."""

    async def watched() -> None:
        before = run_folders()
        transport = ProcessTransport(LoopClock())
        try:
            await main(transport)
        finally:
            await transport.close()
        assert transport.acquired == 0
        assert run_folders() <= before

    run(loop, watched)


async def whole(transport: ProcessTransport, request: ProcessRequest, sent: Callable[[], None] = ignore) -> bytes:
    return await (await transport.send(request, sent)).read(LIMIT)


async def refusal(transport: ProcessTransport, request: ProcessRequest) -> TransportError:
    with pytest.raises(TransportError) as raised:
        await whole(transport, request)
    return raised.value


def test_CLI_01_the_prompt_goes_to_stdin_and_the_answer_comes_from_stdout(loop: str, tools: Tools) -> None:
    tools.add("tool", 'printf "%s|" "$@"; cat')
    sent: list[bool] = []

    async def main(transport: ProcessTransport) -> None:
        request = tools.request("tool", "--model", "a b; echo $HOME `id` 'x", "", stdin=b"the prompt")
        assert await whole(transport, request, lambda: sent.append(True)) == (
            b"--model|a b; echo $HOME `id` 'x||the prompt"
        )
        assert sent == [True]
        assert transport.acquired == 0

    with_transport(loop, main)


def test_a_prompt_larger_than_any_pipe(loop: str, tools: Tools) -> None:
    tools.add("tool", "wc -c; echo done")
    sent: list[bool] = []

    async def main(transport: ProcessTransport) -> None:
        request = tools.request("tool", stdin=b"x" * 3_000_000)
        assert (await whole(transport, request, lambda: sent.append(True))).split() == [b"3000000", b"done"]
        assert sent == [True]

    with_transport(loop, main)


def test_a_prompt_that_nobody_reads(loop: str, tools: Tools) -> None:
    tools.add("tool", "echo answered")
    sent: list[bool] = []

    async def main(transport: ProcessTransport) -> None:
        request = tools.request("tool", stdin=b"x" * 3_000_000)
        assert await whole(transport, request, lambda: sent.append(True)) == b"answered\n"
        assert sent == []

    with_transport(loop, main)


def test_it_sees_its_environment_and_an_empty_folder_and_nothing_else(loop: str, tools: Tools) -> None:
    tools.add("tool", 'env; echo "cwd=$(pwd)"; ls -A; touch left-over "$TMPDIR/report"')

    async def main(transport: ProcessTransport) -> None:
        seen = dict(line.split("=", 1) for line in (await whole(transport, tools.request("tool"))).decode().split())
        assert seen["PATH"] == tools.environ["PATH"]
        assert "HOME" not in seen
        assert set(seen) <= {*tools.environ, "TMPDIR", "TMP", "TEMP", "PWD", "OLDPWD", "SHLVL", "_", "cwd"}
        assert seen["TMPDIR"] == seen["cwd"]
        folders.append(seen["cwd"])

    folders: list[str] = []
    with_transport(loop, main)
    assert not Path(folders[0]).exists()


def test_output_is_handed_on_as_it_comes(loop: str, tools: Tools) -> None:
    tools.add("tool", 'echo one; while [ ! -e "$NOTES" ]; do sleep 0.01; done; echo two')

    async def main(transport: ProcessTransport) -> None:
        answer = await transport.send(tools.request("tool"), ignore)
        assert (answer.status, answer.headers) == (200, {"content-type": "text/event-stream"})
        chunks = answer.chunks()
        assert await anext(chunks) == b"one\n"
        tools.take_note("go on")
        assert [chunk async for chunk in chunks] == [b"two\n"]

    with_transport(loop, main)


def test_CLI_03_a_failure_tells_its_exit_code_and_its_stderr(loop: str, tools: Tools) -> None:
    tools.add("tool", "echo 'it went wrong' >&2; exit 3")
    tools.add("killed", "kill -9 $$")

    async def main(transport: ProcessTransport) -> None:
        answer = await transport.send(tools.request("tool"), ignore)
        assert (answer.status, answer.headers) == (502, {"exit-code": "3"})
        assert await answer.read(LIMIT) == b"it went wrong\n"
        answer = await transport.send(tools.request("killed"), ignore)
        assert answer.headers == {"exit-code": "-9"}

    with_transport(loop, main)


def test_much_on_stderr_blocks_nothing_and_its_end_is_kept(loop: str, tools: Tools) -> None:
    tools.add("tool", "head -c 2000000 /dev/zero | tr '\\0' x >&2; echo end >&2; exit 1")

    async def main(transport: ProcessTransport) -> None:
        body = await whole(transport, tools.request("tool"))
        assert len(body) == MOST_COMPLAINTS
        assert body.endswith(b"xend\n")

    with_transport(loop, main)


def test_huge_output_ends_the_program(loop: str, tools: Tools) -> None:
    tools.add("tool", 'echo $$ >> "$NOTES"; head -c 200000000 /dev/zero; sleep 60')

    class Silent(Echo):
        def feed(self, data: bytes, now: float) -> bytes:
            return b""

    async def main(transport: ProcessTransport) -> None:
        request = ProcessRequest(("tool",), b"", tools.environ, 30.0, Silent())
        error = await refusal(transport, request)
        assert error.kind == "too_large"
        assert f"{LARGEST_OUTPUT:,}" in error.message
        await all_gone(tools.noted())

    with_transport(loop, main)


@pytest.mark.parametrize("script", [f"{CHILD}; sleep 60", f"trap '' TERM INT HUP; {CHILD}; while :; do sleep 1; done"])
def test_CLI_03_a_hang_is_ended_within_its_timeout_with_its_children(loop: str, tools: Tools, script: str) -> None:
    tools.add("tool", script)

    async def main(transport: ProcessTransport) -> None:
        for seconds in (0.5, 2.0, 8.0):  # on a busy machine it may not have begun yet
            began = time.monotonic()
            error = await refusal(transport, tools.request("tool", timeout=seconds))
            assert time.monotonic() - began < 30.0  # it sleeps for a minute
            assert error.kind == "timeout"
            assert f"{seconds:g} s" in error.message
            await all_gone(noted := tools.noted())
            if len(noted) == 2:
                return
            tools.forget()
        raise AssertionError(f"only {noted} was noted")

    with_transport(loop, main)


def test_a_hang_in_the_middle_of_an_answer(loop: str, tools: Tools) -> None:
    tools.add("tool", f"echo half; {CHILD}; sleep 60")

    async def main(transport: ProcessTransport) -> None:
        answer = await transport.send(tools.request("tool", timeout=0.6), ignore)
        chunks = answer.chunks()
        assert await anext(chunks) == b"half\n"
        with pytest.raises(TransportError) as raised:
            await anext(chunks)
        assert raised.value.kind == "timeout"
        await all_gone(tools.noted())

    with_transport(loop, main)


def test_a_child_that_is_left_behind_dies_with_the_program(loop: str, tools: Tools) -> None:
    tools.add("tool", f"{CHILD}; echo answered")

    async def main(transport: ProcessTransport) -> None:
        began = time.monotonic()
        assert await whole(transport, tools.request("tool", timeout=50.0)) == b"answered\n"
        assert time.monotonic() - began < 30.0  # the child sleeps for a minute
        await all_gone(tools.noted())

    with_transport(loop, main)


def test_an_output_that_somebody_else_holds_open_is_not_waited_for(loop: str, tools: Tools) -> None:
    """A child in a session of its own is out of reach; the answer is complete with the end of the program itself."""
    escape = "setsid sh -c 'echo $$ >> $NOTES; exec sleep 60' &"
    tools.add("tool", f'{escape} while [ ! -s "$NOTES" ]; do sleep 0.01; done; echo answered')

    async def main() -> None:
        class Hurried(LoopClock):
            def call_at(self, when: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
                return super().call_at(when if when - self.mono() > GRACE else self.mono() + 0.1, callback)

        transport = ProcessTransport(Hurried())
        assert await whole(transport, tools.request("tool")) == b"answered\n"
        assert transport.acquired == 0
        for pid in await tools.note():
            os.kill(int(pid), signal.SIGKILL)

    run(loop, main)


def test_closing_ends_it_at_once_and_twice_is_fine(loop: str, tools: Tools) -> None:
    tools.add("tool", f"{CHILD}; echo begun; sleep 60")

    async def main(transport: ProcessTransport) -> None:
        answer = await transport.send(tools.request("tool"), ignore)
        assert transport.acquired == 1
        answer.close()
        answer.close()
        with pytest.raises(TransportError) as raised:
            await answer.read(LIMIT)
        assert raised.value.kind == "closed"
        await all_gone(await tools.note(2))

    with_transport(loop, main)


def test_closing_the_transport_ends_what_runs(loop: str, tools: Tools) -> None:
    tools.add("tool", f"{CHILD}; sleep 60")

    async def main(transport: ProcessTransport) -> None:
        sending = asyncio.create_task(refusal(transport, tools.request("tool", timeout=60.0)))
        noted = await tools.note(2)
        await transport.close()
        assert transport.acquired == 0
        assert not any(is_alive(int(pid)) for pid in noted[1:])
        assert (await sending).kind == "closed"
        await all_gone(noted)

    with_transport(loop, main)


def test_a_caller_that_leaves_at_any_step_leaves_nothing(loop: str, tools: Tools) -> None:
    """Cancelled at its first await, its second, …, and while it runs; the check of the program among them."""
    tools.add("tool", f"{CHILD}; sleep 60")

    async def main(transport: ProcessTransport) -> None:
        for steps in (*range(8), 20, 40):
            sending = asyncio.create_task(transport.send(tools.request("tool"), ignore))
            for _ in range(steps):
                await asyncio.sleep(0)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        await transport.close()
        assert transport.acquired == 0
        await all_gone(tools.noted())

    with_transport(loop, main)


def test_CLI_04_a_program_is_checked_once_before_its_first_run(loop: str, tools: Tools) -> None:
    note = '[ "$1" = --version ] && { echo checked >> "$NOTES"; exit 0; }\n'
    tools.add("tool", "echo answered", version=note)

    async def main(transport: ProcessTransport) -> None:
        answers = await asyncio.gather(*(whole(transport, tools.request("tool")) for _ in range(4)))
        assert set(answers) == {b"answered\n"}
        assert tools.noted() == ["checked"]

    with_transport(loop, main)


class LaterClock(LoopClock):
    """A clock that a test may move on."""

    ahead = 0.0

    def mono(self) -> float:
        return super().mono() + self.ahead

    def call_at(self, when: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        return super().call_at(when - self.ahead, callback)


def test_CLI_04_a_failed_check_is_believed_for_a_minute(loop: str, tools: Tools) -> None:
    broken = 'echo "needs node 20" >&2; echo checked >> "$NOTES"; exit 1\n'
    tools.add("tool", "", version=broken)

    async def main() -> None:
        clock = LaterClock()
        transport = ProcessTransport(clock)
        for _ in range(2):
            error = await refusal(transport, tools.request("tool"))
            assert error.kind == "refused"
            assert "tool --version failed: needs node 20" in error.message
            assert "config/models.yaml" in error.message
        assert tools.noted() == ["checked"]
        tools.add("tool", "echo answered")
        clock.ahead = 61.0
        assert await whole(transport, tools.request("tool")) == b"answered\n"
        await transport.close()

    run(loop, main)


def test_CLI_04_a_check_that_hangs_is_given_five_seconds(loop: str, tools: Tools) -> None:
    tools.add("tool", "", version='echo $$ >> "$NOTES"; sleep 60\n')

    async def main() -> None:
        timers: list[float] = []

        class Hurried(LoopClock):
            def call_at(self, when: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
                timers.append(round(when - self.mono(), 1))
                return super().call_at(self.mono() + 0.2, callback)

        transport = ProcessTransport(Hurried())
        error = await refusal(transport, tools.request("tool"))
        assert "tool --version" in error.message
        assert "5 s" in error.message
        assert timers[0] == 5.0
        await transport.close()
        await all_gone(tools.noted())

    run(loop, main)


def test_CLI_03_a_missing_program_is_named_with_what_to_do(loop: str, tools: Tools) -> None:
    (tools.folder / "text").write_text("not a program")

    async def main(transport: ProcessTransport) -> None:
        for name in ("nowhere", "text", str(tools.folder / "text")):
            error = await refusal(transport, tools.request(name))
            assert (error.kind, error.sent) == ("refused", False)
            assert repr(name) in error.message
            assert "install it" in error.message
            assert "config/models.yaml" in error.message
        tools.add("nowhere", "echo here now")
        assert await whole(transport, tools.request("nowhere")) == b"here now\n"

    with_transport(loop, main)


def test_what_the_system_cannot_run_is_refused(loop: str, tools: Tools) -> None:
    tools.add("tool", "")
    (tools.folder / "tool").write_text("#!/nowhere/node\n")

    async def main(transport: ProcessTransport) -> None:
        error = await refusal(transport, tools.request("tool"))
        assert error.kind == "refused"
        assert "cannot be started" in error.message

    with_transport(loop, main)


def test_other_kinds_of_request_are_a_mistake(loop: str) -> None:
    async def main(transport: ProcessTransport) -> None:
        with pytest.raises(TypeError, match="HttpRequest"):
            await transport.send(HttpRequest("GET", "http://localhost/", ()), ignore)

    with_transport(loop, main)
