"""Merging a new env file: nothing set is lost, what is missing comes with its comments, and no crash costs anything."""

from __future__ import annotations

import shutil
import stat
import sys
import tempfile
from pathlib import Path

import pytest
from dotenv import dotenv_values
from hypothesis import given
from hypothesis import strategies as st

from keyturn.config import EnvMerge, load, merge_env
from keyturn.errors import ConfigError
from tests.support.crashing import disturbed, killed, no_space, steps_of

STAMP = "20261121_091500"
NAMES = (
    "OPENROUTER_API_KEY GROQ_API_KEY TOGETHER_API_KEY DEEPSEEK_API_KEY GOOGLE_API_KEY_1 GOOGLE_API_KEY_2 "
    "GOOGLE_API_KEY_3 GOOGLE_API_KEY_4 GOOGLE_API_KEY_5 DISCORD_BOT_TOKEN USE_PAID_MODELS"
).split()


def merge(folder: Path, old: str | bytes | None, new: str | bytes, *, keep_source: bool = False) -> EnvMerge:
    for name, text in ((".env", old), (".env.new", new)):
        if text is not None:
            (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return merge_env({}, None, folder, Path(".env.new"), stamp=STAMP, keep_source=keep_source)


def merged(folder: Path, old: str | bytes | None, new: str | bytes) -> str:
    """The result, up to the names that every merge adds."""
    merge(folder, old, new)
    text: str = (folder / ".env").read_bytes().decode()
    return text.partition("\n# Not set yet")[0].removesuffix("\n") + "\n"


def test_CFG_01_env_merge_preserves_existing_values(tmp_path: Path) -> None:
    done = merge(tmp_path, "# mine\nGROQ_API_KEY=gsk_old\nMINE=1\n", "GROQ_API_KEY=gsk_new\nTOGETHER_API_KEY=t\n")
    values = dotenv_values(tmp_path / ".env")
    assert (values["GROQ_API_KEY"], values["MINE"], values["TOGETHER_API_KEY"]) == ("gsk_old", "1", "t")
    assert not (tmp_path / ".env.new").exists()
    assert (done.added, done.kept, done.filled) == (("TOGETHER_API_KEY",), ("GROQ_API_KEY",), ())


def test_CFG_02_every_merge_leaves_a_backup_of_what_it_found(tmp_path: Path) -> None:
    before = b"# mine\r\nGROQ_API_KEY=old\r\n"
    first = merge(tmp_path, before, "A=1\n")
    between = (tmp_path / ".env").read_bytes()
    second = merge(tmp_path, None, "A=1\n")
    assert first.backup is not None
    assert second.backup is not None
    assert (first.backup.name, first.backup.read_bytes()) == (f".env.bak.{STAMP}", before)
    assert (second.backup.name, second.backup.read_bytes()) == (f".env.bak.{STAMP}.1", between)
    assert (tmp_path / ".env").read_bytes() == between
    assert stat.S_IMODE(first.backup.stat().st_mode) == 0o600


def test_CFG_02_the_documented_rollback_restores_every_byte(tmp_path: Path) -> None:
    before = "\ufeff# mine\r\nGROQ_API_KEY=old\r\n".encode()
    done = merge(tmp_path, before, "A=1\n")
    assert done.backup is not None
    shutil.copyfile(done.backup, tmp_path / ".env")  # cp .env.bak.<ts> .env
    assert (tmp_path / ".env").read_bytes() == before


@pytest.mark.parametrize("old", [None, "", "USE_PAID_MODELS=true\nexport GROQ_API_KEY='x'\n#DEEPSEEK_API_KEY=\n"])
def test_CFG_03_the_eleven_names_are_there_once(tmp_path: Path, old: str | None) -> None:
    done = merge(tmp_path, old, "TOGETHER_API_KEY=t\n")
    lines = (tmp_path / ".env").read_text().splitlines()
    assert sorted(
        line.removeprefix("export ").partition("=")[0] for line in lines if line[:1] not in ("#", "")
    ) == sorted(NAMES)
    assert set(done.blank) == {name for name in NAMES if not dotenv_values(tmp_path / ".env")[name]}
    config = load({}, cwd=tmp_path)
    assert "together" in config.credentials
    assert config.use_paid is (old is not None and "true" in old)


@pytest.mark.parametrize(
    ("old", "new", "result"),
    [
        ("A=1\n", "# why\n# really\nB=2 # inline\n", "A=1\n# why\n# really\nB=2 # inline\n"),
        ("A=1", "B=2", "A=1\nB=2\n"),
        ("A=1\n", "# head\n\nA=x\n\n# of b\n\nexport B='2'\n# tail\n", "A=1\n\n# of b\n\nexport B='2'\n"),
        ("B=\nA=\n", "A=1\nB=2\n", "B=2\nA=1\n"),
        ("A=  # get one\nB=x\n", 'A="a # b"\n', 'A="a # b"  # get one\nB=x\n'),
        ("export A=\n", "A='x' # theirs\n", "export A='x' # theirs\n"),
        ("A=''\n\n# c\nB=1\n", "A=x\n", "A=x\n\n# c\nB=1\n"),
        ("A=1\nA=\n", "A=2\n", "A=1\nA=2\n"),
        ("A=0\n", "B=1\nB=2\nB=\n", "A=0\nB=2\n"),
        ("A=1\n", "A=\n", "A=1\n"),
        ("no assignment\nA=1\n", "B=1\n", "no assignment\nA=1\nB=1\n"),
        ("A.B=\"x\"\n", "B=1\n", "A.B=\"x\"\nB=1\n"),
    ],
)  # fmt: skip
def test_order_and_comments_stay(tmp_path: Path, old: str, new: str, result: str) -> None:
    assert merged(tmp_path, old, new) == result


@pytest.mark.parametrize(
    "line",
    [
        "A=plain",
        "A='single # not a comment $x ${Y}'",
        'A="double \\" \\\\ \\n $x"  # a comment',
        "A='it\\'s'",
        "A=a#b=c==",
        "A=$HOME/${X:-y}",
        "export A=exported",
        "export   A = spaced",
        'A="line 1\nline 2 # $\n\n  indented\n"',
        "A='-----BEGIN\nabc=\n-----END' # key",
        "A=grüße 你好",
        "A=trailing\t ",
    ],
)
def test_a_value_survives_byte_for_byte_on_both_sides(tmp_path: Path, line: str) -> None:
    added = tmp_path / "added"
    filled = tmp_path / "filled"
    added.mkdir()
    filled.mkdir()
    assert merged(tmp_path, f"{line}\n", "A=other\nB=1\n") == f"{line}\nB=1\n"
    assert merged(added, "B=1\n", f"{line}\n") == f"B=1\n{line}\n"
    assert (
        merged(filled, "A=\nB=1\n", f"{line}\n")
        .replace(" ", "")
        .startswith(line.removeprefix("export").replace(" ", "").rstrip())
    )
    assert (
        dotenv_values(filled / ".env", interpolate=False)["A"] == dotenv_values(added / ".env", interpolate=False)["A"]
    )


def test_CFG_58_line_ends_and_the_mark_of_windows_are_mended(tmp_path: Path) -> None:
    old = b"\xef\xbb\xbf# mine\r\nGROQ_API_KEY=old\r\nM='a\r\nb'\r\n\r\nN=1\rO=2\r\r\n"
    result = merged(tmp_path, old, b"\xef\xbb\xbf# of p\r\nP='c\r\nd'\r\n")
    assert result == "# mine\nGROQ_API_KEY=old\nM='a\nb'\n\nN=1\nO=2\n\n# of p\nP='c\nd'\n"


def test_line_ends_of_windows_inside_the_quotes_of_a_plain_file_are_part_of_the_value(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"M='a\r\nb'\nA=1\r\n")
    merge(tmp_path, None, "B=1\n")
    assert (tmp_path / ".env").read_bytes().startswith(b"M='a\r\nb'\nA=1\nB=1\n")


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ("A=1\n\nB='never closed\n", ".env.new:3: is not NAME=value (perhaps a quote that is never closed)"),
        ('B="x" y\n', ".env.new:1: is not NAME=value"),
        ("just_a_word\n", ".env.new:1: is not NAME=value"),
        ("gsk_planted_secret_1234567890 and more\n", ".env.new:1: is not NAME=value"),
        ("2B=1\n", ".env.new:1: is not NAME=value"),
        ("gsk_planted_secret_1234567890=\n", ".env.new:1: has what looks like a key where its name should stand"),
        (b"A=\xff\n", "is not UTF-8 text"),
        ("A=1\n".encode("utf-16-le"), "is not UTF-8 text (perhaps UTF-16)"),
    ],
)
def test_a_broken_source_changes_nothing_and_stays(tmp_path: Path, new: str | bytes, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        merge(tmp_path, "A=\n", new)
    assert said in caught.value.message
    assert "planted" not in caught.value.message
    assert sorted(each.name for each in tmp_path.iterdir()) == [".env", ".env.new"]
    assert (tmp_path / ".env").read_text() == "A=\n"


@pytest.mark.parametrize("old", ["A='never closed\n", 'X=1\nA="never closed\nB=2\n', b"A=\xff\n"])
def test_a_file_that_would_swallow_what_is_added_is_refused(tmp_path: Path, old: str | bytes) -> None:
    with pytest.raises(ConfigError, match=r"a quote in it is never closed|is not UTF-8"):
        merge(tmp_path, old, "C='it is'\n")
    assert sorted(each.name for each in tmp_path.iterdir()) == [".env", ".env.new"]


def test_the_file_itself_is_refused_as_its_source(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1\n")
    (tmp_path / "link").symlink_to(".env")
    for source in (".env", "link"):
        with pytest.raises(ConfigError, match="is the env file itself"):
            merge_env({}, None, tmp_path, Path(source), stamp=STAMP)
    assert (tmp_path / ".env").read_text() == "A=1\n"


def test_modes_are_kept_and_a_new_file_is_private(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1\n")
    (tmp_path / ".env").chmod(0o640)
    merge(tmp_path, None, "B=1\n")
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o640
    (tmp_path / ".env").unlink()
    assert merge(tmp_path, None, "B=1\n").backup is None
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600


def test_the_source_stays_when_asked_and_when_it_is_no_file(tmp_path: Path) -> None:
    assert merge(tmp_path, "A=1\n", "B=1\n", keep_source=True).source_left == "as you asked"
    assert (tmp_path / ".env.new").read_text() == "B=1\n"
    assert merge_env({}, None, tmp_path, Path("/dev/null"), stamp=STAMP).source_left == "it is no regular file"


def test_the_env_file_may_be_named_and_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.env").write_text("A=1\n")
    (tmp_path / "prod.env").symlink_to("real.env")
    (tmp_path / "new").write_text("B=1\n")
    done = merge_env({"PROXY_ENV": "prod.env"}, None, tmp_path, Path("new"), stamp=STAMP)
    assert done.file == tmp_path / "real.env"
    assert (tmp_path / "prod.env").is_symlink()
    assert (tmp_path / "real.env").read_text().startswith("A=1\nB=1\n")


VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\r\0'\\"), max_size=12)
LINES = st.one_of(
    st.builds("{}='{}'\n".format, st.sampled_from("ABCDE"), VALUES),
    st.builds(
        "export {}={}\n".format, st.sampled_from("ABCDE"), st.sampled_from(["", "x", "a#b", "$y", '"q #"', "z  # c"])
    ),
    st.sampled_from(["\n", "# comment\n", "#A=1\n"]),
)


@given(st.lists(LINES, max_size=8), st.lists(LINES, max_size=8))
def test_what_was_set_stays_and_what_is_new_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, old: list[str], new: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("env")
    (folder / ".env").write_bytes("".join(old).encode())
    before = dotenv_values(folder / ".env", interpolate=False)
    merge(folder, None, "".join(new), keep_source=True)
    given_ = dotenv_values(folder / ".env.new", interpolate=False)
    after = dotenv_values(folder / ".env", interpolate=False)
    for name in before.keys() | given_.keys():
        if (before.get(name) or "").strip():
            assert after[name] == before[name]
        elif (given_.get(name) or "").strip():
            assert after[name] == given_[name]
    assert set(after) == before.keys() | given_.keys() | set(NAMES)
    once = (folder / ".env").read_bytes()
    merge(folder, None, "".join(new))
    assert (folder / ".env").read_bytes() == once


# --- interruptions --------------------------------------------------------------------------------------------------

OLD, NEW = "# mine\nGROQ_API_KEY=gsk_old\n", "GROQ_API_KEY=gsk_new\n# other\nOTHER=x\n"


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / ".env").write_text(OLD)
    (folder / ".env.new").write_text(NEW)
    return folder


def expect_nothing_lost(folder: Path, result: bytes, where: str) -> None:
    """The file is old or new and whole; whoever has the new one has a backup; the source is there or in the file."""
    content = (folder / ".env").read_bytes()
    assert content in (OLD.encode(), result), where
    source = folder / ".env.new"
    if content == result:
        assert (folder / f".env.bak.{STAMP}").read_bytes() == OLD.encode(), where
    else:
        assert source.exists(), where
    assert not source.exists() or source.read_text() == NEW, where


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a killed merge leaves of its own stays inside the folder of the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def run(folder: Path) -> EnvMerge:
    return merge_env({}, None, folder, Path(".env.new"), stamp=STAMP)


@pytest.mark.parametrize("lasting", [False, True])
@pytest.mark.parametrize("late", [False, True])
def test_an_error_at_any_step_loses_nothing_and_says_what_became_of_the_file(
    tmp_path: Path, late: bool, lasting: bool
) -> None:
    folder = fresh(tmp_path / "whole")
    steps = steps_of(lambda: run(folder))
    result = (folder / ".env").read_bytes()
    assert steps > 10
    for step in range(1, steps + 1):
        folder = fresh(tmp_path / "cut")
        with disturbed(step, no_space, late=late, lasting=lasting) as taken:
            try:
                done = run(folder)
            except ConfigError as error:
                done = None
                said = error.message
        where = f"step {step}, {taken[step - 1]}"
        expect_nothing_lost(folder, result, where)
        changed = (folder / ".env").read_bytes() == result
        if done is None:
            assert "No space left" in said, where
            assert ("nothing was changed" in said) is not changed, where
            assert (folder / ".env.new").exists(), where
        else:
            assert changed, where
            assert (done.source_left is None) is not (folder / ".env.new").exists() or late, where


@pytest.mark.skipif(sys.platform == "win32", reason="kills a process of its own")
@pytest.mark.parametrize("late", [False, True])
def test_a_kill_at_any_step_loses_nothing(tmp_path: Path, late: bool) -> None:
    folder = fresh(tmp_path / "whole")
    steps = steps_of(lambda: run(folder))
    result = (folder / ".env").read_bytes()
    for step in range(1, steps + 1):
        folder = fresh(tmp_path / "cut")
        killed(step, lambda: run(folder), late=late)  # noqa: B023 - runs before the next turn
        expect_nothing_lost(folder, result, f"step {step}")
        if (folder / ".env.new").exists():  # and the same command finishes the work
            (folder / f".env.bak.{STAMP}").unlink(missing_ok=True)
            run(folder)
            assert (folder / ".env").read_bytes() == result
