"""Reasoning signatures on their way through clients of another dialect: packed with their maker, unpacked on return."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode

import msgspec
from msgspec.structs import replace

from keyturn.core import Origin, Signature

MARK = "kt1."
"""How a packed signature begins. No provider's own does: theirs are plain base64."""

MARK_INSIDE = "a3QxL"
"""How it begins in base64, in which Gemini's clients hold it, as far as that does not depend on what follows."""

REDACTED = "redacted."
"""How the value of a signature begins that is redacted thinking of Anthropic: data, not a proof beside a text."""

_MAKER = msgspec.json.Decoder(tuple[str, str, str, str])


def pack(signature: Signature) -> str:
    """*signature* as one string that tells whose it is; as it was when its maker is not known."""
    if signature.origin is None:
        return signature.value
    maker = msgspec.json.encode((signature.dialect, *signature.origin))
    return f"{MARK}{urlsafe_b64encode(maker).decode()}.{signature.value}"


def unpack(text: str, dialect: str) -> Signature:
    """The signature that a client sent back. What we did not pack is one of *dialect*, of unknown origin."""
    if not text.startswith(MARK):
        return Signature(text, dialect)
    maker, _, value = text.removeprefix(MARK).partition(".")
    try:
        whose, *origin = _MAKER.decode(urlsafe_b64decode(maker))
    except ValueError:  # a client changed it: then nobody can use it
        return Signature(value, "")
    return Signature(value, whose, Origin(*origin))


def marked_redacted(signature: Signature) -> Signature:
    """*signature*, the data of redacted thinking, so that it is told from a proof when it comes back."""
    return replace(signature, value=REDACTED + signature.value) if signature.dialect == "anthropic" else signature


def unmarked(signature: Signature) -> tuple[Signature, bool]:
    """The same backwards: the signature as its maker gave it, and whether it was redacted thinking."""
    value = signature.value.removeprefix(REDACTED)
    return (signature, False) if value == signature.value else (replace(signature, value=value), True)


def accepted(signature: Signature, dialect: str, origin: Origin) -> bool:
    """Whether *origin*, which speaks *dialect*, takes *signature* back.

    Anthropic's hold on every key and model of a provider (docs: extended thinking); Gemini's are bound to project and
    model, OpenAI's encrypted reasoning to the organisation.
    """
    if signature.dialect != dialect:
        return False
    made = signature.origin
    if made is None:
        return True
    if made.provider != origin.provider:
        return False
    if dialect == "anthropic":
        return True
    return made.group == origin.group and (dialect != "gemini" or made.model == origin.model)
