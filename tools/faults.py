"""Plays the matrix of faults and writes what came of it into docs/faults.md.

.venv/bin/python -m tools.faults

It runs the stories of the rows and every test that a row names; the page is written only when all of them hold.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.scenario.faults.rows import ROWS, Row, plays
from tests.scenario.faults.stage import SCENARIOS

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "faults.md"
SUITE = "tests/scenario/test_faults_matrix.py"
playing = False
"""The page is being made, so that it need not be current."""
HEAD = """# The matrix of faults

Made by `make faults`, which plays all of it; change the rows in `tests/scenario/faults/`.

What may go wrong between a client, the gateway, its providers and its stores, what must come of it, and what did. A row
that is *played* runs the real gateway on a virtual clock before simulated providers, for plain and streamed answers as
far as both make sense, once with its live state in memory and once in a real Redis; in Redis a second gateway must then
know the same of every key. What virtual time cannot show (sockets, disks, processes, databases) is in the tests that
the row names. All of it is part of `make test`, and a row that does not hold fails it.

| # | fault | what must come of it | what came of it | asserted by |
|---|---|---|---|---|
"""


class Collector:
    """Listens to a run of pytest: what the stories told, and which tests did not hold."""

    def __init__(self) -> None:
        self.told: dict[int, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        """Row -> what was told -> plain, stream."""
        self.failed: list[str] = []
        self.skipped: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)
        elif report.skipped:
            self.skipped.append(report.nodeid)
        elif report.when == "call" and (found := re.search(r"test_row\[(\d+)-.*-(plain|stream)-\w+\]$", report.nodeid)):
            for name, text in report.user_properties:
                if name == "told":
                    self.told[int(found[1])][str(text)].add(found[2])


def page(told: Mapping[int, str]) -> str:
    """The page, with what was *told* of the rows that are played."""
    lines = [f"| {row.number} | {row.fault} | {row.expected} | {_outcome(row, told)} | {_tests(row)} |" for row in ROWS]
    played = sum(plays(row.number) for row in ROWS)
    tests = len({test for row in ROWS for test in row.tests})
    total = f"\n{len(ROWS)} rows: {played} plays of {len(SCENARIOS)} stories, and {tests} tests elsewhere.\n"
    return HEAD + "\n".join(lines) + "\n" + total


def _outcome(row: Row, told: Mapping[int, str]) -> str:
    said = told.get(row.number, "the tests hold")
    return f"{said}. {row.note}".replace("..", ".") if row.note else said


def _tests(row: Row) -> str:
    count = plays(row.number)
    files: dict[str, list[str]] = defaultdict(list)
    for test in row.tests:
        file, _, name = test.partition("::")
        files[file].append(name)
    parts = [f"{count} plays"] if count else []
    parts += [f"`{file}`: {', '.join(f'`{name}`' for name in names)}" for file, names in files.items()]
    return "; ".join(parts)


def outcomes(text: str) -> dict[int, str]:
    """What a page says came of the rows that are played, as `page` wants it."""
    found: dict[int, str] = {}
    for row in ROWS:
        line = next((line for line in text.splitlines() if line.startswith(f"| {row.number} |")), "")
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if plays(row.number) and len(cells) == 5:
            found[row.number] = cells[3].removesuffix(f". {row.note}") if row.note else cells[3]
    return found


def missing_tests() -> Iterator[str]:
    """The tests that rows name and that do not exist."""
    known: dict[str, set[str]] = {}
    for row in ROWS:
        for test in row.tests:
            file, _, name = test.partition("::")
            if file not in known:
                text = (ROOT / file).read_text() if (ROOT / file).is_file() else ""
                known[file] = set(re.findall(r"^(?:async )?def (test_\w+)", text, re.MULTILINE))
            if name not in known[file]:
                yield f"row {row.number}: {test}"


def _summed(told: Mapping[str, set[str]]) -> str:
    """What the plays of one row told, each once; where plain and streamed answers differ, which is which."""
    modes = {mode for each in told.values() for mode in each}
    parts = []
    for text, seen in told.items():
        only = "" if seen == modes else "plain: " if seen == {"plain"} else "streamed: "
        parts.append(only + text)
    return "; ".join(parts)


def main() -> int:
    """Play, and write the page; the exit code."""
    if gone := list(missing_tests()):
        print("these tests do not exist:\n  " + "\n  ".join(gone), file=sys.stderr)
        return 1
    import tools.faults  # by this name the tests know it, and not as the program that runs

    tools.faults.playing = True
    collector = Collector()
    tests = [SUITE, *dict.fromkeys(test for row in ROWS for test in row.tests)]
    code = pytest.main(
        ["-q", "-p", "no:cacheprovider", f"--deselect={SUITE}::test_the_page_is_current", *tests], plugins=[collector]
    )
    if code or collector.skipped:
        for name in collector.failed + collector.skipped:
            print(f"does not hold, or could not run here: {name}", file=sys.stderr)
        return 1
    PAGE.write_text(page({number: _summed(told) for number, told in collector.told.items()}))
    print(f"{PAGE.relative_to(ROOT)} is written")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
