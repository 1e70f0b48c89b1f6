"""`keyturn login …`: let a provider give Keyturn a key or tokens, where it allows that; see, move and remove logins."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keyturn.errors import KeyturnError

from .entry import Failure
from .output import json_option, print_json, print_table, say
from .setup import Place, place_options, read_config
from .stamps import time_stamp

if TYPE_CHECKING:
    from keyturn.config import Config, Login
    from keyturn.core import Credential, Secret
    from keyturn.login import Callback
    from keyturn.providers import Provider

MOST_SECONDS = 3600.0
NOT_AN_ANSWER = "that is not the address that the browser was sent to for this login; copy all of it"


class Logins(click.Group):
    """Knows who has a login, and says of the others why not."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = super().get_command(ctx, cmd_name)
        if found is not None:
            return found
        from keyturn.providers import known, why_no_login

        provider = known(cmd_name)
        found = super().get_command(ctx, provider.name) if provider is not None else None
        why = why_no_login(cmd_name)
        if found is not None or not why:
            return found

        def refuse() -> None:
            raise Failure(why)

        return click.Command(cmd_name, callback=refuse, help=why)


@click.group(cls=Logins)
def command() -> None:
    """Log in to a provider that allows it to programs like this one: openrouter, huggingface.

    Google and Azure need no login here, only variables; docs/login.md tells which.
    """


login_options: tuple[Callable[[Any], Any], ...] = (
    click.option("--no-browser", is_flag=True, help="Print the address instead of opening it."),
    click.option("--auth-url", metavar="URL", help="Another authorisation server: https, or http on this machine."),
)


def _with(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def add(function: Any) -> Any:
        for option in options:
            function = option(function)
        return function

    return add


@command.command()
@_with(*login_options)
@click.option("--paste", is_flag=True, help="Ask for the address that the browser was sent to, instead of waiting.")
@click.option("--port", type=click.IntRange(0, 65535), help="Where to wait for the browser (3000); 0 takes a free one.")
@click.option(
    "--timeout",
    "patience",
    type=click.FloatRange(1, MOST_SECONDS),
    default=300.0,
    show_default=True,
    help="Seconds to wait for the browser.",
)
@place_options
def openrouter(
    no_browser: bool, auth_url: str | None, paste: bool, port: int | None, patience: float, **place: Any
) -> None:
    """Have OpenRouter make a key for Keyturn, and add it to the env file.

    The browser asks you, and comes back to 127.0.0.1 with a code that is good once. On a machine without a browser
    open the address elsewhere, and paste the address that you are sent to.
    """
    from keyturn.config import add_key, environment

    provider = _provider("openrouter", auth_url)
    key = _pasted(provider, port) if paste else asyncio.run(_brought(provider, port, patience, no_browser))
    try:
        added = add_key(
            environment(),
            Place(**place).env_file,
            Path.cwd(),
            provider=provider.name,
            secret=key.reveal(),
            stamp=time_stamp(),
        )
    except KeyturnError as error:
        lost = "the key that was made is lost: remove it at openrouter.ai/settings/keys"
        raise Failure(f"{error.message}; {lost}") from error
    click.echo(f"{added.variable} was added to {added.file}")
    say("A running gateway takes it into use within a moment.")


def _provider(name: str, auth_url: str | None) -> Provider:
    """The catalog's row, with its authorisation server at *auth_url*."""
    from keyturn.config import base_url
    from keyturn.login import at_address
    from keyturn.providers import CATALOG

    if auth_url is None:
        return CATALOG[name]
    try:
        return at_address(CATALOG[name], base_url(auth_url))
    except ValueError as error:
        raise click.UsageError(f"--auth-url {error}") from error


async def _brought(provider: Provider, port: int | None, patience: float, no_browser: bool) -> Secret:
    """The key, after the browser has brought the code here."""
    from keyturn.dispatch import SystemClock
    from keyturn.login import Callback, new_key, new_nonce, new_verifier
    from keyturn.providers import authorize_url
    from keyturn.transport import Transports

    clock, verifier = SystemClock(), new_verifier()
    async with Callback(clock, new_nonce(), port) as callback:
        _show(authorize_url(provider.signs_in["authorize"], callback.url, verifier), no_browser)
        with _pasting(callback):
            code = await callback.code(patience)
    transport = Transports(clock, {})
    try:
        return await new_key(transport, clock, provider, code, verifier)
    finally:
        await transport.close()


def _pasted(provider: Provider, port: int | None) -> Secret:
    """The key, after a person has copied the address with the code."""
    from keyturn.dispatch import SystemClock
    from keyturn.login import new_key, new_nonce, new_verifier
    from keyturn.providers import CALLBACK, authorize_url, read_callback
    from keyturn.transport import Transports

    nonce, verifier = new_nonce(), new_verifier()
    address = f"http://localhost:{port or 3000}{CALLBACK}{nonce}"
    say("Open this address in a browser, wherever there is one:")
    say(authorize_url(provider.signs_in["authorize"], address, verifier))
    say("It ends at a page that cannot be shown. Paste the address of that page here:")
    code = read_callback(_line(), nonce)
    if code is None:
        raise Failure(NOT_AN_ANSWER)

    async def exchange() -> Secret:
        clock = SystemClock()
        transport = Transports(clock, {})
        try:
            return await new_key(transport, clock, provider, code, verifier)
        finally:
            await transport.close()

    return asyncio.run(exchange())


@contextmanager
def _pasting(callback: Callback) -> Iterator[None]:
    """On a terminal the address may be pasted as well: the browser may be on another machine."""
    if not sys.stdin.isatty() or sys.platform == "win32":
        yield
        return
    loop, terminal = asyncio.get_running_loop(), sys.stdin.fileno()

    def look() -> None:
        line = sys.stdin.readline()
        if not line:
            loop.remove_reader(terminal)
        elif line.strip():
            try:
                fits = callback.take(line)
            except KeyturnError:
                fits = True
            if not fits:
                say(NOT_AN_ANSWER)

    say("If the browser is on another machine, paste here the address that it was sent to.")
    loop.add_reader(terminal, look)
    try:
        yield
    finally:
        loop.remove_reader(terminal)


def _line() -> str:
    """What is typed or piped in."""
    return sys.stdin.readline()


def _on_terminal() -> bool:
    """Whether what is printed is seen."""
    return sys.stdout.isatty()


def _show(address: str, no_browser: bool) -> None:
    """Open *address* where there is a browser, and print it in any case."""
    import threading
    import webbrowser

    opened = not no_browser and not _headless()
    say("Your browser is asked to open:" if opened else "Open this address in a browser:")
    say(address)
    if opened:  # beside us: some browsers are programs of the terminal, which return when they are left
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()


def _headless() -> bool:
    """Whether there is probably no browser to be seen here."""
    from keyturn.config import environment

    environ = environment()
    if "SSH_CONNECTION" in environ:
        return True
    return sys.platform.startswith("linux") and not (environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))


@command.command()
@_with(*login_options)
@click.option("--client-id", metavar="ID", help="Of your own public OAuth app; else HUGGINGFACE_CLIENT_ID.")
@place_options
def huggingface(no_browser: bool, auth_url: str | None, client_id: str | None, **place: Any) -> None:
    """Log in to Hugging Face with a code, on this or another device; tokens are kept in the data folder.

    It needs an OAuth app of yours: huggingface.co/settings/applications/new, without a secret, scope inference-api.
    """
    from keyturn.config import add_login, environment, value_of

    where = Place(**place)
    variable = "HUGGINGFACE_CLIENT_ID"
    client_id = client_id or value_of(environment(), where.env_file, Path.cwd(), variable)
    if not client_id:
        made = "make an OAuth app at huggingface.co/settings/applications/new"
        raise click.UsageError(f"which app is it for? {made}, and say --client-id or set {variable}")
    config = read_config(where)
    login = asyncio.run(_by_device(_provider("huggingface", auth_url), client_id, config, no_browser))
    add_login(config.data, login)
    click.echo(f"logged in to {login.provider} as {login.who}")
    _tell_gateway(config)


async def _by_device(provider: Provider, client_id: str, config: Config, no_browser: bool) -> Login:
    """The login, its tokens kept."""
    from keyturn.config import Login, token_folder
    from keyturn.dispatch import SystemClock
    from keyturn.login import TokenFolder, await_device, begin_device, keep, who_is
    from keyturn.transport import Transports

    clock = SystemClock()
    transport = Transports(clock, {})
    try:
        device = await begin_device(transport, clock, provider, client_id)
        _show(device.whole_address or device.address, no_browser)
        say(f"and type this code there: {device.user_code}")
        granted = await await_device(transport, clock, provider, client_id, device)
        if granted.scope and not set(provider.scopes[-1:]) <= set(granted.scope.split()):
            say(f"note: {provider.scopes[-1]} was not allowed; calls will probably be refused")
        who = await who_is(transport, clock, provider, granted.token) or f"user of {client_id}"
        since = datetime.fromtimestamp(clock.wall(), UTC).isoformat(timespec="seconds")
        login = Login(provider.name, who, client_id, provider.signs_in["token"], provider.scopes, since)
        await keep(TokenFolder(token_folder(config.data)), clock, login.name, granted)
        return login
    finally:
        await transport.close()


@command.command("list")
@place_options
@json_option
def list_logins(as_json: bool, **place: Any) -> None:
    """List logins: who, since when, and how long the present token holds. No token is shown."""
    from keyturn.config import read_logins, token_folder
    from keyturn.login import TokenFolder

    config = read_config(Place(**place))
    folder = TokenFolder(token_folder(config.data))
    keys = {key.fingerprint: key.shown for group in config.credentials.values() for key in group}
    rows = []
    for login in read_logins(config.data):
        kept = folder.read(login.name)
        until = None if kept is None else datetime.fromtimestamp(kept.expires, UTC).isoformat(timespec="seconds")
        mark = login.account().fingerprint(login.provider)
        rows.append({"key": keys.get(mark, mark), "who": login.who, "since": login.since, "token_until": until})
    if as_json:
        print_json(rows)
    else:
        head = ("KEY", "WHO", "SINCE", "TOKEN UNTIL")
        print_table(head, [tuple(str(value or "needs login") for value in row.values()) for row in rows])


@command.command()
@click.argument("key")
@place_options
def remove(key: str, **place: Any) -> None:
    """Forget the login KEY (its label, fingerprint, or a provider for all its logins), with its tokens.

    The provider is not told: take the permission back in its settings as well.
    """
    from keyturn.config import remove_login, token_folder
    from keyturn.dispatch import SystemClock
    from keyturn.login import TokenFolder, forget

    from .named import keys_named

    config = read_config(Place(**place))
    logins = [each for each in keys_named(config, key) if each.account is not None and each.account.since]
    if not logins:
        raise click.UsageError(f"{key} is no login; `keyturn login list` lists them")
    gone = [each for each in logins if remove_login(config.data, each.provider, each.fingerprint)]
    click.echo(f"removed: {', '.join(each.shown for each in logins)}")
    try:
        _tell_gateway(config)  # first: it must not renew what is forgotten
    finally:
        for each in gone:
            name = f"{each.provider}-{each.fingerprint}"
            asyncio.run(forget(TokenFolder(token_folder(config.data)), SystemClock(), name))


@command.command()
@click.argument("provider", required=False)
@click.option("--yes", is_flag=True, help="Print tokens to a terminal too.")
@place_options
def export(provider: str | None, yes: bool, **place: Any) -> None:
    """Print the logins of PROVIDER, of all by default, as variables for an env file: for machines without a disk.

    They hold tokens. Use them in one place only: a refresh token that is used here stops working there.
    """
    from keyturn.config import quoted, read_logins, token_folder
    from keyturn.login import TokenFolder
    from keyturn.providers import CATALOG

    from .named import provider_named

    config = read_config(Place(**place))
    folder = TokenFolder(token_folder(config.data))
    logins = read_logins(config.data)
    name = provider_named(provider, {each.provider for each in logins} or {"huggingface"})
    wanted = [each for each in logins if name in (None, each.provider)]
    if not wanted:
        raise Failure("there is no login to export; `keyturn login huggingface` makes one")
    if _on_terminal() and not yes:
        raise Failure("this prints tokens: send it to a file (keyturn login export > FILE), or say --yes")
    counts: dict[str, int] = {}
    for login in wanted:
        counts[login.provider] = number = counts.get(login.provider, 0) + 1
        several = sum(each.provider == login.provider for each in wanted) > 1
        start = CATALOG[login.provider].variables[0] + (f"_{number}" if several else "")
        for ending, value in _exported(login, folder.read(login.name)):
            click.echo(f"{start}_{ending}={quoted(value)}")
    say("note: remove the login here (`keyturn login remove`), or its tokens will be replaced here and fail there.")


def _exported(login: Login, kept: Any) -> Iterator[tuple[str, str]]:
    if kept is None:
        raise Failure(f"{login.who} has to log in first: keyturn login {login.provider}")
    yield "ACCESS_TOKEN", kept.access.reveal()
    yield "REFRESH_TOKEN", kept.refresh.reveal()
    yield "EXPIRY_DATE", str(int(kept.expires))
    yield "EMAIL", login.who
    yield "CLIENT_ID", login.client_id
    yield "TOKEN_URI", login.token_url


def _tell_gateway(config: Config) -> None:
    """Have a running gateway take the change into use."""
    from .live import find_gateway

    gateway = find_gateway(config, "the next one will know")
    if gateway is not None:
        gateway.ask("/admin/reload", {})
        say("The running gateway takes it into use.")


def needs_login(config: Config, key: Credential) -> str:
    """Why nothing can be asked with *key* before somebody logs in; empty when it can."""
    from keyturn.config import token_folder
    from keyturn.login import TokenFolder

    if key.account is None or not key.account.since:
        return ""
    kept = TokenFolder(token_folder(config.data)).read(f"{key.provider}-{key.fingerprint}")
    return "" if kept is not None else f"needs a login: {key.account.remedy}"
