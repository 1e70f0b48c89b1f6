"""The part of a data folder that is one worker's own; keys and what is switched off are those of the whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from keyturn.core import Secret
from keyturn.errors import DataFolderInUse, KeyturnError

from .folder import WORKERS, DataFolder


class WorkerFolder(DataFolder):
    """`DATA/workers/<number>/`: what one process writes down. `DATA` itself belongs to the process that started it."""

    def __init__(self, whole: Path, number: int) -> None:
        super().__init__(whole / WORKERS / str(number))
        self.whole = DataFolder(whole)
        self.caller_key_file = self.whole.caller_key_file
        self.admin_key_file = self.whole.admin_key_file
        self.disabled_file = self.whole.disabled_file
        self.pinned_file = self.whole.pinned_file

    def lock(self, waiting: Callable[[str], object] = lambda text: None) -> None:
        """As that of the whole, but waits for a worker of this number that is just ending; *waiting* is told so."""
        try:
            super().lock()
        except DataFolderInUse:
            waiting(f"waits for an earlier worker, which has {self.path} and still finishes its answers")
            self._lock_waits = True
            super().lock()

    def parts(self) -> tuple[DataFolder, ...]:
        """Those of the whole."""
        return self.whole.parts()

    def withdraw(self) -> None:
        """Nothing: who started this worker tells where it listens."""

    def publish(self, url: str) -> None:
        """Nothing, for the same reason."""

    def new_admin_key(self) -> Secret:
        """The key that the owner of the whole has made. Raises KeyturnError when there is none."""
        key = self.whole.admin_key()
        if key is None:
            raise KeyturnError(f"{self.admin_key_file} is missing: a worker is started by `keyturn serve --workers`")
        return key
