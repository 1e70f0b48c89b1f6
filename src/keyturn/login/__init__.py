"""Tokens of accounts that log in instead of holding a key: obtained, renewed ahead of their end, kept; and logins.

Only what a provider allows to programs that are not its own. `Refresher` gives the pool its tokens; `loopback`,
`device` and `exchange` lead a person through a login. What needs more than the standard library is loaded when used.
"""

from .device import await_device, begin_device, who_is
from .exchange import at_address, new_key
from .kept import Kept, TokenFolder, forget, keep
from .loopback import Callback, new_nonce, new_verifier
from .refresher import Refresher
from .source import Tokens

__all__ = [
    "Callback",
    "Kept",
    "Refresher",
    "TokenFolder",
    "Tokens",
    "at_address",
    "await_device",
    "begin_device",
    "forget",
    "keep",
    "new_key",
    "new_nonce",
    "new_verifier",
    "who_is",
]
