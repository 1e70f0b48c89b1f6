"""Who has logged in, in DATA/tokens/logins.json: accounts without any secret, one entry each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from keyturn.core import Account
from keyturn.errors import ConfigError

from .backups import sole_writer, write_whole

FOLDER = "tokens"
FILE = "logins.json"


class Login(NamedTuple):
    """One account that a person let us in to, by a program registered as *client_id*."""

    provider: str
    who: str
    client_id: str
    token_url: str
    scopes: tuple[str, ...]
    since: str
    """When, RFC 3339."""

    @property
    def name(self) -> str:
        """Of the file of its tokens."""
        return f"{self.provider}-{self.account().fingerprint(self.provider)}"

    def account(self) -> Account:
        """What it is to the pool. Its tokens are in the data folder."""
        return Account(
            "refresh_token",
            self.who,
            f"{self.token_url} {self.client_id} {self.who}",
            self.token_url,
            self.scopes,
            self.client_id,
            rotates=True,
            since=self.since,
            remedy=f"keyturn login {self.provider}",
        )


def token_folder(data: Path) -> Path:
    """Where tokens are kept."""
    return data / FOLDER


def read_logins(data: Path) -> list[Login]:
    """All logins, in the order in which they were made. Raises ConfigError when the file is broken."""
    file = token_folder(data) / FILE
    try:
        return [_login(entry) for entry in json.loads(file.read_bytes())]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ConfigError([f"{file}: cannot be read; mend it, or remove it and log in again"]) from error


def _login(entry: dict[str, Any]) -> Login:
    """Raises ValueError, TypeError and KeyError when *entry* is no login."""
    login = Login(**{**entry, "scopes": tuple(entry["scopes"])})
    texts: tuple[object, ...] = (*login[:4], *login.scopes, login.since)
    for text in texts:
        if not isinstance(text, str) or not text.isprintable():
            raise ValueError("a login is made of words")
    return login


def add_login(data: Path, login: Login) -> None:
    """Keeps *login*; an earlier one of the same account is replaced. Raises ConfigError and OSError."""
    mark = login.account().fingerprint(login.provider)
    _change(data, lambda each: each.account().fingerprint(each.provider) != mark, (login,))


def remove_login(data: Path, provider: str, fingerprint: str) -> bool:
    """Forgets a login; False when there is none. Raises ConfigError and OSError."""
    present = any(each.account().fingerprint(each.provider) == fingerprint for each in read_logins(data))
    if present:
        _change(data, lambda each: each.account().fingerprint(each.provider) != fingerprint, ())
    return present


def _change(data: Path, keep: object, more: Sequence[Login]) -> None:
    folder = token_folder(data)
    for each in (data, folder):
        each.mkdir(mode=0o700, parents=True, exist_ok=True)
    assert callable(keep)
    with sole_writer(folder):
        logins = [*filter(keep, read_logins(data)), *more]
        text = json.dumps([each._asdict() for each in logins], indent=2)
        write_whole(folder / FILE, text.encode() + b"\n")
