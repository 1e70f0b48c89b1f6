"""Authorisation servers of our own: one ASGI application that plays OpenRouter's, Hugging Face's, Google's and Entra's.

In virtual time it is reached through `Routed`, a transport that sends requests for tokens here and all others on;
on a port of its own through `serve_authority`.
"""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qs, urlsplit

import uvicorn

from keyturn.core import Clock, HttpRequest, LocalRequest, Transport, UpstreamRequest, UpstreamResponse
from keyturn.errors import TransportError
from keyturn.transport import ASGIApp, LocalTransport

APP = "authority"


class Authority:
    """Grants tokens `access-1`, `access-2`, … and keeps account of every question.

    Refresh tokens work once when *rotates*; a JWT must be signed by *public_key* and fit the server's own time.
    """

    def __init__(self, clock: Clock | None = None, *, lifetime: float = 3600.0, rotates: bool = True) -> None:
        self._clock = clock
        self.lifetime = lifetime
        self.rotates = rotates
        self.granted = 0
        self.asked: list[dict[str, str]] = []
        """The members of each request for a token."""
        self.paths: list[str] = []
        self.refresh_tokens = {"refresh-0"}
        self.denial: tuple[int, dict[str, Any]] | None = None
        """What every request for a token is answered instead."""
        self.unreachable = False
        self.delay = 0.0
        self.ahead = 0.0
        """Seconds by which this server's clock is ahead."""
        self.public_key: Any = None
        self.pending: list[str] = []
        """What the device flow answers before it grants, in order."""
        self.interval = 0.01
        self.codes: dict[str, str] = {}
        """OpenRouter: code -> the challenge that it was given for."""
        self.new_key = "sk-or-v1-planted-key-of-the-user"
        self.user = "ada"

    def wall(self) -> float:
        assert self._clock is not None
        return self._clock.wall() + self.ahead

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        if self.delay and self._clock is not None:
            await self._clock.sleep_until(self._clock.mono() + self.delay)
        path = scope["path"]
        self.paths.append(path)
        headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
        status, members = self._answer(path, body, scope["query_string"].decode(), headers)
        sent = [(b"content-type", b"application/json")]
        if self._clock is not None:
            sent.append((b"date", formatdate(self.wall(), usegmt=True).encode()))
        await send({"type": "http.response.start", "status": status, "headers": sent})
        await send({"type": "http.response.body", "body": json.dumps(members).encode()})

    def _answer(self, path: str, body: bytes, query: str, headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
        if path.endswith("/auth/keys"):
            return self._exchange(json.loads(body))
        if path.endswith("/models"):  # it plays the provider too: who has a token is let in
            good = headers.get("authorization") == f"Bearer access-{self.granted}"
            return (200, {"data": [{"id": "m"}]}) if good else (401, {"error": {"message": "no"}})
        if path.endswith("/device"):
            return 200, {
                "device_code": "planted-device-code",
                "user_code": "WDJB-MJHT",
                "verification_uri": "https://huggingface.co/device",
                "expires_in": 900,
                "interval": self.interval,
            }
        if path.endswith("/userinfo"):
            return (200, {"preferred_username": self.user}) if "authorization" in headers else (401, {})
        form = {name: values[0] for name, values in parse_qs(body.decode() or query).items()}
        self.asked.append(form)
        if self.denial is not None:
            return self.denial
        return self._grant(form, headers)

    def _exchange(self, members: dict[str, str]) -> tuple[int, dict[str, Any]]:
        from hashlib import sha256

        made = base64.urlsafe_b64encode(sha256(members["code_verifier"].encode()).digest()).rstrip(b"=").decode()
        if self.codes.pop(members["code"], None) != made:
            return 403, {"error": {"code": 403, "message": "Invalid code or code_verifier"}}
        return 200, {"key": self.new_key}

    def _grant(self, form: dict[str, str], headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
        kind = form.get("grant_type", "")
        if kind == "refresh_token":
            if form["refresh_token"] not in self.refresh_tokens:
                return 400, {"error": "invalid_grant", "error_description": "Token has been expired or revoked."}
            if not self.rotates:
                return 200, self._token()
            self.refresh_tokens.discard(form["refresh_token"])
            return 200, self._token() | self._refresh()
        if kind.endswith("device_code"):
            if self.pending:
                return 400, {"error": self.pending.pop(0)}
            return 200, self._token() | self._refresh() | {"scope": "openid profile inference-api"}
        if kind.endswith("jwt-bearer"):
            return self._signed(form["assertion"])
        if kind == "client_credentials" and form["client_secret"] != "planted-client-secret":
            return 401, {"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret"}
        if not kind and headers.get("metadata-flavor") != "Google" and headers.get("metadata") != "true":
            return 403, {"error": "forbidden"}
        return 200, self._token() | ({"expires_in": str(int(self.lifetime))} if not kind else {})

    def _token(self) -> dict[str, Any]:
        self.granted += 1
        return {"access_token": f"access-{self.granted}", "token_type": "Bearer", "expires_in": self.lifetime}

    def _refresh(self) -> dict[str, Any]:
        refresh = f"refresh-{self.granted}"
        self.refresh_tokens.add(refresh)
        return {"refresh_token": refresh}

    def _signed(self, assertion: str) -> tuple[int, dict[str, Any]]:
        """As Google does: the signature, and at most an hour from a moment that is not in the future."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA256

        to_sign, _, signature = assertion.rpartition(".")
        padded = signature + "=" * (-len(signature) % 4)
        try:
            self.public_key.verify(base64.urlsafe_b64decode(padded), to_sign.encode(), PKCS1v15(), SHA256())
        except InvalidSignature:
            return 400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
        claims = json.loads(base64.urlsafe_b64decode(to_sign.partition(".")[2] + "=="))
        if not claims["iat"] <= self.wall() <= claims["exp"] <= claims["iat"] + 3600:
            told = "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe."
            return 400, {"error": "invalid_grant", "error_description": told}
        return 200, self._token()


class Routed:
    """A `Transport`: requests for tokens go to *authority*, all others to *others*."""

    def __init__(self, authority: Authority, others: Transport | None = None) -> None:
        self.authority = authority
        self._local = LocalTransport({APP: authority})
        self._others = others

    @property
    def acquired(self) -> int:
        return self._local.acquired + getattr(self._others, "acquired", 0)

    async def send(self, request: UpstreamRequest, on_sent: Callable[[], None]) -> UpstreamResponse:
        if not isinstance(request, HttpRequest):
            assert self._others is not None
            return await self._others.send(request, on_sent)
        if self.authority.unreachable:
            raise TransportError("dns", "there is no such host")
        return await self._local.send(LocalRequest(APP, request), on_sent)

    async def close(self) -> None:
        await self._local.close()
        if self._others is not None:
            await self._others.close()


@contextmanager
def serve_authority(authority: ASGIApp) -> Iterator[str]:
    """*authority* on a free port of 127.0.0.1; its URL."""
    listening = socket.create_server(("127.0.0.1", 0))
    settings = uvicorn.Config(authority, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="authority")
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        listening.close()
    assert not thread.is_alive()


def allow(authority: Authority, address: str, code: str = "planted-code") -> str:
    """What OpenRouter's page does when the user says yes: where the browser goes next from the authorize *address*."""
    asked = parse_qs(urlsplit(address).query)
    assert asked["code_challenge_method"] == ["S256"]
    authority.codes[code] = asked["code_challenge"][0]
    return f"{asked['callback_url'][0]}?code={code}"
