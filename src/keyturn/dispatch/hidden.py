"""What of a configuration must never be seen: for the redactor."""

from __future__ import annotations

import re

from keyturn.config import Config
from keyturn.core import Secret

SECRETIVE = re.compile("KEY|TOKEN|SECRET|PASSWORD", re.IGNORECASE)
"""Variables whose values are secrets by their name."""


def secrets_of(config: Config) -> list[Secret]:
    """Everything in *config* that must not be seen: keys, the caller key, and what tools are given of that kind."""
    found = [each.secret for group in config.credentials.values() for each in group if each.secret]
    for each in (each for group in config.credentials.values() for each in group if each.account is not None):
        assert each.account is not None
        found += each.account.secrets
    if config.caller_key is not None:
        found.append(config.caller_key)
    for provider in config.providers.values():
        environ = provider.tool.environ if provider.tool is not None else {}
        found += [Secret(value) for name, value in environ.items() if value and SECRETIVE.search(name)]
    return found
