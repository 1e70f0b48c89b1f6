"""The admin pages about what is remembered: usage, the story of one call, and keeping house in the stores."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import msgspec

from keyturn.config import Config
from keyturn.dispatch import (
    Gateway,
    call_named,
    database_findings,
    disk_findings,
    leftover,
    live_findings,
    names_call,
    standing_findings,
    told_of,
    trail_told,
    usage_told,
)
from keyturn.errors import BadRequest, StoreError
from keyturn.stores import By, Sink, UsageQuery

if TYPE_CHECKING:
    from .call_pages import Remembered

Asked = TypeVar("Asked", bound=msgspec.Struct)
Moment = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
"""What every database can count to."""

MOST_ROWS = 100_000
LEAST_KEPT = 1.0
"""Days that a prune leaves single calls at least: none that is under way may go."""


class UsageRequest(msgspec.Struct):
    """The body of `POST /admin/usage`; times are Unix milliseconds, [since, until)."""

    by: By
    since: Moment
    until: Moment
    most: int = 1000
    name: str = ""


class StoryRequest(msgspec.Struct):
    """The body of `POST /admin/story`."""

    call: str
    """A call's id, or the first 8 or more characters of it."""


class StoresRequest(msgspec.Struct):
    """The body of `POST /admin/stores`."""

    action: Literal["check", "backup", "prune"]
    file: str = ""
    """Where a backup goes: the whole path."""
    keep_days: float | None = None
    """For how long single calls stay; None: as configured."""


class LedgerPages:
    """Reads the stores of a gateway and, for the owner, keeps house in them."""

    def __init__(self, gateway: Gateway, recorded: Callable[[], Awaitable[bool]], remembered: Remembered) -> None:
        """*recorded* waits for what was recorded last; False when it could not be had in time."""
        self._gateway = gateway
        self._recorded = recorded
        self._remembered = remembered

    async def usage(self, body: bytes) -> dict[str, object]:
        """Sums, and whether what was recorded last is in them. Raises BadRequest, StoreError."""
        asked = _read(body, UsageRequest)
        query = UsageQuery(asked.by, asked.since, asked.until, max(1, min(asked.most, MOST_ROWS)), asked.name)
        if not self._gateway.ledger.keeps:
            return {"keeps": False, "complete": True, "rows": []}
        complete = await self._recorded()
        return {"keeps": True, "complete": complete, "rows": await usage_told(self._gateway.ledger, query)}

    async def story(self, body: bytes) -> dict[str, object]:
        """One call as it is recorded, else as this process remembers it; else calls that it may be. Raises BadRequest,
        and StoreError when only the ledger could tell."""
        gateway = self._gateway
        call = call_named(_read(body, StoryRequest).call)
        trails = [each for name, each in gateway.recent.items() if names_call(call, name)]
        found: dict[str, object] = {"story": None, "alike": False, "near": []}
        if gateway.ledger.keeps:
            await self._recorded()
            try:
                found = await told_of(gateway.ledger, call, int(gateway.clock.wall() * 1000))
            except StoreError:
                if len(trails) != 1:
                    raise
        if found["story"] is None and len(trails) == 1 and not found["alike"]:
            return {"story": trail_told(gateway, trails[0])}
        if isinstance(story := found["story"], dict):
            from .call_pages import completed

            found = {**found, "story": completed(story, await self._remembered(str(story["call"])))}
        return found

    async def stores(self, body: bytes) -> dict[str, object]:
        """What *action* came to. Raises BadRequest, StoreError."""
        asked = _read(body, StoresRequest)
        if asked.action == "check":
            return {"findings": await self._check()}
        sink = self._gateway.ledger.sink
        if sink is None:
            raise StoreError("nothing is recorded: LEDGER_ENABLED is false")
        if asked.action == "backup":
            await self._recorded()
            return {"file": await _back_up(sink, asked.file)}
        return {"dropped": await self._prune(asked.keep_days)}

    async def _check(self) -> list[dict[str, object]]:
        gateway = self._gateway
        config: Config = gateway.config
        sink = gateway.ledger.sink
        findings = list(standing_findings(gateway.ledger.standing())) if sink is not None else []
        if sink is not None:
            findings += await database_findings(config, sink)
        waiting = gateway.ledger.standing().waiting_bytes
        findings += disk_findings(config, leftover(config.data, gateway.clock.wall()), waiting)
        findings += live_findings(gateway.live.standing())
        return [each._asdict() for each in findings]

    async def _prune(self, keep_days: float | None) -> int:
        if keep_days is not None and not keep_days >= LEAST_KEPT:
            raise BadRequest(f"keep_days must be at least {LEAST_KEPT}: attempts may be under way", param="keep_days")
        days = self._gateway.config.ledger.keep_days if keep_days is None else keep_days
        return await self._gateway.ledger.prune(days)


async def _back_up(sink: Sink, file: str) -> str:
    path = Path(file)
    if not file or not path.is_absolute() or "\0" in file:
        raise BadRequest("give the whole path of the backup, beginning with /", param="file")
    await sink.backup(path)
    return str(path)


def _read(body: bytes, kind: type[Asked]) -> Asked:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise BadRequest(f"the body is not what this page reads: {error}") from error
