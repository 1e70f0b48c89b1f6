"""Commands on a gateway that is stopped: they show, and change, what it left behind."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from keyturn.cli.setup import Place, read_config
from keyturn.cli.stopped import ago
from keyturn.config import Config, DataFolder
from keyturn.core import Deployment, Transition, Verdict
from keyturn.dispatch import Gateway, build
from keyturn.stores import look_at_snapshot

from .conftest import Terminal

DAY = 86_400.0


def left_by(terminal: Terminal, *changes: Transition) -> None:
    """Run a gateway on the terminal's data folder that meets *changes*, and stop it."""

    async def run(config: Config) -> None:
        folder = DataFolder(config.data)
        folder.lock()
        gateway: Gateway = build(config, folder=folder)
        await gateway.open()
        now = gateway.clock.mono()
        for number, change in enumerate(changes):
            until, since = now + change.until, now - number
            gateway.cool(Verdict([change._replace(until=until, since=since)]), None)
        scope = f"groq/{credential(config, 0).group}|llama-3.1-8b-instant"
        gateway.pools.of(Deployment("groq", "llama-3.1-8b-instant"))
        (limit,) = gateway.live.limits(scope)
        gateway.live.take(limit, 7, now)
        await gateway.close()
        folder.release()

    asyncio.run(run(config_of(terminal)))


def config_of(terminal: Terminal) -> Config:
    return read_config(Place(None, None, None))


def credential(config: Config, number: int) -> Any:
    return config.credentials["groq"][number]


def prepared(terminal: Terminal) -> Config:
    terminal.set(GROQ_API_KEY_1="gsk_planted_one", GROQ_API_KEY_2="gsk_planted_two", LIMITS_GROQ="rpd=50")
    config = config_of(terminal)
    one, other = credential(config, 0), credential(config, 1)
    left_by(
        terminal,
        Transition(("key", "groq", one.fingerprint), "invalid", DAY, "invalid_key", 1),
        Transition(("group_model", "groq", other.group, "m"), "exhausted", 3600.0, "daily_quota", 1),
        Transition(("deployment", "groq", "m"), "cooling", 600.0, "overloaded", 1),
    )
    return config


def states(terminal: Terminal) -> list[str]:
    return [row["state"] for row in json.loads(terminal.run("keys", "list", "--json").stdout)]


def test_list_shows_how_the_keys_stood_and_says_so(terminal: Terminal) -> None:
    prepared(terminal)
    result = terminal.run("keys", "list", "--json")
    assert "No gateway is running on" in result.stderr
    assert "this is how it stood" in result.stderr
    assert "planted" not in result.output
    one, other = json.loads(result.stdout)
    assert (one["state"], one["reason"]) == ("invalid", "invalid_key")
    assert one["until"] is not None
    (limit,) = [each for each in one["limits"] if each["model"] == "llama-3.1-8b-instant"]
    assert (limit["used"], limit["capacity"]) == (7, 50)
    assert (other["state"], other["reason"]) == ("exhausted", "daily_quota (m)")


def test_reset_takes_one_key_or_all_out_of_the_snapshot(terminal: Terminal) -> None:
    config = prepared(terminal)
    result = terminal.run("keys", "reset", "groq-2")
    assert result.stdout == f"reset: {credential(config, 1).shown}\n"
    assert states(terminal) == ["invalid", "healthy"]
    kept = look_at_snapshot(config.data)
    assert kept is not None
    assert {each.scope[0] for each in kept.marks} == {"key", "deployment"}
    assert terminal.run("keys", "reset").stdout == f"reset: {credential(config, 0).shown}\n"
    kept = look_at_snapshot(config.data)
    assert kept is not None
    assert kept.marks == []
    assert len(kept.uses) == 1, "what was used was used"
    assert terminal.run("keys", "reset").stdout == "reset: nothing, no key was resting\n"


def test_reset_leaves_a_folder_that_is_in_use_alone(terminal: Terminal) -> None:
    config = prepared(terminal)
    folder = DataFolder(config.data)
    folder.lock()
    try:
        result = terminal.run("keys", "reset")
        assert result.exit_code == 1
        assert f"process {os.getpid()} uses it through the library (or starts): nothing was changed" in result.stderr
        assert "this is how it stood" in terminal.run("keys", "list").stderr
    finally:
        folder.release()
    kept = look_at_snapshot(config.data)
    assert kept is not None
    assert len(kept.marks) == 3


def test_reset_of_what_is_in_redis_needs_a_gateway(terminal: Terminal) -> None:
    terminal.set(GROQ_API_KEY_1="gsk_planted_one", REDIS_URL="redis://127.0.0.1:9/0")
    result = terminal.run("keys", "reset")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "one must run to forget cooldowns that are in Redis" in result.stderr


def test_a_key_that_is_disabled_meanwhile_is_shown_as_such(terminal: Terminal) -> None:
    prepared(terminal)
    assert terminal.run("keys", "disable", "groq-2").exit_code == 0
    assert states(terminal) == ["invalid", "disabled"]
    assert terminal.run("keys", "enable", "groq-2").exit_code == 0
    assert states(terminal) == ["invalid", "exhausted"]


def test_without_a_snapshot_nothing_is_made(terminal: Terminal, tmp_path: Path) -> None:
    terminal.set(GROQ_API_KEY_1="gsk_planted_one")
    config = config_of(terminal)
    assert terminal.run("keys", "reset").stdout == "reset: nothing, no key was resting\n"
    assert states(terminal) == ["configured"]
    assert not config.data.exists()


def test_ages_are_said_as_people_say_them() -> None:
    said = [ago(seconds) for seconds in (0.4, 1.0, 59.0, 60.0, 7300.0, 3 * DAY)]
    assert said == ["just now", "1 second ago", "59 seconds ago", "1 minute ago", "2 hours ago", "3 days ago"]


def test_top_shows_how_the_routes_stood_and_says_so(terminal: Terminal) -> None:
    config = prepared(terminal)
    result = terminal.run("top", "--json", "--route", "groq/llama-3.1-8b-instant")
    assert result.exit_code == 0
    assert "this is how it stood" in result.stderr
    told = json.loads(result.stdout)
    assert told["status"] is None
    (row,) = told["routes"]
    assert row["now"]["requests"] == 49, "one key is invalid; of the other's refilling bucket 99 % may be used"
    states = {each["key"]: (each["state"], each["why"]) for each in told["keys"]}
    assert states[credential(config, 0).shown] == ("invalid", "invalid_key")
