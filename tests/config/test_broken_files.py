"""Broken configuration files, a folder for each kind of mistake: what is said of them, all at once.

`python -m tests.config.test_broken_files` writes messages.txt anew; read the difference before it is committed.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from keyturn.config import Options, load
from keyturn.errors import ConfigError

FOLDER = Path(__file__).parent / "broken"
GOLDEN = FOLDER / "messages.txt"
CASES = sorted(path for path in FOLDER.iterdir() if path.is_dir())
ENVIRON = {"PATH": "", "TEAM_A_KEY": "team-a-key", "OUR_KEY": "our-own-key", "PROXY_API_KEY": "our-own-key"}


def messages(case: Path) -> list[str]:
    """What is wrong with the files of one folder."""
    with pytest.raises(ConfigError) as caught:
        load(ENVIRON, cwd=case, options=Options(config=case))
    return caught.value.problems


def everything() -> str:
    return "\n".join(f"{case.name}\n" + "".join(f"    {line}\n" for line in messages(case)) for case in CASES)


def test_there_is_a_case_for_twenty_kinds_of_mistakes() -> None:
    assert len(CASES) >= 20


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_said_is_what_was_agreed(case: Path) -> None:
    agreed = GOLDEN.read_text().partition(f"{case.name}\n")[2].partition("\n\n")[0]
    assert messages(case) == [line.strip() for line in agreed.splitlines()]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_message_names_the_file_and_the_line(case: Path) -> None:
    for line in messages(case):
        found = re.match(r"([a-z]+\.(?:yaml|toml)):(\d+): ", line)
        assert found, line
        lines = (case / found[1]).read_bytes().splitlines()
        assert 1 <= int(found[2]) <= len(lines), line


def test_no_message_holds_a_key_that_is_in_a_wrong_place() -> None:
    planted = re.findall(r"\w*planted\w*", "".join(path.read_text() for path in FOLDER.glob("*/models.yaml")))
    assert len(planted) >= 4
    assert not [secret for secret in planted if secret in everything()]


def test_mistakes_of_all_files_are_told_together() -> None:
    files = {line.partition(":")[0] for line in messages(FOLDER / "15_syntax")}
    assert len(files) == 5


if __name__ == "__main__":
    GOLDEN.write_text(everything())
