"""Proofs of thinking that simulated providers give out and check: plain to read, and bound to who may use them.

`sim-<provider>-<hex of the text>` (Anthropic, good for any key), `sim-gemini-<tag of key and model>-<hex>` (Gemini,
URL-safe base64 of nothing in particular), `sim-<provider>-<tag of key>-<hex>` (encrypted thinking of OpenAI's
Responses). The tag of a key is that of its project, where it has one.
"""

from __future__ import annotations

import hashlib

SKIPPED = ("skip_thought_signature_validator", "c2tpcF90aG91Z2h0X3NpZ25hdHVyZV92YWxpZGF0b3I=")
"""What Gemini takes for any signature, plain and in base64 (documented for histories of other models)."""


def of_thinking(provider: str, text: str) -> str:
    """Anthropic's signature of a thinking block."""
    return f"sim-{provider}-{text.encode().hex()}"


def fits_thinking(provider: str, signature: object, text: str) -> bool:
    """Whether *signature* is this provider's, and of *text*; a client that was shown no thinking has none to send."""
    head, _, proof = str(signature).rpartition("-")
    if head != f"sim-{provider}":
        return False
    try:
        signed = bytes.fromhex(proof).decode()
    except ValueError:
        return False
    return text in ("", signed)


def redacted(provider: str, text: str) -> str:
    """Anthropic's redacted thinking."""
    return f"sim-{provider}-redacted-{text.encode().hex()}"


def fits_redacted(provider: str, data: object) -> bool:
    return str(data).startswith(f"sim-{provider}-redacted-")


def of_call(owner: str, model: str, text: str) -> str:
    """Gemini's thought signature; clients decode it as base64, so its length is a multiple of four."""
    proof = text.encode().hex()
    signature = f"sim-gemini-{_tag(owner, model)}-{proof}"
    return signature + "0" * (-len(signature) % 4)


def fits_call(owner: str, model: str, signature: object) -> bool:
    """Whether Gemini takes *signature* for this key and model, in either alphabet of base64."""
    given = str(signature)
    if given.rstrip("=").replace("/", "_").replace("+", "-") in (SKIPPED[0], SKIPPED[1].rstrip("=")):
        return True
    return given.replace("+", "-").startswith(f"sim-gemini-{_tag(owner, model)}-")


def encrypted(provider: str, owner: str, text: str) -> str:
    """What OpenAI's Responses give out as `encrypted_content`."""
    return f"sim-{provider}-{_tag(owner)}-{text.encode().hex()}"


def fits_encrypted(provider: str, owner: str, content: object) -> bool:
    return str(content).startswith(f"sim-{provider}-{_tag(owner)}-")


def _tag(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
