"""`keyturn top`: how much each route can take now and in a minute, and when keys return, refreshed each second."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import click

from keyturn.errors import KeyturnError

from .output import json_option, print_json
from .setup import Place, place_options, read_config

if TYPE_CHECKING:
    from keyturn.config import Config

    from .live import Gateway

EVERY = 1.0
"""Seconds between two looks."""
RESTS = 5.0
"""Of the time that a look took, how many times that passes before the next."""
PATIENCE = 3.0
"""Seconds that one may take: somebody watches."""
QUIT = frozenset("qQ\x03\x04")
Pause = Callable[[float], bool]
"""Wait for so many seconds; True when somebody asked to leave."""


@click.command()
@click.option("--once", is_flag=True, help="Print it once and end; so it is also without a terminal.")
@click.option("--route", help="Only this role, alias, route id or provider/model.")
@click.option("--tokens", type=click.IntRange(1), help="Of the prompt of the calls that are counted: 100 unless said.")
@place_options
@json_option
def command(once: bool, route: str | None, tokens: int | None, as_json: bool, **place: Any) -> None:
    """Show how many calls and tokens each route can take, now and in a minute, and when its keys return.

    Refreshed each second until q or Ctrl-C. Without a running gateway it is printed once, as the last one left it.
    """
    from .live import running
    from .screen import print_once

    config = read_config(Place(**place))
    asked = {"route": route, "tokens": tokens}
    gateway = running(config)
    if gateway is not None and not (once or as_json) and sys.stdout.isatty():
        _watch(lambda: _ask(_running(config), asked) | _demo(config))
        return
    told = _stopped(config, route, tokens) if gateway is None else _ask(gateway, asked)
    told |= _demo(config)
    if as_json:
        print_json(told)
    else:
        print_once(told)


def _ask(gateway: Gateway, asked: dict[str, Any]) -> dict[str, Any]:
    query = urlencode({name: value for name, value in asked.items() if value is not None})
    told: dict[str, Any] = gateway.ask(f"/admin/headroom{'?' if query else ''}{query}", patience=PATIENCE)
    return told


def _demo(config: Config) -> dict[str, list[str]]:
    """The names that answer where no key is configured."""
    if not config.demo:
        return {}
    from keyturn.simulator import PERSONAS

    return {"demo": [f"demo/{model}" for model in PERSONAS["demo"].models]}


def _running(config: Config) -> Gateway:
    """The gateway as it is found now: it may have been started anew. Raises KeyturnError when there is none."""
    from .live import running

    gateway = running(config)
    if gateway is None:
        raise KeyturnError(f"no gateway is running on {config.data} any more")
    return gateway


def _stopped(config: Config, route: str | None, tokens: int | None) -> dict[str, Any]:
    """The same without a gateway: as the last one left it, else as the configuration alone says."""
    from .live import find_gateway
    from .stopped import ago, left_behind

    found = left_behind(config)
    known = "the configuration alone, as if nothing was used" if found is None else f"how it stood {ago(found[1])}"
    find_gateway(config, f"this is {known}")

    async def look() -> dict[str, Any]:
        from .pool import open_pool

        gateway = open_pool(config) if found is None else found[0]
        try:
            return await gateway.headroom(config.default_caller, route, tokens)
        finally:
            await gateway.close()

    return asyncio.run(look()) | {"minute": {}, "status": None}


def _watch(ask: Callable[[], dict[str, Any]]) -> None:
    """Show what *ask* gives until somebody leaves; SIGTERM too gives the terminal back as it was."""
    import signal

    from keyturn.dispatch import SystemClock

    from .screen import Screen

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with Screen() as screen, _keys() as pause:
        try:
            refresh(ask, screen.show, pause, SystemClock().mono)
        except KeyboardInterrupt:
            return


def refresh(
    ask: Callable[[], dict[str, Any]],
    show: Callable[[dict[str, Any] | None, str], None],
    pause: Pause,
    now: Callable[[], float],
) -> None:
    """*show* what *ask* gives, again and again, until *pause* says that somebody left. While nobody answers, the last
    figures stay, with what is wrong. *now*: seconds; a pool that takes long to look at is looked at less often."""
    told: dict[str, Any] | None = None
    while True:
        trouble, began = "", now()
        try:
            told = ask()
        except KeyturnError as error:
            trouble = f"{error.message}; trying again"
        rest = max(EVERY, RESTS * (now() - began))
        show(told, trouble)
        if pause(rest):
            return


@contextmanager
def _keys() -> Iterator[Pause]:
    """Read single keys from the terminal; where there is none, only Ctrl-C ends the waiting."""
    if sys.platform == "win32" or not sys.stdin.isatty():
        yield _without_keys()
        return
    import os
    import select
    import termios
    import tty

    stdin = sys.stdin.fileno()
    before = termios.tcgetattr(stdin)

    def pause(seconds: float) -> bool:
        ready, _, _ = select.select([stdin], [], [], seconds)
        if not ready:
            return False
        typed = os.read(stdin, 64).decode(errors="replace")
        return not typed or not QUIT.isdisjoint(typed)

    try:
        tty.setcbreak(stdin)
        yield pause
    finally:
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)


def _without_keys() -> Pause:
    from threading import Event

    return Event().wait
