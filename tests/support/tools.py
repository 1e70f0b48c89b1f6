"""Stub programs that play command line tools in all their moods, and who may look whether they are still there."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from keyturn.config import Config, load
from keyturn.core import Credential, Interpreter, ProcessRequest, ToolReply
from keyturn.dispatch import SystemClock, build
from keyturn.providers import CATALOG, Provider, Tool

from .world import World

VERSION = '[ "$1" = --version ] && { echo 1.2.3; exit 0; }\n'
PATIENCE = 20.0


class Tools:
    """A folder of stub programs, and the environment in which they run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {"PATH": f"{folder}:/usr/bin:/bin", "NOTES": str(folder / "notes")}
        """`NOTES`: a file in which programs note their process ids and whatever else a test asks for."""

    def add(self, name: str, script: str, *, version: str = VERSION) -> None:
        """A shell script called *name*; it answers `--version` unless told otherwise."""
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{version}{script}\n")
        path.chmod(0o755)

    def noted(self) -> list[str]:
        """The lines in NOTES."""
        notes = Path(self.environ["NOTES"])
        return notes.read_text().splitlines() if notes.exists() else []

    def forget(self) -> None:
        """Empty NOTES."""
        Path(self.environ["NOTES"]).unlink(missing_ok=True)

    def take_note(self, line: str) -> None:
        """Write a line there: what a program may wait for."""
        with Path(self.environ["NOTES"]).open("a") as notes:
            notes.write(f"{line}\n")

    async def note(self, count: int = 1) -> list[str]:
        """The lines in NOTES, once there are *count*."""
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE
        while len(self.noted()) < count:
            assert loop.time() < until, f"only {self.noted()} was noted"
            await asyncio.sleep(0.005)
        return self.noted()

    def request(self, name: str, *args: str, stdin: bytes = b"", timeout: float = 10.0) -> ProcessRequest:
        """A run of the stub *name*, whose output is the answer."""
        return ProcessRequest((name, *args), stdin, self.environ, timeout, Echo())

    def config(self, *providers: Provider | str, timeout: float = 10.0, **changes: Any) -> Config:
        """A configuration of these providers; a name is a row of the catalog, found on this PATH."""
        rows = [CATALOG[each] if isinstance(each, str) else each for each in providers]
        rows = [replace(row, tool=self._placed(row.tool, timeout)) for row in rows]
        plain = load({}, cwd=Path("/nonexistent"))
        credentials = {row.name: (Credential.of(row.name, "", origin="a test"),) for row in rows}
        return replace(plain, providers={row.name: row for row in rows}, credentials=credentials, demo=False, **changes)

    def _placed(self, tool: Tool | None, timeout: float) -> Tool:
        assert tool is not None
        return replace(tool, environ={**tool.environ, **self.environ}, timeout=timeout)


class ToolWorld(World):
    """A gateway over stub programs, in real time: processes know no other."""

    def __init__(self, config: Config) -> None:
        super().__init__({})
        self.clock = SystemClock()  # type: ignore[assignment]
        self._config = config

    async def __aenter__(self) -> ToolWorld:
        self.folders = run_folders()
        self.gateway = build(self._config, clock=self.clock)
        return self

    async def __aexit__(self, *error: object) -> None:
        await super().__aexit__(*error)
        assert run_folders() <= self.folders, "folders of runs left over"


class Echo(Interpreter):
    """What is printed is the answer, as it comes; a failure is what stands on stderr."""

    def feed(self, data: bytes, now: float) -> bytes:
        return data

    def end(self, code: int, stderr: bytes, now: float) -> ToolReply:
        return ToolReply(200 if code == 0 else 502, {"exit-code": str(code)}, b"" if code == 0 else stderr)


def prints(*documents: object) -> str:
    """A script that prints these, a line each: JSON unless they are text already."""
    lines = [each if isinstance(each, str) else json.dumps(each) for each in documents]
    return "cat <<'END-OF-TEXT'\n" + "\n".join(lines) + "\nEND-OF-TEXT"


def is_alive(pid: int) -> bool:
    """Whether a process is there and no zombie: whose parent is gone waits for an init that a container may lack."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # gone before, or while it was read
        return False
    return state not in "ZX"


async def all_gone(pids: Iterable[str]) -> None:
    """Wait a moment for these processes to be gone: a killed one takes the kernel a little while."""
    loop = asyncio.get_running_loop()
    until = loop.time() + PATIENCE
    while left := [pid for pid in pids if is_alive(int(pid))]:
        assert loop.time() < until, f"still running: {left}"
        await asyncio.sleep(0.005)


def run_folders() -> set[str]:
    """The folders of runs that are on the disk now."""
    return {name for name in os.listdir(tempfile.gettempdir()) if name.startswith("keyturn-run-")}
