"""`keyturn connect`: the settings that point a tool at this gateway, printed, written into its files, or taken back."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .banner import key_in_shell
from .connect_parts import FileEdit, ToolSettings
from .connect_target import PLACEHOLDER, Target, key_in_words, needed_key, target_of
from .connect_tools import KEY_VARIABLE, TOOLS, Keys
from .connect_tools import Place as ToolPlace
from .entry import Failure
from .output import json_option, print_json, say
from .setup import Place, place_options, read_config
from .stamps import time_stamp

if TYPE_CHECKING:
    from keyturn.config import Config

KEYS = ("_API_KEY", "_AUTH_TOKEN")
"""Ends of the variables whose value is quoted for a shell already."""


class NoFile(Failure):
    """A tool that has no file to edit: wrong usage."""

    exit_code = 2


@click.command()
@click.argument("tool", type=click.Choice([*TOOLS]))
@click.option("-m", "--model", help="The route to ask for; without it the first model of the gateway.")
@click.option("--url", help="The gateway's address, instead of the running or the configured one.")
@click.option("--show-key", is_flag=True, help="Print the caller key itself.")
@click.option("--write", "writes", is_flag=True, help="Edit the tool's own files, with a backup of each.")
@click.option("--undo", "undoes", is_flag=True, help="Restore the tool's files as they were before --write.")
@click.option("--force", is_flag=True, help="With --undo: also when a file was changed since.")
@json_option
@place_options
def command(
    tool: str,
    model: str | None,
    url: str | None,
    show_key: bool,
    writes: bool,
    undoes: bool,
    force: bool,
    as_json: bool,
    **place: Any,
) -> None:
    """Print the settings that point TOOL at this gateway; with --write, put them into its files."""
    if writes and undoes:
        raise click.UsageError("--write and --undo exclude each other")
    if force and not undoes:
        raise click.UsageError("--force belongs to --undo")
    if undoes:
        _undo(tool, force, as_json)
        return
    from .live import find_gateway

    config = read_config(Place(**place))
    gateway = find_gateway(config, "these are the settings for where it will listen") if url is None else None
    target = target_of(config, gateway, url, model)
    if target.model == PLACEHOLDER and not (writes and not _settings(tool, target, "").edits):
        advice = f"Put a name of `keyturn models` in the place of {PLACEHOLDER}, or say it with -m."
        if writes:
            raise click.UsageError(f"which model? {advice}")
        say(advice)
    if writes:
        shown = _references(config, as_json)
        _write(tool, target, shown, as_json, lambda: needed_key(config))
        return
    if show_key:
        key = needed_key(config)
        keys = Keys(key if as_json else shlex.quote(key), key)
    else:
        keys = _references(config, as_json)
    settings = TOOLS[tool](target, keys, _tool_place())
    if as_json:
        print_json(_told(settings, target))
    else:
        _print(settings, target)


def _references(config: Config, as_json: bool) -> Keys:
    """What stands for the key."""
    shell = key_in_shell(config)
    return Keys(shell if as_json else f'"{shell}"', key_in_words(config))


def _tool_place() -> ToolPlace:
    from keyturn.config import environment

    return ToolPlace(Path.home(), environment())


def _settings(tool: str, target: Target, key: str) -> ToolSettings:
    return TOOLS[tool](target, Keys(key, key), _tool_place())


def _write(tool: str, target: Target, shown: Keys, as_json: bool, key: Callable[[], str]) -> None:
    from .connect_files import prepare, write

    settings = TOOLS[tool](target, shown, _tool_place())
    if not settings.edits:
        raise NoFile("\n  ".join([f"{settings.title} has no file that could be edited. By hand:", *settings.steps]))
    secret = any(each.secret for each in settings.edits)
    real = _settings(tool, target, key()) if secret else settings
    outcomes = write([prepare(each) for each in real.edits], time_stamp())
    if as_json:
        told = _told(settings, target)
        for row, outcome in zip(told["files"], outcomes, strict=True):
            row["state"], row["backup"] = outcome.state, outcome.backup
        print_json(told)
        return
    for edit, outcome in zip(settings.edits, outcomes, strict=True):
        click.echo(f"{outcome.state}: {outcome.path}" + (" (holds the caller key, mode 0600)" if edit.secret else ""))
        if outcome.backup is not None:
            click.echo(f"the file as it was before: {outcome.backup}")
    if KEY_VARIABLE in settings.environment:
        click.echo(f"needed in the shell that {settings.title} runs in:\n  export {KEY_VARIABLE}={shown.shell}")
    click.echo(f"model: {settings.model}" + (f"; start it with: {settings.start}" if settings.start else ""))
    say(f"`keyturn connect {tool} --undo` takes it back.")


def _undo(tool: str, force: bool, as_json: bool) -> None:
    from .connect_files import undo

    settings = _settings(tool, Target("", PLACEHOLDER), "")
    if not settings.edits:
        raise NoFile(f"{settings.title} has no file that Keyturn could have edited.")
    outcomes = undo([each.path for each in settings.edits], time_stamp(), force=force)
    if as_json:
        print_json([{"path": each.path, "state": each.state, "backup": each.backup} for each in outcomes])
        return
    for each in outcomes:
        click.echo(f"{each.state}: {each.path}")
        if each.backup is not None:
            click.echo(f"what it held: {each.backup}")


def _told(settings: ToolSettings, target: Target) -> dict[str, Any]:
    return {
        "tool": settings.tool,
        "files": [_file(each) for each in settings.edits],
        "environment": {**settings.environment},
        "model": settings.model,
        "url": target.url,
        "steps": list(settings.steps),
    }


def _file(edit: FileEdit) -> dict[str, Any]:
    """`content` for a file that is not there yet, else what changes in it."""
    if edit.path.exists():
        return {"path": str(edit.path), "changes": edit.changes}
    return {"path": str(edit.path), "content": _content(edit)}


def _content(edit: FileEdit) -> str:
    from .connect_edits import edited

    return edited(edit.form, edit.initial.encode(), edit.changes).decode()


def _print(settings: ToolSettings, target: Target) -> None:
    click.echo(f"# {settings.title} with Keyturn at {target.url}, model {settings.model}")
    if settings.environment:
        click.echo("\n# variables")
        for name, value in settings.environment.items():
            click.echo(f"export {name}={value if name.endswith(KEYS) else shlex.quote(value)}")
    for edit in settings.edits:
        click.echo(f"\n# {edit.path}" + (" (add to what is there)" if edit.path.exists() else ""))
        click.echo(_content(edit).rstrip("\n"))
    for line in ("", *settings.steps) if settings.steps else ():
        click.echo(f"# {line}" if line else "")
    if settings.start:
        click.echo(f"\n# then: {settings.start}")
    if settings.edits:
        say(
            f"`keyturn connect {settings.tool} --write` edits the file{'s' * (len(settings.edits) > 1)}, with a backup."
        )
