"""Runs a coroutine until it ends or somebody asks this process to end: Ctrl-C, or SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keyturn.config import Config


def run_until_asked(work: Coroutine[Any, Any, None], config: Config) -> None:
    """Runs *work*; a signal cancels it, and that is no failure. Libraries log at the level that *config* says."""
    level = config.sections.get("general", {}).get("log_level", "INFO")
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s")
    asyncio.run(_run(work))


async def _run(work: Coroutine[Any, Any, None]) -> None:
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)
    asked = False

    def ask() -> None:
        nonlocal asked
        asked = True
        task.cancel()

    for name in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(name, ask)
        except NotImplementedError:  # Windows: Ctrl-C arrives as KeyboardInterrupt
            break
    try:
        await task
    except asyncio.CancelledError:
        if not asked:
            raise
