"""Limits that the owner pinned: `pinned.json` in the data folder, written by `keyturn limits pin`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from keyturn.errors import ConfigError

PIN_METRICS = ("requests", "tokens", "input_tokens", "output_tokens", "concurrency")
PIN_WINDOWS = ("second", "minute", "hour", "day", "month")
MOST_PINS = 1000


class Pin(msgspec.Struct, frozen=True):
    """At most *capacity* of *metric* in a *window* for keys of *provider* on *model*, whatever anybody else says."""

    provider: str
    model: str
    """The provider's own name, or a pattern with `*` and `?`."""
    metric: Literal["requests", "tokens", "input_tokens", "output_tokens", "concurrency"]
    window: Literal["second", "minute", "hour", "day", "month", "inflight"]
    capacity: int
    key: str = ""
    """The fingerprint of the key that it is for, with all that share its quota group; empty: all keys."""
    at: float = 0.0
    """When it was pinned, Unix seconds."""

    @property
    def subject(self) -> tuple[str, ...]:
        """What it is about: of each there is one."""
        return self.provider, self.model, self.metric, self.window, self.key


def read_pins(path: Path) -> tuple[Pin, ...]:
    """What is pinned. Raises ConfigError when the file is broken, rather than send what the owner forbade."""
    try:
        pins = msgspec.json.decode(path.read_bytes(), type=tuple[Pin, ...])
    except FileNotFoundError:
        return ()
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError([f"{path}: cannot be read ({error}); mend it or remove it"]) from error
    return tuple(pin for pin in pins if pin.capacity >= 1)


def written_pins(pins: Sequence[Pin]) -> bytes:
    """The content of the file."""
    return msgspec.json.format(msgspec.json.encode(tuple(pins)), indent=2) + b"\n"


def with_pin(pins: Sequence[Pin], pin: Pin) -> tuple[Pin, ...]:
    """*pins* with *pin*, in place of one about the same. Raises ConfigError when there are too many."""
    kept = [each for each in pins if each.subject != pin.subject]
    if len(kept) >= MOST_PINS:
        raise ConfigError([f"{MOST_PINS:,} limits are pinned already; `keyturn limits clear` takes some away"])
    return (*kept, pin)
