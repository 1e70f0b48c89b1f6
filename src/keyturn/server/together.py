"""The pages that tell of all workers, whichever of them is asked; with one worker they tell of that."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from keyturn.config import Pin
from keyturn.dispatch import Gateway, Reloader, recorded, trail_told

if TYPE_CHECKING:
    from keyturn.dispatch import Choice

    from .siblings import Siblings
    from .tally import Tally

SUMMED = ("inflight", "waiting", "open")
"""What a status counts, and what is therefore the sum of all workers'."""
COMPLETE = b"complete"
"""What a worker says whose ledger misses nothing."""

_log = logging.getLogger("keyturn.server")


class Switched(msgspec.Struct):
    """Credentials that the owner took out of use, or into it again, by fingerprint."""

    fingerprints: list[str]
    off: bool


class Together:
    """One worker's part in it: answers the others, and asks them. *siblings* None: there are no others."""

    def __init__(
        self,
        gateway: Gateway,
        figures: Callable[[], bytes | None],
        status: Callable[[], dict[str, object]],
        reloader: Reloader | None,
        siblings: Siblings | None,
    ) -> None:
        self._gateway = gateway
        self._figures = figures
        """The metrics of this worker in Prometheus' format; None when none are kept."""
        self._status = status
        self._reloader = reloader
        self._siblings = siblings
        self.pinning = asyncio.Lock()
        """Who holds it may change what is pinned: it is read, written down and obeyed as one step."""
        self._tally: Tally | None = None
        """Made by the first who watches."""
        if siblings is not None:
            siblings.answer = self._answer

    async def metrics(self) -> bytes | None:
        """The figures of all workers."""
        own = self._figures()
        if own is None or self._siblings is None:
            return own
        from .figures import joined

        answers = await self._siblings.ask("metrics")
        if answers.silent:
            _log.warning("/metrics: no figures of worker %s in time", ", ".join(map(str, answers.silent)))
        return joined({self._siblings.number: own, **answers.said}, tuple(answers.silent))

    async def status(self) -> dict[str, object]:
        """This worker's, with the sums of all; `workers` has a row for each of them."""
        own = self._status()
        if self._siblings is None:
            return own
        answers = await self._siblings.ask("status")
        rows = {self._siblings.number: own, **_told(answers.said)}
        for name in SUMMED:
            counts = [count for row in rows.values() if isinstance(count := row.get(name, 0), int)]
            own = {**own, name: sum(counts)}
        members = ("pid", "ready", "draining", *SUMMED, "config")
        workers: list[dict[str, object]] = [
            {"worker": number, **{name: row.get(name) for name in members}} for number, row in sorted(rows.items())
        ]
        workers += [{"worker": number, "ready": "it does not answer"} for number in answers.silent]
        return {**own, "workers": workers}

    async def trace(self, call: str) -> dict[str, object] | None:
        """What one call went through, from who answered it, as long as that remembers it."""
        trail = self._gateway.recent.get(call)
        if trail is not None or self._siblings is None:
            return trail.told() if trail is not None else None
        answers = await self._siblings.ask("trace", call.encode())
        return next(iter(_told(answers.said).values()), None)

    async def story(self, call: str) -> dict[str, object] | None:
        """The whole story of one call from who answered it, as long as that remembers it."""
        trail = self._gateway.recent.get(call)
        if trail is not None or self._siblings is None:
            return trail_told(self._gateway, trail) if trail is not None else None
        answers = await self._siblings.ask("story", call.encode())
        return next(iter(_told(answers.said).values()), None)

    async def minute(self) -> dict[str, list[int]]:
        """Route -> calls of all workers that ended in the last minute, and how many of these failed."""
        sums = self._minute()
        if self._siblings is None:
            return sums
        answers = await self._siblings.ask("minute")
        for said in answers.said.values():
            for route, counts in msgspec.json.decode(said, type=dict[str, list[int]]).items() if said else ():
                before = sums.get(route, [0, 0])
                sums[route] = [before[0] + counts[0], before[1] + counts[1]]
        return sums

    async def reload(self) -> None:
        """Have all read their files again."""
        if self._reloader is not None:
            self._reloader.reload()
        if self._siblings is not None:
            await self._siblings.ask("reload")

    async def switched(self, fingerprints: list[str], *, off: bool) -> None:
        """Have the others take these credentials out of use too, or into it."""
        if self._siblings is not None:
            await self._siblings.ask("switch", msgspec.json.encode(Switched(fingerprints, off)))

    async def ungrouped(self, fingerprints: list[str]) -> None:
        """Have the others take these keys apart too."""
        if self._siblings is not None:
            await self._siblings.ask("ungroup", msgspec.json.encode(fingerprints))

    async def reset(self, key: str | None) -> None:
        """Have the others forget cooldowns too: marks are shared, a login's refusals are not."""
        if self._siblings is not None:
            await self._siblings.ask("reset", msgspec.json.encode(key))

    async def pinned(self, pins: Sequence[Pin]) -> None:
        """Have the others obey these pinned limits too."""
        if self._siblings is not None:
            await self._siblings.ask("pin", msgspec.json.encode(pins))

    async def cleared(self, choice: Choice) -> None:
        """Have the others forget what was learned and reported too."""
        if self._siblings is not None:
            await self._siblings.ask("clear", msgspec.json.encode(choice))

    async def recorded(self) -> bool:
        """Wait until the ledger has what all recorded so far; False when that could not be had in time."""
        if self._siblings is None:
            return await recorded(self._gateway)
        own, answers = await asyncio.gather(recorded(self._gateway), self._siblings.ask("recorded"))
        return (
            own and not answers.lost and not answers.silent and all(each == COMPLETE for each in answers.said.values())
        )

    async def _answer(self, what: str, content: bytes) -> bytes:
        """What another worker asked."""
        match what:
            case "metrics":
                return self._figures() or b""
            case "status":
                return msgspec.json.encode(self._status())
            case "trace":
                trail = self._gateway.recent.get(content.decode())
                return msgspec.json.encode(trail.told()) if trail is not None else b""
            case "story":
                trail = self._gateway.recent.get(content.decode())
                return msgspec.json.encode(trail_told(self._gateway, trail)) if trail is not None else b""
            case "minute":
                return msgspec.json.encode(self._minute())
            case "recorded":
                return COMPLETE if await recorded(self._gateway) else b""
            case "reload":
                if self._reloader is not None:
                    self._reloader.reload()
            case "reset":
                self._gateway.reset(msgspec.json.decode(content, type=str | None))
            case "pin":
                from keyturn.dispatch import pin_again

                pin_again(self._gateway, msgspec.json.decode(content, type=tuple[Pin, ...]))
            case "clear":
                from keyturn.dispatch import Choice, clear_limits

                clear_limits(self._gateway, msgspec.json.decode(content, type=Choice))
            case "ungroup":
                self._gateway.adapting.ungroup(msgspec.json.decode(content, type=list[str]))
            case "switch":
                self._switch(msgspec.json.decode(content, type=Switched))
        return b""

    def _minute(self) -> dict[str, list[int]]:
        if self._tally is None:
            from .tally import Tally

            self._tally = Tally(self._gateway)
        return self._tally.told()

    def _switch(self, switched: Switched) -> None:
        gateway = self._gateway
        for fingerprint in switched.fingerprints:
            if switched.off:
                gateway.disable(fingerprint)
            else:
                gateway.disabled.discard(fingerprint)  # its mark may be gone already, through the shared state
                gateway.enable(fingerprint)


def _told(answers: Mapping[int, bytes]) -> dict[int, dict[str, object]]:
    """The answers that are JSON objects, by worker."""
    return {number: msgspec.json.decode(each, type=dict[str, object]) for number, each in answers.items() if each}
