"""The official Node SDKs through the gateway: runs sdks.mjs and makes a table of what it says."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from .packages import PLACE, program

PACKAGES = {
    "openai": "6.49.0",
    "@anthropic-ai/sdk": "1.14.0",
    "@google/genai": "2.32.0",
    "zod": "4.6.7",  # with which the first two describe structured answers
}
"""The newest that say they run on Node 20."""
PATIENCE = 300.0
"""Seconds for all checks together."""
SPOKEN = {
    "openai_chat": ("openai", "OpenAI Chat"),
    "openai_responses": ("openai", "OpenAI Responses"),
    "anthropic": ("@anthropic-ai/sdk", "Anthropic Messages"),
    "gemini": ("@google/genai", "Gemini"),
}
"""Wire format → the SDK that speaks it, and its name for people."""
UPSTREAMS = {
    "openai_chat": ("groq", "openai/gpt-oss-20b"),
    "openai_responses": ("openai", "gpt-5.1"),
    "anthropic": ("anthropic", "claude-sonnet-5"),
    "gemini": ("gemini", "gemini-3-flash"),
}
"""Wire format → a simulated provider that speaks it, and its model."""
CHECKS = ("plain", "stream", "tool", "parallel", "image", "schema", "400", "401", "404", "429", "500")


class Check(NamedTuple):
    """One check of one client at one upstream. *said*: empty, or what went wrong."""

    client: str
    upstream: str
    check: str
    passed: bool
    said: str


def run(gateway: str, simulator: str, key: str, admin: str, environ: Mapping[str, str]) -> list[Check]:
    """All checks; those that the script did not come to have failed."""
    upstreams = {dialect: {"provider": name, "model": model} for dialect, (name, model) in UPSTREAMS.items()}
    given = {"gateway": gateway, "simulator": simulator, "key": key, "admin": admin, "upstreams": upstreams}
    script = shutil.copy(Path(__file__).with_name("sdks.mjs"), PLACE)  # where its imports are found
    command = [program("node"), script, json.dumps(given)]
    process = subprocess.Popen(command, env=dict(environ), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        stdout, stderr = process.communicate(timeout=PATIENCE)
        ended = f"exit code {process.returncode}: {stderr.strip()[-300:]}"
    except subprocess.TimeoutExpired:
        process.kill()
        stdout, stderr = process.communicate()
        ended = f"no end within {PATIENCE:.0f} s"
    if stderr.strip():
        print(stderr.strip(), file=sys.stderr)
    done = {check[:3]: check for check in (Check(**json.loads(line)) for line in stdout.splitlines() if line)}
    places = [(client, upstream, check) for client in SPOKEN for upstream in SPOKEN for check in CHECKS]
    return [done.get(place) or Check(*place, False, f"not run, {ended}") for place in places]


def table(checks: list[Check]) -> Iterator[str]:
    """A row for each client, a column for each upstream: how many checks passed, and which did not."""
    yield f"| SDK | version | client speaks | {' | '.join(f'upstream: {name}' for _, name in SPOKEN.values())} |"
    yield f"|---|---|---|{'---|' * len(SPOKEN)}"
    for client, (package, name) in SPOKEN.items():
        cells = []
        for upstream in SPOKEN:
            cell = [each for each in checks if (each.client, each.upstream) == (client, upstream)]
            failed = [each.check for each in cell if not each.passed]
            passed = f"{len(cell) - len(failed)}/{len(cell)}"
            cells.append(f"{passed}, FAILED: {', '.join(failed)}" if failed else passed)
        yield f"| `{package}` | {PACKAGES[package]} | {name} | {' | '.join(cells)} |"


def report(checks: list[Check]) -> Iterator[str]:
    """What each failed check said, on one line."""
    for client, upstream, check, passed, said in checks:
        if not passed:
            yield f"{SPOKEN[client][1]} over {SPOKEN[upstream][1]}, {check}: {' '.join(said.split())[:400]}"
