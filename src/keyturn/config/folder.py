"""The data folder: its owner's lock, the caller and admin keys, where the gateway listens, which keys are disabled.

Every file in it is private (0600, in a folder made 0700) and written whole or not at all: into a temporary file,
flushed to the disk, then renamed. None of this is on the path of a call.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from keyturn.core import Secret
from keyturn.errors import ConfigError, DataFolderInUse

from .backups import write_whole
from .pins import Pin, read_pins, written_pins

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

CALLER_KEY_PREFIX = "kt-"
WORKERS = "workers"
"""The folder in it whose folders belong to one worker each."""
GLANCES = 1000
"""Times that a lock is tried while others only look whether it is taken, which is over at once."""
MONTHS_KEPT = 3
"""Months besides the present one whose spend is kept."""
INDEX_FILES = {"gemini": "google_ai_studio"}
"""Whose rotation index is kept under another name than the provider's."""


class Owner(NamedTuple):
    """The gateway that owns a data folder: its process and where it listens."""

    pid: int
    url: str


class SpendBefore(NamedTuple):
    """What `spend.json` holds."""

    months: dict[str, dict[str, int]]
    """Month (`2026-11`) -> `role/<name>` or `caller/<name>` -> nano-dollars."""
    source: str
    """Names this content, so that it is taken over once."""


def write_private(path: Path, content: bytes) -> None:
    """Replaces *path* by *content* with mode 0600: a reader, or a crash, sees the old file or the new one."""
    write_whole(path, content)


class DataFolder:
    """The files under *path*. Nothing is created before it is needed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.caller_key_file = path / "caller.key"
        self.admin_key_file = path / "admin.key"
        self.gateway_file = path / "gateway.json"
        self.lock_file = path / "lock"
        self.disabled_file = path / "disabled.json"
        self.pinned_file = path / "pinned.json"
        self.spend_file = path / "spend.json"
        self.groups_file = path / "quota_groups.json"
        self._lock: int | None = None
        self._lock_waits = False

    def parts(self) -> tuple[DataFolder, ...]:
        """This folder, and the parts of it that belong to the workers which have been here."""
        numbered = (path for path in (self.path / WORKERS).glob("*") if path.name.isdecimal())
        return (self, *(DataFolder(path) for path in sorted(numbered)))

    def create(self) -> None:
        """Makes the folder, private; one that exists is left as it is. Raises ConfigError when that cannot be done."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError([f"data folder {self.path}: {error.strerror}; choose another with --data"]) from error

    def lock(self) -> None:
        """Takes the folder for this process until `release` or its end. Raises DataFolderInUse, or ConfigError."""
        self.create()
        try:
            descriptor = os.open(self.lock_file, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigError([f"data folder {self.path}: {error.strerror}; choose another with --data"]) from error
        try:
            _lock_exclusively(descriptor, self._lock_waits)
        except OSError as error:
            pid = _named_in(descriptor)
            os.close(descriptor)
            raise DataFolderInUse(
                f"process {pid or '(unknown)'} already uses {self.path}, as a gateway or through the "
                "library. Stop it, or give this one "
                "another --data folder and other keys: two gateways on the same keys need shared state (REDIS_URL)."
            ) from error
        self._lock = descriptor
        with contextlib.suppress(OSError):  # a full disk: whoever comes too late is not told the number
            os.ftruncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())

    def release(self) -> None:
        """Gives the folder up. The lock file stays: removing it would let two owners in."""
        if self._lock is None:
            return
        self.withdraw()
        os.close(self._lock)
        self._lock = None

    def withdraw(self) -> None:
        """Tells nobody to call a gateway here: not this process's, nor one that was killed. Only for the owner."""
        for file in (self.gateway_file, self.admin_key_file):
            file.unlink(missing_ok=True)

    def disown(self) -> None:
        """In a process that was forked from the owner: the folder stays the parent's, and is not kept from others."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def publish(self, url: str) -> None:
        """Tells commands where this process listens. Only for the owner. Raises OSError."""
        write_private(self.gateway_file, json.dumps({"pid": os.getpid(), "url": url}).encode())

    def holder(self) -> int | None:
        """The process that has taken this folder, as a gateway or through the library: 0 when its number is not known,
        None when there is none. A process that was killed has let go of it, whatever it left behind."""
        try:
            descriptor = os.open(self.lock_file, os.O_RDONLY)
        except OSError:
            return None
        try:
            return _named_in(descriptor) if _is_locked(descriptor) else None
        finally:
            os.close(descriptor)

    def owner(self) -> Owner | None:
        """The running gateway, None when there is none or what it left behind is stale."""
        try:
            found = json.loads(self.gateway_file.read_bytes())
            owner = Owner(int(found["pid"]), str(found["url"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return owner if _alive(owner.pid) and self.holder() is not None else None

    def caller_key(self) -> Secret:
        """The key that callers present: made on first use, the same ever after. Raises ConfigError when unreadable."""
        return self.existing_caller_key() or self._new_caller_key()

    def existing_caller_key(self) -> Secret | None:
        """The caller key, None when there is none yet. A blank file counts as none: nobody can have used it."""
        key = _read_key(self.caller_key_file)
        if key and not (key.isascii() and key.isprintable() and " " not in key):
            raise ConfigError(
                [f"{self.caller_key_file}: is not one line of plain characters; remove it and a new key is made"]
            )
        return Secret(key) if key else None

    def _new_caller_key(self) -> Secret:
        self.create()
        return _written_key(self.caller_key_file, CALLER_KEY_PREFIX + secrets.token_urlsafe(32))

    def new_admin_key(self) -> Secret:
        """A fresh key for our own commands, replacing the last one. Only for the owner. Raises ConfigError."""
        return _written_key(self.admin_key_file, secrets.token_urlsafe(32))

    def admin_key(self) -> Secret | None:
        """The running gateway's admin key, None when there is none."""
        key = _read_key(self.admin_key_file)
        return Secret(key) if key else None

    def disabled(self) -> dict[str, str]:
        """Credentials that their owner switched off: fingerprint → the shown form it had then.

        Raises ConfigError when the file is broken, rather than use a key that was switched off.
        """
        try:
            found = json.loads(self.disabled_file.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise ConfigError([f"{self.disabled_file}: cannot be read ({error}); mend it or remove it"]) from error
        if not isinstance(found, dict) or not all(isinstance(shown, str) for shown in found.values()):
            raise ConfigError([f"{self.disabled_file}: must be an object of fingerprints; mend it or remove it"])
        return found

    def quota_groups(self) -> dict[str, Any]:
        """What was found out about keys that share a quota; empty when there is nothing, or nothing that can be read:
        it would be found out again."""
        try:
            found = json.loads(self.groups_file.read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def write_quota_groups(self, found: Mapping[str, Any]) -> None:
        """Replaces it."""
        self.create()
        write_private(self.groups_file, json.dumps(dict(found), indent=2).encode() + b"\n")

    def rotation_index(self, provider: str) -> int:
        """Where the round robin of *provider* stood, from 0. A file that is missing or broken counts as 0."""
        try:
            latest = max(self.parts(), key=lambda part: _written_at(part.index_file(provider)))
            found = json.loads(latest.index_file(provider).read_bytes())
            index = found["current_index"] if isinstance(found, dict) else found
        except (OSError, ValueError, KeyError):
            return 0
        return index if isinstance(index, int) and not isinstance(index, bool) and index >= 0 else 0

    def write_rotation_index(self, provider: str, index: int) -> None:
        """Keeps *index* for the next start."""
        self.create()
        write_private(self.index_file(provider), json.dumps({"current_index": index}).encode() + b"\n")

    def index_file(self, provider: str) -> Path:
        """Where the rotation index of *provider* is kept."""
        return self.path / f"{INDEX_FILES.get(provider, provider)}.keyidx"

    def spent(self, month: str) -> dict[str, int]:
        """What was spent in *month* (`2026-11`), in nano-dollars: `role/<name>` and `caller/<name>` -> amount.

        Each worker writes down what all spent together, as far as it knows: the most that any of them says counts.
        Raises ConfigError when the file is broken, rather than spend a month's money twice.
        """
        return self._spend_of_all().get(month, {})

    def spend_before(self) -> SpendBefore | None:
        """What was spent before there was a ledger; None when nothing is written down. Raises ConfigError as `spent`
        does."""
        months = self._spend_of_all()
        if not months:
            return None
        digest = hashlib.sha256(json.dumps(months, sort_keys=True).encode()).hexdigest()[:16]
        return SpendBefore(months, f"spend.json {digest}")

    def set_spend_aside(self) -> None:
        """The ledger has the spend now: the file is called `spend.json.migrated` from now on. What a worker finds stays
        for the others. Raises ConfigError."""
        parts = self.parts()
        for part in parts if parts[0].path == self.path else ():
            try:
                part.spend_file.replace(part.spend_file.with_name("spend.json.migrated"))
            except FileNotFoundError:
                continue
            except OSError as error:
                raise ConfigError([f"{part.spend_file}: {error.strerror}; make it and its folder writable"]) from error

    def _spend_of_all(self) -> dict[str, dict[str, int]]:
        """Month -> scope -> the most nano-dollars that any part says."""
        most: dict[str, dict[str, int]] = {}
        for part in self.parts():
            for month, amounts in part._spend().items():
                known = most.setdefault(month, {})
                for scope, amount in amounts.items():
                    known[scope] = max(amount, known.get(scope, 0))
        return most

    def _spend(self) -> dict[str, dict[str, int]]:
        """Month -> scope -> nano-dollars."""
        try:
            found = json.loads(self.spend_file.read_bytes())
            months = {**found.get("other_months", {}), found["month"]: found["usd"]}
            return {
                month: {scope: round(float(usd) * 1e9) for scope, usd in amounts.items()}
                for month, amounts in months.items()
            }
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                [f"{self.spend_file}: cannot be read; mend it, or remove it to begin the month's budgets anew"]
            ) from error

    def write_spent(self, month: str, spent: Mapping[str, int]) -> None:
        """Replaces what was spent in *month*, nano-dollars by scope; a few other months stay: a clock may be wrong."""
        self.create()
        months = self._spend()
        months.pop(month, None)
        others = {each: _in_usd(months[each]) for each in sorted(months)[-MONTHS_KEPT:]}
        told = {"month": month, "usd": _in_usd(spent)} | ({"other_months": others} if others else {})
        write_private(self.spend_file, json.dumps(told, indent=2).encode() + b"\n")

    def pins(self) -> tuple[Pin, ...]:
        """The limits that the owner pinned. Raises ConfigError when the file is broken."""
        return read_pins(self.pinned_file)

    def write_pins(self, pins: Sequence[Pin]) -> None:
        """Replaces the limits that are pinned."""
        self.create()
        write_private(self.pinned_file, written_pins(pins))

    def write_disabled(self, disabled: Mapping[str, str]) -> None:
        """Replaces the set of credentials that are switched off."""
        self.create()
        write_private(self.disabled_file, json.dumps(dict(disabled), indent=2, sort_keys=True).encode() + b"\n")


def _in_usd(amounts: Mapping[str, int]) -> dict[str, float]:
    return {scope: round(amount / 1e9, 9) for scope, amount in sorted(amounts.items())}


def _lock_exclusively(descriptor: int, waits: bool) -> None:
    """Raises OSError when another process has it, unless this *waits*."""
    if sys.platform == "win32":
        msvcrt.locking(descriptor, msvcrt.LK_LOCK if waits else msvcrt.LK_NBLCK, 1)
        return
    for _ in range(GLANCES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
            return
        except OSError:
            if _is_locked(descriptor):
                raise
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_locked(descriptor: int) -> bool:
    """Whether another process has the folder. Who looks shares the lock for that moment with others who look."""
    try:
        if sys.platform == "win32":
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    except OSError:
        return True
    return False


def _named_in(descriptor: int) -> int:
    """The process that has written itself into a lock file; 0 when none has yet."""
    text = os.pread(descriptor, 32, 0).decode(errors="replace").strip() if sys.platform != "win32" else ""
    return int(text) if text.isascii() and text.isdigit() else 0


def _alive(pid: int) -> bool:
    if sys.platform == "win32" or pid <= 0:
        return pid > 0  # os.kill would end the process on Windows; a stale address then shows by not answering
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _written_at(path: Path) -> int:
    """When *path* was last written, in nanoseconds; below every moment when there is no such file."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return -1


def _written_key(path: Path, key: str) -> Secret:
    try:
        write_private(path, key.encode() + b"\n")
    except OSError as error:
        raise ConfigError(
            [f"{path}: {error.strerror}; make room, or make its folder writable, or choose another with --data"]
        ) from error
    return Secret(key)


def _read_key(path: Path) -> str:
    try:
        key = path.read_bytes().decode().strip()
        if sys.platform != "win32" and path.stat().st_mode & 0o077:
            path.chmod(0o600)
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: cannot be read; remove it and a new one is made at the next start"]) from error
    return key
