"""Files replaced whole: several writers at once, owners and modes, names of backups, file systems without links."""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path

import pytest
from dotenv import dotenv_values

from keyturn.config import add_key, merge_env
from keyturn.config.backups import back_up, create_whole, rewrite, write_whole
from keyturn.errors import ConfigError

STAMP = "20261121_091500"


@pytest.mark.skipif(sys.platform == "win32", reason="starts processes by fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_writers_at_the_same_time_lose_nothing_of_each_other(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("MINE=1\n")
    children = []
    for number in range(8):
        (tmp_path / f"new-{number}").write_text(f"NEW_{number}=x\n")
        pid = os.fork()
        if pid == 0:
            try:
                merge_env({}, None, tmp_path, Path(f"new-{number}"), stamp=STAMP)
                add_key({}, None, tmp_path, provider="groq", secret=f"key-{number}", stamp=STAMP)
                os._exit(0)
            finally:
                os._exit(1)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 8
    values = dotenv_values(tmp_path / ".env")
    assert {f"NEW_{number}" for number in range(8)} <= set(values)
    assert {f"key-{number}" for number in range(8)} <= set(values.values())
    assert len(list(tmp_path.glob(".env.bak.*"))) == 16


def test_a_backup_takes_a_name_that_is_free(tmp_path: Path) -> None:
    file = tmp_path / "models.yaml"
    (tmp_path / f"models.yaml.bak.{STAMP}").write_text("somebody's")
    (tmp_path / f"models.yaml.bak.{STAMP}.1").symlink_to("nowhere")
    backup = back_up(file, b"mine", STAMP)
    assert backup.name == f"models.yaml.bak.{STAMP}.2"
    assert (tmp_path / f"models.yaml.bak.{STAMP}").read_text() == "somebody's"
    assert not (tmp_path / "nowhere").exists()


def test_nothing_is_ever_made_over_something(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    (tmp_path / "folder").mkdir()
    assert not create_whole(tmp_path / "a", b"new")
    assert not create_whole(tmp_path / "folder", b"new")
    assert create_whole(tmp_path / "b", b"new", 0o644)
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o644
    assert (tmp_path / "a").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 3


def test_a_file_system_without_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert create_whole(tmp_path / "a", b"new")
    assert not create_whole(tmp_path / "a", b"newer")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_temporary_file_of_a_killed_writer_is_private_and_ignored_by_git(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Path] = []

    def look(*_: object) -> None:
        seen.extend(tmp_path.iterdir())
        assert [stat.S_IMODE(each.stat().st_mode) for each in seen] == [0o600]
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "replace", look)
    with pytest.raises(OSError, match="Input/output error"):
        write_whole(tmp_path / ".env", b"x")
    assert [each.name.startswith(".env.") for each in seen] == [True]  # .gitignore has .env.*
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_what_it_was_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("theirs")
    for before in (b"mine", None):
        with pytest.raises(ConfigError, match="was changed by somebody else meanwhile"):
            rewrite(tmp_path / "a", before, b"new", STAMP)
    assert [each.name for each in tmp_path.iterdir()] == ["a"]
