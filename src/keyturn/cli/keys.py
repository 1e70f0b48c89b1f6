"""`keyturn keys …`: see, test, add, and switch keys; the running gateway is told, else files are changed."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .entry import FAILED
from .named import keys_named, provider_named
from .output import json_option, print_json, print_table, say
from .setup import Place, place_options, read_config
from .stamps import time_stamp

if TYPE_CHECKING:
    from keyturn.config import Config
    from keyturn.core import Credential

    from .probe import Finding


@click.group()
def command() -> None:
    """List, test, reset, add, disable and enable keys.

    KEY is a label (groq-2), what `keys list` shows (groq-2:9f3a1c), its fingerprint (9f3a1c), or a provider for all
    its keys.
    """


@command.command("list")
@click.argument("provider", required=False)
@place_options
@json_option
def list_keys(provider: str | None, as_json: bool, **place: Any) -> None:
    """List keys with their state and limits; without a running gateway, as the last one left them."""
    from .live import find_gateway, running
    from .stopped import ago, left_behind

    config = read_config(Place(**place))
    found = left_behind(config) if running(config) is None else None
    known = "the configuration, without live state" if found is None else f"how it stood {ago(found[1])}"
    gateway = find_gateway(config, f"this is {known}")
    if gateway is not None:
        rows = gateway.ask("/admin/keys")
    else:
        rows = _configured(config) if found is None else found[0].keys()
    wanted = provider_named(provider, {row["provider"] for row in rows})
    rows = [row for row in rows if wanted in (None, row["provider"])]
    if as_json:
        print_json(rows)
        return
    head = ("KEY", "STATE", "UNTIL", "REASON", "LIMITS")
    print_table(
        head, [(row["key"], row["state"], row["until"] or "", row["reason"] or "", _limits(row)) for row in rows]
    )
    if gateway is not None:
        for group in gateway.ask("/admin/keys/groups"):
            if wanted in (None, group["provider"]):
                click.echo(_grouped(group))


def _grouped(group: dict[str, Any]) -> str:
    """What was found out of a quota group, in a sentence or two."""
    names = ", ".join(group["keys"])
    if group["state"] == "inferred":
        said = f"{names} are one quota group: they share one quota at {group['provider']}, so more keys of that account"
        return f"{said} do not help. `keyturn keys groups` says why, `keyturn keys ungroup KEY` undoes it."
    said = f"{names} seem to share one quota at {group['provider']}; `keyturn keys groups` says why"
    return f"{said}. If they do, declare it: QUOTA_GROUP_<P>."


@command.command()
@click.argument("provider", required=False)
@place_options
@json_option
def groups(provider: str | None, as_json: bool, **place: Any) -> None:
    """Show which keys were found to share one quota, and what speaks for it."""
    from .live import find_gateway

    config = read_config(Place(**place))
    gateway = find_gateway(config, "this is what the last one found out")
    if gateway is not None:
        rows = gateway.ask("/admin/keys/groups")
    else:
        from keyturn.config import DataFolder
        from keyturn.dispatch import groups_kept

        rows = groups_kept(config, DataFolder(config.data))
    wanted = provider_named(provider, {*config.providers})
    rows = [row for row in rows if wanted in (None, row["provider"])]
    if as_json:
        print_json(rows)
        return
    if not rows:
        click.echo("no keys were found to share a quota; those that you declared yourself are not listed here")
    for row in rows:
        click.echo(f"{', '.join(row['keys'])} ({row['state']})")
        for said in row["evidence"]:
            click.echo(f"    {said}")


@command.command()
@click.argument("key")
@place_options
def ungroup(key: str, **place: Any) -> None:
    """Undo a quota group that was found out: KEY shares with nobody, which is remembered."""
    from keyturn.config import DataFolder

    from .live import find_gateway

    config = read_config(Place(**place))
    found = keys_named(config, key)
    gateway = find_gateway(config, "the next one will know")
    if gateway is not None:
        shown = gateway.ask("/admin/keys/ungroup", {"key": key})["keys"]
    else:
        from keyturn.dispatch import refuse_apart

        freed = set(refuse_apart(DataFolder(config.data), [each.fingerprint for each in found]))
        shown = [each.shown for group in config.credentials.values() for each in group if each.fingerprint in freed]
    click.echo(f"taken apart: {', '.join(shown) or 'nothing, it was in no group that was found out'}")


def _limits(row: dict[str, Any]) -> str:
    """The fullest of a key's limits, in short."""
    shown = [
        f"{limit['metric']}/{limit['window']} {_taken(limit)} of {limit['capacity']}"
        + (f" ({limit['model']})" if limit["model"] else "")
        for limit in row["limits"]
    ]
    return "; ".join(shown[:2]) + (f"; {len(shown) - 2} more" if len(shown) > 2 else "")


def _taken(limit: dict[str, Any]) -> int | str:
    """What is used of a limit, with what the calls under way have reserved."""
    return "-" if limit["used"] is None else limit["used"] + limit["reserved"]


def _configured(config: Config) -> list[dict[str, Any]]:
    """The rows of `keys list` as far as they are known without a gateway."""
    from keyturn.config import DataFolder

    disabled = DataFolder(config.data).disabled()
    unknown = {"used": None, "reserved": None, "free": None, "resets_at": None, "source": "declared", "model": None}
    return [
        {
            "provider": key.provider,
            "key": key.shown,
            "state": "disabled" if key.fingerprint in disabled else "configured" if _there(config, key) else "missing",
            "until": None,
            "reason": "disabled" if key.fingerprint in disabled else _lacking(config, key) or None,
            "limits": [limit._asdict() | unknown for limit in config.limits.get(key.provider, ())],
        }
        for keys in config.credentials.values()
        for key in keys
    ]


def _lacking(config: Config, key: Credential) -> str:
    """What an account lacks to give tokens."""
    if key.account is None:
        return ""
    from .login import needs_login

    return needs_login(config, key)


def _there(config: Config, key: Credential) -> bool:
    """Whether what it stands for can be asked: a tool may not be installed."""
    tool = config.providers[key.provider].tool
    return tool is None or tool.found


@command.command()
@click.argument("key", required=False)
@place_options
@json_option
def test(key: str | None, as_json: bool, **place: Any) -> None:
    """Ask every provider one cheap question with each key (or with KEY) and say what the answer means.

    Of g4f each of its five endpoints has a line: one that is not set is `not_set`, and counts as no failure. Exits
    with 1 when a key or an endpoint did not work.
    """
    from keyturn.providers import ENDPOINTS, plain_name

    from .probe import probe, questions, unset_endpoints

    config = read_config(Place(**place))
    if key is not None and plain_name(key) == "g4f" and "g4f" not in config.providers:
        variables = ", ".join(f"G4F_{name.upper()}_API_BASE" for name in ENDPOINTS)
        raise click.UsageError(f"none of the five endpoints of g4f is set: set one of {variables}")
    if config.demo:
        raise click.UsageError("no key is configured; `keyturn keys add PROVIDER` adds one")
    named = keys_named(config, key)
    rows = [_finding(each) for each in asyncio.run(probe(config, questions(config, named)))]
    rows += [_finding(each) for each in unset_endpoints(config, named)]
    if as_json:
        print_json(rows)
    else:
        print_table(("KEY", "VARIABLE", "MEANING", "STATUS", "MS", "MESSAGE"), [_tested(row) for row in rows])
    if any(row["meaning"] not in ("ok", "not_set") for row in rows):
        sys.exit(1)


def _finding(finding: Finding) -> dict[str, Any]:
    """One row of `keys test --json`."""
    return {
        "provider": finding.credential.provider,
        "key": finding.credential.shown,
        "variable": finding.credential.origin,
        "endpoint": finding.endpoint or None,
        "meaning": finding.meaning,
        "status": finding.status,
        "ms": round(finding.seconds * 1000),
        "message": finding.message,
    }


def _tested(row: dict[str, Any]) -> tuple[object, ...]:
    said = f"{row['endpoint']}: {row['message']}" if row["endpoint"] else row["message"]
    return row["key"], row["variable"], row["meaning"], row["status"] or "-", row["ms"], said[:100]


@command.command()
@click.argument("key", required=False)
@place_options
def reset(key: str | None, **place: Any) -> None:
    """Forget the cooldowns of all keys (or of KEY), so that they are tried again at once."""
    from .live import find_gateway, leave_alone
    from .stopped import anything_left, forget

    config = read_config(Place(**place))
    keys_named(config, key)
    leave_alone(config)
    shared = config.redis is not None
    left = "this is for the next one" if anything_left(config) else "there are no cooldowns to forget"
    gateway = find_gateway(config, "one must run to forget cooldowns that are in Redis" if shared else left)
    if gateway is None and shared:
        sys.exit(FAILED)
    shown = forget(config, key) if gateway is None else gateway.ask("/admin/keys/reset", {"key": key})["keys"]
    click.echo(f"reset: {', '.join(shown) or 'nothing, no key was resting'}")


@command.command()
@click.argument("key")
@place_options
def disable(key: str, **place: Any) -> None:
    """Take KEY out of use until `keys enable`, restarts included."""
    _switch(key, "disable", read_config(Place(**place)))


@command.command()
@click.argument("key")
@place_options
def enable(key: str, **place: Any) -> None:
    """Take KEY into use again."""
    _switch(key, "enable", read_config(Place(**place)))


def _switch(key: str, action: str, config: Config) -> None:
    from keyturn.config import DataFolder

    from .live import find_gateway

    found = keys_named(config, key)
    gateway = find_gateway(config, "it will know at its next start")
    if gateway is not None:
        shown = gateway.ask(f"/admin/keys/{action}", {"key": key})["keys"]
    else:
        shown = [each.shown for each in found]
        folder = DataFolder(config.data)
        disabled = folder.disabled()
        for each in found:
            if action == "disable":
                disabled[each.fingerprint] = each.shown
            else:
                disabled.pop(each.fingerprint, None)
        folder.write_disabled(disabled)
    click.echo(f"{action}d: {', '.join(shown) or 'nothing, it was so already'}")


@command.command()
@click.argument("provider")
@place_options
def add(provider: str, **place: Any) -> None:
    """Add a key of PROVIDER to the env file. It is read from a hidden prompt, or from stdin; never from an argument."""
    from keyturn.config import UnknownProvider, add_key, environment

    prompt = f"Key of {provider} (not shown)"
    secret = click.prompt(prompt, hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.read()
    env_file = Place(**place).env_file
    try:
        added = add_key(
            environment(), env_file, Path.cwd(), provider=provider, secret=secret.strip(), stamp=time_stamp()
        )
    except UnknownProvider as error:
        raise click.UsageError(error.message) from error
    click.echo(f"{added.variable} was added to {added.file}")
    if added.backup is not None:
        click.echo(f"the file as it was before: {added.backup}")
    say("A running gateway takes it into use within a moment.")
