"""callers.yaml: keys shown once and stored hashed, comments that survive, refusals that change nothing."""

from __future__ import annotations

import hashlib
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.config import AddedCaller, CallerFile, load, shipped
from keyturn.errors import ConfigError, KeyturnError
from tests.support.crashing import disturbed, no_space, steps_of

STAMP = "20261121_091500"
MINE = """\
# who may ask

# the team upstairs
team_a:   # since May
  key_env: TEAM_A_KEY
  rpm: 10
# the batch jobs
nightly: { key_env: NIGHTLY_KEY, class: batch }
# the end
"""


def callers(cwd: Path) -> CallerFile:
    return CallerFile({}, None, cwd, Path("config"))


def add(cwd: Path, name: str, **settings: Any) -> AddedCaller:
    return callers(cwd).add(name, settings, stamp=STAMP)


def path(cwd: Path, text: str | bytes | None = None) -> Path:
    file = cwd / "config" / "callers.yaml"
    if text is not None:
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def test_a_key_is_random_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    first, second = add(tmp_path, "alice").key.reveal(), add(tmp_path, "bob").key.reveal()
    assert first != second
    assert first.startswith("kt-")
    assert len(first) > 40
    text = path(tmp_path).read_text()
    assert first not in text
    hashed = hashlib.sha256(first.encode()).hexdigest()
    assert f"alice:\n  key_hash: sha256:{hashed}\n" in text
    assert text.startswith("# Who may ask")
    config = load({}, cwd=tmp_path)
    assert config.callers[hashed].name == "alice"
    assert stat.S_IMODE(path(tmp_path).stat().st_mode) == 0o600


def test_settings_are_written_and_read_back(tmp_path: Path) -> None:
    key = add(
        tmp_path, "yes", routes=["gpt-*", "groq/*", "a:free"], weight=2, **{"class": "batch"}, rpm=3, monthly_usd=1.5
    ).key
    (caller,) = load({}, cwd=tmp_path).callers.values()
    assert (caller.name, caller.routes, caller.weight, caller.rank) == (
        "yes",
        ("gpt-*", "groq/*", "a:free"),
        2,
        "batch",
    )
    assert {limit.metric for limit in caller.limits} == {"requests", "cost"}
    row = callers(tmp_path).rows()[1]
    assert row.key == f"sha256:{hashlib.sha256(key.reveal().encode()).hexdigest()[:6]}"
    assert (row.name, row.routes, row.rpm, row.tpm, row.monthly_usd) == ("yes", caller.routes, 3, None, 1.5)


def test_comments_survive_and_a_backup_holds_what_was_there(tmp_path: Path) -> None:
    path(tmp_path, MINE)
    added = add(tmp_path, "new")
    text = path(tmp_path).read_text()
    lines = text.splitlines()
    at = lines.index("new:")
    assert "\n".join([*lines[: at - 1], *lines[at + 2 :], ""]) == MINE
    assert lines[at - 2] == "nightly: { key_env: NIGHTLY_KEY, class: batch }"
    assert added.backup is not None
    assert (added.backup.name, added.backup.read_text()) == (f"callers.yaml.bak.{STAMP}", MINE)
    again = callers(tmp_path).revoke("new", stamp=STAMP)
    assert (again.name, again.read_text()) == (f"callers.yaml.bak.{STAMP}.1", text)


def test_revoking_takes_out_the_entry_and_nothing_else(tmp_path: Path) -> None:
    path(tmp_path, MINE)
    callers(tmp_path).revoke("team_a", stamp=STAMP)
    assert path(tmp_path).read_text() == (
        "# who may ask\n\n# the team upstairs\n# the batch jobs\n"
        "nightly: { key_env: NIGHTLY_KEY, class: batch }\n# the end\n"
    )
    callers(tmp_path).revoke("nightly", stamp=STAMP)
    assert [row.name for row in callers(tmp_path).rows()] == ["default"]
    add(tmp_path, "new")
    assert [row.name for row in callers(tmp_path).rows()] == ["default", "new"]


@pytest.mark.parametrize(
    "text",
    [None, "", "# only a comment", "{}\n", "{ a: { key_env: A } }", "{ a: { key_env: A }, # c\n b: { key_env: B }, }\n",
     MINE, MINE.replace("\n", "\r\n"), shipped("callers.yaml"), "a:\n  key_env: A", "default: { rpm: 5 }\n"],
)  # fmt: skip
def test_what_is_added_and_revoked_leaves_everything_else_as_it_was(tmp_path: Path, text: str | bytes | None) -> None:
    if text is not None:
        path(tmp_path, text)
    before = [row for row in callers(tmp_path).rows() if row.name != "default"]
    add(tmp_path, "alice", routes=["fast"])
    add(tmp_path, "bob")
    rows = callers(tmp_path).rows()
    assert [row.name for row in rows if row.name != "default"] == [*(row.name for row in before), "alice", "bob"]
    callers(tmp_path).revoke("alice", stamp=STAMP)
    callers(tmp_path).revoke("bob", stamp=STAMP)
    assert [row for row in callers(tmp_path).rows() if row.name != "default"] == before
    content = text.encode() if isinstance(text, str) else text
    if content and content.endswith(b"\n") and b"{}" not in content and b"}," not in content:
        assert path(tmp_path).read_bytes() == content


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("team_a", "there is a caller team_a already"),
        ("default", "default is who presents PROXY_API_KEY"),
        ("two words", "a caller's name has letters"),
        ("-x", "a caller's name has letters"),
        ("", "a caller's name has letters"),
        ("x" * 65, "a caller's name has letters"),
        ("sk-planted-planted-planted", "this looks like a key"),
        ("kt-planted", "this looks like a key"),
    ],
)
def test_a_name_that_cannot_be_is_refused(tmp_path: Path, name: str, said: str) -> None:
    path(tmp_path, MINE)
    with pytest.raises(KeyturnError, match=said) as caught:
        add(tmp_path, name)
    assert "planted" not in caught.value.message
    assert path(tmp_path).read_text() == MINE
    assert len(list(path(tmp_path).parent.iterdir())) == 1


def test_an_unknown_caller_cannot_be_revoked(tmp_path: Path) -> None:
    with pytest.raises(KeyturnError, match="no caller to revoke"):
        callers(tmp_path).revoke("team_a", stamp=STAMP)
    path(tmp_path, MINE)
    with pytest.raises(KeyturnError, match="has no caller team_b; did you mean team_a"):
        callers(tmp_path).revoke("team_b", stamp=STAMP)


@pytest.mark.parametrize(("text", "said"), [("a: [\n", r"callers.yaml:\d+: "), ("- a\n", "must be a mapping")])
def test_a_broken_file_is_left_alone(tmp_path: Path, text: str, said: str) -> None:
    path(tmp_path, text)
    for act in (lambda: add(tmp_path, "x"), callers(tmp_path).rows, lambda: callers(tmp_path).revoke("a", stamp=STAMP)):
        with pytest.raises(ConfigError, match=said):
            act()
    assert path(tmp_path).read_text() == text


def test_settings_that_would_not_load_change_nothing(tmp_path: Path) -> None:
    path(tmp_path, MINE)
    with pytest.raises(ConfigError, match=r"callers\.yaml:\d+.*weight"):
        add(tmp_path, "x", weight=-1)
    assert path(tmp_path).read_text() == MINE


@pytest.mark.parametrize("variable", ["gsk_planted_planted_planted", "planted key"])
def test_a_key_in_the_place_of_its_variable_is_not_listed(tmp_path: Path, variable: str) -> None:
    path(tmp_path, f"a: {{ key_env: {variable} }}\nb: {{ key: planted, routes: planted }}\n")
    assert "planted" not in repr(callers(tmp_path).rows())


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,12}", fullmatch=True).filter(lambda name: name != "default"))
def test_any_name_is_read_back(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    folder = tmp_path_factory.mktemp("callers")
    add(folder, name)
    assert [caller.name for caller in load({}, cwd=folder).callers.values()] == [name]


@pytest.mark.parametrize("late", [False, True])
def test_an_error_at_any_step_leaves_the_old_file_or_the_new_one(tmp_path: Path, late: bool) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    path(folder, MINE)
    steps = steps_of(lambda: add(folder, "new"))
    for step in range(1, steps + 1):
        shutil.rmtree(folder)
        folder.mkdir()
        path(folder, MINE)
        with disturbed(step, no_space, late=late):
            try:
                add(folder, "new")
                said = ""
            except ConfigError as error:
                said = error.message
        unchanged = path(folder).read_text() == MINE
        assert unchanged is ("nothing was changed" in said)
        assert {row.name for row in callers(folder).rows()} >= {"team_a", "nightly"}
