"""What settings.toml says: timeouts, the server, the paid gate, cooldowns, and the sections of other programs."""

from __future__ import annotations

from keyword import iskeyword
from typing import TYPE_CHECKING, Any

from keyturn.core import Secret
from keyturn.providers import nearest

from .files import Files, Read
from .model import CooldownProfile, Timeouts
from .settings import NO, YES, Settings, as_integer

if TYPE_CHECKING:
    from .shape_settings import SettingsFile

OTHERS = ("general", "discord", "vault", "orchestrator", "watch")
"""Sections that the gateway itself does not read."""
DISCORD = ("bot_token", "app_id", "guild_id", "commands_channel_id", "updates_channel_id")
DISCORD_SWITCHES = ("message_content", "members", "presence")
WEBHOOK = "_WEBHOOK_URL"


class Filled:
    """settings.toml, with what the file leaves out as None. *origins* collects what it says, setting → place."""

    def __init__(self, files: Files) -> None:
        self.source: Read[SettingsFile] | None = files.settings
        self.origins: dict[str, str] = {}

    def value(self, section: str, name: str, setting: str = "") -> Any:
        """What the file says of *name*; None when it says nothing."""
        if self.source is None or not self.source.said(section, name):
            return None
        self.origins[setting or f"{section}.{name}"] = self.source.at(section, name)
        return getattr(getattr(self.source.content, section), f"{name}_" if iskeyword(name) else name)


def timeouts_of(filled: Filled, settings: Settings) -> Timeouts:
    """The file's timeouts over the defaults."""
    usual = Timeouts()
    said = {name: filled.value("timeouts", name) for name in Timeouts.__dataclass_fields__}
    older = filled.value("providers", "timeout")
    for name in ("first_token", "no_content"):
        if older is not None and said[name] is None:
            said[name] = older
            filled.origins[f"timeouts.{name}"] = filled.origins["providers.timeout"]
    if filled.value("providers", "max_retries") is not None:
        place = filled.origins["providers.max_retries"]
        settings.report.note(place, "max_retries has no effect: another key or provider is tried while one is left")
    return Timeouts(**{name: getattr(usual, name) if value is None else value for name, value in said.items()})


def cooldown_of(filled: Filled) -> CooldownProfile:
    """`[cooldown] profile`."""
    found: CooldownProfile | None = filled.value("cooldown", "profile", "cooldown.profile")
    return found or "adaptive"


def sections_of(filled: Filled, settings: Settings) -> dict[str, dict[str, Any]]:
    """The sections of other programs, with the variables of theirs over them. What opens a door is a Secret."""
    found: dict[str, dict[str, Any]] = {}
    for section in OTHERS:
        found[section] = _section(filled, section, settings)
    discord = found["discord"]
    webhooks = {name: Secret(url) for name, url in discord.get("webhooks", {}).items() if url}
    for variable in sorted(settings.values):
        if variable.endswith(WEBHOOK) and variable != WEBHOOK and settings.is_set(variable):
            webhooks[variable.removesuffix(WEBHOOK).lower()] = Secret(settings.text(variable) or "")
    for name in DISCORD:
        text = settings.text(f"DISCORD_{name.upper()}") or discord.get(name)
        if text:
            discord[name] = Secret(str(text)) if name == "bot_token" else str(text)
        else:
            discord.pop(name, None)
    for name in DISCORD_SWITCHES:
        said = _switch(f"DISCORD_{name.upper()}", settings)
        if said is not None:
            discord[name] = said
    if webhooks:
        discord["webhooks"] = webhooks
    elif "webhooks" in discord:
        del discord["webhooks"]
    if roles := settings.words("ORCHESTRATOR_ROLES"):
        found["orchestrator"]["roles"] = roles
    for variable, section, name in (("LOG_LEVEL", "general", "log_level"), ("OBSIDIAN_VAULT_PATH", "vault", "path")):
        if text := settings.text(variable):
            found[section][name] = text
    return {section: members for section, members in found.items() if members}


def _section(filled: Filled, section: str, settings: Settings) -> dict[str, Any]:
    if filled.source is None:
        return {}
    shape = getattr(filled.source.content, section)
    extra = shape.__pydantic_extra__ or {}
    for name in extra:
        if near := nearest(name, type(shape).model_fields):
            place = filled.source.at(section, name)
            settings.report.note(place, f"[{section}] {name} is kept as it is; was {near} meant?")
    written = filled.source.said(section)
    members = {name: getattr(shape, name) for name in type(shape).model_fields} if written else {}
    return {name: value for name, value in {**members, **extra}.items() if value is not None}


def _switch(variable: str, settings: Settings) -> bool | None:
    """As the bot's own variables have it: any number but 0 is yes. What is neither is left unsaid."""
    text = (settings.text(variable) or "").lower()
    number = as_integer(text)
    if number is not None:
        return number != 0
    return True if text in YES else False if text in NO else None
