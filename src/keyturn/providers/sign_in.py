"""The conversations by which a person lets us in: OpenRouter's PKCE (RFC 7636) and the device flow (RFC 8628)."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import NamedTuple
from urllib.parse import parse_qs, urlencode, urlsplit

import msgspec

from keyturn.core import HttpRequest, Secret
from keyturn.errors import KeyturnError

from .registry import Provider, known
from .tokens import _HEADERS, Denied, denial, form, json_object, sendable, writable

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
USUAL_INTERVAL = 5.0
USUAL_CODE_LIFE = 900.0
CALLBACK = "/callback/"
"""Where the browser is sent back to, followed by the nonce."""

NOT_OFFERED = {
    "anthropic": "Anthropic lets nobody but its own programs sign in with a Claude plan. Make an API key at "
    "platform.claude.com and add it: keyturn keys add anthropic",
    "openai": "Signing in with a ChatGPT plan is for one person's own use and not for a pool. Make an API key at "
    "platform.openai.com and add it: keyturn keys add openai",
    "gemini": "the login of Gemini CLI and Code Assist may not be used by other programs. Add an API key "
    "(keyturn keys add gemini), or use Google's own credentials: GEMINI_AUTH=adc",
    "vertex": "nothing to log in to here: set VERTEX_PROJECT, and VERTEX_CREDENTIALS to the file of a service account; "
    "or run `gcloud auth application-default login`",
    "azure": "nothing to log in to here: set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, or "
    "AZURE_AUTH=managed_identity",
    "github_models": "GitHub Models takes a personal access token: keyturn keys add github_models. The login of GitHub "
    "Copilot is internal to GitHub's own programs",
    "copilot": "the login of GitHub Copilot is internal to GitHub's own programs. For GitHub Models add a personal "
    "access token: keyturn keys add github_models",
    "qwen": "Qwen's free login was closed in April 2026. Use a key of Alibaba Model Studio",
}
"""Why there is no login, and what to do instead."""
SPELLED = {
    "chatgpt": "openai",
    "codex": "openai",
    "codex_cli": "openai",
    "claude_code": "anthropic",
    "gemini_cli": "gemini",
    "antigravity": "gemini",
    "code_assist": "gemini",
    "github_copilot": "copilot",
    "qwen_code": "qwen",
}


def why_no_login(name: str) -> str:
    """What to say to who wants to log in to *name*, which has no login."""
    plain = name.strip().lower().replace("-", "_")
    provider = known(plain)
    plain = SPELLED.get(plain, provider.name if provider is not None else plain)
    if plain in NOT_OFFERED:
        return NOT_OFFERED[plain]
    if provider is not None and provider.variables:
        return f"{plain} takes API keys and has no login: keyturn keys add {plain}"
    return ""


def challenge(verifier: str) -> str:
    """The S256 challenge of a PKCE verifier."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def authorize_url(address: str, callback: str, verifier: str) -> str:
    """Where OpenRouter asks its user."""
    asked = {"callback_url": callback, "code_challenge": challenge(verifier), "code_challenge_method": "S256"}
    return f"{address}?{urlencode(asked)}"


def read_callback(target: str, nonce: str) -> Secret | None:
    """The code in the address that the browser was sent to, whole or from its path on; None when it is not the answer
    to the question with *nonce*. Raises KeyturnError when the answer is no."""
    try:
        parts = urlsplit(target.strip())
        if not hmac.compare_digest(parts.path.encode(), f"{CALLBACK}{nonce}".encode()):
            return None
        answer = parse_qs(parts.query, keep_blank_values=True, max_num_fields=50)
    except ValueError:  # whatever was pasted
        return None
    if error := answer.get("error", [""])[0]:
        if error == "access_denied":
            raise KeyturnError("you did not allow it: nothing was changed")
        raise KeyturnError(f"the login failed: {error[:60]!r}")
    code = answer.get("code", [""])[0]
    if not writable(code):
        raise KeyturnError("the login failed: the answer holds no code")
    return Secret(code)


def new_key_request(address: str, code: Secret, verifier: str) -> HttpRequest:
    """Exchanges OpenRouter's code for a key of the user."""
    members = {"code": code.reveal(), "code_verifier": verifier, "code_challenge_method": "S256"}
    headers = (*_HEADERS, ("content-type", "application/json"))
    return HttpRequest("POST", address, headers, msgspec.json.encode(members))


def read_new_key(status: int, body: bytes, *sent: Secret) -> Secret | Denied:
    """The key. A message that quotes one of the secrets that were *sent* is given without it."""
    members = json_object(body)
    key = members.get("key")
    if 200 <= status < 300 and isinstance(key, str) and sendable(key):
        return Secret(key)
    return denial(status, members, *sent) if status >= 300 else Denied("no_key", "its answer holds no key", False)


class DeviceCode(NamedTuple):
    """A login that was begun: what the person is to open and to type. Times in seconds."""

    code: Secret
    user_code: str
    address: str
    whole_address: str
    """With the code in it; empty when there is none."""
    lifetime: float
    interval: float


def device_request(provider: Provider, client_id: str, scopes: tuple[str, ...]) -> HttpRequest:
    """Begins a login by device."""
    return form(provider.signs_in["device"], {"client_id": client_id, "scope": " ".join(scopes)})


def read_device(status: int, body: bytes) -> DeviceCode | Denied:
    """What there is to show."""
    members = json_object(body)
    code, user_code = members.get("device_code"), members.get("user_code")
    address = members.get("verification_uri") or members.get("verification_url")
    if not 200 <= status < 300:
        return denial(status, members)
    if not all(isinstance(each, str) and each.isprintable() and each for each in (code, user_code, address)):
        return Denied("no_code", "its answer holds no code", False)
    whole = members.get("verification_uri_complete")
    return DeviceCode(
        Secret(str(code)),
        str(user_code),
        str(address),
        whole if isinstance(whole, str) and whole.isprintable() else "",
        _seconds(members.get("expires_in"), USUAL_CODE_LIFE),
        _seconds(members.get("interval"), USUAL_INTERVAL),
    )


def device_token_request(provider: Provider, client_id: str, code: Secret) -> HttpRequest:
    """Asks whether the person has agreed."""
    members = {"grant_type": DEVICE_GRANT, "device_code": code.reveal(), "client_id": client_id}
    return form(provider.signs_in["token"], members)


def _seconds(stated: object, usual: float) -> float:
    return float(stated) if isinstance(stated, (int, float)) and 0 < stated < 86_400 else usual
