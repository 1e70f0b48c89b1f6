"""`write_initial`: the shipped files, complete, valid, and never over what is there."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from dotenv import dotenv_values

from keyturn.config import Written, load, shipped, write_initial
from keyturn.errors import ConfigError
from tests.config.test_env_merge import NAMES
from tests.support.crashing import disturbed, no_space, steps_of

ROOT = Path(__file__).parents[2]
FILES = ["models.yaml", "roles.yaml", "limits.yaml", "settings.toml", "callers.yaml"]


def write(cwd: Path) -> list[Written]:
    return write_initial({}, None, cwd, Path("config"))


@pytest.mark.parametrize("name", FILES)
def test_the_repository_and_the_package_hold_the_same_files(name: str) -> None:
    assert (ROOT / "config" / name).read_bytes() == shipped(name), f"cp config/{name} src/keyturn/config/shipped/{name}"


def test_the_template_of_the_env_file_is_the_one_of_the_repository() -> None:
    assert (ROOT / ".env.example").read_bytes() == shipped("env.example"), "cp .env.example src/…/shipped/env.example"


def test_everything_is_written_and_loads(tmp_path: Path) -> None:
    written = write(tmp_path)
    schemas = [f"{name}.schema.json" for name in ("models", "roles", "limits", "callers", "settings")]
    assert [each.file.name for each in written] == [*FILES, *schemas, ".env"]
    for name in schemas:
        assert (tmp_path / "config" / "schema" / name).read_text() == (ROOT / "config" / "schema" / name).read_text()
    assert all(each.made for each in written)
    for name in FILES:
        assert (tmp_path / "config" / name).read_bytes() == shipped(name)
    config = load({"GROQ_API_KEY": "g"}, cwd=tmp_path)
    assert {"groq"} <= set(config.credentials)
    assert config.notes == ()
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "config" / "callers.yaml").stat().st_mode) == 0o600


def test_CFG_03_a_new_env_file_has_the_eleven_names(tmp_path: Path) -> None:
    write(tmp_path)
    text = (tmp_path / ".env").read_text()
    assert text.startswith(shipped("env.example").decode())
    assert {name for name in NAMES if text.count(f"\n{name}=") == 1} == set(NAMES)
    assert not any(dotenv_values(tmp_path / ".env").values())


def test_what_is_there_is_named_and_left(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "models.yaml").write_text("mine")
    (tmp_path / "config" / "roles.yaml").symlink_to("nowhere")
    (tmp_path / ".env").write_text("MINE=1\n")
    written = write(tmp_path)
    assert [each.file.name for each in written if not each.made] == ["models.yaml", "roles.yaml", ".env"]
    assert (tmp_path / "config" / "models.yaml").read_text() == "mine"
    assert (tmp_path / ".env").read_text() == "MINE=1\n"
    assert not (tmp_path / "config" / "nowhere").exists()
    assert not any(each.made for each in write(tmp_path))
    assert len(list((tmp_path / "config").iterdir())) == len(FILES) + 1


def test_an_error_at_any_step_leaves_whole_files_and_the_next_run_finishes(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    steps = steps_of(lambda: write(tmp_path / "whole"))
    for step in range(1, steps + 1):
        folder = tmp_path / f"cut-{step}"
        folder.mkdir()
        with disturbed(step, no_space):
            try:
                write(folder)
            except ConfigError as error:
                said = error.message
            else:
                said = "No space left"  # where a file has no link, or a temporary file stays behind
        assert "No space left" in said
        write(folder)
        for name in FILES:
            assert (folder / "config" / name).read_bytes() == shipped(name)
