"""Takes over a changed configuration while calls run; a broken one is told of, and the running one stays."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from keyturn.config import Config
from keyturn.core import Clock, TimerHandle
from keyturn.errors import ConfigError

from .events import Reloaded
from .gateway import Gateway
from .noticing import Noticing

LOOK_EVERY = 1.0
"""Seconds between two looks at the files. A change is taken up when two looks in a row find the same."""
LOOK_RARELY = 10.0
"""The same where changes are told."""
EMPTIED = 5.0
"""Seconds that a file may be gone or empty before that is taken for a change."""
SETTLED = 0.2
"""Seconds after a change was told, until the file is looked at."""
Signature = tuple[tuple[str, int, int, int] | None, ...]
CHANGING = (
    "routes",
    "names",
    "callers",
    "limit_rules",
    "limits",
    "strategies",
    "rotations",
    "timeouts",
    "tiers",
    "equivalents",
    "chat_models",
    "embedding_models",
    "cache",
    "coalesce",
    "modes",
)
CHANGING_IN_WORDS = {"modes": "priorities, caps, cycles or lists of keys and models"}
AT_NEXT_START = (
    "host",
    "port",
    "workers",
    "log_format",
    "log_requests",
    "max_body",
    "max_headers",
    "drain_seconds",
    "grace_seconds",
    "max_connections",
    "max_connections_per_ip",
    "memory_limit",
    "metrics",
)
"""Members of the server's settings that are read once."""
STORES = ("redis", "ledger", "responses")
"""What is opened once."""


class Reloader:
    """Looks at the files of a gateway's configuration and hands it what *read* makes of them.

    *read* raises ConfigError for a configuration that is not valid; it runs in a thread. *adopted* is called with each
    configuration that was taken over, after the gateway has it.
    """

    def __init__(self, gateway: Gateway, read: Callable[[], Config], adopted: Callable[[Config], None]) -> None:
        self._gateway = gateway
        self._clock: Clock = gateway.clock
        self._read = read
        self._adopted = adopted
        self._taken = self._seen = self._signature()
        self._timer: TimerHandle | None = None
        self._reading: asyncio.Future[Config] | None = None
        self._due = 0.0
        """When the timer is set to."""
        self._since_seen = -EMPTIED
        """Since when the files have been as they were at the last look."""
        self._again = False
        self._closed = False
        self._pause = LOOK_EVERY
        self._noticing: Noticing | None = None
        self.problems: tuple[str, ...] = ()
        """Why the files as they are now are not in use; empty when they are."""
        self.since = self._clock.wall()
        """When the configuration in use was taken over, in Unix seconds."""

    def start(self) -> None:
        """Look from now on, until `close`."""
        files = self._gateway.config.files
        if any(each.present for each in files):
            self._noticing = Noticing([each.path for each in files], self.check)
            if self._noticing.start():
                self._pause = LOOK_RARELY
        self._arm(self._pause)

    def check(self) -> None:
        """Something has changed: look soon, and once more after that."""
        if self._timer is not None and not self._closed:
            self._arm(SETTLED)

    def _arm(self, seconds: float) -> None:
        """Look in *seconds*, unless that is to happen earlier anyway."""
        when = self._clock.mono() + seconds
        if self._timer is not None:
            if self._due <= when:
                return
            self._timer.cancel()
        self._due, self._timer = when, self._clock.call_at(when, self._look)

    def reload(self) -> None:
        """Read the files again, changed or not."""
        if self._closed:
            return
        if self._reading is not None:
            self._again = True
            return
        self._taken = self._seen = self._signature()
        self._reading = asyncio.get_running_loop().run_in_executor(None, self._read)
        self._reading.add_done_callback(self._done)

    async def close(self) -> None:
        """Look no more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._noticing is not None:
            await self._noticing.close()
        if self._reading is not None:
            await asyncio.wait([self._reading])

    def told(self) -> dict[str, object]:
        """How the configuration stands, for the owner."""
        return {"valid": not self.problems, "problems": list(self.problems), "since": self.since}

    def _look(self) -> None:
        self._timer = None
        signature, now = self._signature(), self._clock.mono()
        settled = signature == self._seen
        if not settled:
            self._since_seen = now
        patience = EMPTIED if _emptied(self._taken, signature) else 0.0
        if signature != self._taken and settled and now - self._since_seen >= patience:
            self.reload()
        self._seen = signature
        if not settled and self._noticing is not None:
            self._arm(SETTLED)
        elif not settled or (patience and signature != self._taken):
            self._arm(LOOK_EVERY)
        else:
            self._arm(self._pause)

    def _done(self, reading: asyncio.Future[Config]) -> None:
        self._reading = None
        if reading.cancelled() or self._closed:
            return
        error = reading.exception()
        if error is None:
            self._take(reading.result())
        elif isinstance(error, ConfigError):
            self._refuse(error.problems)
        else:
            self._refuse([f"it cannot be read: {type(error).__name__}"])
        if self._again:
            self._again = False
            self.reload()

    def _take(self, config: Config) -> None:
        before = self._gateway.config
        self._gateway.adopt(config)
        self._adopted(config)
        self.problems, self.since = (), self._clock.wall()
        if [each.path for each in before.files] != [each.path for each in config.files]:
            self._taken = self._seen = self._signature()
        grouped = self._gateway.adapting.grouped(config)
        self._gateway.events.emit(Reloaded(changes=tuple(changes(before, grouped))))

    def _refuse(self, problems: Iterable[str]) -> None:
        redact = self._gateway.redactor.text
        self.problems = tuple(redact(each) for each in problems)
        self._gateway.events.emit(Reloaded(problems=self.problems))

    def _signature(self) -> Signature:
        return tuple(_stamp(each.path) for each in self._gateway.config.files)


def _emptied(before: Signature, after: Signature) -> bool:
    """Whether a file that held something is gone or empty: perhaps it is just being written anew."""
    return any(
        old is not None and old[3] and (new is None or not new[3]) for old, new in zip(before, after, strict=False)
    )


def _stamp(path: Path) -> tuple[str, int, int, int] | None:
    """What changes when the file at *path* does; None when there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return str(path), found.st_ino, found.st_mtime_ns, found.st_size


def _uses(config: Config, name: str) -> dict[str, tuple[object, ...]]:
    """How each key of a provider is used."""
    keys = config.credentials.get(name, ())
    return {each.fingerprint: (each.priority, each.group, each.plan, each.weight) for each in keys}


def changes(before: Config, after: Config) -> Iterator[str]:
    """What is different, in a few words each; no secret."""
    for name in sorted(before.providers.keys() | after.providers.keys()):
        had = {each.fingerprint for each in before.credentials.get(name, ())}
        has = {each.fingerprint for each in after.credentials.get(name, ())}
        if name not in after.providers:
            yield f"{name} is gone"
        elif name not in before.providers:
            yield f"{name} is new"
        elif had != has:
            yield f"{name}: {len(has - had)} keys new, {len(had - has)} gone"
        elif before.providers[name] != after.providers[name]:
            yield f"{name}: its address or another of its settings changed"
        if had == has and _uses(before, name) != _uses(after, name):
            yield f"{name}: priority, group, plan or weight of its keys changed"
    for what in CHANGING:
        if getattr(before, what) != getattr(after, what):
            yield f"{CHANGING_IN_WORDS.get(what, what.replace('_', ' '))} changed"
    for what in ("use_paid", "price_tiers", "cooldown"):
        if getattr(before, what) != getattr(after, what):
            yield f"{what.replace('_', ' ')}: {getattr(after, what)}"
    for what in AT_NEXT_START:
        if getattr(before.server, what) != getattr(after.server, what):
            yield f"server.{what} is heeded at the next start"
    for what in STORES:
        if getattr(before, what) != getattr(after, what):
            yield f"what is said of {what} is heeded at the next start"
    if before.data != after.data:
        yield "the data folder is heeded at the next start"
