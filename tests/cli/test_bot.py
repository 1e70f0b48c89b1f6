"""The Discord bot: what its commands do, who may give them, and what it hears of. Discord itself is not asked."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import discord
import pytest

from keyturn.cli.bot import ELSEWHERE, Desk, bot_of, intents_of, missing
from keyturn.errors import Capacity

from .conftest import Terminal

SETTINGS = {"bot_token": "x", "guild_id": "11", "commands_channel_id": "22"}
VARIABLES = {"DISCORD_BOT_TOKEN": "planted-token", "DISCORD_GUILD_ID": "11", "DISCORD_COMMANDS_CHANNEL_ID": "22"}


class Pool:
    """Answers what a role is asked with the role and the question."""

    def __init__(self, error: Exception | None = None, answer: str = "") -> None:
        self.error = error
        self.answer = answer

    async def complete(self, role: str, prompt: str, model_id: str | None = None) -> str:
        if self.error is not None:
            raise self.error
        return self.answer or f"{role} says: {prompt}"

    async def get_status_summary(self) -> dict[str, Any]:
        row = {"total": 3, "available": 2, "rate_limited": 1, "total_success_calls": 9, "total_error_calls": 1}
        return {"groq": row, "timestamp": 1.0}


class Interaction:
    """What Discord hands to a command, and what the command sends back."""

    def __init__(self, guild: int = 11, channel: int = 22) -> None:
        self.guild_id, self.channel_id, self.user = guild, channel, "ada"
        self.sent: list[tuple[str, bool]] = []
        self.deferred: list[bool] = []
        self.response = SimpleNamespace(send_message=self._send, defer=self._defer)
        self.followup = SimpleNamespace(send=self._send)

    async def _send(self, text: str, *, ephemeral: bool, allowed_mentions: Any = None) -> None:
        self.sent.append((text, ephemeral))

    async def _defer(self, *, ephemeral: bool, thinking: bool) -> None:
        self.deferred.append(ephemeral)


def give(
    place: Path, command: str, pool: Pool | None = None, at: Interaction | None = None, **text: str
) -> Interaction:
    """Has *command* carried out with *text*; what was sent back."""
    at = at or Interaction()

    async def main() -> None:
        now = lambda: datetime(2026, 11, 21, 9, 30, tzinfo=UTC)  # noqa: E731
        desk = Desk(pool or Pool(), now, place / "inbox", place / "outbox", place / "notes")  # type: ignore[arg-type]
        bot = bot_of(desk, SETTINGS)
        found: Any = bot.tree.get_command(command, guild=discord.Object(11))  # type: ignore[attr-defined]
        await found.callback(at, **text)
        await bot.close()

    asyncio.run(main())
    return at


def test_BOT_02_an_idea_becomes_a_task_in_the_inbox(tmp_path: Path) -> None:
    at = give(tmp_path, "idea", text="A gateway for goats")
    (task,) = (tmp_path / "inbox").iterdir()
    assert task.name == "idea-20261121-093000-000000.md"
    assert task.read_text() == "A gateway for goats\n\n(from ada)\n"
    assert at.sent == [(f"Taken down as {task.name}.", True)]


def test_BOT_02_feedback_is_kept_in_the_notes(tmp_path: Path) -> None:
    give(tmp_path, "feedback", text="Fine")
    give(tmp_path, "feedback", text="Finer")
    text = (tmp_path / "notes" / "feedback.md").read_text()
    assert text.index("Fine\n") < text.index("Finer\n")
    assert "2026-11-21 09:30, ada" in text


def test_BOT_02_the_status_tells_of_tasks_and_providers(tmp_path: Path) -> None:
    (tmp_path / "inbox" / "done").mkdir(parents=True)
    (tmp_path / "inbox" / "a.md").write_text("x")
    (tmp_path / "inbox" / "done" / "b.md").write_text("x")
    at = give(tmp_path, "status")
    assert at.sent == [("1 task waiting, 0 answers given.\ngroq: 2 of 3 keys can answer, 1 rate limited", True)]


def test_BOT_02_a_role_is_asked_and_only_the_asker_sees_the_answer(tmp_path: Path) -> None:
    assert give(tmp_path, "ask", text="Why?", role="senior_dev").sent == [("senior_dev says: Why?", True)]
    at = give(tmp_path, "ask", text="Why?")
    assert at.sent == [("auto says: Why?", True)]
    assert at.deferred == [True]


def test_a_long_answer_comes_in_parts_and_an_empty_one_is_told(tmp_path: Path) -> None:
    parts = [text for text, _ in give(tmp_path, "ask", Pool(answer="x" * 4500), text="Why?").sent]
    assert "".join(parts) == "x" * 4500
    assert all(len(part) <= 2000 for part in parts)


def test_what_goes_wrong_is_told(tmp_path: Path) -> None:
    at = give(tmp_path, "ask", Pool(Capacity("every key is at its limit")), text="Why?")
    assert at.sent == [("That did not work: every key is at its limit", True)]


@pytest.mark.parametrize("where", [Interaction(12, 22), Interaction(11, 23)], ids=["server", "channel"])
@pytest.mark.parametrize("command", ["idea", "feedback", "ask"])
def test_BOT_02_commands_count_in_one_channel_of_one_server(tmp_path: Path, command: str, where: Interaction) -> None:
    where.sent.clear()
    assert give(tmp_path, command, at=where, text="x").sent == [(ELSEWHERE, True)]
    assert list(tmp_path.iterdir()) == []


def test_BOT_03_intents_are_off_unless_they_are_said() -> None:
    usual = intents_of({})
    on = [usual.message_content, usual.members, usual.presences, usual.guild_messages]
    assert not any(on)
    asked = intents_of({"message_content": True, "members": True, "presence": True})
    assert asked.message_content
    assert asked.members
    assert asked.presences


def test_BOT_06_what_is_missing_is_named() -> None:
    assert missing(SETTINGS) == []
    assert [line.split()[1].rstrip(",") for line in missing({})] == [*VARIABLES]
    assert "DISCORD_GUILD_ID is a number" in missing({**SETTINGS, "guild_id": "my server"})[0]


def test_BOT_06_the_command_checks_itself(terminal: Terminal) -> None:
    said = terminal.run("bot", "--check")
    assert said.exit_code == 1
    assert "DISCORD_COMMANDS_CHANNEL_ID" in said.output
    terminal.set(**VARIABLES, SENIOR_DEV_WEBHOOK_URL="https://example.invalid/planted-hook")
    said = terminal.run("bot", "--check")
    assert said.exit_code == 0
    assert "senior_dev" in said.output
    assert "planted" not in said.output
