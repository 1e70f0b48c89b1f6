"""`keyturn config show|check`: what is configured, and where each value came from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from keyturn.errors import ConfigError

from .output import counted, json_option, print_json, print_table, say
from .setup import Place, place_options, read_config

if TYPE_CHECKING:
    from keyturn.config import Config

ORIGINS = {
    "host": "KEYTURN_HOST",
    "port": "KEYTURN_PORT",
    "allowed_hosts": "KEYTURN_ALLOWED_HOSTS",
    "to_content": "GLOBAL_TIMEOUT",
}
"""Settings whose variable is not `TIMEOUT_<NAME>`."""


class Setting(NamedTuple):
    """One configured value, printable, and the variable or option that it came from."""

    name: str
    value: Any
    origin: str


@click.group()
def command() -> None:
    """Show or check the configuration."""


@command.command()
@place_options
@json_option
def show(as_json: bool, **place: Any) -> None:
    """Print every setting and where it came from. Keys are shown by label and fingerprint."""
    config = read_config(Place(**place))
    rows = list(settings(config))
    if as_json:
        print_json([{"setting": row.name, "value": row.value, "from": row.origin} for row in rows])
    else:
        print_table(("SETTING", "VALUE", "FROM"), [(row.name, _shown(row.value), row.origin) for row in rows])
    for note in config.notes:
        say(f"note: {note}")


@command.command()
@place_options
def check(**place: Any) -> None:
    """Say whether the configuration is valid; exits with 3, naming every mistake, when it is not."""
    from keyturn.config import notes_of

    try:
        config = read_config(Place(**place))
    except ConfigError as error:
        for note in notes_of(error):
            say(f"note: {note}")
        raise
    for note in config.notes:
        say(f"note: {note}")
    keys = sum(1 for found in config.credentials.values() for key in found if key.secret)
    said = f"{counted(len(config.providers), 'provider')}, {counted(keys, 'key')}"
    click.echo(f"The configuration is valid: {said}.")


def settings(config: Config) -> Iterator[Setting]:
    """Everything that is configured, in the order in which it is shown."""
    origin = _Origins(config)
    if config.env_file is not None:
        yield Setting("env_file", str(config.env_file), "")
    yield Setting("data", str(config.data), origin.of("data", "KEYTURN_DATA"))
    caller = "<secret>" if config.caller_key else str(config.data / "caller.key")
    yield Setting("caller_key", caller, origin.of("caller_key", "PROXY_API_KEY"))
    yield Setting("use_paid", config.use_paid, origin.of("use_paid", "USE_PAID_MODELS", "FREE_ONLY_MODE"))
    if config.price_tiers is not None:
        yield Setting("price_tiers", sorted(config.price_tiers), origin.of("price_tiers", "ALLOWED_MODEL_TIERS"))
    for name, value in asdict(config.server).items():
        yield Setting(f"server.{name}", value, origin.of(name, ORIGINS.get(name, "")))
    for name, value in asdict(config.timeouts).items():
        old = {"silence": "TIMEOUT_READ_STREAMING", "total": "TIMEOUT_READ_NON_STREAMING"}.get(name, "")
        yield Setting(f"timeouts.{name}", value, origin.of(name, ORIGINS.get(name, f"TIMEOUT_{name.upper()}"), old))
    for provider in config.providers:
        yield from _provider(config, provider, origin)


def _provider(config: Config, name: str, origin: _Origins) -> Iterator[Setting]:
    row = config.providers[name]
    spellings = [*row.variables, row.name.upper(), *(alias.upper().replace("-", "_") for alias in row.aliases)]
    specs = [f"{limit.metric}/{limit.window}={limit.capacity}" for limit in config.limits.get(name, ())]
    families: tuple[tuple[str, Any, str], ...] = (
        ("base_url", row.base_url, "{}_API_BASE"),
        ("tier", config.tiers.get(name, row.tier), "PROVIDER_PRIORITY_{}"),
        ("strategy", config.strategies.get(name, "balanced"), "ROTATION_MODE_{}"),
        ("max_concurrent", config.max_concurrent.get(name), "MAX_CONCURRENT_REQUESTS_PER_KEY_{}"),
        ("limits", specs or None, "LIMITS_{}"),
        ("models", list(config.static_models.get(name, ())) or None, "{}_MODELS"),
        ("chat_model", config.chat_models.get(name), "{}_CHAT_MODEL"),
    )
    for setting, value, family in families:
        if value is not None:
            names = [family.format(spelling) for spelling in spellings]
            if setting == "max_concurrent":
                mode = config.strategies.get(name, "balanced").upper()
                names = [*(f"{variable}_{mode}" for variable in names), *names]
            yield Setting(f"{name}.{setting}", value, origin.of(f"{name}.{setting}", *names))
    for key in config.credentials[name]:
        said = {"plan": key.plan, "weight": None if key.weight == 1 else key.weight, "group": _group(config, name, key)}
        extra = "".join(f" {word}={value}" for word, value in said.items() if value is not None)
        yield Setting(
            f"{name}.key", f"{key.shown}{extra}" if key.secret else "(none needed)", origin.of("", key.origin)
        )


def _group(config: Config, name: str, key: Any) -> str | None:
    members = [str(other.number) for other in config.credentials[name] if other.group == key.group]
    return ",".join(members) if len(members) > 1 else None


class _Origins:
    """Tells where a setting came from: `--port`, `GROQ_API_KEY_2 (.env:3)`, or `default`."""

    def __init__(self, config: Config) -> None:
        self._origins = config.origins

    def of(self, setting: str, *variables: str) -> str:
        for name in (setting, *variables):
            found = self._origins.get(name)
            if found is not None:
                return found if found.startswith("--") else f"{name} ({found})"
        return "default"


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return ", ".join(map(str, value)) or "-" if isinstance(value, (list, tuple)) else str(value)
