"""The data folder: its lock, the keys in it, the gateway's address, disabled keys, and who may read them."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from keyturn.config import DataFolder, write_private
from keyturn.errors import ConfigError, DataFolderInUse


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    return DataFolder(tmp_path / "deep" / "data")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_folder_and_its_files_are_private(folder: DataFolder) -> None:
    folder.lock()
    folder.publish("http://127.0.0.1:8000")
    folder.caller_key()
    folder.new_admin_key()
    folder.write_disabled({"f" * 16: "groq-1:ffffff"})
    assert mode(folder.path) == 0o700
    assert {path.name: mode(path) for path in folder.path.iterdir()} == dict.fromkeys(
        ["lock", "gateway.json", "caller.key", "admin.key", "disabled.json"], 0o600
    )
    folder.release()


def test_a_folder_that_exists_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    DataFolder(tmp_path).create()
    assert mode(tmp_path) == 0o755


def test_a_folder_that_cannot_be_made_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="choose another with --data"):
        DataFolder(tmp_path / "file" / "data").lock()


def test_a_second_owner_is_refused_and_told_who_is_there(folder: DataFolder) -> None:
    folder.lock()
    with pytest.raises(DataFolderInUse, match=rf"process {os.getpid()} .*REDIS_URL"):
        DataFolder(folder.path).lock()
    folder.release()
    other = DataFolder(folder.path)
    other.lock()
    other.release()


def test_the_lock_ends_with_its_process_however_it_ends(folder: DataFolder) -> None:
    script = (
        "import os, sys; from pathlib import Path; from keyturn.config import DataFolder\n"
        "folder = DataFolder(Path(sys.argv[1])); folder.lock(); folder.publish('http://127.0.0.1:1')\n"
        "os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(folder.path)], check=False).returncode == 9
    assert folder.gateway_file.exists()
    assert folder.owner() is None
    folder.lock()
    folder.release()


def test_who_has_the_folder_is_known_by_its_lock_alone(folder: DataFolder) -> None:
    assert folder.holder() is None
    assert not folder.path.exists(), "looking makes nothing"
    folder.lock()
    assert DataFolder(folder.path).holder() == os.getpid()
    folder.release()
    assert folder.holder() is None


@pytest.mark.skipif(sys.platform == "win32", reason="zombies are of POSIX")
def test_a_gateway_that_was_killed_is_gone_before_anybody_has_waited_for_it(folder: DataFolder) -> None:
    script = (
        "import sys, os, signal; from pathlib import Path; from keyturn.config import DataFolder\n"
        "folder = DataFolder(Path(sys.argv[1])); folder.lock(); folder.publish('http://127.0.0.1:1')\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(folder.path)])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    try:
        os.kill(process.pid, 0)  # a zombie, whose number is still taken
        assert folder.owner() is None
    finally:
        process.wait()


@pytest.mark.skipif(sys.platform == "win32", reason="a look is a lock there")
def test_who_only_looks_does_not_keep_an_owner_out(folder: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look holds the lock for a moment, shared; whoever wants the folder meanwhile tries again."""
    import fcntl

    folder.create()
    folder.lock_file.touch()
    looking = os.open(folder.lock_file, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    flock, tries = fcntl.flock, []

    def counted(descriptor: int, how: int) -> None:
        tries.append(how)
        if len(tries) == 10:
            flock(looking, fcntl.LOCK_UN)
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", counted)
    folder.lock()
    assert len(tries) > 9
    folder.release()
    os.close(looking)


def test_release_takes_the_address_and_the_admin_key_along(folder: DataFolder) -> None:
    folder.lock()
    folder.publish("http://127.0.0.1:8000")
    folder.new_admin_key()
    owner = folder.owner()
    assert owner is not None
    assert (owner.pid, owner.url) == (os.getpid(), "http://127.0.0.1:8000")
    folder.release()
    folder.release()
    assert folder.owner() is None
    assert folder.admin_key() is None


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"pid": 1}', '{"pid": "x", "url": "u"}', '{"pid": -1, "url": "u"}']
)
def test_an_address_that_is_no_address_means_nobody_is_there(folder: DataFolder, content: str) -> None:
    folder.create()
    folder.gateway_file.write_text(content)
    assert folder.owner() is None


def test_CRD_15_random_proxy_key_is_made_once_and_kept(folder: DataFolder, tmp_path: Path) -> None:
    key = folder.caller_key().reveal()
    assert key.startswith("kt-")
    assert len(key) == 3 + 43
    assert DataFolder(folder.path).caller_key().reveal() == key
    assert DataFolder(tmp_path / "another").caller_key().reveal() != key


def test_asking_for_a_caller_key_makes_none(folder: DataFolder) -> None:
    assert folder.existing_caller_key() is None
    assert not folder.path.exists()


def test_a_blank_caller_key_is_replaced(folder: DataFolder) -> None:
    folder.create()
    folder.caller_key_file.write_text("\n")
    assert folder.caller_key().reveal().startswith("kt-")


def test_an_owner_may_write_a_caller_key_of_his_own_and_it_becomes_private(folder: DataFolder) -> None:
    folder.create()
    folder.caller_key_file.write_text("my-own-key\n")
    folder.caller_key_file.chmod(0o644)
    assert folder.caller_key().reveal() == "my-own-key"
    assert mode(folder.caller_key_file) == 0o600


@pytest.mark.parametrize("content", [b"two keys\n", b"one\ntwo\n", b"\xff\xfe\x00", "schlüssel".encode()])
def test_a_corrupt_caller_key_is_refused_without_showing_it(folder: DataFolder, content: bytes) -> None:
    folder.create()
    folder.caller_key_file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        folder.caller_key()
    assert str(folder.caller_key_file) in caught.value.message
    assert not any(word in caught.value.message for word in ("two", "schl"))


def test_the_admin_key_is_new_at_each_start(folder: DataFolder) -> None:
    folder.create()
    first = folder.new_admin_key()
    second = folder.new_admin_key()
    assert first != second
    assert folder.admin_key() == second


def test_disabled_keys_are_remembered_by_identity(folder: DataFolder) -> None:
    assert folder.disabled() == {}
    folder.write_disabled({"0123456789abcdef": "groq-2:012345"})
    assert DataFolder(folder.path).disabled() == {"0123456789abcdef": "groq-2:012345"}


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a": 1}', "\xff"])
def test_a_broken_list_of_disabled_keys_enables_none_of_them(folder: DataFolder, content: str) -> None:
    folder.create()
    folder.disabled_file.write_text(content, encoding="latin-1")
    with pytest.raises(ConfigError, match=r"disabled\.json"):
        folder.disabled()


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.json"
    write_private(path, b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_private(path, json.dumps({"new": True}).encode())
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_keys_that_cannot_be_written_are_told_with_what_to_do(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folder.create()
    monkeypatch.setattr(os, "fsync", full)
    for made in (folder.caller_key, folder.new_admin_key):
        with pytest.raises(ConfigError, match=r"\.key: No space left on device; make room, .*--data"):
            made()
