"""What our own commands ask of a running gateway about limits: all that is said of them, pins, and forgetting."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from keyturn.config import DataFolder, Pin, with_pin
from keyturn.dispatch import Gateway, choice_of, clear_limits, limit_rows, pin_again, pins_but, read_pin
from keyturn.errors import BadRequest, KeyturnError

from .together import Together


class LimitRequest(msgspec.Struct):
    """The body of `POST /admin/limits/…`."""

    provider: str | None = None
    model: str | None = None
    limit: str = ""
    """Of a pin: `requests/minute`, or `rpm`."""
    capacity: int = 0
    key: str | None = None
    source: str | None = None
    """What to clear: `learned`, `reported` or `pinned`; all three without it."""


class LimitPages:
    """Pins are written down first, and hold in all workers afterwards."""

    def __init__(self, gateway: Gateway, folder: DataFolder, together: Together) -> None:
        self._gateway = gateway
        self._folder = folder
        self._together = together

    async def page(self, name: str, body: bytes) -> object:
        """The page called *name* in paths.py. Raises RequestError, and KeyturnError when nothing can be written."""
        if name == "admin_limits":
            return limit_rows(self._gateway)
        asked = _read(body)
        return await (self._pin(asked) if name == "admin_limits_pin" else self._clear(asked))

    async def _pin(self, asked: LimitRequest) -> dict[str, Any]:
        gateway, wall = self._gateway, self._gateway.clock.wall()
        pin = read_pin(
            gateway.config, asked.provider or "", asked.model or "", asked.limit, asked.capacity, asked.key, wall
        )
        async with self._together.pinning:
            await self._hold(with_pin(self._folder.pins(), pin))
        return {"pinned": msgspec.to_builtins(pin)}

    async def _clear(self, asked: LimitRequest) -> dict[str, Any]:
        gateway = self._gateway
        choice = choice_of(gateway, asked.provider, asked.model, asked.key, asked.source)
        async with self._together.pinning:
            stay, gone = pins_but(gateway, choice)
            if gone:
                await self._hold(stay)
        cleared = clear_limits(gateway, choice)[0] + gone
        await self._together.cleared(choice)
        return {"cleared": cleared}

    async def _hold(self, pins: tuple[Pin, ...]) -> None:
        """Have exactly *pins* hold, from now on and after a restart."""
        try:
            await asyncio.to_thread(self._folder.write_pins, pins)
        except OSError as error:
            raise KeyturnError(f"this could not be written down, so nothing was changed: {error.strerror}") from error
        pin_again(self._gateway, pins)
        await self._together.pinned(pins)


def _read(body: bytes) -> LimitRequest:
    try:
        return msgspec.json.decode(body, type=LimitRequest)
    except msgspec.DecodeError as error:
        raise BadRequest(
            f'the body must be like {{"provider": "groq", "model": "…", "limit": "rpm", "capacity": 30}}: {error}'
        ) from error
