"""What of a configuration must never be seen: for the redactor."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from keyturn.config import Config
from keyturn.core import Secret

SECRETIVE = re.compile("KEY|TOKEN|SECRET|PASSWORD", re.IGNORECASE)
"""Variables whose values are secrets by their name."""


def secrets_of(config: Config) -> list[Secret]:
    """Everything in *config* that must not be seen: keys, the caller key, the addresses of stores, and what tools are
    given of that kind."""
    found = [each.secret for group in config.credentials.values() for each in group if each.secret]
    for each in (each for group in config.credentials.values() for each in group if each.account is not None):
        assert each.account is not None
        found += each.account.secrets
    if config.caller_key is not None:
        found.append(config.caller_key)
    for url in (config.redis.url if config.redis is not None else None, config.ledger.database_url):
        if url is not None:
            found += _of_address(url)
    for provider in config.providers.values():
        environ = provider.tool.environ if provider.tool is not None else {}
        found += [Secret(value) for name, value in environ.items() if value and SECRETIVE.search(name)]
    return found


def _of_address(url: Secret) -> list[Secret]:
    """An address that is a secret, and the password in it, as it is written there and as it is meant."""
    parts = urlsplit(url.reveal())
    written = [parts.password or ""]
    written += [
        pair.partition("=")[2] for pair in parts.query.split("&") if pair.partition("=")[0].endswith("password")
    ]
    return [url, *(Secret(form) for each in written if each for form in dict.fromkeys((each, unquote(each))))]
