"""Closes the event loop at the end of the program, and does not wait for what hangs in it."""

from __future__ import annotations

import asyncio
import signal
import threading

PATIENCE = 0.2
"""Seconds that it gets. What takes longer is a thread that the system holds: a name that no server resolves, a disk
that does not answer."""
_NAME = "keyturn end of loop"


def close_loop(runner: asyncio.Runner) -> None:
    """Closes *runner*, or leaves it when that takes longer than it may. To be called in the main thread."""
    runner.run(_without_signals())
    closing = threading.Thread(target=runner.close, name=_NAME, daemon=True)
    closing.start()
    closing.join(PATIENCE)


async def _without_signals() -> None:
    """Give back the signals, which no other thread could."""
    loop = asyncio.get_running_loop()
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        try:
            loop.remove_signal_handler(getattr(signal, name))
        except (AttributeError, NotImplementedError):  # Windows
            pass


def is_held_up() -> bool:
    """Whether a thread is left that the end of the interpreter, or of a library in it, would wait for."""
    main = threading.main_thread()
    return any(each is not main and (not each.daemon or each.name == _NAME) for each in threading.enumerate())
