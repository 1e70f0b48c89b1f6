"""The pool in this process in place of a gateway: the official SDKs are given a transport instead of an address."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import keyturn
from keyturn.client import AsyncClient, Client


class InProcess:
    """A pool over *environ* that has its data folder in *folder*, with the face of `Served`."""

    caller_key = "never read"

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._folder = folder
        self._environ = environ
        self.url = "http://in-process.invalid"
        self.base_url = f"{self.url}/v1"
        with self._place():
            self.pool = Client()

    @contextmanager
    def _place(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self._folder)
            for name, value in self._environ.items():
                patch.setenv(name, value)
            yield

    def transport(self, sdk: str, *, asynchronous: bool) -> Any:
        """What a client of *sdk* (`openai`, `anthropic`) takes as `http_client`."""
        made = keyturn.transport_for_openai if sdk == "openai" else keyturn.transport_for_anthropic
        if not asynchronous:
            return made(self.pool)
        with self._place():
            return made(asynchronous=True)  # its own AsyncClient, which finds the pool that is here already

    def async_pool(self) -> AsyncClient:
        with self._place():
            return AsyncClient()

    def reset(self) -> None:
        """Clear every cooldown."""
        self.pool.clear_rate_limits()

    def states(self) -> dict[str, str]:
        """The state of each key by its label: `groq-2` → `healthy`."""
        rows = self.pool.get_quota_stats()["keys"]
        return {row["key"].partition(":")[0]: row["state"] for row in rows}

    def close(self) -> None:
        self.pool.close()
