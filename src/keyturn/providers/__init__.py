"""What is special about each upstream: rows of data first, code only for behaviour.

What belongs to accounts and logins is loaded when it is first asked for: few need it.
"""

from typing import TYPE_CHECKING

from .asking import Asking, asking, prepare
from .equivalents import shipped_equivalents
from .g4f import ENDPOINTS, address_of, endpoint_of
from .listing import prepare_models, read_models
from .native import vertex_url
from .prices import price_of, prices_dated
from .quirks import fits, goes_on, origin_of
from .registry import (
    CATALOG,
    DIALECT_NAMES,
    DialectName,
    Provider,
    Tool,
    at_its_address,
    custom,
    known,
    nearest,
    plain_name,
    speaking,
)

if TYPE_CHECKING:
    from .sign_in import (
        CALLBACK,
        DeviceCode,
        authorize_url,
        device_request,
        device_token_request,
        new_key_request,
        read_callback,
        read_device,
        read_new_key,
        why_no_login,
    )
    from .tokens import (
        Denied,
        Granted,
        json_object,
        jwt_to_sign,
        question,
        read_token,
        renewal,
        sendable,
        signed_jwt,
        token_request,
        writable,
    )

__all__ = [
    "CALLBACK",
    "CATALOG",
    "DIALECT_NAMES",
    "ENDPOINTS",
    "Asking",
    "Denied",
    "DeviceCode",
    "DialectName",
    "Granted",
    "Provider",
    "Tool",
    "address_of",
    "asking",
    "at_its_address",
    "authorize_url",
    "custom",
    "device_request",
    "device_token_request",
    "endpoint_of",
    "fits",
    "goes_on",
    "json_object",
    "jwt_to_sign",
    "known",
    "nearest",
    "new_key_request",
    "origin_of",
    "plain_name",
    "prepare",
    "prepare_models",
    "price_of",
    "prices_dated",
    "question",
    "read_callback",
    "read_device",
    "read_models",
    "read_new_key",
    "read_token",
    "renewal",
    "sendable",
    "shipped_equivalents",
    "signed_jwt",
    "speaking",
    "token_request",
    "vertex_url",
    "why_no_login",
    "writable",
]


def __getattr__(name: str) -> object:
    if name in __all__:
        from . import sign_in, tokens

        for file in (tokens, sign_in):
            if hasattr(file, name):
                return getattr(file, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
