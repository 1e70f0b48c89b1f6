"""The quota groups that were found out, and what their owner said against them, as they are written down.

They lie in `quota_groups.json` of the data folder. Keys are named there by fingerprint, so that a key with another
value is another key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from keyturn.config import Config, DataFolder


@dataclass(frozen=True, slots=True)
class Known:
    """Keys of one provider that were found to share a quota, by fingerprint."""

    provider: str
    keys: tuple[str, ...]
    since: float
    """Unix seconds."""
    evidence: tuple[str, ...]

    def told(self) -> dict[str, Any]:
        """As it is written down."""
        return {
            "provider": self.provider,
            "keys": list(self.keys),
            "since": self.since,
            "evidence": list(self.evidence),
        }


@dataclass(slots=True)
class Remembered:
    """What `quota_groups.json` holds."""

    groups: list[Known]
    apart: list[tuple[str, frozenset[str]]]
    """Provider, and keys of which the owner said that they do not share."""

    @classmethod
    def of(cls, folder: DataFolder | None) -> Remembered:
        """What is written down; what cannot be read is left out."""
        read = cls([], [])
        found = folder.quota_groups() if folder is not None else {}
        for row in _rows(found, "groups"):
            provider, since = row.get("provider"), row.get("since")
            keys, evidence = _texts(row.get("keys")), _texts(row.get("evidence"))
            if isinstance(provider, str) and isinstance(since, int | float) and len(keys) > 1:
                read.groups.append(Known(provider, keys, float(since), evidence))
        for row in _rows(found, "apart"):
            provider = row.get("provider")
            if isinstance(provider, str):
                read.apart.append((provider, frozenset(_texts(row.get("keys")))))
        return read

    def __bool__(self) -> bool:
        return bool(self.groups or self.apart)

    def told(self) -> dict[str, Any]:
        """As it is written down."""
        apart = [{"provider": provider, "keys": sorted(keys)} for provider, keys in self.apart]
        return {"groups": [each.told() for each in self.groups], "apart": apart}

    def refuse(self, fingerprints: Iterable[str]) -> list[Known]:
        """The owner says that these keys share with nobody: the groups that they were in, which are gone."""
        wrong = frozenset(fingerprints)
        broken = [each for each in self.groups if wrong.intersection(each.keys)]
        self.groups = [each for each in self.groups if each not in broken]
        for each in broken:
            self.apart.append((each.provider, frozenset(each.keys)))
            rest = tuple(key for key in each.keys if key not in wrong)
            if len(rest) > 1:
                self.groups.append(replace(each, keys=rest))
                self.apart[-1] = (each.provider, wrong.intersection(each.keys) | {rest[0]})
                self.apart += [(each.provider, wrong.intersection(each.keys) | {key}) for key in rest[1:]]
        return broken

    def forbids(self, provider: str, keys: Iterable[str]) -> bool:
        """Whether the owner said of some two of *keys* that they do not share."""
        together = set(keys)
        return any(name == provider and len(together & apart) > 1 for name, apart in self.apart)


def told(config: Config, remembered: Remembered, suggested: Iterable[Known] = ()) -> list[dict[str, Any]]:
    """The quota groups that were found out, for people."""
    shown = {each.fingerprint: each.shown for group in config.credentials.values() for each in group}
    rows = []
    for state, groups in (("inferred", remembered.groups), ("suggested", suggested)):
        for known in groups:
            since = datetime.fromtimestamp(known.since, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
            keys = [shown[key] for key in known.keys if key in shown]
            rows.append({**known.told(), "keys": keys, "since": since, "state": state})
    return rows


def groups_kept(config: Config, folder: DataFolder) -> list[dict[str, Any]]:
    """The same while no gateway runs, as far as it is written down."""
    return told(config, Remembered.of(folder))


def refuse_apart(folder: DataFolder, fingerprints: Iterable[str]) -> list[str]:
    """As `Kindred.ungroup`, while no gateway runs. Raises OSError."""
    remembered = Remembered.of(folder)
    broken = remembered.refuse(fingerprints)
    if broken:
        folder.write_quota_groups(remembered.told())
    return [key for each in broken for key in each.keys]


def _rows(found: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    rows = found.get(name)
    return [each for each in rows if isinstance(each, dict)] if isinstance(rows, list) else []


def _texts(value: object) -> tuple[str, ...]:
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else ()
