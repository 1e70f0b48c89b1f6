"""How many lines a piece of work runs through: what it costs, told without a clock."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def steps(work: Callable[[], object]) -> int:
    """The lines of Python that *work* runs, each turn of a loop or comprehension counted."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def is_linear(work: Callable[[int], Callable[[], object]], size: int = 300) -> bool:
    """Whether the work that `work(n)` prepares takes no more than twice the steps for twice the *size*."""
    return steps(work(2 * size)) < 2.4 * steps(work(size))
