"""A call that waits, as the room sees it."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from keyturn.core import Exhausted

from .lines import Held
from .run import Grant, Run

if TYPE_CHECKING:
    from .reserving import Reserving


class Asking:
    """Asks for one call: see `Asks`."""

    __slots__ = ("_reserving", "_run")

    def __init__(self, reserving: Reserving, run: Run) -> None:
        self._reserving = reserving
        self._run = run

    @property
    def hindered(self) -> bool:
        return self._run.hindered

    @property
    def sent(self) -> bool:
        return self._run.progress.attempts > 0

    def take(self, kept: Collection[Held]) -> Grant | Exhausted:
        return self._reserving.take(self._run, kept=kept)

    def fits_first(self, kept: Held | None) -> Held | None:
        return self._reserving.fits_first(self._run, kept)

    def hopeless(self, latest: float) -> str:
        return self._reserving.hopeless(self._run, latest)
