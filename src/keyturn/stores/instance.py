"""The id of a data folder: says whose rows are whose in a database that many gateways write into."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

NAME = "instance"
LENGTH = 16


def instance_of(folder: Path) -> str:
    """The id of *folder*, made on first use. Only for its owner. Raises OSError."""
    file = folder / NAME
    try:
        found = file.read_bytes().decode(errors="replace").strip()
    except FileNotFoundError:
        found = ""
    if len(found) == LENGTH and found.isalnum() and found.isascii():
        return found
    made = secrets.token_hex(LENGTH // 2)
    fresh = file.with_name(f"{NAME}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, made.encode() + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    fresh.replace(file)
    return made
