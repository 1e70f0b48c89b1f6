"""A thread that the system holds does not hold up the end of the program."""

from __future__ import annotations

import asyncio
import signal
import threading

import pytest

from keyturn.server import is_held_up, loop_end
from keyturn.server.loop_end import close_loop


def test_a_thread_that_hangs_is_left_and_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    async def main() -> None:
        asyncio.get_running_loop().run_in_executor(None, release.wait)

    monkeypatch.setattr(loop_end, "PATIENCE", 0.02)
    runner = asyncio.Runner()
    runner.run(main())
    try:
        close_loop(runner)
        assert is_held_up()
    finally:
        release.set()
        for thread in threading.enumerate():
            if thread is not threading.main_thread() and (not thread.daemon or thread.name == loop_end._NAME):
                thread.join()
    assert not is_held_up()
    assert runner._loop is None  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["uvloop", "asyncio"])
def test_a_loop_that_nothing_holds_is_closed_with_its_signals(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    before = signal.getsignal(signal.SIGTERM)

    async def main() -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, print)
        await loop.run_in_executor(None, print)
        return loop

    runner = asyncio.Runner(loop_factory=pytest.importorskip(kind).new_event_loop)
    loop = runner.run(main())
    close_loop(runner)
    assert loop.is_closed()
    assert not is_held_up()
    assert not caplog.records
    assert signal.getsignal(signal.SIGTERM) == before
