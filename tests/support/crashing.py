"""Disturbs what writes files, at each of its steps in turn: an error of the system, or the end of the process."""

from __future__ import annotations

import errno
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

STEPS = ("open", "close", "fsync", "chmod", "replace", "link", "unlink", "mkdir")
"""The functions of `os` that change a disk."""


@contextmanager
def disturbed(
    step: int, disturb: Callable[[], None], *, late: bool = False, lasting: bool = False
) -> Iterator[list[str]]:
    """Calls *disturb* instead of the *step*-th of STEPS that is taken (from 1), with *late* behind it, with *lasting*
    from there on. Yields the list of the steps taken."""
    taken: list[str] = []

    def watched(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            taken.append(name)
            due = len(taken) == step or (lasting and len(taken) > step)
            if due and not late:
                disturb()
            result = real(*args, **kwargs)
            if due and late:
                disturb()
            return result

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in STEPS:
            patch.setattr(os, name, watched(name, getattr(os, name)))
        yield taken


def steps_of(act: Callable[[], object]) -> int:
    """How many steps *act* takes when nothing disturbs it."""
    with disturbed(0, lambda: None) as taken:
        act()
    return len(taken)


def no_space() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def killed(step: int, act: Callable[[], object], *, late: bool) -> None:
    """Runs *act* in a process that is killed at *step*."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about threads, of which the child uses none
        pid = os.fork()
    if pid == 0:
        try:
            with disturbed(step, lambda: os.kill(os.getpid(), signal.SIGKILL), late=late):
                act()
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), "it ended before it could be killed"
