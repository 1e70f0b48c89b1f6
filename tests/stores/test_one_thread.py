"""One thread for one job after the other: in order, with its errors handed on, at the end of a program too."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from keyturn.stores.one_thread import OneThread

AT_EXIT = """
import atexit, concurrent.futures
from keyturn.stores.one_thread import OneThread
thread = OneThread("last words")
atexit.register(lambda: print(thread.submit(lambda: "done").result(), flush=True))
"""


def test_jobs_are_done_in_order_in_one_thread_that_begins_with_the_first() -> None:
    before = threading.active_count()
    thread, seen = OneThread("jobs"), list[tuple[int, str]]()
    assert threading.active_count() == before

    def note(number: int) -> None:
        seen.append((number, threading.current_thread().name))

    for number in range(50):
        thread.submit(note, number)
    thread.shutdown()
    assert seen == [(number, "jobs") for number in range(50)]
    assert threading.active_count() == before


def test_what_a_job_raises_is_handed_to_who_waits_and_the_next_is_done() -> None:
    async def story() -> None:
        thread, loop = OneThread("jobs"), asyncio.get_running_loop()
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(thread, divmod, 1, 0)
        assert await loop.run_in_executor(thread, divmod, 7, 2) == (3, 1)
        thread.shutdown()

    asyncio.run(story())


def test_a_job_that_nobody_waits_for_any_more_before_it_began_is_left_out() -> None:
    thread, hold, done = OneThread("jobs"), threading.Event(), list[str]()
    thread.submit(hold.wait)
    late = thread.submit(done.append, "late")
    assert late.cancel()
    thread.submit(done.append, "next")
    hold.set()
    thread.shutdown()
    assert done == ["next"]


def test_it_works_while_a_program_ends() -> None:
    done = subprocess.run([sys.executable, "-c", AT_EXIT], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
