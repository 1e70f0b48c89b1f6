"""What a tool is pointed at: the gateway's address, the route it asks for, the caller's key."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import click

from keyturn.errors import KeyturnError

from .entry import Failure
from .output import say
from .pool import usual_model

if TYPE_CHECKING:
    from keyturn.config import Config
    from keyturn.core import Secret

    from .live import Gateway

PLACEHOLDER = "PROVIDER/MODEL"
NO_CHAT = ("embed", "rerank", "whisper", "tts", "moderation")
"""Parts of the names of models that hold no conversation."""


class Target(NamedTuple):
    """Where a tool asks, and for which route."""

    url: str
    """Without a path."""
    model: str


def target_of(config: Config, gateway: Gateway | None, url: str | None, model: str | None) -> Target:
    """*url* and *model* where they are given, else the running gateway's or the configuration's.

    The model is PLACEHOLDER when nothing says one. Raises UsageError for a URL that is none.
    """
    if url is not None:
        base = _base(url)
    else:
        base = gateway.url if gateway is not None else _configured(config)
    return Target(base, model or _first_model(config, gateway) or PLACEHOLDER)


def caller_key(config: Config) -> Secret | None:
    """The key of the caller `default`; None when none was made yet."""
    from keyturn.config import DataFolder
    from keyturn.core import Secret

    found = config.caller_key or DataFolder(config.data).existing_caller_key()
    if found is None and config.server.trust_local:
        return Secret("not-needed")  # tools want some text
    return found


def needed_key(config: Config) -> str:
    """That key in the clear. Raises Failure, saying how to come by one."""
    key = caller_key(config)
    if key is None:
        raise Failure(
            f"There is no caller key in {config.data} yet: `keyturn serve` makes one when it first runs. "
            "Or set PROXY_API_KEY, or name the gateway's data folder with --data."
        )
    return key.reveal()


def key_in_words(config: Config) -> str:
    """What stands in a printed file where the key would."""
    if config.caller_key is None:
        return f"<the text of {config.data / 'caller.key'}>"
    return f"<PROXY_API_KEY of {config.origins.get('PROXY_API_KEY', 'the environment')}>"


def _base(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise click.UsageError(f"--url {url}: must be like http://127.0.0.1:8000")
    return url.rstrip("/").removesuffix("/v1")


def _configured(config: Config) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.server.host, config.server.host)
    return f"http://[{host}]:{config.server.port}" if ":" in host else f"http://{host}:{config.server.port}"


def _first_model(config: Config, gateway: Gateway | None) -> str | None:
    usual = usual_model(config)
    if gateway is None:
        return usual
    try:
        rows = gateway.ask("/admin/models")
    except KeyturnError as error:
        say(f"The gateway does not tell its models: {error.message}")
        return usual
    tools = {name for name, row in config.providers.items() if row.tool is not None}
    names = [row["id"] for row in rows if row["provider"] not in tools]
    if usual in names:
        return usual
    return next((name for name in names if not any(part in name.lower() for part in NO_CHAT)), usual)
