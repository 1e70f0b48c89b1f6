"""`keyturn usage`: sums from a ledger that the real one wrote, without a gateway; through a running one."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from keyturn.cli.periods import period
from keyturn.cli.tables import exact_dollars, in_dollars, print_figures, share
from keyturn.errors import KeyturnError

from .conftest import Terminal
from .recorded_calls import GROQ, SERVED, STREAMED, at, attempt, call, record

ALL = ("--since", "2026-11-01", "--until", "2026-12-01")

BY_MODEL = """\
MODEL                      ATTEMPTS  FAILED      INPUT  CACHED  OUTPUT  REASONING          COST $  ESTIMATED
groq/llama-3.1-8b-instant         3       1  1,000,024       8     118          0  1,204.512310        0 %
gemini/gemini-3.8-flash           1       0      1,200       0     300         40             ?      100 %
total                             4       1  1,001,224       8     418         40  1,204.512310 + ?       25 %
"""


def rows(terminal: Terminal, *args: str) -> list[dict[str, Any]]:
    result = terminal.run("usage", *ALL, "--json", *args)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert isinstance(found, list)
    return found


def test_usage_by_model_is_a_table_with_a_total_and_a_footnote(terminal: Terminal) -> None:
    record(terminal.cwd)
    result = terminal.run("usage", *ALL)
    assert result.exit_code == 0
    assert [line.split() for line in result.stdout.splitlines()] == [line.split() for line in BY_MODEL.splitlines()]
    assert len({len(line) for line in result.stdout.splitlines()}) == 1, "the figures stand below each other"
    assert "No gateway is running on" in result.stderr
    assert "this is read from the file of the ledger" in result.stderr
    assert "?: what 1 attempt cost is not known: there is no price" in result.stderr


def test_usage_as_json_has_stable_names_and_exact_money(terminal: Terminal) -> None:
    record(terminal.cwd)
    first, second = rows(terminal)
    assert first == {
        "name": "groq/llama-3.1-8b-instant",
        "attempts": 3,
        "failed": 1,
        "input": 1_000_024,
        "cached": 8,
        "output": 118,
        "reasoning": 0,
        "cost_usd": 1204.51231014,
        "cost_nano": 1_204_512_310_140,
        "unpriced": 0,
        "estimated": 0,
    }
    assert (second["name"], second["cost_nano"], second["unpriced"]) == ("gemini/gemini-3.8-flash", 0, 1)


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ("key", {"groq-1:58816e", "groq-2:df59b9", "gemini-1:fb5476"}),
        ("caller", {"ci"}),
        ("day", {"2026-11-27", "2026-11-28"}),
    ],
)
def test_usage_by_other_things(terminal: Terminal, by: str, names: set[str]) -> None:
    record(terminal.cwd)
    found = rows(terminal, "--by", by)
    assert {row["name"] for row in found} == names
    assert sum(row["attempts"] for row in found) == 4
    assert sum(row["cost_nano"] for row in found) == 1_204_512_310_140


def test_usage_by_day_is_in_the_order_of_the_days(terminal: Terminal) -> None:
    record(terminal.cwd)
    assert [row["name"] for row in rows(terminal, "--by", "day")] == ["2026-11-27", "2026-11-28"]


def test_usage_by_call_says_what_became_of_each(terminal: Terminal) -> None:
    record(terminal.cwd)
    found = {row["name"]: row for row in rows(terminal, "--by", "call")}
    served = found[SERVED]
    assert {name: served[name] for name in ("at", "status", "code", "ms", "model", "key", "route", "caller")} == {
        "at": "2026-11-27T09:58:55.000Z",
        "status": 200,
        "code": "",
        "ms": 412.5,
        "model": "groq/llama-3.1-8b-instant",
        "key": "groq-1:58816e",
        "route": "fast",
        "caller": "ci",
    }
    shown = terminal.run("usage", *ALL, "--by", "call").stdout.splitlines()
    (line,) = (each for each in shown if SERVED in each)
    assert line.split() == [
        "2026-11-27",
        "09:58:55",
        SERVED,
        "ci",
        "fast",
        "groq/llama-3.1-8b-instant",
        "200",
        "412",
        "24",
        "118",
        "0.000011",
    ]


def test_usage_of_one_name_and_of_few_rows(terminal: Terminal) -> None:
    record(terminal.cwd)
    assert [row["name"] for row in rows(terminal, "--name", "gemini/gemini-3.8-flash")] == ["gemini/gemini-3.8-flash"]
    assert [row["name"] for row in rows(terminal, "--most", "1")] == ["groq/llama-3.1-8b-instant"]
    assert [row["name"] for row in rows(terminal, "--by", "call", "--name", STREAMED)] == [STREAMED]


def test_usage_as_csv_is_no_formula(terminal: Terminal) -> None:
    evil = '=cmd|" /C calc"!A0'
    record(terminal.cwd, [attempt(SERVED, 1, "2026-11-27 09:58:55", GROQ, evil, input=3, cost=1)])
    result = terminal.run("usage", *ALL, "--csv", "--by", "model")
    head, row = csv.reader(io.StringIO(result.stdout))
    assert head == "model,attempts,failed,input,cached,output,reasoning,cost_usd,unpriced,estimated".split(",")
    assert row == [f"groq/{evil}", "1", "0", "3", "0", "0", "0", "0.000000001", "0", "0"]
    row_of_call = attempt(STREAMED, 1, "2026-11-27 09:58:56", GROQ, "m", input=3, cost=1, caller="=1+1")
    row_of_call.route = "@sum"
    record(terminal.cwd, [row_of_call, call(STREAMED, "2026-11-27 09:58:56", caller="=1+1", route="@sum")])
    result = terminal.run("usage", *ALL, "--csv", "--by", "caller")
    assert "'=1+1,1," in result.stdout
    (found,) = csv.DictReader(
        io.StringIO(terminal.run("usage", *ALL, "--csv", "--by", "call", "--name", STREAMED).stdout)
    )
    assert (found["call"], found["caller"], found["route"], found["status"]) == (STREAMED, "'=1+1", "'@sum", "200")


def test_an_empty_ledger_says_so_in_a_sentence_and_is_not_made(terminal: Terminal) -> None:
    record(terminal.cwd, [])
    result = terminal.run("usage", *ALL)
    assert (result.exit_code, result.stdout) == (
        0,
        "Nothing was recorded from 2026-11-01 00:00 to 2026-12-01 00:00 UTC.\n",
    )
    assert terminal.run("usage", "--json").stdout == "[]\n"


def test_where_no_ledger_is_that_is_said_and_none_is_made(terminal: Terminal) -> None:
    for more in ((), ("--json",), ("--data", "elsewhere")):
        result = terminal.run("usage", *more)
        assert (result.exit_code, result.stdout) == (1, "")
        assert (
            f"there is no ledger yet in {terminal.cwd / ('elsewhere' if '--data' in more else '.cache')}"
            in result.stderr
        )
    assert list(terminal.cwd.iterdir()) == [], "asking makes no file"


@pytest.mark.parametrize(
    ("by", "name", "found"),
    [
        ("key", "groq-1", [GROQ]),
        ("key", GROQ[-6:], [GROQ]),
        ("key", "groq", [GROQ, "groq-2:df59b9"]),
        ("key", "groq-9", []),
        ("call", SERVED[:18], [SERVED]),
        ("call", SERVED[:8], [STREAMED, SERVED]),
        ("call", SERVED[:4], []),
        ("model", "groq", []),
    ],
)
def test_a_key_and_a_call_may_be_named_in_short(terminal: Terminal, by: str, name: str, found: list[str]) -> None:
    record(terminal.cwd)
    assert [row["name"] for row in rows(terminal, "--by", by, "--name", name)] == found


def test_what_a_crash_left_in_the_journal_is_taken_in_first(terminal: Terminal) -> None:
    import msgspec

    journal = terminal.cwd / ".cache" / "journal"
    journal.mkdir(parents=True)
    line = msgspec.json.encode(attempt(SERVED, 1, "2026-11-27 09:58:55", GROQ, "m", input=7, cost=1))
    (journal / "000000000001.jsonl").write_bytes(line + b"\n" + line[:40])
    assert [row["input"] for row in rows(terminal)] == [7]
    assert [row["input"] for row in rows(terminal)] == [7], "once"
    assert not list(journal.glob("*.jsonl"))


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--since", "yesterday"), "--since: 'yesterday' is no time; say it like 24h, 7d"),
        (("--until", "2026-13-01"), "--until: '2026-13-01' is no time"),
        (("--today", "--since", "7d"), "give --today or --since, not both"),
        (("--since", "2026-11-02", "--until", "2026-11-02"), "nothing lies between 2026-11-02 00:00"),
        (("--since", "9030-01-01"), "--since: 9030-01-01 00:00 (UTC) has not come yet"),
        (("--csv", "--json"), "give --csv or --json, not both"),
        (("--by", "colour"), "'colour' is not one of"),
        (("--most", "0"), "0 is not in the range"),
    ],
)
def test_wrong_usage(terminal: Terminal, args: tuple[str, ...], said: str) -> None:
    result = terminal.run("usage", *args)
    assert result.exit_code == 2
    assert said in result.stderr


def test_an_invalid_configuration_exits_with_3(terminal: Terminal) -> None:
    terminal.set(LEDGER_KEEP_DAYS="never")
    assert terminal.run("usage").exit_code == 3


class Running:
    """A gateway that answers with *answer*."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[tuple[str, Any]] = []
        self.pid = 77

    def ask(self, path: str, payload: Any = None, patience: float = 0.0) -> Any:
        self.asked.append((path, payload))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def running(monkeypatch: pytest.MonkeyPatch, answer: Any) -> Running:
    gateway = Running(answer)
    monkeypatch.setattr("keyturn.cli.recorded.find_gateway", lambda config, otherwise: gateway)
    monkeypatch.setattr("keyturn.cli.live.find_gateway", lambda config, otherwise: gateway)
    return gateway


def test_a_running_gateway_is_asked(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = running(monkeypatch, {"keeps": True, "complete": False, "rows": []})
    result = terminal.run("usage", "--since", "2026-11-01", "--until", "2026-11-02", "--by", "key", "--most", "7")
    assert gateway.asked == [
        (
            "/admin/usage",
            {"by": "key", "since": at("2026-11-01 00:00"), "until": at("2026-11-02 00:00"), "most": 7, "name": ""},
        )
    ]
    assert "what was recorded last is not among these" in result.stderr
    running(monkeypatch, {"keeps": False, "complete": True, "rows": []})
    assert "LEDGER_ENABLED is false" in terminal.run("usage").stderr
    running(monkeypatch, KeyturnError("the gateway (process 77) does not answer"))
    assert terminal.run("usage").exit_code == 1


def test_on_a_terminal_a_table_is_drawn_and_names_are_no_markup(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    print_figures(("MODEL", "INPUT"), [("groq/[red]m[/red]", "1,204"), ("b", "7")], 1, ("total", "1,211"))
    drawn = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip(" ─")]
    assert drawn == [["MODEL", "INPUT"], ["groq/[red]m[/red]", "1,204"], ["b", "7"], ["total", "1,211"]]


NOW = at("2026-11-28 10:30")


@pytest.mark.parametrize(
    ("since", "until", "today", "expected"),
    [
        (None, None, False, (NOW - 86_400_000, NOW + 1)),
        (None, None, True, (at("2026-11-28 00:00"), NOW + 1)),
        ("90m", None, False, (NOW - 5_400_000, NOW + 1)),
        ("2w", "7d", False, (NOW - 14 * 86_400_000, NOW - 7 * 86_400_000)),
        ("2026-11-01T09:30", "2026-11-02T00:00+02:00", False, (at("2026-11-01 09:30"), at("2026-11-01 22:00"))),
        ("999999999w", None, False, (0, NOW + 1)),
    ],
)
def test_periods(since: str | None, until: str | None, today: bool, expected: tuple[int, int]) -> None:
    assert period(since, until, today, NOW, "24h") == expected


def test_money_and_shares_are_rounded_exactly() -> None:
    assert [in_dollars(nano) for nano in (0, 499, 500, 1_500, 1_204_512_299_500, -500)] == [
        "0.000000",
        "0.000000",
        "0.000001",
        "0.000002",
        "1,204.512300",
        "-0.000001",
    ]
    assert [exact_dollars(nano) for nano in (0, 1, 12_345_678_901)] == ["0.000000000", "0.000000001", "12.345678901"]
    assert [share(*pair) for pair in ((0, 0), (0, 9), (1, 1000), (999, 1000), (3, 3))] == [
        "0 %",
        "0 %",
        "1 %",
        "99 %",
        "100 %",
    ]
