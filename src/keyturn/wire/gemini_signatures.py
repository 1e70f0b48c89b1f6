"""Signatures as Gemini clients hold them: `thoughtSignature` is bytes, so what we pack must be base64 as a whole.

The official SDK decodes it and sends it back in the URL-safe alphabet.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode

from keyturn.core import Signature

from .gemini_fields import DIALECT
from .signatures import MARK, MARK_INSIDE, pack, unpack


def pack_bytes(signature: Signature) -> str:
    """*signature* for a Gemini client; as it was when its maker is not known."""
    text = pack(signature)
    return urlsafe_b64encode(text.encode("utf-8", "replace")).decode() if text.startswith(MARK) else text


def unpack_bytes(text: str) -> Signature:
    """The signature that a Gemini client sent back."""
    if text.startswith(MARK_INSIDE):
        try:
            inner = urlsafe_b64decode(text.replace("+", "-").replace("/", "_") + "=" * (-len(text) % 4)).decode()
        except ValueError:  # somebody changed it: then nobody can use it
            return Signature(text, "")
        if inner.startswith(MARK):
            return unpack(inner, DIALECT)
    return unpack(text, DIALECT)
