"""Live state while no gateway runs: what the last one left in the data folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keyturn.config import Config
    from keyturn.dispatch import Gateway

AGES = ((86_400.0, "day"), (3600.0, "hour"), (60.0, "minute"), (1.0, "second"))


def anything_left(config: Config) -> bool:
    """Whether an earlier gateway left a file behind in which live state may be."""
    from keyturn.stores import STATE_FILE

    return (config.data / STATE_FILE).exists()


def left_behind(config: Config) -> tuple[Gateway, float] | None:
    """A pool that stands as the last gateway did, and how many seconds ago that was; None when nothing is known of it,
    or others share it. Raises StoreError when the file cannot be read."""
    from keyturn.core import Instant
    from keyturn.dispatch import restore
    from keyturn.stores import MemoryState, boot_name, look_at_snapshot

    from .pool import open_pool

    kept = look_at_snapshot(config.data) if config.redis is None else None
    if kept is None:
        return None
    gateway = open_pool(config)
    clock, live = gateway.clock, gateway.live
    assert isinstance(live, MemoryState)
    restore(gateway, live, kept, Instant(clock.wall(), clock.mono(), boot_name()))
    return gateway, max(0.0, clock.wall() - kept.head.wall)


def forget(config: Config, key: str | None) -> list[str]:
    """Take out of the data folder what stands against the keys that *key* names, None: all; the shown names of those
    that had something. Raises DataFolderInUse when a program uses the folder, and StoreError."""
    from keyturn.config import DataFolder
    from keyturn.dispatch import matching
    from keyturn.stores import forget_marks

    if config.redis is not None or not config.data.exists():
        return []
    folder = DataFolder(config.data)
    folder.lock()
    try:
        found = left_behind(config)
        if found is None:
            return []
        gateway, _ = found
        named = matching(gateway, key)
        whole = [name for name in gateway.config.credentials if key in (None, name)]
        touched = gateway.reset(key)
        forget_marks(config.data, [each.fingerprint for each in named], [each.group for each in named], whole)
        return touched
    finally:
        folder.release()


def ago(seconds: float) -> str:
    """`3 minutes ago`."""
    for length, name in AGES:
        if seconds >= length:
            number = int(seconds // length)
            return f"{number} {name}{'s' * (number != 1)} ago"
    return "just now"
