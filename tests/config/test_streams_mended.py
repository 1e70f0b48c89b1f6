"""[stream]: whose streams hold calls back and whose texts go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyturn.config import StreamSettings
from keyturn.errors import ConfigError

from .files import loaded

FILE = """
[stream]
hold_tools = ["senior_dev", "openrouter/*"]
continue = ["fast"]
continue_elsewhere = ["fast"]
"""


def test_nothing_is_held_or_gone_on_with_unless_it_is_said(tmp_path: Path) -> None:
    assert loaded(tmp_path, settings="").stream == StreamSettings()


def test_what_the_file_says(tmp_path: Path) -> None:
    config = loaded(tmp_path, settings=FILE)
    assert config.stream == StreamSettings(("senior_dev", "openrouter/*"), ("fast",), ("fast",))
    assert config.origins["stream.continue"] == "config/settings.toml:4"


def test_variables_win_over_the_file(tmp_path: Path) -> None:
    environ = {"STREAM_HOLD_TOOLS": "a, b/*", "STREAM_CONTINUE": "*", "STREAM_CONTINUE_ELSEWHERE": "c"}
    stream = loaded(tmp_path, environ, settings=FILE).stream
    assert (stream.hold_tools, stream.goes_on, stream.goes_on_elsewhere) == (("a", "b/*"), ("*",), ("c",))


def test_a_misspelled_member_is_told_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="continue"):
        loaded(tmp_path, settings='[stream]\ncontinu = ["x"]\n')
