"""`keyturn config show|check|schema`: what is configured, where each value came from, what the files may hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from keyturn.core import dollars
from keyturn.errors import ConfigError

from .output import counted, json_option, keys_counted, print_json, print_table, say
from .setup import Place, place_options, read_config

if TYPE_CHECKING:
    from keyturn.config import Config, LimitSpec

SCHEMAS = ("models", "roles", "limits", "callers", "settings")
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
    keys = [key for found in config.credentials.values() for key in found]
    said = [counted(len(config.providers), "provider"), keys_counted(keys) or "0 keys"]
    roles = sum(1 for name in config.names.values() if name.kind == "role")
    for number, thing in ((len(config.routes), "route"), (roles, "role"), (len(config.callers), "caller")):
        if number:
            said.append(counted(number, thing))
    click.echo(f"The configuration is valid: {', '.join(said)}.")


@command.command()
@click.argument("file", type=click.Choice(SCHEMAS), required=False)
def schema(file: str | None) -> None:
    """Print the JSON Schema of a configuration file, for editors; of all of them when none is named."""
    from keyturn.config import schema_of

    print_json({name: schema_of(name) for name in SCHEMAS} if file is None else schema_of(file))


@command.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--config", type=click.Path(file_okay=False, path_type=Path), default="config", help="The folder (config)."
)
@click.option("--env-file", type=click.Path(path_type=Path), help="The env file, instead of .env or PROXY_ENV.")
@click.option("--keep-source", is_flag=True, help="Leave FILE where it is.")
def merge(file: Path, config: Path, env_file: Path | None, keep_source: bool) -> None:
    """Put FILE (models.yaml.new) in the place of models.yaml, and keep the entries that only the old one has.

    A copy of models.yaml as it was is kept beside it; FILE is removed once both are on the disk.
    """
    from .merging import merge_and_tell

    merge_and_tell(file, config, env_file, keep_source)


def settings(config: Config) -> Iterator[Setting]:
    """Everything that is configured, in the order in which it is shown."""
    origin = _Origins(config)
    for stamp in config.files:
        if stamp.present:
            yield Setting("file", str(stamp.path), "")
    yield Setting("data", str(config.data), origin.of("data", "KEYTURN_DATA"))
    caller = "<secret>" if config.caller_key else str(config.data / "caller.key")
    yield Setting("caller_key", caller, origin.of("caller_key", "PROXY_API_KEY"))
    yield Setting("use_paid", config.use_paid, origin.of("use_paid", "USE_PAID_MODELS", "FREE_ONLY_MODE"))
    groups = f"{len(config.equivalents.groups)} groups"
    yield Setting("equivalents", groups, origin.of("equivalents", "KEYTURN_EQUIVALENTS"))
    if config.price_tiers is not None:
        yield Setting("price_tiers", sorted(config.price_tiers), origin.of("price_tiers", "ALLOWED_MODEL_TIERS"))
    yield Setting("cooldown.profile", config.cooldown, origin.of("cooldown.profile"))
    for name, value in asdict(config.server).items():
        yield Setting(f"server.{name}", value, origin.of(f"server.{name}", ORIGINS.get(name, ""), option=name))
    for name, value in asdict(config.timeouts).items():
        old = {"silence": "TIMEOUT_READ_STREAMING", "total": "TIMEOUT_READ_NON_STREAMING"}.get(name, "")
        variable = ORIGINS.get(name, f"TIMEOUT_{name.upper()}")
        yield Setting(f"timeouts.{name}", value, origin.of(f"timeouts.{name}", variable, old))
    for section, shared in (("cache", config.cache), ("coalesce", config.coalesce)):
        for name, value in asdict(shared).items() if shared is not None else ():
            variable = f"{section}_{name}".upper()
            yield Setting(f"{section}.{name}", value, origin.of(f"{section}.{name}", variable))
    for provider in config.providers:
        yield from _provider(config, provider, origin)
    for provider, variable in config.unset.items():
        yield Setting(f"{provider}.key", f"(none: set {variable})", "")
    yield from _names(config, origin)


def _names(config: Config, origin: _Origins) -> Iterator[Setting]:
    """Routes, roles, aliases, limits and callers. What there are many of is counted."""
    if config.routes:
        yield Setting("routes", len(config.routes), origin.of("routes"))
    for name, route in config.names.items():
        chain = list(route.chain)
        if route.providers:
            chain.append(f"(at {', '.join(route.providers)})")
        yield Setting(f"{route.kind}.{name}", chain, origin.of(f"names.{name}"))
        if route.budget is not None:
            yield Setting(
                f"{route.kind}.{name}.monthly_usd", dollars(route.budget.capacity), origin.of(f"names.{name}")
            )
    for name, rules in config.limit_rules.items():
        yield Setting(f"{name}.limit_rules", len(rules), origin.of("limits"))
    if config.default_limits:
        yield Setting("default_limits", _limits(config.default_limits), origin.of("limits"))
    if config.callers:
        yield Setting("callers", sorted(caller.name for caller in config.callers.values()), origin.of("callers"))


def _limits(specs: Iterable[LimitSpec]) -> list[str]:
    return [f"{limit.metric}/{limit.window}={limit.capacity}" for limit in specs]


def _provider(config: Config, name: str, origin: _Origins) -> Iterator[Setting]:
    row = config.providers[name]
    spellings = [*row.variables, row.name.upper(), *(alias.upper().replace("-", "_") for alias in row.aliases)]
    rotation = config.rotations.get(name)
    plans = {key.plan for key in config.credentials[name] if key.plan}
    families: tuple[tuple[str, Any, str], ...] = (
        ("base_url", None if row.endpoints else row.base_url or None, "{}_API_BASE"),
        *((f"endpoints.{end}", url, f"{{}}_{end.upper()}_API_BASE") for end, url in row.endpoints.items()),
        ("cmd", list(row.tool.argv) if row.tool is not None else None, ""),
        ("tier", config.tiers.get(name, row.tier), "PROVIDER_PRIORITY_{}"),
        ("plan", next(iter(plans), None), "KEY_PLAN_{}"),
        ("strategy", config.strategies.get(name, "balanced"), "ROTATION_MODE_{}"),
        ("rotation", None if rotation is None else f"cooldown_seconds={rotation.cooldown_seconds}", ""),
        ("max_concurrent", config.max_concurrent.get(name), "MAX_CONCURRENT_REQUESTS_PER_KEY_{}"),
        *_modes(config, name),
        ("limits", _limits(config.limits.get(name, ())) or None, "LIMITS_{}"),
        ("models", list(config.static_models.get(name, ())) or None, "{}_MODELS"),
        ("chat_model", config.chat_models.get(name, row.chat_model) or None, "{}_CHAT_MODEL"),
        ("embedding_model", config.embedding_models.get(name, row.embedding_model) or None, "{}_EMBEDDING_MODEL"),
    )
    for setting, value, family in families:
        if value is None:
            continue
        names = [family.format(spelling) for spelling in spellings] if family else []
        if setting == "endpoints.main":  # two more names of it
            names += [f"{spelling}_API_BASE" for spelling in spellings]
            if not any(each in config.origins for each in names):
                names = [config.origins.get(f"{name}.base_url", "")]
        if setting in ("max_concurrent", "optimal_concurrent"):
            mode = config.strategies.get(name, "balanced").upper()
            names = [*(f"{variable}_{mode}" for variable in names), *names]
        yield Setting(f"{name}.{setting}", value, origin.of(f"{name}.{setting}", *names))
    if row.tool is not None:
        yield Setting(f"{name}.found", row.tool.found, "PATH")
        return
    for key in config.credentials[name]:
        said = {
            "plan": key.plan,
            "weight": None if key.weight == 1 else key.weight,
            "priority": key.priority,
            "group": _group(config, name, key),
        }
        extra = "".join(f" {word}={value}" for word, value in said.items() if value is not None)
        shown = f"{key.shown}{extra}" if key.keyed else "(none needed)"
        yield Setting(f"{name}.key", shown, origin.of(f"{name}.key", key.origin) if key.keyed else key.origin)


def _modes(config: Config, name: str) -> Iterator[tuple[str, Any, str]]:
    """How the keys of provider *name* are used beyond their order, as far as anything is said of it."""
    modes = config.modes
    fair, chosen = modes.fair.get(name), modes.lists.get(name)
    groups = (f"{group}: {' '.join(each) or 'none'}" for group, each in modes.groups.get(name, {}).items())
    times = (f"{priority or 'others'}: ×{each}" for priority, each in modes.multipliers.get(name, {}).items())
    yield "optimal_concurrent", modes.soft.get(name), "OPTIMAL_CONCURRENT_REQUESTS_PER_KEY_{}"
    yield "concurrency_multipliers", list(times) or None, ""
    yield (
        "key_priority",
        [f"{each}: {least}" for each, least in modes.needed.get(name, ())] or None,
        "KEY_PRIORITY_FOR_{}",
    )
    yield "model_quota_groups", list(groups) or None, ""
    yield "caps", "; ".join(map(str, modes.caps.get(name, ()))) or None, "CUSTOM_CAP_{}"
    if fair is not None:
        what = "credential" if fair.per_key else "model_group"
        yield "fair_cycle", f"{what}, from {fair.threshold:g} s, for {fair.duration:g} s", "FAIR_CYCLE_{}"
    if chosen is not None:
        yield "allow_models", list(chosen.allow) or None, "WHITELIST_MODELS_{}"
        yield "ignore_models", list(chosen.ignore) or None, "IGNORE_MODELS_{}"


def _group(config: Config, name: str, key: Any) -> str | None:
    members = [str(other.number) for other in config.credentials[name] if other.group == key.group]
    return ",".join(members) if len(members) > 1 else None


class _Origins:
    """Tells where a setting came from: `--port`, `GROQ_API_KEY_2 (.env:3)`, `config/models.yaml:12`, or `default`."""

    def __init__(self, config: Config) -> None:
        self._origins = config.origins

    def of(self, setting: str, *variables: str, option: str = "") -> str:
        said = self._origins.get(option or setting, "")
        if said.startswith("--"):
            return said
        for name in variables:
            if found := self._origins.get(name):
                return f"{name} ({found})"
            if ":" in name:  # a key that is written into a file
                return name
        return self._origins.get(setting, "default")


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return ", ".join(map(str, value)) or "-" if isinstance(value, (list, tuple)) else str(value)
