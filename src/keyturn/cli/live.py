"""Talks to the gateway that runs on the same data folder, through its `/admin/*`."""

from __future__ import annotations

import http.client
import json
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from keyturn.config import Config, DataFolder
from keyturn.core import Secret
from keyturn.errors import KeyturnError

from .entry import Failure
from .output import say

PATIENCE = 15.0
"""Seconds that an answer about live state may take."""


class Gateway(NamedTuple):
    """A running gateway and the key that proves we may ask about its state."""

    pid: int
    url: str
    admin_key: Secret

    def ask(self, path: str, payload: object = None, patience: float = PATIENCE) -> Any:
        """The JSON answer of an admin endpoint; *payload* makes it a POST. Raises KeyturnError."""
        status, _, body = self.send(path, payload, {"x-keyturn-admin": self.admin_key.reveal()}, patience)
        try:
            answer = json.loads(body)
        except ValueError as error:
            raise KeyturnError(f"the gateway at {self.url} gave an answer that is no JSON (status {status})") from error
        if status != 200:
            raise KeyturnError(error_text(answer, status))
        return answer

    def send(
        self, path: str, payload: object, headers: dict[str, str], patience: float
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body. Raises KeyturnError when the gateway does not answer within *patience* seconds."""
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=patience)
        body = None if payload is None else json.dumps(payload)
        try:
            connection.request(
                "GET" if body is None else "POST", path, body, {"content-type": "application/json", **headers}
            )
            response = connection.getresponse()
            return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise KeyturnError(f"the gateway (process {self.pid}) does not answer at {self.url}: {error}") from error
        finally:
            connection.close()


def find_gateway(config: Config, otherwise: str) -> Gateway | None:
    """The gateway that owns the data folder, None when none is running; then stderr says so, and *otherwise*."""
    found = running(config)
    if found is None:
        in_use = held_by(config)
        say(f"{in_use}: {otherwise}." if in_use else f"No gateway is running on {config.data}: {otherwise}.")
    return found


def held_by(config: Config) -> str:
    """Who uses the data folder without being a gateway that can be asked, in words; empty when nobody does."""
    pid = DataFolder(config.data).holder()
    if pid is None:
        return ""
    return (
        f"No gateway answers on {config.data}, but process {pid or '(unknown)'} uses it through the library (or starts)"
    )


def leave_alone(config: Config) -> None:
    """For what nobody may do beside another process. Raises Failure when one uses the data folder that is no gateway
    which could be asked to do it."""
    if running(config) is None and (in_use := held_by(config)):
        raise Failure(f"{in_use}: nothing was changed; stop it first, or ask again when it has started")


def running(config: Config) -> Gateway | None:
    """The same without a word."""
    folder = DataFolder(config.data)
    owner, key = folder.owner(), folder.admin_key()
    return None if owner is None or key is None else Gateway(owner.pid, owner.url, key)


def error_text(answer: object, status: int) -> str:
    """The message of an OpenAI-shaped error body."""
    error = answer.get("error") if isinstance(answer, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return str(message or f"the gateway answered with status {status}")
