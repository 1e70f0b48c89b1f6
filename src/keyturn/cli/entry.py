"""The `keyturn` command: which commands there are, loaded one by one, and what exit code an error means."""

from __future__ import annotations

import importlib
import sys
from typing import IO, Any

import click

from keyturn.errors import ConfigError, KeyturnError

COMMANDS = {
    "serve": ("serve", "Run the gateway."),
    "demo": ("demo", "Watch a rehearsed story on simulated providers."),
    "init": ("init", "Write commented configuration files to start from."),
    "env": ("env", "Merge a new env file into the one in use."),
    "keys": ("keys", "List, test, reset, add, disable and enable keys."),
    "callers": ("callers", "List, add and revoke callers of the gateway."),
    "models": ("models", "List the models that can be asked for."),
    "routes": ("routes", "List routes, and explain who would answer one."),
    "login": ("login", "Log in to a provider that allows it: OpenRouter, Hugging Face."),
    "limits": ("limits", "List limits and who says so; pin and clear them."),
    "chat": ("chat", "Ask one question and print the answer."),
    "connect": ("connect", "Point a tool at this gateway: Claude Code, Codex, Cursor, …"),
    "run": ("run", "Start a tool that asks this gateway."),
    "dry-run": ("dry_run", "Print the request that would be sent, without sending it."),
    "classify": ("classify", "Say what a provider's answer means."),
    "config": ("configuration", "Show or check the configuration."),
    "doctor": ("doctor", "Say what is set up, what is missing and what is in the way."),
    "usage": ("usage", "Say what was used and what it cost."),
    "top": ("top", "Watch how much each route can take, and when keys return."),
    "trace": ("trace", "Say what happened to one call."),
    "stores": ("stores", "Check, back up, migrate and prune what is remembered."),
    "simulate": ("simulate", "Simulate a scenario, and compare with what is usual elsewhere."),
    "simulator": ("simulator", "Serve simulated providers."),
    "drill": ("drill", "Rehearse failures against this configuration."),
    "bot": ("bot", "Run the Discord bot."),
    "watch": ("watch", "Answer files that are dropped into a folder."),
}
"""Command → the module that holds it as `command`, and its one line in `--help`."""

HIDDEN = {"worker": "worker"}
"""The same of those that no person runs."""

FAILED, CONFIG_INVALID, INTERRUPTED = 1, 3, 130


class Failure(click.ClickException):
    """Ends a command with its message on stderr and exit code 1."""

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(self.message, err=True, file=file)


class Invalid(Failure):
    """The same with the exit code of an invalid configuration."""

    exit_code = CONFIG_INVALID


class Commands(click.Group):
    """A group that knows its commands by name and imports one only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS and cmd_name not in HIDDEN:
            return None
        module = COMMANDS[cmd_name][0] if cmd_name in COMMANDS else HIDDEN[cmd_name]
        command = importlib.import_module(f".{module}", __package__).command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            count = len(error.problems)
            head = "The configuration has a mistake:" if count == 1 else f"The configuration has {count} mistakes:"
            raise Invalid("\n  ".join([head, *error.problems])) from error
        except KeyturnError as error:
            raise Failure(error.message) from error
        except OSError as error:
            if error.filename is None:
                raise
            raise Failure(f"{error.filename}: {error.strerror}") from error
        except KeyboardInterrupt as error:
            click.echo("Ended by Ctrl-C.", err=True)
            raise SystemExit(INTERRUPTED) from error


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from keyturn import __version__

        click.echo(f"keyturn {__version__}")
        ctx.exit()


@click.group(cls=Commands, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print it.")
@click.pass_context
def main(ctx: click.Context) -> None:
    """One endpoint that never runs out of keys. Without a command, on a terminal: a menu.

    Exit codes: 0 fine, 1 failed, 2 wrong usage, 3 configuration invalid, 130 ended by Ctrl-C.
    """
    if ctx.invoked_subcommand is not None:
        return
    if sys.stdin.isatty() and sys.stdout.isatty():
        from .menu import open_menu

        open_menu(main)
    else:
        click.echo(ctx.get_help())
