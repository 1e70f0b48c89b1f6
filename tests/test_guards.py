"""The guards of conftest.py do stop what they are there to stop."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]


REFUSED = {
    "reaches out": (
        "def test():\n    socket.create_connection(('192.0.2.1', 80), 1)",
        "loopback only, not with '192.0.2.1'",
    ),
    "looks a name up": (
        "def test():\n    try: socket.getaddrinfo('example.com', 80)\n    except OSError: pass",
        "example.com",
    ),
    "leaves a task": (
        "def test():\n    async def main(): main.t = asyncio.create_task(asyncio.sleep(9))\n    asyncio.run(main())",
        "left a task running",
    ),
    "hears no error": (
        "def test():\n    async def fail(): 1 / 0\n    async def main():\n        asyncio.create_task(fail())\n"
        "        await asyncio.sleep(0.01)\n    asyncio.run(main())\n    gc.collect()",
        "never retrieved",
    ),
    "warns": ("def test():\n    import warnings; warnings.warn('old', DeprecationWarning)", "DeprecationWarning"),
}
ALLOWED = {
    "serves itself": "def test():\n    with socket.socket() as s:\n        s.bind(('127.0.0.1', 0)); s.listen()\n"
    "        socket.create_connection(s.getsockname()).close()",
    "finds no such host": "def test():\n    try: socket.getaddrinfo('no-such-host.invalid', 80)\n"
    "    except socket.gaierror: pass",
    "sees no key": "def test():\n    assert 'GROQ_API_KEY_2' not in os.environ",
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What pytest says about each of the tests under our conftest: its complaint, nothing where it passed."""
    folder, report = tmp_path_factory.mktemp("guarded"), tmp_path_factory.mktemp("said") / "report.xml"
    tests = {name: test for name, (test, _) in REFUSED.items()} | ALLOWED
    for name, test in tests.items():
        path = folder / f"test_{name.replace(' ', '_')}.py"
        path.write_text(f"import asyncio, gc, os, socket\n\n{test}")
    command = [sys.executable, "-m", "pytest", "-q", "-c", str(ROOT / "pyproject.toml"), "-p", "tests.conftest"]
    done = subprocess.run(
        [*command, f"--junitxml={report}", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"PATH": "", "GROQ_API_KEY_2": "planted"},
    )
    assert report.exists(), done.stdout + done.stderr
    cases = ElementTree.parse(report).iter("testcase")
    found = {
        str(case.get("classname")): ElementTree.tostring(case, encoding="unicode", method="text") for case in cases
    }
    said = {name: found[next(each for each in found if each.endswith(name.replace(" ", "_")))] for name in tests}
    assert len(found) == len(tests), done.stdout + done.stderr
    return said


@pytest.mark.parametrize("name", REFUSED)
def test_a_test_fails_for_what_no_test_may_do(name: str, outcomes: dict[str, str]) -> None:
    assert REFUSED[name][1] in outcomes[name]


@pytest.mark.parametrize("name", ALLOWED)
def test_what_is_allowed_passes(name: str, outcomes: dict[str, str]) -> None:
    assert outcomes[name] == ""
