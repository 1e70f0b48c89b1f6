"""`keyturn stores …` without a gateway, over a ledger that the real one wrote, and through a running one."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest

from keyturn.config import DataFolder
from keyturn.dispatch import Finding, disk_findings, live_findings, standing_findings
from keyturn.dispatch.upkeep import Leftover, in_bytes
from keyturn.stores import LiveStanding, Standing

from .conftest import Terminal, start
from .recorded_calls import GROQ, ROWS, SERVED, attempt, configured, record
from .test_usage import running

ALL = ("--since", "2026-11-01", "--until", "2026-12-01", "--json")


def checked(terminal: Terminal) -> tuple[int, dict[str, tuple[str, str]]]:
    result = terminal.run("stores", "check", "--json")
    found = json.loads(result.stdout)
    return result.exit_code, {row["check"]: (row["state"], row["detail"]) for row in found}


def leave_behind(terminal: Terminal, part: str = "") -> None:
    """A journal as a crash leaves it: one whole line, and one that broke off."""
    journal = terminal.cwd / ".cache" / part / "journal"
    journal.mkdir(parents=True)
    line = msgspec.json.encode(attempt(SERVED, 3, "2026-11-27 09:58:57", GROQ, "m", input=7, cost=1))
    (journal / "000000000001.jsonl").write_bytes(line + b"\n" + line[:40])


def names(terminal: Terminal) -> list[str]:
    return [row["name"] for row in json.loads(terminal.run("usage", *ALL).stdout)]


def test_check_of_a_sound_ledger(terminal: Terminal) -> None:
    record(terminal.cwd)
    code, found = checked(terminal)
    assert found.pop("disk")[1].endswith(f"free for {terminal.cwd / '.cache'}")
    assert found == {
        "database": (
            "ok",
            f"{terminal.cwd / '.cache' / 'state.sqlite'}: schema {newest()}, 0 under way; nothing is wrong with it",
        ),
        "journal": ("ok", "nothing waits in it"),
    }
    assert code == 0
    assert "the stores are looked at from here" in terminal.run("stores", "check").stderr


def newest() -> int:
    from keyturn.stores.sqlite_schema import newest_schema

    return newest_schema()


def test_check_before_the_first_start_makes_nothing(terminal: Terminal) -> None:
    code, found = checked(terminal)
    assert (code, found["database"][0]) == (0, "ok")
    assert list(terminal.cwd.iterdir()) == []
    terminal.set(LEDGER_ENABLED="false")
    assert checked(terminal)[1]["ledger"] == ("warn", "nothing is recorded: LEDGER_ENABLED is false")


def test_check_of_a_damaged_ledger_names_the_file_and_exits_with_1(terminal: Terminal) -> None:
    record(terminal.cwd)
    path = terminal.cwd / ".cache" / "state.sqlite"
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + bytes(len(whole) - 4096))
    code, found = checked(terminal)
    assert (code, found["database"][0]) == (1, "fail")
    assert str(path) in found["database"][1]
    assert "stores check" not in found["database"][1]
    asked = terminal.run("usage", *ALL)
    assert asked.exit_code == 1
    assert "`keyturn stores check` says more" in asked.stderr


def test_check_of_a_newer_ledger_says_so(terminal: Terminal) -> None:
    record(terminal.cwd)
    connection = sqlite3.connect(terminal.cwd / ".cache" / "state.sqlite")
    connection.execute("PRAGMA user_version = 4711")
    connection.close()
    code, found = checked(terminal)
    assert (code, found["database"][0]) == (1, "fail")
    assert "made by a newer Keyturn (schema 4711" in found["database"][1]


def test_check_while_a_program_holds_the_folder_leaves_its_journal_alone(terminal: Terminal) -> None:
    record(terminal.cwd)
    leave_behind_again = terminal.cwd / ".cache" / "journal" / "000000000009.jsonl"
    leave_behind_again.write_bytes(b"[]\n")
    folder = DataFolder(configured(terminal.cwd).data)
    folder.lock()
    try:
        code, found = checked(terminal)
        assert (code, found["journal"][0]) == (0, "warn")
        assert "3 bytes of a run that ended" in found["journal"][1]
        said = f"No gateway answers on {folder.path}, but process {os.getpid()} uses it through the library (or starts)"
        assert f"{said}: the stores are looked at" in terminal.run("stores", "check").stderr
        for command in ("migrate", "prune"):
            refused = terminal.run("stores", command)
            assert refused.exit_code == 1
            assert refused.stderr.startswith(f"{said}: nothing was changed; stop it first")
        assert terminal.run("usage", *ALL).exit_code == 0
        assert terminal.run("trace", SERVED).exit_code == 0
    finally:
        folder.release()
    assert leave_behind_again.exists()


def test_backup_copies_the_ledger_private_and_whole(terminal: Terminal) -> None:
    record(terminal.cwd)
    result = terminal.run("stores", "backup", "copy.sqlite")
    copy = terminal.cwd / "copy.sqlite"
    assert (result.exit_code, result.stdout) == (
        0,
        f"the ledger was copied to copy.sqlite, {copy.stat().st_size:,} bytes\n",
    )
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    before = names(terminal)
    (terminal.cwd / ".cache" / "state.sqlite").unlink()
    assert terminal.run("usage", *ALL).exit_code == 1
    copy.rename(terminal.cwd / ".cache" / "state.sqlite")
    assert names(terminal) == before


def test_backup_never_writes_over_a_file(terminal: Terminal) -> None:
    record(terminal.cwd)
    Path("mine.txt").write_text("mine")
    Path("dangling").symlink_to("nowhere")
    for name in ("mine.txt", "dangling"):
        result = terminal.run("stores", "backup", name)
        assert (result.exit_code, result.stdout) == (1, "")
        assert "is left as it is" in result.stderr
    assert Path("mine.txt").read_text() == "mine"
    assert not Path("nowhere").exists()


def test_backup_and_prune_of_nothing(terminal: Terminal) -> None:
    for command in (("prune",), ("backup", "copy.sqlite")):
        result = terminal.run("stores", *command)
        assert (result.exit_code, result.stdout) == (1, "")
        assert "there is no ledger yet" in result.stderr
    result = terminal.run("stores", "migrate")
    assert result.exit_code == 0
    assert "there is no ledger yet" in result.stdout
    assert list(terminal.cwd.iterdir()) == [], "nothing was made"


@pytest.mark.parametrize("part", ["", "workers/2"])
def test_migrate_takes_in_what_a_crash_left_behind(terminal: Terminal, part: str) -> None:
    leave_behind(terminal, part)
    assert checked(terminal)[1]["journal"][0] == "warn"
    assert checked(terminal)[1]["journal"][0] == "warn", "looking changes nothing"
    result = terminal.run("stores", "migrate")
    assert result.exit_code == 0, result.output
    first, second = result.stdout.splitlines()
    assert first.startswith(f"{terminal.cwd / '.cache' / 'state.sqlite'}: schema {newest()}")
    assert second.endswith("of the journal of the last run were taken in")
    assert names(terminal) == ["groq/m"]
    assert terminal.run("stores", "migrate").stdout.splitlines()[1:] == ["there was nothing to do"]


def test_migrate_brings_an_earlier_schema_up(terminal: Terminal) -> None:
    from keyturn.stores.sqlite_schema import migrate

    path = terminal.cwd / ".cache" / "state.sqlite"
    path.parent.mkdir()
    connection = sqlite3.connect(path, isolation_level=None)
    migrate(connection, path, upto=1)
    connection.close()
    code, found = checked(terminal)
    said = f"{path}: schema 1, brought to {newest()} at the next start or by `keyturn stores migrate`"
    assert (code, found["database"]) == (0, ("warn", said))
    assert terminal.run("stores", "migrate").stdout.splitlines() == [
        f"{path}: schema {newest()}, 0 under way",
        f"the schema was brought from 1 to {newest()}",
    ]


def test_migrate_takes_over_the_spend_of_earlier_releases_once(terminal: Terminal) -> None:
    folder = DataFolder(configured(terminal.cwd).data)
    folder.write_spent("2026-11", {"role/senior_dev": 12_500_000_000})
    first, second = terminal.run("stores", "migrate").stdout.splitlines()
    assert second == "spend.json was taken over, and is called spend.json.migrated now"
    assert terminal.run("stores", "migrate").stdout.splitlines() == [first, "there was nothing to do"]
    connection = sqlite3.connect(folder.path / "state.sqlite")
    assert connection.execute("SELECT month, scope, nano FROM spent_before").fetchall() == [
        ("2026-11", "role/senior_dev", 12_500_000_000)
    ]
    connection.close()
    assert not folder.spend_file.exists()


def test_migrate_without_a_ledger_is_refused(terminal: Terminal) -> None:
    terminal.set(LEDGER_ENABLED="false")
    result = terminal.run("stores", "migrate")
    assert result.exit_code == 1
    assert "LEDGER_ENABLED is false" in result.stderr


def test_prune_drops_single_calls_and_keeps_their_sums(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    record(terminal.cwd)
    before = terminal.run("usage", *ALL).stdout
    later = ROWS[0].at + 200 * 86_400_000
    monkeypatch.setattr("keyturn.cli.recorded.now", lambda: later)
    result = terminal.run("stores", "prune", "--keep-days", "10")
    assert result.exit_code == 0
    assert result.stdout == "7 rows dropped; sums stay\n"
    assert terminal.run("usage", *ALL).stdout == before
    assert json.loads(terminal.run("usage", *ALL, "--by", "call").stdout) == []
    assert terminal.run("stores", "prune", "--keep-days", "0.5").exit_code == 2


def test_a_running_gateway_does_it(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    fault = Finding("database", "fail", "it is damaged")._asdict()
    gateway = running(monkeypatch, {"findings": [fault], "file": "x", "dropped": 3})
    assert terminal.run("stores", "check").exit_code == 1
    assert terminal.run("stores", "backup", "copy.sqlite").exit_code == 0
    assert terminal.run("stores", "prune", "--keep-days", "30").stdout == "3 rows dropped; sums stay\n"
    assert "process 77" in terminal.run("stores", "migrate").stdout
    assert gateway.asked == [
        ("/admin/stores", {"action": "check"}),
        ("/admin/stores", {"action": "backup", "file": str(terminal.cwd / "copy.sqlite")}),
        ("/admin/stores", {"action": "prune", "keep_days": 30.0}),
    ]


FINE = Standing("sqlite", True, True, 0, 0)


@pytest.mark.parametrize(
    ("standing", "state", "said"),
    [
        (FINE, "ok", "every call is recorded"),
        (FINE._replace(lost=4), "warn", "4 rows could not be recorded"),
        (FINE._replace(reachable=False, waiting_bytes=23_456, trouble="refused"), "fail", "23.5 kB wait"),
        (FINE._replace(writable=False, trouble="the disk is full"), "fail", "the disk is full"),
    ],
)
def test_how_a_ledger_stands_is_told(standing: Standing, state: str, said: str) -> None:
    (found,) = standing_findings(standing)
    assert found.state == state
    assert said in found.detail


@pytest.mark.parametrize(
    ("live", "state", "said"),
    [
        (LiveStanding("memory", True, 1, 0), "ok", "in the memory of the gateway"),
        (LiveStanding("redis", True, 1, 0), "ok", "in Redis, shared by 1 gateway"),
        (LiveStanding("redis", True, 3, 0, trouble="slow"), "warn", "shared by 3 gateways; slow"),
        (LiveStanding("redis", False, 3, 0, trouble="refused"), "fail", "Redis is away"),
    ],
)
def test_how_live_state_stands_is_told(live: LiveStanding, state: str, said: str) -> None:
    (found,) = live_findings(live)
    assert found.state == state
    assert said in found.detail


@pytest.mark.parametrize(
    ("left", "waiting", "state", "said"),
    [
        (Leftover(0, 0.0), None, "ok", "nothing waits"),
        (Leftover(900, 5.0), 0, "ok", "nothing waits"),
        (Leftover(900, 5.0), 400, "ok", "400 bytes wait for the database"),
        (Leftover(900, 7300.0), None, "warn", "900 bytes of a run that ended 2 hours ago"),
    ],
)
def test_what_waits_in_the_journal_is_told(
    terminal: Terminal, left: Leftover, waiting: int | None, state: str, said: str
) -> None:
    journal, _ = disk_findings(configured(terminal.cwd), left, waiting)
    assert journal.state == state
    assert said in journal.detail


@pytest.mark.parametrize(("free", "state"), [(2**40, "ok"), (10**9, "warn"), (10**6, "fail")])
def test_a_full_disk_is_told(terminal: Terminal, monkeypatch: pytest.MonkeyPatch, free: int, state: str) -> None:
    class Disk:
        def __init__(self, path: Any) -> None:
            self.free = free

    monkeypatch.setattr("shutil.disk_usage", Disk)
    _, disk = disk_findings(configured(terminal.cwd), Leftover(0, 0.0))
    assert disk.state == state


def test_sizes() -> None:
    assert [in_bytes(size) for size in (0, 9_999, 10_000, 3_400_000, 5 * 10**12)] == [
        "0 bytes",
        "9999 bytes",
        "10.0 kB",
        "3.4 MB",
        "5.0 TB",
    ]


def test_the_whole_story_with_a_gateway_and_after_it_was_killed(terminal: Terminal, simulator: str) -> None:
    terminal.set(
        GROQ_API_BASE=f"{simulator}/groq/v1",
        GROQ_API_KEY_1="gsk_revoked",
        GROQ_API_KEY_2="gsk_good_2",
        ROTATION_MODE_GROQ="sequential",
    )
    process, _ = start("serve", "--port", "0", cwd=terminal.cwd, until="listens on", environ=dict(os.environ))
    try:
        assert terminal.run("chat", "-m", "groq/llama-3.1-8b-instant", "Hello").exit_code == 0
        (call,) = json.loads(terminal.run("usage", "--by", "call", "--json").stdout)
        assert (call["attempts"], call["failed"], call["status"], call["key"][:7]) == (2, 1, 200, "groq-2:")
        (model,) = json.loads(terminal.run("usage", "--json").stdout)
        assert (model["name"], model["estimated"]) == ("groq/llama-3.1-8b-instant", 0)
        traced = terminal.run("trace", call["name"]).stdout
        assert "invalid_key 401" in traced
        told = json.loads(terminal.run("trace", call["name"], "--json").stdout)
        assert f"→ ok 200 → {told['attempts'][1]['ms']:.0f} ms" in traced
        code, found = checked(terminal)
        assert code == 0
        assert {check: state for check, (state, _) in found.items() if check != "disk"} == dict.fromkeys(
            ("ledger", "database", "journal", "live state"), "ok"
        )
        assert terminal.run("stores", "backup", "copy.sqlite").exit_code == 0
        assert f"process {process.pid}" in terminal.run("stores", "migrate").stdout
        assert terminal.run("stores", "prune").stdout == "0 rows dropped; sums stay\n"
    finally:
        process.kill()
        process.communicate(timeout=20)
    result = terminal.run("trace", call["name"])
    assert result.stdout == traced
    assert "No gateway is running" in result.stderr
    assert json.loads(terminal.run("usage", "--json").stdout) == [model]
    assert checked(terminal)[1]["database"][0] == "ok"
