"""News of a role for people: posted to the webhook that is set for it, else into the channel for updates."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

LONGEST = 2000
"""Characters that Discord takes in one message."""
PATIENCE = 10.0
PLAIN = (("http", "127.0.0.1"), ("http", "localhost"))
"""Where no https is needed: on this machine."""
CHANNEL = "https://discord.com/api/v10/channels/{}/messages"


class Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: what is sent holds the token of the bot."""

    def redirect_request(self, *_: object) -> None:
        """None: the redirect is an answer that was not wanted."""


def announce(settings: Mapping[str, Any], role: str, text: str) -> str | None:
    """Posts *text* for *role* and waits for it: to be called in a thread.

    *settings* is the section `discord`. Returns why it did not work; None when it did, or when nothing is set for
    *role*. Never tells the address of a webhook, which lets anybody post.
    """
    webhook, token, channel = (settings.get(name) for name in ("webhooks", "bot_token", "updates_channel_id"))
    headers = {"content-type": "application/json", "user-agent": "keyturn"}
    if webhook and role in webhook:
        address, where = webhook[role].reveal(), f"the webhook of {role}"
    elif token and channel:
        address, where = CHANNEL.format(channel), "the channel for updates"
        headers["authorization"] = f"Bot {token.reveal()}"
    else:
        return None
    try:
        parts = urlsplit(address)
        if parts.scheme != "https" and (parts.scheme, parts.hostname) not in PLAIN:
            return f"{where} is no https address"
    except ValueError:
        return f"{where} is no address"
    said = {"content": text[: LONGEST - 1] + "…" if len(text) > LONGEST else text, "allowed_mentions": {"parse": []}}
    try:
        request = urllib.request.Request(address, json.dumps(said).encode(), headers)
        with urllib.request.build_opener(Stay).open(request, timeout=PATIENCE):
            return None
    except HTTPError as error:
        with error:
            return f"{where} does not take it: {error.code}"
    except URLError as error:
        return f"{where} does not take it: {error.reason}"
    except (OSError, ValueError, HTTPException):  # their texts may hold the address
        return f"{where} cannot be reached"
