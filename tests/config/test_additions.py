"""Adding a key to the env file: numbering, backups, line ends, quoting, and leaving the file alone on failure."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.config import Added, UnknownProvider, add_key, load
from keyturn.errors import ConfigError, KeyturnError

STAMP = "20261121_091500"


def add(cwd: Path, secret: str, provider: str = "groq", **environ: str) -> Added:
    return add_key(environ, None, cwd, provider=provider, secret=secret, stamp=STAMP)


def test_the_first_key_makes_a_private_file(tmp_path: Path) -> None:
    assert add(tmp_path, "gsk_one") == Added("GROQ_API_KEY_1", tmp_path / ".env", None)
    assert (tmp_path / ".env").read_text() == "GROQ_API_KEY_1=gsk_one\n"
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600


def test_the_next_number_follows_the_highest_blank_ones_included(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# mine\nGROQ_API_KEY_2=two\nGROQ_API_KEY_9=\n")
    assert add(tmp_path, "ten", GROQ_API_KEY_11="shell").variable == "GROQ_API_KEY_12"
    assert add(tmp_path, "eleven").variable == "GROQ_API_KEY_13"


def test_what_was_there_stays_and_a_backup_holds_it(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_bytes(b"# mine\r\nGROQ_API_KEY=one\r\n\r\nOTHER=x")
    file.chmod(0o640)
    before = file.read_bytes()
    first = add(tmp_path, "two")
    between = file.read_bytes()
    second = add(tmp_path, "three")

    assert file.read_bytes() == before + b"\r\nGROQ_API_KEY_1=two\r\nGROQ_API_KEY_2=three\r\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert first.backup is not None
    assert second.backup is not None
    assert first.backup != second.backup
    assert (first.backup.name, first.backup.read_bytes()) == (f".env.bak.{STAMP}", before)
    assert second.backup.read_bytes() == between
    assert stat.S_IMODE(first.backup.stat().st_mode) == 0o600


def test_a_key_that_is_there_already_is_refused(tmp_path: Path) -> None:
    add(tmp_path, "gsk_one")
    before = (tmp_path / ".env").read_bytes()
    with pytest.raises(KeyturnError, match=r"this key is already there, as GROQ_API_KEY_1 \(\.env:1\)"):
        add(tmp_path, "gsk_one")
    assert (tmp_path / ".env").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("secret", ["two words", "line\nbreak", ""])
def test_what_is_no_key_is_refused(tmp_path: Path, secret: str) -> None:
    with pytest.raises(KeyturnError) as caught:
        add(tmp_path, secret)
    assert not isinstance(caught.value, ConfigError)
    assert not list(tmp_path.iterdir())


def test_an_unknown_provider_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(UnknownProvider, match=r"no provider is called gorq; did you mean groq\?"):
        add(tmp_path, "x", "gorq")


def test_aliases_and_servers_of_ones_own_have_their_variable(tmp_path: Path) -> None:
    assert add(tmp_path, "a", "google_ai_studio").variable == "GEMINI_API_KEY_1"
    base = {"MY_SERVER_API_BASE": "http://127.0.0.1:1/v1"}
    assert add(tmp_path, "b", "my-server", **base).variable == "MY_SERVER_API_KEY_1"


def test_a_link_to_the_file_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.env").write_text("A=1\n")
    (tmp_path / ".env").symlink_to("real.env")
    add(tmp_path, "gsk_one")
    assert (tmp_path / ".env").is_symlink()
    assert (tmp_path / "real.env").read_text() == "A=1\nGROQ_API_KEY_1=gsk_one\n"


def test_a_new_file_may_be_named(tmp_path: Path) -> None:
    added = add_key({}, Path("prod.env"), tmp_path, provider="groq", secret="x", stamp=STAMP)
    assert added.file == tmp_path / "prod.env"


def test_a_quote_that_is_never_closed_does_not_swallow_the_key(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("NAME='never closed\n")
    with pytest.raises(ConfigError, match="a quote in it is never closed"):
        add(tmp_path, "it's")
    assert (tmp_path / ".env").read_text() == "NAME='never closed\n"


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40))
def test_every_key_that_can_be_added_is_read_back(tmp_path_factory: pytest.TempPathFactory, secret: str) -> None:
    folder = tmp_path_factory.mktemp("env")
    try:
        added = add(folder, secret)
    except KeyturnError:
        assert secret[0] == secret[-1]  # in quotes of its own
        return
    (key,) = load({}, cwd=folder).credentials["groq"]
    assert (key.secret.reveal(), key.origin) == (secret, added.variable)


def test_a_tool_that_logs_in_by_itself_takes_no_key(tmp_path: Path) -> None:
    with pytest.raises(KeyturnError, match="codex_cli takes no key here: codex is a program that logs in by itself"):
        add(tmp_path, "sk-one", "codex_cli")
    assert not (tmp_path / ".env").exists()
    notes = load({"CODEX_CLI_API_KEY": "sk-one"}, cwd=tmp_path).notes
    assert any("CODEX_CLI_API_KEY" in note for note in notes)
