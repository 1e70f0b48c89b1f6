"""The guards of conftest.py do stop what they are there to stop."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def outcome_of(test: str, folder: Path) -> str:
    """What pytest says about a file with this one test, under our conftest."""
    (folder / "test_guarded.py").write_text(f"import asyncio, gc, os, socket\n\n{test}")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", ROOT / "pyproject.toml", "-p", "tests.conftest", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"PATH": "", "GROQ_API_KEY_2": "planted"},
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("test", "complaint"),
    [
        ("def test():\n    socket.create_connection(('192.0.2.1', 80), 1)", "loopback only, not with '192.0.2.1'"),
        ("def test():\n    try: socket.getaddrinfo('example.com', 80)\n    except OSError: pass", "example.com"),
        ("def test():\n    async def main(): main.t = asyncio.create_task(asyncio.sleep(9))\n    asyncio.run(main())",
         "left a task running"),
        ("def test():\n    async def fail(): 1 / 0\n    async def main():\n        asyncio.create_task(fail())\n"
         "        await asyncio.sleep(0.01)\n    asyncio.run(main())\n    gc.collect()", "never retrieved"),
        ("def test():\n    import warnings; warnings.warn('old', DeprecationWarning)", "DeprecationWarning"),
    ],
)  # fmt: skip
def test_a_test_fails_for_what_no_test_may_do(test: str, complaint: str, tmp_path: Path) -> None:
    said = outcome_of(test, tmp_path)
    assert "1 failed" in said
    assert complaint in said


@pytest.mark.parametrize(
    "test",
    [
        "def test():\n    with socket.socket() as s:\n        s.bind(('127.0.0.1', 0)); s.listen()\n"
        "        socket.create_connection(s.getsockname()).close()",
        "def test():\n    try: socket.getaddrinfo('no-such-host.invalid', 80)\n    except socket.gaierror: pass",
        "def test():\n    assert 'GROQ_API_KEY_2' not in os.environ",
    ],
)
def test_what_is_allowed_passes(test: str, tmp_path: Path) -> None:
    assert "1 passed" in outcome_of(test, tmp_path)
