"""`keyturn callers …` as a person runs it: a key is shown once and never again."""

from __future__ import annotations

import hashlib
import json

import pytest

from keyturn.config import load

from .conftest import Terminal


def test_a_new_caller_s_key_is_all_that_stands_on_stdout(terminal: Terminal) -> None:
    args = "--routes fast,gpt-* --weight 2 --class batch --rpm 10 --tpm 1000 --monthly-usd 25".split()
    result = terminal.run("callers", "add", "alice", *args)
    assert result.exit_code == 0
    (key,) = result.stdout.split()
    assert key not in result.stderr
    assert "not shown again" in result.stderr
    hashed = hashlib.sha256(key.encode()).hexdigest()
    caller = load({}, cwd=terminal.cwd).callers[hashed]
    assert (caller.name, caller.routes, caller.weight, caller.rank) == ("alice", ("fast", "gpt-*"), 2, "batch")

    rows = json.loads(terminal.run("callers", "list", "--json").stdout)
    assert rows[1] == {
        "name": "alice",
        "key": f"sha256:{hashed[:6]}",
        "routes": ["fast", "gpt-*"],
        "class": "batch",
        "weight": 2,
        "rpm": 10,
        "tpm": 1000,
        "monthly_usd": 25,
    }
    table = terminal.run("callers", "list").stdout
    assert table.splitlines()[2].split() == ["alice", f"sha256:{hashed[:6]}", *"fast, gpt-* batch 2 10 1000 25".split()]
    assert key not in table
    assert hashed not in table


def test_a_revoked_caller_is_gone_and_a_backup_has_it(terminal: Terminal) -> None:
    terminal.run("callers", "add", "alice")
    before = (terminal.cwd / "config" / "callers.yaml").read_bytes()
    result = terminal.run("callers", "revoke", "alice")
    assert result.exit_code == 0
    (backup,) = (terminal.cwd / "config").glob("callers.yaml.bak.*")
    assert backup.read_bytes() == before
    assert str(backup) in result.stdout
    assert load({}, cwd=terminal.cwd).callers == {}


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        ("add default", 1, "default is who presents PROXY_API_KEY"),
        ("add a/b", 1, "a caller's name has letters"),
        ("revoke alice", 1, "no caller to revoke"),
        ("add alice --rpm 0", 2, "--rpm"),
        ("add alice --class best", 2, "--class"),
        ("add", 2, "NAME"),
    ],
)
def test_what_cannot_be_is_said(terminal: Terminal, args: str, code: int, said: str) -> None:
    result = terminal.run("callers", *args.split())
    assert (result.exit_code, result.stdout) == (code, "")
    assert said in result.stderr
    assert not list(terminal.cwd.glob("config/*"))
