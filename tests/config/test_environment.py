"""The env file and the environment: quoting, origins, precedence, and which file is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from keyturn.config import load
from keyturn.errors import ConfigError


def secrets_of(tmp_path: Path, text: str | bytes, environ: dict[str, str] | None = None) -> list[str]:
    (tmp_path / ".env").write_bytes(text if isinstance(text, bytes) else text.encode())
    config = load(environ or {}, cwd=tmp_path)
    return [key.secret.reveal() for key in config.credentials.get("groq", ())]


@pytest.mark.parametrize(
    ("line", "secret"),
    [
        ("GROQ_API_KEY=gsk_plain", "gsk_plain"),
        ("GROQ_API_KEY = gsk_spaced  # a comment", "gsk_spaced"),
        ("export GROQ_API_KEY='gsk_single'", "gsk_single"),
        ('GROQ_API_KEY="gsk_double"', "gsk_double"),
        ("GROQ_API_KEY=gsk_$HOME", "gsk_$HOME"),
        ('GROQ_API_KEY="gsk_${HOME}$$"', "gsk_${HOME}$$"),
        ("GROQ_API_KEY=gsk#inside", "gsk#inside"),
        ("GROQ_API_KEY=gsk=equals==", "gsk=equals=="),
        ("\ufeffGROQ_API_KEY=gsk_bom", "gsk_bom"),
    ],
)
def test_a_value_is_taken_as_it_is_written(tmp_path: Path, line: str, secret: str) -> None:
    assert secrets_of(tmp_path, line + "\n") == [secret]


def test_windows_line_ends_leave_nothing_behind(tmp_path: Path) -> None:
    assert secrets_of(tmp_path, b"GROQ_API_KEY_1=one\r\n\r\n# note\r\nGROQ_API_KEY_2=two\r\n") == ["one", "two"]


def test_what_is_set_in_the_environment_is_never_overridden_not_even_blank(tmp_path: Path) -> None:
    env_file = "GROQ_API_KEY_1=file-1\nGROQ_API_KEY_2=file-2\nGROQ_API_KEY_3=file-3\n"
    assert secrets_of(tmp_path, env_file, {"GROQ_API_KEY_1": "shell-1", "GROQ_API_KEY_2": ""}) == ["shell-1", "file-3"]


def test_CFG_24_proxy_env_names_the_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("GROQ_API_KEY=usual\n")
    (tmp_path / ".env.production").write_text("GROQ_API_KEY=production\n")
    (tmp_path / "other.env").write_text("GROQ_API_KEY=option\n")
    environ = {"PROXY_ENV": ".env.production"}

    by_variable = load(environ, cwd=tmp_path)
    by_option = load(environ, env_file=Path("other.env"), cwd=tmp_path)

    assert by_variable.credentials["groq"][0].secret.reveal() == "production"
    assert by_variable.origins["GROQ_API_KEY"] == ".env.production:1"
    assert by_option.credentials["groq"][0].secret.reveal() == "option"


@pytest.mark.parametrize(("environ", "option"), [({"PROXY_ENV": "gone.env"}, None), ({}, Path("gone.env"))])
def test_a_file_that_was_asked_for_must_exist(tmp_path: Path, environ: dict[str, str], option: Path | None) -> None:
    with pytest.raises(ConfigError, match=r"there is no file .*gone\.env"):
        load(environ, env_file=option, cwd=tmp_path)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes("GROQ_API_KEY=x\n".encode("utf-16"))
    with pytest.raises(ConfigError, match=r"\.env: is not UTF-8 text"):
        load({}, cwd=tmp_path)


def test_a_line_that_is_no_assignment_is_noted_with_its_number_and_never_quoted(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text('GROQ_API_KEY_1=one\n\n# comment\ngsk_naked_secret\nGROQ_API_KEY_2="gsk_unclosed\n')
    config = load({}, cwd=tmp_path)
    assert [note.partition(" ")[0] for note in config.notes] == [".env:4:", ".env:5:"]
    assert not any("gsk_" in note for note in config.notes)


def test_a_variable_that_is_set_twice_is_noted(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("GROQ_API_KEY=first\nGROQ_API_KEY=second\n")
    config = load({}, cwd=tmp_path)
    assert [key.secret.reveal() for key in config.credentials["groq"]] == ["second"]
    assert config.notes == (".env:2: GROQ_API_KEY was already set at .env:1; the later line counts",)


def test_a_pipe_may_be_the_file(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"GROQ_API_KEY=piped\n")
    os.close(writing)
    config = load({}, env_file=Path(f"/dev/fd/{reading}"), cwd=tmp_path)
    os.close(reading)
    assert config.credentials["groq"][0].secret.reveal() == "piped"
