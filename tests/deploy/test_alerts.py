"""Alert rules and the dashboard: they load, they name what exists, and the rule about fallback tells the truth."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from keyturn.dispatch import Alarm, Reloaded
from keyturn.simulator import Fault
from keyturn.telemetry import METRICS, Telemetry
from keyturn.telemetry.catalog import COUNTERS, GAUGES, HISTOGRAMS
from tests.support import virtual
from tests.support.world import World

from .promql import Scrape, Vector, parse, selectors, work_out

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "keyturn.json").read_text())
TARGETS = {"job", "instance"}
"""Labels that Prometheus itself adds."""
ROLES = "roles:\n  any:\n    model_chain: [m]\n    providers: [openai, groq, g4f]\n"
POOL = {"openai": 2, "groq": 1, "g4f": 1}


def expressions() -> Iterator[tuple[str, str]]:
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield f"{panel['title']} {target['refId']}", target["expr"]


def labels_of(series: str) -> set[str]:
    """The labels of a series as it is exposed. Raises KeyError for one that does not exist."""
    if series == "up":
        return TARGETS
    for suffix in ("_bucket", "_sum", "_count"):
        if series.endswith(suffix) and series.removesuffix(suffix) in HISTOGRAMS:
            found = {*HISTOGRAMS[series.removesuffix(suffix)].labels, *TARGETS}
            return found | {"le"} if suffix == "_bucket" else found
    return {*{**COUNTERS, **GAUGES}[series].labels, *TARGETS}


def rule(name: str) -> Any:
    (found,) = (each for each in RULES if each["alert"] == name)
    return parse(found["expr"])


def test_MON_04_every_expression_names_metrics_and_labels_that_exist() -> None:
    for where, text in expressions():
        found = list(selectors(parse(text)))
        assert found, where
        for selector, labels in found:
            assert labels <= labels_of(selector.name), f"{where}: {selector.name} has no such label"
        assert not re.search(r"\$(?!job\b|instance\b|__rate_interval)", text), where


def test_MON_04_a_metric_or_a_label_that_does_not_exist_is_noticed() -> None:
    with pytest.raises(KeyError):
        labels_of("keyturn_serve_total")
    ((selector, labels),) = selectors(parse('sum by (colour) (rate(keyturn_served_total{provider="x"}[5m]))'))
    assert labels - labels_of(selector.name) == {"colour"}


@pytest.mark.parametrize("each", RULES, ids=lambda each: each["alert"])
def test_MON_04_every_alert_says_how_bad_it_is_and_what_to_do(each: dict[str, Any]) -> None:
    assert re.fullmatch(r"Keyturn[A-Z][A-Za-z]+", each["alert"])
    assert each["labels"]["severity"] in ("critical", "warning", "info")
    assert len(each["annotations"]["summary"]) > 10
    assert each["annotations"]["description"].endswith(".")
    named = set(re.findall(r"\$labels\.(\w+)", str(each["annotations"])))
    known = set.intersection(*(labels_of(selector.name) for selector, _ in selectors(parse(each["expr"]))))
    assert named <= known


def test_MON_04_what_must_be_watched_is() -> None:
    wanted = """ExcessiveFallback NoUsableKeys ProviderErrors QueueWaits DeadKeys ConfigInvalid LogLinesDropped
        StreamsCut CallsFail ProviderWithoutUsableKeys LedgerNotWritable LedgerAway LedgerFillsUp LedgerRowsLost
        LiveStateAway ReservationsLeft Sheds ConnectionsRefused"""
    assert {f"Keyturn{name}" for name in wanted.split()} <= {each["alert"] for each in RULES}
    assert len({each["alert"] for each in RULES}) == len(RULES)


def test_MON_14_the_dashboard_loads_and_shows_the_last_resort() -> None:
    panels = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert {name["name"] for name in DASHBOARD["templating"]["list"]} == {"datasource", "job", "instance"}
    texts = [target["expr"] for panel in panels for target in panel["targets"]]
    assert any('provider="g4f"' in text and "keyturn_keys" in text for text in texts)
    assert any('provider="g4f"' in text and "keyturn_served_total" in text for text in texts)
    taken = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    for number, one in enumerate(taken):
        assert one["x"] + one["w"] <= 24
        for other in taken[:number]:
            apart = one["y"] >= other["y"] + other["h"] or one["x"] >= other["x"] + other["w"]
            assert apart or other["x"] >= one["x"] + one["w"], f"{one} lies over {other}"


def test_MON_14_every_metric_of_ours_is_on_the_dashboard() -> None:
    shown = {selector.name for _, text in expressions() for selector, _ in selectors(parse(text))}
    ours = {name for name in METRICS if name.startswith("keyturn_")}
    missing = {name for name in ours if not any(each.startswith(name) for each in shown)}
    assert missing <= {"keyturn_cache_entries"}


def between(first: str, last: str, name: str) -> Vector:
    """What makes the alert *name* fire, from one page of figures to another; nothing when it does not."""
    found: Vector = work_out(rule(name), Scrape(first), Scrape(last))
    return found


def scraped(*parts: tuple[int, list[Fault]]) -> list[str]:
    """Pages of a real gateway: one before, and one after each part, so many calls while those faults last."""
    pages: list[str] = []

    async def main() -> None:
        offered = {name: ["m"] for name in POOL}
        environ = {"G4F_MAIN_API_BASE": "https://g4f.test/v1"}
        async with World(POOL, environ=environ, files={"roles.yaml": ROLES}, models=offered) as world:
            telemetry = Telemetry(world.gateway, io.StringIO())

            def page() -> None:
                pages.append((telemetry.metrics_page() or b"").decode())

            page()
            for calls, faults in parts:
                world.upstream.script.clear()
                for fault in faults:
                    world.upstream.script.add(fault)
                world.gateway.reset(None)
                for _ in range(calls):
                    assert (await world.chat("any")).status == 200
                page()
            telemetry.close()

    virtual.run(main)
    return pages


def test_MON_04_excessive_fallback_fires_on_the_right_share_of_a_real_gateway() -> None:
    down = [Fault(provider="openai", kind="chat", status=500), Fault(provider="groq", kind="chat", status=429)]
    start, well, mixed, worse = scraped((30, []), (5, down), (5, down))
    name = "KeyturnExcessiveFallback"
    assert between(start, well, name) == {}
    assert between(start, mixed, name) == {}, "5 of 35 are less than 20 %"
    assert between(start, worse, name) == {frozenset({("job", "keyturn")}): pytest.approx(10 / 40)}
    assert between(well, worse, name) == {}, "10 calls are too few to tell"


def test_MON_04_alerts_about_keys_providers_and_files() -> None:
    refused = [Fault(provider="openai", kind="chat", error="invalid_key")]
    failing = [Fault(provider="openai", kind="chat", status=503), Fault(provider="groq", kind="chat", status=500)]
    start, dead, poor = scraped((3, refused), (25, failing))
    assert between(start, start, "KeyturnDeadKeys") == {}
    (found,) = between(start, dead, "KeyturnDeadKeys").items()
    assert (dict(found[0])["provider"], found[1]) == ("openai", 2)
    assert [dict(each)["provider"] for each in between(start, dead, "KeyturnProviderWithoutUsableKeys")] == ["openai"]
    assert between(start, dead, "KeyturnNoUsableKeys") == {}
    assert between(dead, poor, "KeyturnCallsFail") == {}


def test_MON_04_alerts_on_figures_that_were_made() -> None:
    healthy = 'keyturn_keys{provider="groq",state="healthy"} 1.0\n'
    resting = 'keyturn_keys{provider="groq",state="cooling"} 2.0\nkeyturn_keys{provider="x",state="invalid"} 1.0\n'
    assert between("", healthy, "KeyturnNoUsableKeys") == {}
    assert list(between("", resting, "KeyturnNoUsableKeys").values()) == [3]
    attempts = 'keyturn_upstream_attempts_total{{provider="groq",tier="2",model="m",result="{}"}} {}\n'
    errors = attempts.format("ok", 12) + attempts.format("server_error", 8)
    (share,) = between("", errors, "KeyturnProviderErrors").values()
    assert share == pytest.approx(0.4)
    assert between("", attempts.format("ok", 20) + attempts.format("timeout", 5), "KeyturnProviderErrors") == {}
    waits = 'keyturn_queue_wait_seconds_{}{{inbound_api="a"{}}} {}\n'
    rows = [
        ("bucket", ',le="2.56"', 18),
        ("bucket", ',le="20.48"', 30),
        ("bucket", ',le="+Inf"', 30),
        ("count", "", 30),
    ]
    assert list(between("", "".join(waits.format(*row) for row in rows), "KeyturnQueueWaits").values()) == [20.48]
    aborted = 'keyturn_stream_aborted_total{provider="groq",phase="mid_stream"} 12\n'
    many = 'keyturn_attempt_duration_seconds_count{provider="groq",tier="2"} 60\n'
    assert list(between("", aborted + many, "KeyturnStreamsCut").values()) == [pytest.approx(0.2)]


def test_MON_04_alerts_about_the_gateway_itself() -> None:
    async def main() -> None:
        async with World({"groq": 1}) as world:
            telemetry = Telemetry(world.gateway, io.StringIO())
            first = (telemetry.metrics_page() or b"").decode()
            world.gateway.events.emit(Reloaded(problems=("config/limits.yaml:3: no such provider",)))
            world.gateway.events.emit(Alarm("look"))
            last = (telemetry.metrics_page() or b"").decode()
            telemetry.close()
        for name, before in (("KeyturnConfigInvalid", 0), ("KeyturnAlarm", 0)):
            assert len(between(first, first, name)) == before
            assert len(between(first, last, name)) == 1
        assert between(first, last, "KeyturnLogLinesDropped") == {}

    virtual.run(main)


def test_MON_04_alerts_about_the_ledger_and_live_state() -> None:
    fine = """keyturn_ledger_writable 1
keyturn_ledger_reachable 1
keyturn_ledger_waiting_bytes 300
keyturn_ledger_rows_lost_total 2
keyturn_live_reachable 1
keyturn_live_reservations 0
keyturn_inflight_requests 0
"""
    troubles = {
        "KeyturnLedgerNotWritable": ("keyturn_ledger_writable 1", "keyturn_ledger_writable 0"),
        "KeyturnLedgerAway": ("keyturn_ledger_reachable 1", "keyturn_ledger_reachable 0"),
        "KeyturnLedgerFillsUp": ("waiting_bytes 300", "waiting_bytes 600000000"),
        "KeyturnLedgerRowsLost": ("rows_lost_total 2", "rows_lost_total 5"),
        "KeyturnLiveStateAway": ("keyturn_live_reachable 1", "keyturn_live_reachable 0"),
        "KeyturnReservationsLeft": ("keyturn_live_reservations 0", "keyturn_live_reservations 4"),
    }
    for name, (before, after) in troubles.items():
        assert before in fine
        assert between(fine, fine, name) == {}, name
        assert len(between(fine, fine.replace(before, after), name)) == 1, name
    for name, row in (
        ("KeyturnSheds", 'keyturn_shed_total{class="batch",reason="lag"} 4\n'),
        ("KeyturnConnectionsRefused", 'keyturn_connections_refused_total{bound="per_ip"} 1\n'),
    ):
        assert between(row, row, name) == {}
        assert len(between(fine, row, name)) == 1
    busy = fine.replace("keyturn_live_reservations 0", "keyturn_live_reservations 4")
    busy = busy.replace("keyturn_inflight_requests 0", "keyturn_inflight_requests 4")
    assert between(fine, busy, "KeyturnReservationsLeft") == {}, "calls under way hold limits"
