"""Pinned npm packages, installed into .cache/clients/."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

PLACE = Path(__file__).parents[2] / ".cache" / "clients"


def install(packages: Mapping[str, str]) -> None:
    """Puts these *packages* (name → version) there, beside what is there already. Ends the program without npm."""
    present = {name: version for name in _listed() if (version := _installed(name))}
    if packages.items() <= present.items():
        return
    PLACE.mkdir(parents=True, exist_ok=True)
    wanted = {"private": True, "dependencies": present | dict(packages)}
    (PLACE / "package.json").write_text(json.dumps(wanted, indent=2))
    command = [program("npm"), "install", "--no-audit", "--no-fund", "--loglevel=error"]
    subprocess.run(command, cwd=PLACE, check=True, timeout=600)


def program(name: str) -> str:
    """The path of *name*. Ends the program when it is not installed."""
    found = shutil.which(name)
    if found is None:
        sys.exit(f"{name} is not on the PATH: the clients are npm packages (Node 20 or newer)")
    return found


def _listed() -> list[str]:
    listing = PLACE / "package.json"
    return list(json.loads(listing.read_text())["dependencies"]) if listing.exists() else []


def _installed(name: str) -> str | None:
    package = PLACE / "node_modules" / name / "package.json"
    return str(json.loads(package.read_text())["version"]) if package.exists() else None
