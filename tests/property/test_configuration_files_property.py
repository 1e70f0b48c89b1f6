"""Any text and any data as configuration files: a Config or a ConfigError whose every line says where; nothing else."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from keyturn.config import load
from keyturn.errors import ConfigError

FILES = ("models.yaml", "roles.yaml", "limits.yaml", "callers.yaml", "settings.toml")
WORDS = st.sampled_from(
    """
    providers provider_routes aliases models roles groq google_ai_studio my_box codex_cli demo kind http cli cmd
    base_url api_keys api_key rotation strategy balanced plan free quota_groups id provider tier is_paid capabilities
    vision price input output name model model_chain budgets monthly_limit default_limits default rpm tpm key_env
    key_hash class weight https://example.com/v1 ${A} ${B:-x} a b c server port timeouts connect discord webhooks chain
    root <http> <cli>
    """.split()
)
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(-3, 10**18), st.floats(), WORDS, st.text(max_size=8))
DATA = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(WORDS | st.text(max_size=4), inner, max_size=5)
    ),
    max_leaves=30,
)
SIGNS = st.text(st.sampled_from("abc:{}[]\"'-#&*!|>%@`,?~<$ \n\t\\0\x00é\ue024"), max_size=80)


def checked(name: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config").mkdir()
        (Path(folder) / "config" / name).write_bytes(content)
        try:
            load({"PATH": "", "A": "one"}, cwd=Path(folder))
        except ConfigError as error:
            for line in error.problems:
                assert re.match(r"config/[a-z]+\.(yaml|toml)(:[0-9]+)?: .", line), line
                assert line.isprintable(), line


@given(st.sampled_from(FILES), SIGNS)
def test_any_text(name: str, text: str) -> None:
    checked(name, text.encode("utf-8", "surrogatepass"))


@given(st.sampled_from(FILES), st.binary(max_size=40))
def test_any_bytes(name: str, content: bytes) -> None:
    checked(name, content)


@given(st.sampled_from(FILES[:4]), DATA)
def test_any_data(name: str, data: Any) -> None:
    checked(name, json.dumps(data).encode())


@given(
    st.sampled_from(
        [
            '{"providers": {"groq": %s}}',
            '{"providers": {"mine": {"kind": "cli", "cmd": ["a"], "env": %s}}}',
            '{"provider_routes": [%s]}',
            '{"provider_routes": [{"id": "a", "provider": %s}]}',
            '{"aliases": {"a": %s}}',
            '{"models": {"a": %s}}',
        ]
    ),
    DATA,
)
def test_any_data_inside_of_models(around: str, data: Any) -> None:
    checked("models.yaml", (around % json.dumps(data)).encode())
