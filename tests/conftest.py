"""What holds for every test: repeatable examples, no network but loopback, nothing left running."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import logging
import os
import re
import shutil
import socket
import tempfile
from asyncio import runners
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support.postgres_server import postgres  # noqa: F401 - a fixture of every test that asks for it
from tests.support.redis_server import redis_hub, redis_server  # noqa: F401
from tests.support.scratch import scratch

settings.register_profile(
    "repeatable", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("explore", deadline=None, max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

REALTIME_BUDGET = 60.0
"""Seconds that all tests marked `realtime` may take together."""

_wrongs: list[str] = []
"""What the running test did that no test may do; it fails for that after its own assertions have passed."""


def _is_local(host: object) -> bool:
    if host in (None, "", b"", "localhost", b"localhost"):
        return True
    text = host.decode() if isinstance(host, bytes) else str(host)
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _refuse(host: object) -> None:
    """Notes a reach beyond this machine and fails it the way an unreachable network would."""
    _wrongs.append(f"reached for {host!r}: tests speak with loopback only")
    raise OSError(f"tests speak with loopback only, not with {host!r}")


class _LoopbackSocket(socket.socket):
    """A socket that connects to this machine only."""

    def connect(self, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_local(address[0]):
            _refuse(address[0])
        super().connect(address)

    def connect_ex(self, address: Any) -> int:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_local(address[0]):
            _refuse(address[0])
        return super().connect_ex(address)


_resolve = socket.getaddrinfo


def _resolve_local(host: Any, *args: Any, **kwargs: Any) -> Any:
    if str(host).rstrip(".").endswith(".invalid"):  # reserved never to exist: what any resolver would answer
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    if not _is_local(host):
        _refuse(host)
    return _resolve(host, *args, **kwargs)


def _written(descriptor: int) -> None:
    """Stands for `os.fsync`: no test cuts the power, and the disk would take a minute for what all of them write."""
    os.fstat(descriptor)


_cancel_all_tasks: Any = getattr(runners, "_cancel_all_tasks")  # noqa: B009 - private, so invisible to type stubs


def _note_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Runs when `asyncio.run` ends: what it would cancel silently was left over."""
    _wrongs.extend(f"left a task running: {task!r}" for task in asyncio.all_tasks(loop))
    _cancel_all_tasks(loop)


class _AsyncioErrors(logging.Handler):
    """Errors that asyncio can only log: tasks destroyed while pending, exceptions that nobody retrieved."""

    def emit(self, record: logging.LogRecord) -> None:
        _wrongs.append(f"asyncio: {record.getMessage()}")


OWNERS_SETTINGS = re.compile(
    r"_API_KEY(_\d+)?$|_API_BASE$|_MODELS$|_(CHAT|EMBEDDING)_MODEL$|_(ACCESS|REFRESH)_TOKEN(_\d+)?$|_WEBHOOK_URL$|"
    r"^(KEYTURN|PROXY|QUOTA_GROUPS?|KEY_PLAN|KEY_WEIGHTS|KEY_PRIORITIES|ROTATION_MODE|PROVIDER_PRIORITY|LIMITS|USE_PAID|"
    r"FREE_ONLY|ALLOWED_MODEL|TIMEOUT|GLOBAL_TIMEOUT|(MAX|OPTIMAL)_CONCURRENT_REQUESTS|CONCURRENCY_MULTIPLIER|FAIR_CYCLE|"
    r"CUSTOM_CAP|EXHAUSTION_COOLDOWN|SESSION_STICKINESS|(IGNORE|WHITELIST)_MODELS|CACHE|COALESCE|EQUIVALENTS|METRICS|OTEL|G4F|"
    r"VERTEX|AZURE|HUGGINGFACE|GOOGLE_APPLICATION|DISCORD|ORCHESTRATOR|OBSIDIAN_VAULT|REDIS|DATABASE)(_|$)"
)
"""Variables of whoever runs the tests that would change what the tests see, and keys that they must never touch."""


def pytest_configure(config: pytest.Config) -> None:
    patch = pytest.MonkeyPatch()
    for name in [name for name in os.environ if OWNERS_SETTINGS.search(name)]:
        patch.delenv(name)
    place = os.environ.get("PYTEST_DEBUG_TEMPROOT") or str(scratch(programs=True))
    patch.setenv("PYTEST_DEBUG_TEMPROOT", place)
    own = tempfile.mkdtemp(
        prefix="keyturn-tests-", dir=place
    )  # tests look what is left in it, and others run beside them
    patch.setattr(tempfile, "tempdir", own)
    config.add_cleanup(lambda: shutil.rmtree(own, ignore_errors=True))
    patch.setattr(socket, "socket", _LoopbackSocket)
    patch.setattr(socket, "getaddrinfo", _resolve_local)
    patch.setattr(os, "fsync", _written)
    patch.setattr(runners, "_cancel_all_tasks", _note_tasks)
    errors = _AsyncioErrors(level=logging.ERROR)
    logging.getLogger("asyncio").addHandler(errors)
    config.add_cleanup(patch.undo)
    config.add_cleanup(lambda: logging.getLogger("asyncio").removeHandler(errors))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported and collected stays to the end: the collector need not look through it again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, None, None]:
    _wrongs.clear()
    yield
    if _wrongs:
        pytest.fail("\n".join(_wrongs), pytrace=False)


_realtime: dict[str, float] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if "realtime" in report.keywords:
        _realtime[report.nodeid] = _realtime.get(report.nodeid, 0.0) + report.duration


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    spent = sum(_realtime.values())
    if _realtime:
        terminalreporter.write_line(f"{len(_realtime)} realtime tests took {spent:.1f} s of {REALTIME_BUDGET:.0f} s")
    if spent > REALTIME_BUDGET:
        slowest = sorted(_realtime, key=_realtime.__getitem__, reverse=True)[:5]
        terminalreporter.write_line("over budget; slowest: " + ", ".join(slowest), red=True)
