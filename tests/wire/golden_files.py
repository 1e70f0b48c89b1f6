"""The files in golden/: requests and answers as providers' documents describe them, and what we make of them."""

from __future__ import annotations

from pathlib import Path

GOLDEN = Path(__file__).with_name("golden")


def golden(name: str) -> bytes:
    return (GOLDEN / name).read_bytes()


def streams() -> list[str]:
    """The streamed answers, without our own error event."""
    return sorted(path.name for path in GOLDEN.glob("*.sse") if ".error" not in path.name)
