"""[cache], [coalesce] and adaptive timeouts: what the file says, what the variables say over it, and mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyturn.config import CacheSettings, CoalesceSettings, Config
from keyturn.errors import ConfigError

from .files import loaded

FILE = """
[cache]
routes = ["fast", "g4f/*"]
ttl = 60
max_entries = 5
max_bytes = 1000
max_answer = 100
scope = "shared"
[coalesce]
routes = ["fast"]
max_buffer = 7
"""


def test_CAC_03_nothing_is_shared_unless_it_is_said(tmp_path: Path) -> None:
    config = loaded(tmp_path, {"CACHE_TTL": "5", "COALESCE_SCOPE": "shared"}, settings="[cache]\nttl = 60\n")
    assert (config.cache, config.coalesce) == (None, None)


def test_CAC_03_what_the_file_says(tmp_path: Path) -> None:
    config = loaded(tmp_path, settings=FILE)
    assert config.cache == CacheSettings(("fast", "g4f/*"), 60.0, 5, 1000, 100, "shared")
    assert config.coalesce == CoalesceSettings(("fast",), 7, "caller")
    assert config.origins["cache.ttl"] == "config/settings.toml:4"


def test_CAC_03_variables_win_over_the_file(tmp_path: Path) -> None:
    environ = {
        "CACHE_ROUTES": "slow, *",
        "CACHE_TTL": "1.5",
        "CACHE_MAX_ENTRIES": "6",
        "CACHE_MAX_BYTES": "2000",
        "CACHE_MAX_ANSWER": "200",
        "CACHE_SCOPE": "Caller",
        "COALESCE_ROUTES": "slow",
        "COALESCE_MAX_BUFFER": "8",
        "COALESCE_SCOPE": "shared",
    }
    config = loaded(tmp_path, environ, settings=FILE)
    assert config.cache == CacheSettings(("slow", "*"), 1.5, 6, 2000, 200, "caller")
    assert config.coalesce == CoalesceSettings(("slow",), 8, "shared")


def test_CAC_03_defaults(tmp_path: Path) -> None:
    config = loaded(tmp_path, {"CACHE_ROUTES": "*", "COALESCE_ROUTES": "*"}, settings="")
    assert config.cache == CacheSettings(("*",), 300.0, 10_000, 64 << 20, 1 << 20, "caller")
    assert config.coalesce == CoalesceSettings(("*",), 1 << 20, "caller")


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"CACHE_SCOPE": "share"}, "CACHE_SCOPE: 'share' is not one of caller and shared (did you mean shared?)"),
        ({"CACHE_MAX_BYTES": "64 MiB"}, "CACHE_MAX_BYTES: '64 MiB' is not a whole number above 0"),
        ({"COALESCE_MAX_BUFFER": "0"}, "COALESCE_MAX_BUFFER: '0' is not a whole number above 0"),
        ({"TIMEOUT_ADAPTIVE": "perhaps"}, "TIMEOUT_ADAPTIVE: 'perhaps' is neither true nor false"),
    ],
)
def test_CAC_03_mistakes_are_named(tmp_path: Path, environ: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, environ, settings="")
    assert caught.value.problems == [said]


def test_CAC_03_a_misspelled_variable_is_noted(tmp_path: Path) -> None:
    config = loaded(tmp_path, {"CACHE_ROUTE": "*", "CACHE_DIR": "/somewhere"}, settings="")
    assert [note for note in config.notes if "CACHE_" in note] == [
        "CACHE_ROUTE: is not read; did you mean CACHE_ROUTES?"
    ]


@pytest.mark.parametrize(
    ("environ", "settings", "adaptive"),
    [
        ({}, "", (False, 10.0)),
        ({}, "[timeouts]\nadaptive = true\nadaptive_floor = 4\n", (True, 4.0)),
        ({"TIMEOUT_ADAPTIVE": "no"}, "[timeouts]\nadaptive = true\n", (False, 10.0)),
        ({"TIMEOUT_ADAPTIVE": "1", "TIMEOUT_ADAPTIVE_FLOOR": "2.5"}, "", (True, 2.5)),
    ],
)
def test_CAC_04_adaptive_timeouts(
    tmp_path: Path, environ: dict[str, str], settings: str, adaptive: tuple[bool, float]
) -> None:
    config: Config = loaded(tmp_path, environ, settings=settings)
    assert (config.timeouts.adaptive, config.timeouts.adaptive_floor) == adaptive
