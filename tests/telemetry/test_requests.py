"""Recordings of calls: private, redacted, bounded."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from keyturn.core import Redactor, Secret
from keyturn.telemetry.requests import LARGEST_PART, Recordings

from .events import CALL_ID, SECRET, attempt, ended, served

WALL = 1_772_452_800.25
REDACTOR = Redactor([Secret(SECRET)])


def recorded(folder: Path, **event: Any) -> Any:
    Recordings(folder, REDACTOR).record(ended(attempt(), **event), WALL, REDACTOR.text)
    (file,) = folder.iterdir()
    assert file.stat().st_size < 1024 * 1024
    return json.loads(file.read_bytes())


def test_a_call_is_one_private_file(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "requests"
    Recordings(folder, REDACTOR).record(served(), WALL, REDACTOR.text)
    file = folder / f"2026-03-02-{CALL_ID}.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    row = json.loads(file.read_bytes())
    assert row["call"] == CALL_ID
    assert row["request"] == {"model": "groq/llama", "messages": [{"role": "user", "content": "Hi"}]}
    assert [each["meaning"] for each in row["attempts"]] == ["rate_limited", "ok"]


def test_the_answer_is_kept_as_json_or_as_text(tmp_path: Path) -> None:
    assert recorded(tmp_path / "a", answer=b'{"choices": []}')["answer"] == {"choices": []}
    assert recorded(tmp_path / "b", answer=b"data: 1\n\n")["answer"] == "data: 1\n\n"
    assert recorded(tmp_path / "c", answer=None)["answer"] == ""
    assert recorded(tmp_path / "d", answer=b"\xff\xfe")["answer"] == "\ufffd\ufffd"


def test_a_secret_in_request_or_answer_is_taken_out(tmp_path: Path) -> None:
    text = json.dumps([{"role": "user", "content": f"my key is {SECRET}"}]).encode()
    row = recorded(tmp_path, members={"messages": text}, answer=f"you said {SECRET}".encode())
    assert row["request"]["messages"][0]["content"] == "my key is ***"
    assert row["answer"] == "you said ***"


@pytest.mark.parametrize("shift", range(0, 60, 7))
def test_no_half_of_a_secret_is_left_where_a_long_text_is_cut(tmp_path: Path, shift: int) -> None:
    for edge in (LARGEST_PART, LARGEST_PART + 1024):
        answer = b" " * (edge - shift) + SECRET.encode() + b" " * 5000
        row = recorded(tmp_path / str(edge), answer=answer)
        assert SECRET[:6] not in row["answer"]


def test_long_parts_are_cut_so_that_the_file_stays_small(tmp_path: Path) -> None:
    row = recorded(tmp_path, members={"messages": b'"' + b"x" * 5_000_000 + b'"'}, answer=b"\x01" * 5_000_000)
    assert row["request"].startswith('{"messages":"xxx')
    assert row["answer"].startswith("\x01")


def test_a_request_that_could_not_be_read_is_not_recorded(tmp_path: Path) -> None:
    Recordings(tmp_path, REDACTOR).record(ended(unread=True), WALL, REDACTOR.text)
    assert list(tmp_path.iterdir()) == []


def test_the_oldest_recordings_go_when_the_folder_is_full(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_bytes(b"x" * 50_000)  # not ours: neither counted nor removed
    recordings = Recordings(tmp_path, REDACTOR, largest_folder=20_000)
    for number in range(40):
        event = ended(attempt(), answer=b"x" * 1000, call_id=f"{number:03d}")
        recordings.record(event, WALL, REDACTOR.text)
    files = sorted(tmp_path.glob("*.json"))
    assert sum(file.stat().st_size for file in files) <= 20_000
    assert files[-1].name.endswith("-039.json")
    assert len(files) > 5
    assert (tmp_path / "notes.txt").exists()


def test_a_folder_that_was_removed_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "requests"
    recordings = Recordings(folder, REDACTOR)
    recordings.record(ended(attempt(), call_id="1"), WALL, REDACTOR.text)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    recordings.record(ended(attempt(), call_id="2"), WALL, REDACTOR.text)
    assert [file.name for file in folder.iterdir()] == ["2026-03-02-2.json"]
