"""Merging a new models.yaml: its text as it is, what only the old file has behind it, comments on both sides."""

from __future__ import annotations

import shutil
import stat
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

from keyturn.config import ModelsMerge, Options, load, merge_models
from keyturn.errors import ConfigError
from tests.support.crashing import disturbed, killed, no_space, steps_of

STAMP = "20261121_091500"

OLD = """\
# the old file
providers:
  # on this machine
  my_server: { kind: http, base_url: "http://127.0.0.1:1/v1" }   # local
  groq:
    kind: http
    env_key: GROQ_API_KEY   # mine

provider_routes:
# the first
- id: llama-old
  provider: groq
  # inside of it
  is_paid: false   # as far as I know

# replaced by the new file
- { id: both, provider: groq, is_paid: true }
-
  id: third
  provider: google_ai_studio
  capabilities: { streaming: true }

# short names
aliases:
  fast: llama-old
  pair: [both, third]   # two
models:
  legacy-one:
    provider_name: openrouter
    is_paid: true
"""

NEW = """\
# the new file
providers:
    google_ai_studio:
        kind: http
        base_url: https://generativelanguage.googleapis.com
        api_keys: [${GOOGLE_API_KEY_1}, ${GOOGLE_API_KEY_2}, ${MORE:-a,b}]  # bare
    together: { kind: http, base_url: "${TOGETHER_URL:-https://api.together.ai/v1}", env_key: TOGETHER_API_KEY }
    # the end of providers
provider_routes:
    - { id: both, provider: groq }
    - { id: newer, provider: gemini }
    # - { id: not-yet, provider: groq }
# the end
"""

RESULT = """\
# the new file
providers:
    google_ai_studio:
        kind: http
        base_url: https://generativelanguage.googleapis.com
        api_keys: [${GOOGLE_API_KEY_1}, ${GOOGLE_API_KEY_2}, ${MORE:-a,b}]  # bare
    together: { kind: http, base_url: "${TOGETHER_URL:-https://api.together.ai/v1}", env_key: TOGETHER_API_KEY }
    # on this machine
    my_server: { kind: http, base_url: "http://127.0.0.1:1/v1" }   # local
    groq:
      kind: http
      env_key: GROQ_API_KEY   # mine
<expected>
    # the end of providers
provider_routes:
    - { id: both, provider: groq }
    - { id: newer, provider: gemini }
    # the first
    - id: llama-old
      provider: groq
      # inside of it
      is_paid: false   # as far as I know
    -
      id: third
      provider: google_ai_studio
      capabilities: { streaming: true }
    # - { id: not-yet, provider: groq }
# the end

# short names
aliases:
  fast: llama-old
  pair: [both, third]   # two

models:
  legacy-one:
    provider_name: openrouter
    is_paid: true
"""


def merge(folder: Path, old: str | None, new: str | bytes, *, keep_source: bool = False) -> ModelsMerge:
    (folder / "config").mkdir(exist_ok=True)
    if old is not None:
        (folder / "config" / "models.yaml").write_text(old)
    (folder / "models.yaml.new").write_bytes(new if isinstance(new, bytes) else new.encode())
    return merge_models({}, None, folder, Path("config"), Path("models.yaml.new"), stamp=STAMP, keep_source=keep_source)


def merged(folder: Path, old: str | None, new: str) -> str:
    return merge(folder, old, new).file.read_text()


def data_of(text: str) -> dict[str, object]:
    found: dict[str, object] = yaml.safe_load(text)
    return found


def test_CFG_08_routes_merge_keeps_old_slugs_and_the_comments_of_both(tmp_path: Path) -> None:
    done = merge(tmp_path, OLD, NEW)
    text = done.file.read_text()
    head, tail = RESULT.split("<expected>\n")
    assert text.startswith(head)
    assert text.endswith(tail)
    assert done.kept == {
        "providers": ("my_server", "groq"),
        "provider_routes": ("llama-old", "third"),
        "aliases": ("fast", "pair"),
        "models": ("legacy-one",),
    }
    assert done.added == ("openrouter", "codex_cli", "claude_code")
    assert not (tmp_path / "models.yaml.new").exists()
    config = load({"GROQ_API_KEY": "g"}, cwd=tmp_path)
    assert {"llama-old", "both", "newer", "third", "legacy-one"} <= set(config.routes)
    assert {"fast", "pair"} <= set(config.names)


def test_CFG_02_a_second_merge_changes_nothing_but_leaves_its_own_backup(tmp_path: Path) -> None:
    first = merge(tmp_path, OLD, NEW)
    once = first.file.read_bytes()
    second = merge(tmp_path, None, NEW)
    assert first.file.read_bytes() == once
    assert second.added == ()
    assert first.backup is not None
    assert second.backup is not None
    assert (first.backup.name, first.backup.read_text()) == (f"models.yaml.bak.{STAMP}", OLD)
    assert (second.backup.name, second.backup.read_bytes()) == (f"models.yaml.bak.{STAMP}.1", once)


def test_CFG_02_the_documented_rollback_restores_every_byte(tmp_path: Path) -> None:
    done = merge(tmp_path, OLD, NEW)
    assert done.backup is not None
    shutil.copyfile(done.backup, done.file)  # cp config/models.yaml.bak.<ts> config/models.yaml
    assert done.file.read_text() == OLD


@pytest.mark.parametrize("new", ["provider_routes: []\n", "providers:\n  groq: { kind: http, env_key: MINE }\n"])
def test_CFG_05_the_six_providers_are_there_with_their_addresses(tmp_path: Path, new: str) -> None:
    merge(tmp_path, None, new)
    text = (tmp_path / "config" / "models.yaml").read_text()
    keys = "[${GOOGLE_API_KEY_1}, ${GOOGLE_API_KEY_2}, ${GOOGLE_API_KEY_3}, ${GOOGLE_API_KEY_4}, ${GOOGLE_API_KEY_5}]"
    assert f"api_keys: {keys}\n" in text
    providers = yaml.safe_load(text.replace(keys, "[a]"))["providers"]
    assert set(providers) == {"groq", "together", "openrouter", "google_ai_studio", "codex_cli", "claude_code"}
    assert [providers[name]["base_url"] for name in ("together", "openrouter", "google_ai_studio")] == [
        "https://api.together.ai/v1",
        "https://openrouter.ai/api/v1",
        "https://generativelanguage.googleapis.com",
    ]
    assert providers["google_ai_studio"]["rotation"] == {"strategy": "round_robin", "cooldown_seconds": 60}
    assert providers["codex_cli"]["cmd"][:2] == ["codex", "exec"]
    assert providers["claude_code"]["cmd"][:2] == ["claude", "-p"]
    if "MINE" in new:
        assert providers["groq"] == {"kind": "http", "env_key": "MINE"}
    else:
        assert providers["groq"]["base_url"] == "https://api.groq.com/openai/v1"


def test_a_provider_under_another_of_its_names_is_not_added_again(tmp_path: Path) -> None:
    old = "providers:\n  google: { kind: http, api_keys: [a] }\n"
    merge(tmp_path, old, "providers:\n  gemini: { kind: http, api_keys: [b] }\n")
    providers = data_of((tmp_path / "config" / "models.yaml").read_text())["providers"]
    assert isinstance(providers, dict)
    assert {"google", "google_ai_studio"}.isdisjoint(providers)


ROUTE_A, ROUTE_B = {"id": "a", "provider": "groq"}, {"id": "b", "provider": "groq"}
A, B = "{ id: a, provider: groq }", "{ id: b, provider: groq }"


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ("aliases:\n  a: x\n", "aliases: { b: y }  # in a line\n", {"b": "y", "a": "x"}),
        ("aliases: { a: [x, 'y: z'] }\n", "aliases:\n  b: y\n", {"b": "y", "a": ["x", "y: z"]}),
        ("aliases: { a: x }\n", "aliases: {}  # none\n", {"a": "x"}),
        ("aliases: { a: x }\n", "aliases:\n", {"a": "x"}),
        ("aliases: { a: x }\n", "x: 1\naliases: {}", {"a": "x"}),
        ("aliases: { a: x }\n", "aliases: {\n  b: y, # last\n}\n", {"b": "y", "a": "x"}),
        ("aliases:\n  a: >\n    x\n    y\n", "aliases:\n  b: |\n    z\n\n# end\n", {"b": "z\n", "a": "x y\n"}),
        ("z: &z { chain: [x] }\naliases:\n  a: *z\n", "aliases:\n  b: y", {"b": "y", "a": {"chain": ["x"]}}),
        ("aliases:\n  a: &n x\n  c: *n\n", "aliases:\n  b: &n y\n", {"b": "y", "a": "x", "c": "x"}),
        (f"provider_routes: [{A}]\n", "provider_routes:\n- id: b\n  provider: groq\n", [ROUTE_B, ROUTE_A]),
        ("provider_routes:\n- id: a\n  provider: groq\n", f"provider_routes: [{B}]\n", [ROUTE_B, ROUTE_A]),
        (f"provider_routes:\n- {A}\n", f"provider_routes: [{A.replace('groq', 'xai')}]\n",
         [ROUTE_A | {"provider": "xai"}, ROUTE_A]),
        (f"provider_routes: [{A.replace('groq', 'gemini')}]\n", f"provider_routes: [{A.replace('groq', 'google')}]\n",
         [ROUTE_A | {"provider": "google"}]),
        ("models: { a: { provider_name: groq } }\n", f"provider_routes: [{A}]\n", [ROUTE_A]),
    ],
)  # fmt: skip
def test_every_way_to_write_a_section(tmp_path: Path, old: str, new: str, wanted: object) -> None:
    merge_unchecked(tmp_path, old, new)
    text = (tmp_path / "config" / "models.yaml").read_text()
    data = data_of(text.replace("${", "(").replace("}, (", ", (").replace("5}]", "5]"))
    assert data["aliases" if "aliases" in new else "provider_routes"] == wanted
    assert "models" not in data
    for comment in ("# in a line", "# none", "# last", "# end"):
        assert (comment in text) is (comment in new)


def merge_unchecked(folder: Path, old: str, new: str) -> None:
    """Merges without asking whether the chains lead anywhere: these files are about form."""
    from keyturn.config import modelsmerge

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modelsmerge, "mistakes_with", lambda *_: [])
        merge(folder, old, new)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (OLD, "providers: [\n", r"models.yaml.new:\d+: .*Nothing was changed"),
        (OLD, "providers:\n\tgroq: 1\n", "a tab indents this line"),
        (OLD, "", "is empty"),
        (OLD, "# only comments\n", "is empty"),
        (OLD, "- a\n- b\n", "must be a mapping"),
        (OLD, b"a: \xff\n", "is not UTF-8"),
        (OLD, "provider_routes: { a: b }\n", "provider_routes must be a sequence in both files"),
        (OLD, "providers:\n  groq: { kind: htp }\n", r"models.yaml:\d+: "),
        ("providers: [\n", NEW, r"config/models.yaml:\d+: "),
    ],
)
def test_a_broken_file_changes_nothing(tmp_path: Path, old: str, new: str | bytes, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        merge(tmp_path, old, new)
    assert (tmp_path / "config" / "models.yaml").read_text() == old
    assert [each.name for each in (tmp_path / "config").iterdir()] == ["models.yaml"]
    assert (tmp_path / "models.yaml.new").exists()


def test_mistakes_elsewhere_do_not_stand_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "limits.yaml").write_text("providers: 5\n")
    assert merge(tmp_path, OLD, NEW).source_left is None


def test_line_ends_of_windows_are_kept_and_the_mode_too(tmp_path: Path) -> None:
    merge(tmp_path, OLD, NEW)
    (tmp_path / "config" / "models.yaml").chmod(0o640)
    plain = (tmp_path / "config" / "models.yaml").read_bytes()
    merge(tmp_path, None, NEW.replace("\n", "\r\n"))
    assert (tmp_path / "config" / "models.yaml").read_bytes() == plain.replace(b"\n", b"\r\n")
    assert stat.S_IMODE((tmp_path / "config" / "models.yaml").stat().st_mode) == 0o640


def test_the_shipped_file_takes_routes_of_ones_own(tmp_path: Path) -> None:
    from keyturn.config import shipped

    new = shipped("models.yaml")
    mine = "provider_routes:\n  # mine\n  - { id: my-own-model, provider: openrouter, is_paid: true }\n"
    merge(tmp_path, mine, new)
    result = (tmp_path / "config" / "models.yaml").read_bytes()
    lines = result.decode().splitlines()
    at = lines.index("  - { id: my-own-model, provider: openrouter, is_paid: true }")
    assert lines[at - 1] == "  # mine"
    assert "\n".join([*lines[: at - 1], *lines[at + 1 :], ""]).encode() == new
    assert "my-own-model" in load({}, cwd=tmp_path, options=Options(config=tmp_path / "config")).routes


# --- interruptions --------------------------------------------------------------------------------------------------


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "config").mkdir(parents=True)
    (folder / "config" / "models.yaml").write_text(OLD)
    (folder / "models.yaml.new").write_text(NEW)
    return folder


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a killed merge leaves of its own stays inside the folder of the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def run(folder: Path) -> ModelsMerge:
    return merge_models({}, None, folder, Path("config"), Path("models.yaml.new"), stamp=STAMP)


def expect_nothing_lost(folder: Path, result: bytes, where: str) -> None:
    content = (folder / "config" / "models.yaml").read_bytes()
    assert content in (OLD.encode(), result), where
    if content == result:
        assert (folder / "config" / f"models.yaml.bak.{STAMP}").read_text() == OLD, where
    else:
        assert (folder / "models.yaml.new").read_text() == NEW, where


@pytest.mark.parametrize("late", [False, True])
def test_an_error_at_any_step_loses_nothing(tmp_path: Path, late: bool) -> None:
    folder = fresh(tmp_path / "whole")
    steps = steps_of(lambda: run(folder))
    result = (folder / "config" / "models.yaml").read_bytes()
    for step in range(1, steps + 1):
        folder = fresh(tmp_path / "cut")
        with disturbed(step, no_space, late=late) as taken:
            try:
                run(folder)
            except ConfigError as error:
                said = error.message
            else:
                said = "done"
        expect_nothing_lost(folder, result, f"step {step}, {taken[step - 1]}: {said}")
        unchanged = (folder / "config" / "models.yaml").read_text() == OLD
        assert ("nothing was changed" in said) is unchanged


@pytest.mark.skipif(sys.platform == "win32", reason="kills a process of its own")
def test_a_kill_at_any_step_loses_nothing(tmp_path: Path) -> None:
    folder = fresh(tmp_path / "whole")
    steps = steps_of(lambda: run(folder))
    result = (folder / "config" / "models.yaml").read_bytes()
    for step in range(1, steps + 1):
        folder = fresh(tmp_path / "cut")
        killed(step, lambda: run(folder), late=step % 2 == 0)  # noqa: B023 - runs before the next turn
        expect_nothing_lost(folder, result, f"step {step}")
