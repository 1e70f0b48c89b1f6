"""Shared answers in the figures and in the log."""

from __future__ import annotations

import asyncio
import io
import re

from keyturn.telemetry import Telemetry
from tests.support import virtual
from tests.support.world import World

MODEL = "groq/llama-3.1-8b-instant"


def test_CAC_03_hits_misses_and_joined_calls_are_counted() -> None:
    async def main() -> tuple[str, str]:
        environ = {"CACHE_ROUTES": "groq/llama-3.1*", "COALESCE_ROUTES": "groq/llama-3.1*"}
        async with World({"groq": 1}, environ=environ) as world:
            log = io.StringIO()
            telemetry = Telemetry(world.gateway, log)
            await asyncio.gather(*(world.chat(MODEL, stream=True) for _ in range(2)))
            await world.chat(MODEL, stream=True)
            await world.chat("groq/llama-3.3-70b-versatile")
            page = telemetry.metrics_page()
            assert page is not None
            telemetry.close()
            return page.decode(), log.getvalue()

    page, log = virtual.run(main)
    shared = dict(re.findall(r'^keyturn_cache_requests_total\{result="(\w+)"\} ([\d.]+)', page, re.MULTILINE))
    assert shared == {"miss": "1.0", "joined": "1.0", "hit": "1.0"}
    assert "keyturn_cache_entries 1.0" in page
    assert float(re.findall(r"^keyturn_cache_bytes (\S+)", page, re.MULTILINE)[0]) > 1024
    asked = re.findall(
        r'^keyturn_upstream_attempts_total\{model="llama-3.1-8b-instant",.*\} ([\d.]+)', page, re.MULTILINE
    )
    assert asked == ["1.0"]
    assert "answered from the cache, 0 s old" in log
    assert "answered together with call " in log


def test_without_shared_answers_there_are_no_such_figures() -> None:
    async def main() -> str:
        async with World({"groq": 1}) as world:
            telemetry = Telemetry(world.gateway, io.StringIO())
            await world.chat(MODEL)
            page = telemetry.metrics_page()
            telemetry.close()
            return (page or b"").decode()

    page = virtual.run(main)
    assert re.findall(r"^keyturn_cache.*", page, re.MULTILINE) == []
