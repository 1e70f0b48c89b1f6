"""`keyturn doctor`: what is set up, what is missing, what stands in the way."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import click

from keyturn.errors import ConfigError, KeyturnError

from .entry import CONFIG_INVALID, FAILED
from .output import counted, json_option, keys_counted, print_json, print_table
from .setup import Place, place_options, read_config

if TYPE_CHECKING:
    from keyturn.config import Config, DataFolder, Owner
    from keyturn.core import Credential


class Finding(NamedTuple):
    """One thing that was looked at. `fail` stops Keyturn, `warn` is worth a look."""

    check: str
    state: Literal["ok", "warn", "fail"]
    detail: str


@click.command()
@click.option("--env", "with_env", is_flag=True, help="List the environment variables instead, keys by fingerprint.")
@click.option("--online", is_flag=True, help="Also ask every provider one cheap question.")
@place_options
@json_option
def command(with_env: bool, online: bool, as_json: bool, **place: Any) -> None:
    """Say what is configured, what is missing and what is in the way. Exits with 1 when something is."""
    if with_env:
        _print_environment(Place(**place), as_json)
        return
    from keyturn.config import notes_of

    findings, invalid = [], False
    try:
        config = read_config(Place(**place))
    except ConfigError as error:
        findings, invalid = [Finding("configuration", "fail", problem) for problem in error.problems], True
        notes = notes_of(error)
    else:
        findings = [*_providers(config), *_files(config), *_listening(config)]
        if online:
            findings += _online(config)
        notes = config.notes
    findings += [Finding("note", "warn", note) for note in notes]
    if as_json:
        print_json([finding._asdict() for finding in findings])
    else:
        print_table(("", "CHECK", "FOUND"), [(finding.state, finding.check, finding.detail) for finding in findings])
    if any(finding.state == "fail" for finding in findings):
        sys.exit(CONFIG_INVALID if invalid else FAILED)


def _providers(config: Config) -> Iterator[Finding]:
    if config.demo:
        yield Finding("providers", "warn", "no key: demo/… is served; `keyturn keys add PROVIDER` adds a key")
    for name, keys in config.credentials.items():
        if config.providers[name].local_app:
            continue
        tool = config.providers[name].tool
        if tool is not None:
            said = f"{tool.argv[0]} is on the PATH" if tool.found else f"not used: {tool.argv[0]} is not on the PATH"
            yield Finding(name, "ok", said)
            continue
        count = sum(1 for key in keys if key.keyed)
        groups = len({key.group for key in keys})
        said = keys_counted(keys) or "no key needed"
        shared = f" in {counted(groups, 'quota group')}" if groups < count else ""
        ends = config.providers[name].endpoints
        where = ", ".join(f"{end} at {url}" for end, url in ends.items()) or config.providers[name].base_url
        yield Finding(name, "ok", f"{said}{shared}, {where}")
        yield from _accounts(config, keys)
    for name, variable in config.unset.items():
        yield Finding(name, "warn", f"no key: set {variable}")


def _accounts(config: Config, keys: Sequence[Credential]) -> Iterator[Finding]:
    """Who logs in instead of holding a key, and whether somebody has to do something for that."""
    for key in keys:
        if key.account is not None:
            from .login import needs_login

            lacking = needs_login(config, key)
            yield Finding(key.shown, "warn" if lacking else "ok", lacking or f"{key.account.who}, from {key.origin}")


def _files(config: Config) -> Iterator[Finding]:
    from keyturn.config import DataFolder

    present = [each.path.name for each in config.files if each.present and each.path != config.env_file]
    yield Finding("configuration", "ok", ", ".join(present) or "variables only; `keyturn init` writes files")
    if config.env_file is not None:
        yield _private(config.env_file, "env file")
    folder = DataFolder(config.data)
    place = config.data if config.data.exists() else _existing_parent(config.data)
    if not os.access(place, os.W_OK | os.X_OK):
        yield Finding("data folder", "fail", f"{config.data} cannot be written; choose another with --data")
    elif config.data.exists():
        yield _private(config.data, "data folder")
    else:
        yield Finding("data folder", "ok", f"{config.data} will be made at the first start")
    if config.caller_key is not None:
        yield Finding("caller key", "ok", "PROXY_API_KEY")
    else:
        yield _caller_key(folder)
    disabled = folder.disabled()
    if disabled:
        yield Finding("disabled keys", "ok", ", ".join(sorted(disabled.values())))


def _caller_key(folder: DataFolder) -> Finding:
    if folder.existing_caller_key() is None:
        return Finding("caller key", "ok", f"will be made in {folder.caller_key_file} at the first start")
    return Finding("caller key", "ok", str(folder.caller_key_file))


def _existing_parent(path: Path) -> Path:
    return next(parent for parent in path.parents if parent.exists())


def _private(path: Path, check: str) -> Finding:
    """Whether others on this machine can read *path*."""
    mode = path.stat().st_mode & 0o777
    if mode & 0o077 and sys.platform != "win32":
        right = "700" if path.is_dir() else "600"
        return Finding(check, "warn", f"{path} is open to other users ({mode:03o}): chmod {right} {path}")
    return Finding(check, "ok", str(path))


def _listening(config: Config) -> Iterator[Finding]:
    from keyturn.config import DataFolder

    host, port = config.server.host, config.server.port
    folder = DataFolder(config.data)
    owner = folder.owner()
    if owner is not None:
        yield Finding("gateway", "ok", f"running as process {owner.pid} at {owner.url}")
        yield from _running(owner, folder)
        return
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        yield Finding("port", "fail", f"{host}:{port} cannot be used: {error.strerror}; choose another with --port")
    else:
        yield Finding("port", "ok", f"{host}:{port} is free")


def _running(owner: Owner, folder: DataFolder) -> Iterator[Finding]:
    """Whether the gateway that runs answers, and by the configuration as it is on the disk now."""
    from .live import Gateway

    key = folder.admin_key()
    if key is None:
        return
    try:
        status = Gateway(owner.pid, owner.url, key).ask("/admin/status")
    except KeyturnError as error:
        yield Finding("gateway", "fail", error.message)
        return
    for problem in (status.get("config") or {}).get("problems", ()):
        yield Finding("gateway", "warn", f"does not use the changed configuration: {problem}")


def _online(config: Config) -> Iterator[Finding]:
    from .probe import probe, questions

    if config.demo:
        return
    firsts = [keys[0] for keys in config.credentials.values()]
    for found in asyncio.run(probe(config, questions(config, firsts))):
        state: Literal["ok", "warn", "fail"] = (
            "ok" if found.meaning == "ok" else "fail" if found.status is None and found.meaning != "unknown" else "warn"
        )
        status = f", status {found.status}" if found.status else ""
        said = f": {found.message}" if found.message else ""
        name = f"{found.credential.provider} {found.endpoint}".strip()
        yield Finding(f"{name} online", state, f"{found.meaning}{status}{said}")


def _print_environment(place: Place, as_json: bool) -> None:
    """Every variable that is read, with its value or, for a key, its fingerprint; and the families that are unset."""
    from keyturn.config import VARIABLES

    config = read_config(place)
    keys = {key.origin: key.shown for found in config.credentials.values() for key in found if key.keyed}
    rows = [
        {"variable": name, "value": keys.get(name, "<secret>" if "_API_KEY" in name else "set"), "from": origin}
        for name, origin in sorted(_variables(config.origins).items())
    ]
    rows += [
        {"variable": variable, "value": "(not set)", "from": f"provider {name} of models.yaml"}
        for name, variable in config.unset.items()
    ]
    unset = [known for known in VARIABLES if "<" not in known.name and known.name not in config.origins]
    rows += [{"variable": known.name, "value": known.default, "from": "default"} for known in unset]
    if as_json:
        print_json(rows)
    else:
        print_table(("VARIABLE", "VALUE", "FROM"), [tuple(row.values()) for row in rows])


def _variables(origins: Mapping[str, str]) -> dict[str, str]:
    """Of all settings those that are variables: their names are in capitals."""
    return {name: origin for name, origin in origins.items() if name == name.upper() and not origin.startswith("--")}
