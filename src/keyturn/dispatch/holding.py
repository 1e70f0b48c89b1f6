"""Streams of routes that ask for it: what must be whole is held back until it is, and a cut is mended where it can be.

what was cut                              what the client has of the answer   what follows
inside what is held back                  nothing, or thinking                another attempt, from the start
inside what is held back                  text                                another attempt, which goes on with it
anywhere else, of a route that continues  text                                the same
anything else                                                                 the error event, as everywhere
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import translate
from typing import TYPE_CHECKING, NamedTuple

from keyturn.config import StreamSettings
from keyturn.core import Call, Outcome
from keyturn.wire import CALL, TEXT, Told, faults_of

from .relay import RelayStream

if TYPE_CHECKING:
    from .continuing import Seam
    from .exchange import Exchange
    from .run import Run

KEEP_ALIVE = 5.0
"""Seconds after which a client that gets nothing, since all that comes is held back, is sent a comment."""
MOST_HELD_BACK = 4 * 1024 * 1024
"""Bytes that are held back of one stream; what is longer flows from then on."""
MOST_TEXT = 1024 * 1024
"""Characters of a text that another model may go on with."""
MOST_MENDED = 2
"""Cuts of one stream that are mended."""


class Guard(NamedTuple):
    """What is done for one stream."""

    holds: bool
    """Calls of tools, and JSON, are held back."""
    goes_on: bool
    """Its text goes on elsewhere when it is cut."""
    elsewhere: bool
    """Another model of the plan may go on with it."""


class Guards:
    """What one configuration says of streams, by the names that clients ask for."""

    def __init__(self, settings: StreamSettings | None = None) -> None:
        settings = settings or StreamSettings()
        self._held = _names(settings.hold_tools)
        self._going_on = _names(settings.goes_on)
        self._elsewhere = _names(settings.goes_on_elsewhere)

    def of(self, call: Call) -> Guard | None:
        """What is done for the stream of *call*; None: it is relayed like any other."""
        if call.kind != "chat":
            return None
        holds = not call.needs.isdisjoint(("tools", "json")) and self._held(call.model) is not None
        goes_on = call.on_cut == "continue" or (not call.on_cut and self._going_on(call.model) is not None)
        return Guard(holds, goes_on, self._elsewhere(call.model) is not None) if holds or goes_on else None


class Cut(Exception):
    """The upstream broke off. *outcome* None: the call's own time is up."""

    def __init__(self, outcome: Outcome | None, detail: str) -> None:
        super().__init__(detail)
        self.outcome = outcome
        self.detail = detail


class GuardedStream(RelayStream):
    """One stream for its client, whoever writes it: read by one task, recorded once, when all is over."""

    __slots__ = (
        "_back",
        "_back_size",
        "_given_at",
        "_guard",
        "_most_kept",
        "_opened_up",
        "_plain",
        "_seam",
        "_shaped",
        "_spent_text",
        "_told",
        "mended",
    )

    def __init__(
        self, exchange: Exchange, run: Run, ended: Callable[[RelayStream], None], keep: int, guard: Guard
    ) -> None:
        super().__init__(exchange, run, ended, 0)
        self._most_kept = keep
        self._guard = guard
        self._told = Told(run.call, MOST_TEXT)
        self._shaped = guard.holds and "json" in run.call.needs
        self._back: list[bytes] = []
        """What is held back."""
        self._back_size = 0
        self._opened_up = False
        """What was held back went to the client."""
        self._plain = False
        """Nothing that comes has to be looked at any more."""
        self._given_at = self._now()
        self._seam: Seam | None = None
        """Where it was cut, while somebody is sought who goes on."""
        self._spent_text = 0
        """Characters of text that the attempts before this one gave."""
        self.mended = 0

    async def __anext__(self) -> bytes:
        """The next events; at a cut that cannot be mended an error event, the last there is."""
        done = False
        try:
            while True:
                try:
                    if self._seam is None:
                        piece = self._passed(await super().__anext__())
                    else:
                        piece = await self._taken_up(self._seam)
                except Cut as cut:
                    piece = self._broken(cut)
                except StopAsyncIteration:
                    piece = self._released() if self.complete else b""
                    done = True
                    if not piece:
                        raise
                if piece:
                    done = True
                    return self._given(piece)
        finally:
            if not done:
                self.close()

    def close(self) -> None:
        """The client left, or has everything. Closes the upstream at once."""
        if self._ended is not None and self._seam is not None:
            self.run.trail.code = "client_left"
        self._seam = None
        super().close()

    # --- what comes -------------------------------------------------------------------------------------------------

    def _given(self, piece: bytes) -> bytes:
        self._given_at = self._now()
        if self._most_kept > len(self.kept):
            self.kept += piece[: self._most_kept - len(self.kept)]
        return piece

    def _passed(self, piece: bytes) -> bytes:
        """What of *piece* the client gets now."""
        if self._plain:
            return piece
        told, out = self._told, []
        for event in told.pieces(piece):
            if self._back:
                self._hold(event) if not told.is_idle(event) else out.append(event)
                continue
            kind = told.look(event)
            held = kind == CALL or (self._shaped and kind == TEXT)
            if (held and self._guard.holds) or (told.ends and self._guard.goes_on):  # the end, until all came behind it
                self._hold(event)
            else:
                told.took(event)
                out.append(event)
        if self._back:
            if self._stream.done or self.complete:
                out.append(self._released())
            elif self._back_size > MOST_HELD_BACK:
                self.run.trail.notes.append(f"more than {MOST_HELD_BACK} bytes were held back: they flow from here on")
                out.append(self._let_go())
            elif not out and self._now() - self._given_at >= KEEP_ALIVE:
                out.append(self._comment("held back until it is whole"))
        elif told.size > MOST_TEXT and not self._guard.holds:
            self._plain = True
        return b"".join(out)

    def _hold(self, event: bytes) -> None:
        self._back.append(event)
        self._back_size += len(event)

    def _let_go(self) -> bytes:
        """All that is held back; from here on everything flows."""
        back, self._back, self._back_size = self._back, [], 0
        self._plain = self._opened_up = True
        return b"".join(back)

    def _released(self) -> bytes:
        """The same, when it is whole; what of it is no JSON is noted: that is the model's answer, not a fault."""
        if self._back:
            asked = self.attempt
            for fault in faults_of(self.run.call, self._back, shaped=self._shaped):
                self.run.trail.notes.append(f"{asked.provider}/{asked.model}: {fault}; relayed as it came")
        return self._let_go()

    def _comment(self, text: str) -> bytes:
        """Something that the client passes over: Gemini's SDK fails on comments, and an array has no place for any."""
        call = self.run.call
        if call.dialect == "gemini":
            return b"" if call.form == "array" else b"\r\n"
        return b": keyturn " + " ".join(text.split()).encode("ascii", "replace") + b"\n\n"

    # --- cuts -------------------------------------------------------------------------------------------------------

    def _cut(self, fault: str, detail: str) -> bytes:
        raise Cut(*self._failed(fault, detail)) from None

    def _broken(self, cut: Cut) -> bytes:
        """The attempt failed: a sign of life while somebody else is sought, or the event that ends it all."""
        self._watch.extend = None
        held = bool(self._back) or (self._guard.holds and getattr(self._stream, "called", False))
        self._back, self._back_size = [], 0
        why = self._beyond_mending(cut, held=held)
        if not why:
            from .continuing import seam_of

            self._exchange.remember_signatures()
            found = seam_of(self._exchange, self._told, cut, self._guard, self._told.size - self._spent_text)
            if not isinstance(found, str):
                self._seam = found
                return self._comment("the upstream broke off; another is asked")
            why = found
        return self._ended_by(cut.detail, why)

    def _beyond_mending(self, cut: Cut, *, held: bool) -> str:
        """Why nobody else is asked; empty when somebody may be."""
        told = self._told
        if cut.outcome is None:
            return "its time is up"
        if self._opened_up or told.called:
            return "the client has a part of what was held back" if self._opened_up else "a call of a tool is open"
        if told.stopped:
            return "its end was told"
        if self.mended >= MOST_MENDED:
            return f"it was cut {MOST_MENDED + 1} times"
        if told.in_text and not held and not self._guard.goes_on:
            return "its text does not go on elsewhere: `continue` does not name this route"
        if told.in_text and told.barred:
            return told.barred
        return "a part of it is open that nobody else can add to" if told.in_other else ""

    def _ended_by(self, detail: str, why: str) -> bytes:
        self._seam = None
        self._begun = self._told.begun or self._opened_up
        self.run.trail.notes.append(f"the stream was cut and not mended: {why}")
        return self._interrupted(detail)

    async def _taken_up(self, seam: Seam) -> bytes:
        """Have somebody else go on: what marks the place, or the event that ends it all."""
        from .continuing import take_up

        found = await take_up(seam, self.run)
        if self._ended is None:  # closed meanwhile
            if not isinstance(found, str):
                found.close()
            raise StopAsyncIteration
        if isinstance(found, str):
            return self._ended_by(seam.detail, found)
        self._seam = None
        self.mended += 1
        self._spent_text = self._told.size
        self._told.renew()
        self._follow(found)
        self._plain = False
        where = found.grant.entry.candidate.deployment
        return self._comment(f"continued on {where}" if seam.before else f"answered anew by {where}")

    def _over(self) -> None:
        if self.mended:
            self.run.costs.clear()  # what was answered in parts teaches nothing of whole answers
        super()._over()


def _names(patterns: tuple[str, ...]) -> Callable[[str], object]:
    """Whether a name fits one of *patterns*, which may hold shell wildcards."""
    return re.compile("|".join(map(translate, patterns)) or r"(?!)").match
