"""Accounts that give short-lived tokens instead of a key: who one is, and what proves it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .model import Secret, fingerprint

AccountKind = Literal["service_account", "refresh_token", "client_secret", "google_metadata", "azure_metadata"]
NOTHING = Secret("")


@dataclass(frozen=True, slots=True)
class Account:
    """One account at the authorisation server *token_url*, as the configuration describes it.

    *who* is for people. *identity* is what its fingerprint is made of: never a token, so that it stays what it is when
    tokens are replaced.
    """

    kind: AccountKind
    who: str
    identity: str
    token_url: str
    scopes: tuple[str, ...] = ()
    client_id: str = ""
    client_secret: Secret = NOTHING
    private_key: Secret = NOTHING
    """PEM, of a service account."""
    key_id: str = ""
    refresh_token: Secret = NOTHING
    access_token: Secret = NOTHING
    """One that is at hand already, good until *expires* (Unix seconds)."""
    expires: float = 0.0
    headers: tuple[tuple[str, str], ...] = ()
    """What its calls say beside the token: the project that pays."""
    rotates: bool = False
    """Each use may replace the refresh token: the latest one is kept in the data folder."""
    since: str = ""
    """When somebody logged in: a new login is another value."""
    remedy: str = ""
    """What to do when it is refused."""

    def fingerprint(self, provider: str) -> str:
        """Its identity as a credential of *provider*."""
        return fingerprint(provider, f"account:{self.identity}")

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """Everything in it that must not be seen."""
        every = (self.client_secret, self.private_key, self.refresh_token, self.access_token)
        return tuple(each for each in every if each)
