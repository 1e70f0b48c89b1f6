"""Notices changes of files at once where the extra `watch` is installed; elsewhere who asks has to look."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from pathlib import Path

QUIET_MS = 100
"""Milliseconds without a further change until one is told."""


class Noticing:
    """Tells *changed* when something in the folders of *files* changes, from `start` to `close`."""

    def __init__(self, files: Iterable[Path], changed: Callable[[], object]) -> None:
        self._files = {os.path.abspath(path) for path in files}
        self._folders = {_nearest(Path(path).parent) for path in self._files}
        self._above = {str(Path(path).parent) for path in self._files}
        """A folder may itself be made or replaced."""
        self._changed = changed
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> bool:
        """Whether changes will be told; False without the extra `watch`."""
        try:
            import watchfiles  # noqa: F401  # looked for here, used in the task
        except ImportError:
            return False
        self._task = asyncio.create_task(self._watch(), name="changes of files")
        return True

    async def close(self) -> None:
        """Tell no more."""
        self._stop.set()
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _watch(self) -> None:
        from watchfiles import awatch

        async for changes in awatch(
            *self._folders, recursive=False, watch_filter=None, debounce=QUIET_MS, stop_event=self._stop
        ):
            linked = any(map(os.path.islink, self._files))  # what a link leads to may be exchanged behind it
            if linked or any(path in self._files or path in self._above for _, path in changes):
                self._changed()


def _nearest(folder: Path) -> Path:
    """*folder*, or the nearest one above it that exists: it may be made later."""
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return folder
