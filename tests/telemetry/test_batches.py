"""Telemetry as a whole: batches, a log that nobody reads, a disk that is full."""

from __future__ import annotations

import asyncio
import io
import threading
from pathlib import Path
from types import SimpleNamespace

from keyturn.core import Transition
from keyturn.dispatch import Alarm
from keyturn.telemetry import Telemetry
from keyturn.telemetry.batches import FLUSH_EVERY, MOST_HELD, MOST_WAITING
from tests.support import virtual

from .events import CALL_ID, SECRET, ended, make_gateway, served


class Stuck(io.StringIO):
    """A log whose reader has stopped reading, until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()
        self.reached = threading.Event()

    def write(self, text: str) -> int:
        self.reached.set()
        self.released.wait(10)
        return super().write(text)


class Gone(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_events_of_a_moment_are_written_together_soon_after() -> None:
    async def main() -> None:
        gateway, out = make_gateway(), io.StringIO()
        telemetry = Telemetry(gateway, out)
        clock = virtual.VirtualClock()
        for _ in range(3):
            gateway.events.emit(served())
        assert out.getvalue() == ""
        await clock.sleep_until(clock.mono() + FLUSH_EVERY)
        telemetry.close()
        lines = out.getvalue().splitlines()
        assert len(lines) == 3
        assert all(CALL_ID in line and "groq-2:aaaaaa" in line for line in lines)

    virtual.run(main)


def test_nothing_is_lost_at_the_end() -> None:
    async def main() -> None:
        gateway, out = make_gateway(), io.StringIO()
        telemetry = Telemetry(gateway, out)
        for _ in range(200):
            gateway.events.emit(served())
        telemetry.say("stopped")
        telemetry.close()
        assert len(out.getvalue().splitlines()) == 201
        assert out.getvalue().endswith("stopped\n")

    virtual.run(main)


def test_the_metrics_page_is_up_to_the_moment() -> None:
    async def main() -> None:
        gateway = make_gateway()
        telemetry = Telemetry(gateway, io.StringIO())
        gateway.events.emit(served())
        page = (telemetry.metrics_page() or b"").decode()
        telemetry.close()
        assert 'keyturn_keys{provider="groq",state="healthy"} 2.0' in page
        assert "keyturn_inflight_requests 3.0" in page
        assert "keyturn_queue_waiters 2.0" in page
        assert 'keyturn_queue_waiters_by_class{class="normal"} 2.0' in page
        assert "keyturn_queue_promises 4.0" in page
        assert 'keyturn_queue_refusals_total{class="batch",reason="late"} 3.0' in page
        assert 'keyturn_headroom_requests{route="senior_dev",when="in_60_s"} +Inf' in page
        assert 'outcome="ok",status_class="2xx"} 1.0' in page

    virtual.run(main)


def test_a_log_that_is_not_read_holds_up_nothing_and_what_it_misses_is_counted() -> None:
    async def main() -> None:
        gateway, out = make_gateway(), Stuck()
        telemetry = Telemetry(gateway, out)
        for _ in range(MOST_WAITING + 500):
            gateway.events.emit(Alarm("look"))
        page = (telemetry.metrics_page() or b"").decode()
        assert "keyturn_log_lines_dropped_total 500.0" in page
        assert f"keyturn_alarms_total {MOST_WAITING + 500}.0" in page
        out.released.set()
        telemetry.close()
        assert len(out.getvalue().splitlines()) == MOST_WAITING

    virtual.run(main)


def test_large_calls_that_the_disk_cannot_keep_pace_with_are_not_recorded_and_counted(tmp_path: Path) -> None:
    async def main() -> None:
        gateway, out = make_gateway(), Stuck()
        telemetry = Telemetry(gateway, out, recordings=tmp_path)
        size = MOST_HELD // 4 - 2048
        for number in range(6):
            event = ended(call_id=f"call-{number}")
            assert event.call is not None
            event.call.size = size
            gateway.events.emit(event)
        page = (telemetry.metrics_page() or b"").decode()
        assert "keyturn_recordings_dropped_total 2.0" in page
        out.released.set()
        telemetry.close()
        assert len(await asyncio.to_thread(lambda: list(tmp_path.rglob("*.json")))) == 4
        gateway.events.emit(ended(call_id="later"))
        assert telemetry._unkept == 2

    virtual.run(main)


def test_what_the_process_is_under_is_in_the_figures() -> None:
    async def main() -> None:
        gateway = make_gateway()
        telemetry = Telemetry(gateway, io.StringIO())
        strain = gateway.strain
        strain.lag, strain.resident, strain.connections = 0.25, 1000, 3
        strain.shed["batch", "lag"] = 2
        strain.refused["per_ip"] = 1
        page = (telemetry.metrics_page() or b"").decode()
        telemetry.close()
        assert "keyturn_loop_lag_seconds 0.25" in page
        assert "keyturn_resident_bytes 1000.0" in page
        assert "keyturn_connections 3.0" in page
        assert 'keyturn_shed_total{class="batch",reason="lag"} 2.0' in page
        assert 'keyturn_connections_refused_total{bound="per_ip"} 1.0' in page
        assert "\nkeyturn_memory_limit_bytes " not in page

    virtual.run(main)


def test_what_became_of_failing_providers_is_in_the_figures() -> None:
    async def main() -> None:
        gateway = make_gateway()
        telemetry = Telemetry(gateway, io.StringIO())
        gateway.marks.apply(Transition(("provider", "groq", ""), "cooling", 1007.0, "outage", 1, 1000.0))
        gateway.adapting.steadiness.opened["groq"] += 2
        gateway.adapting.steadiness.held_back["groq"] += 3
        gateway.adapting.steadiness.spared["groq"] += 4
        gateway.adapting.watched = SimpleNamespace(results={"won": 5})  # type: ignore[assignment]
        page = (telemetry.metrics_page() or b"").decode()
        telemetry.close()
        assert 'keyturn_breaker_open{endpoint="",provider="groq"} 1.0' in page
        assert 'keyturn_breaker_opened_total{provider="groq"} 2.0' in page
        assert 'keyturn_retries_held_back_total{provider="groq"} 3.0' in page
        assert 'keyturn_calls_spared_total{provider="groq"} 4.0' in page
        assert 'keyturn_hedges_total{result="won"} 5.0' in page
        assert "keyturn_learned_concurrency 0.0" in page

    virtual.run(main)


def test_a_log_that_is_gone_costs_only_its_lines() -> None:
    async def main() -> None:
        gateway = make_gateway()
        telemetry = Telemetry(gateway, Gone())
        gateway.events.emit(served())
        telemetry.close()
        page = (telemetry.metrics_page() or b"").decode()
        assert "keyturn_log_lines_dropped_total 1.0" in page

    virtual.run(main)


def test_what_is_said_before_the_loop_runs_is_written() -> None:
    gateway, out = make_gateway(StillClock()), io.StringIO()
    telemetry = Telemetry(gateway, out, as_json=True)
    telemetry.say(f"key {SECRET}")
    telemetry.close()
    assert '"text":"key ***"' in out.getvalue()


class StillClock(virtual.VirtualClock):
    """Outside of any loop."""

    def wall(self) -> float:
        return virtual.START_WALL


def test_recordings_ask_the_gateway_to_keep_answers(tmp_path: Path) -> None:
    async def main() -> None:
        gateway = make_gateway()
        assert gateway.keep_answer == 0
        telemetry = Telemetry(gateway, io.StringIO(), recordings=tmp_path / "requests")
        assert gateway.keep_answer > 0
        gateway.events.emit(ended(answer=b"{}"))
        telemetry.close()
        assert len(list((tmp_path / "requests").iterdir())) == 1

    virtual.run(main)


def test_recordings_that_fail_are_told_once_and_break_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        gateway, out = make_gateway(), io.StringIO()
        (tmp_path / "requests").write_text("a file is in the way")
        telemetry = Telemetry(gateway, out, recordings=tmp_path / "requests")
        for _ in range(5):
            gateway.events.emit(served())
        telemetry.close()
        lines = out.getvalue().splitlines()
        assert len(lines) == 6
        assert sum("ALARM: calls are not recorded" in line for line in lines) == 1

    virtual.run(main)
