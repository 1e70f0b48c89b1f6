"""`keyturn bot`: a Discord bot whose slash commands take ideas and feedback, tell the status, and ask a role."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keyturn.core import Secret
from keyturn.errors import KeyturnError

from .output import counted, say
from .setup import Place, place_options, read_config
from .stopping import run_until_asked

if TYPE_CHECKING:
    import discord

    from keyturn.client import AsyncClient
    from keyturn.config import Config

LONGEST = 1990
"""Characters of a message; Discord takes 2,000."""
NEEDED = {
    "bot_token": "the token of the bot, from Discord's developer pages",
    "guild_id": "the server that it belongs to",
    "commands_channel_id": "the one channel where it takes commands",
}
ELSEWHERE = "I take commands in one channel of one server only, and this is not it."


class Desk:
    """What the slash commands do. Times are in the machine's own zone."""

    def __init__(
        self, client: AsyncClient, now: Callable[[], datetime], inbox: Path, outbox: Path, notes: Path
    ) -> None:
        self._client = client
        self._now = now
        self._inbox = inbox
        self._outbox = outbox
        self._notes = notes

    async def idea(self, text: str, author: str) -> str:
        """A task for `keyturn watch`, whole from the first moment that it can be seen."""
        from keyturn.config import write_private

        self._inbox.mkdir(parents=True, exist_ok=True)
        place = self._inbox / f"idea-{self._now():%Y%m%d-%H%M%S-%f}.md"
        write_private(place, f"{text}\n\n(from {author})\n".encode())
        return f"Taken down as {place.name}."

    async def feedback(self, text: str, author: str) -> str:
        """A paragraph in the notes."""
        self._notes.mkdir(parents=True, exist_ok=True)
        with (self._notes / "feedback.md").open("a", encoding="utf-8") as notes:
            notes.write(f"## {self._now():%Y-%m-%d %H:%M}, {author}\n\n{text}\n\n")
        return "Thank you, it is in the notes."

    async def status(self) -> str:
        """How many tasks wait and are answered, and how the providers stand."""
        waiting = len([each for each in self._inbox.rglob("*.md") if each.parent.name not in ("done", "failed")])
        answered = len([*self._outbox.glob("*.md")])
        lines = [f"{counted(waiting, 'task')} waiting, {counted(answered, 'answer')} given."]
        for provider, row in (await self._client.get_status_summary()).items():
            if isinstance(row, Mapping):
                resting = f", {row['rate_limited']} rate limited" if row["rate_limited"] else ""
                lines.append(f"{provider}: {row['available']} of {row['total']} keys can answer{resting}")
        return "\n".join(lines)

    async def ask(self, text: str, role: str) -> str:
        return await self._client.complete(role or "auto", text)


def intents_of(settings: Mapping[str, Any]) -> discord.Intents:
    """What the bot hears of: slash commands need none of it, the rest is off unless it is said."""
    import discord

    intents = discord.Intents(guilds=True)
    intents.message_content = bool(settings.get("message_content"))
    intents.guild_messages = intents.message_content
    intents.members = bool(settings.get("members"))
    intents.presences = bool(settings.get("presence"))
    return intents


def bot_of(desk: Desk, settings: Mapping[str, Any]) -> discord.Client:
    """The bot, not connected yet; its commands are in its `tree`."""
    import discord
    from discord import app_commands

    guild = discord.Object(int(settings["guild_id"]))
    channel = int(settings["commands_channel_id"])

    class Bot(discord.Client):
        def __init__(self) -> None:
            known: dict[str, Any] = {"application_id": int(settings["app_id"])} if settings.get("app_id") else {}
            super().__init__(intents=intents_of(settings), **known)
            self.tree = app_commands.CommandTree(self)

        async def setup_hook(self) -> None:
            await self.tree.sync(guild=guild)

        async def on_ready(self) -> None:
            say(f"The bot is there as {self.user}; it takes commands in channel {channel} of server {guild.id}.")

    async def answer(interaction: discord.Interaction, work: Callable[[], Awaitable[str]]) -> None:
        """Only who asks sees it; put off first, as Discord waits three seconds only."""
        if interaction.guild_id != guild.id or interaction.channel_id != channel:
            await interaction.response.send_message(ELSEWHERE, ephemeral=True)
            return
        await interaction.response.defer(ephemeral=True, thinking=True)
        try:
            said = await work()
        except (KeyturnError, OSError) as error:
            said = f"That did not work: {error}"
        for start in range(0, max(len(said), 1), LONGEST):
            await interaction.followup.send(
                said[start : start + LONGEST] or "(an empty answer)",
                ephemeral=True,
                allowed_mentions=discord.AllowedMentions.none(),
            )

    bot = Bot()

    @bot.tree.command(guild=guild, description="Hand in a task.")
    async def idea(interaction: discord.Interaction, text: str) -> None:
        await answer(interaction, lambda: desk.idea(text, str(interaction.user)))

    @bot.tree.command(guild=guild, description="Say what is good and what is not.")
    async def feedback(interaction: discord.Interaction, text: str) -> None:
        await answer(interaction, lambda: desk.feedback(text, str(interaction.user)))

    @bot.tree.command(guild=guild, description="Tell how tasks and providers stand.")
    async def status(interaction: discord.Interaction) -> None:
        await answer(interaction, desk.status)

    @bot.tree.command(guild=guild, description="Ask a role, or any model.")
    async def ask(interaction: discord.Interaction, text: str, role: str = "") -> None:
        await answer(interaction, lambda: desk.ask(text, role))

    return bot


def missing(settings: Mapping[str, Any]) -> list[str]:
    """What the bot cannot do without and does not have, and what is no number though it must be one."""
    wrong = [
        f"set DISCORD_{name.upper()}, or {name} in [discord] of settings.toml: {why}"
        for name, why in NEEDED.items()
        if not settings.get(name)
    ]
    return wrong + [
        f"DISCORD_{name.upper()} is a number of some 18 digits, copied from Discord"
        for name in ("app_id", "guild_id", "commands_channel_id")
        if settings.get(name) and not str(settings[name]).isdecimal()
    ]


@click.command()
@click.option("--check", is_flag=True, help="Say whether everything is set, and end.")
@place_options
def command(check: bool, **place: Any) -> None:
    """Run the Discord bot."""
    config = read_config(Place(**place))
    settings = config.sections.get("discord", {})
    if wrong := missing(settings):
        raise KeyturnError("The bot cannot start:\n  " + "\n  ".join(wrong))
    try:
        import discord  # noqa: F401
    except ImportError as error:
        raise KeyturnError('The bot needs discord.py: pip install "keyturn[bot]"') from error
    if check:
        click.echo(f"All is set; webhooks: {', '.join(sorted(settings.get('webhooks', {}))) or 'none'}.")
        return
    vault = config.sections.get("vault", {}).get("path")
    run_until_asked(_run(config, Place(**place), Path(vault).expanduser() if vault else None), config)


async def _run(config: Config, place: Place, vault: Path | None) -> None:
    import discord

    from keyturn.client import AsyncClient
    from keyturn.dispatch import SystemClock

    clock, settings, watch = SystemClock(), config.sections["discord"], config.sections.get("watch", {})
    inbox, outbox = Path(watch.get("inbox", "inbox")), Path(watch.get("outbox", "outbox"))
    token: Secret = settings["bot_token"]
    async with AsyncClient(**place.for_client) as client:
        desk = Desk(client, lambda: datetime.fromtimestamp(clock.wall()).astimezone(), inbox, outbox, vault or outbox)
        bot = bot_of(desk, settings)
        try:
            await bot.start(token.reveal())
        except (discord.LoginFailure, OSError) as error:
            raise KeyturnError(f"Discord cannot be reached, or does not take DISCORD_BOT_TOKEN: {error}") from error
        finally:
            await bot.close()
