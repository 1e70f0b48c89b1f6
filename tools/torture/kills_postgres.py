"""A gateway and the PostgreSQL behind it are killed under load, each at moments of its own: no call may be missing."""

from __future__ import annotations

import random as randoms
import tempfile
import threading
from pathlib import Path

from tests.support.postgres_server import PostgresServer

from .kills import kills

UP, DOWN = 2.0, 1.0
"""Seconds that the server runs and lies dead at most."""


def kills_in_postgres(size: int, seed: int) -> list[str]:
    """Kill the gateway *size* times, and the server all the while; what is wrong with the ledger then."""
    with tempfile.TemporaryDirectory(prefix="ktpg") as place:
        server = PostgresServer(Path(place))
        server.start()
        try:
            disturbing = _Disturbing(server, randoms.Random(seed))
            url = server.new_database()
            disturbing.start()
            try:
                found = kills(size, seed, url, disturbing.end)
            finally:
                disturbing.end()
            print(f"kills_postgres: the server was killed {disturbing.kills} times")
            return found
        finally:
            server.kill()


class _Disturbing(threading.Thread):
    """Kills the server and starts it again until it is ended, which leaves it running."""

    def __init__(self, server: PostgresServer, draw: randoms.Random) -> None:
        super().__init__(name="disturbing")
        self.kills = 0
        self._server = server
        self._draw = draw
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(self._draw.random() * UP):
            self._server.kill()
            self.kills += 1
            self._over.wait(self._draw.random() * DOWN)
            self._server.start()

    def end(self) -> None:
        self._over.set()
        self.join()
