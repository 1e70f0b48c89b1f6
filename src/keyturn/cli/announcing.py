"""News of a role for people: posted to the webhook that is set for it, else into the channel for updates."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.error import URLError

LONGEST = 2000
"""Characters that Discord takes in one message."""
PATIENCE = 10.0
CHANNEL = "https://discord.com/api/v10/channels/{}/messages"


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
    if not address.startswith(("https://", "http://127.0.0.1", "http://localhost")):
        return f"{where} is no https address"
    said = {"content": text[: LONGEST - 1] + "…" if len(text) > LONGEST else text, "allowed_mentions": {"parse": []}}
    request = urllib.request.Request(address, json.dumps(said).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE):
            return None
    except URLError as error:
        return f"{where} does not take it: {getattr(error, 'code', None) or error.reason}"
    except (OSError, ValueError):
        return f"{where} cannot be reached"
