"""Scenarios for tests, as their files would say them."""

from __future__ import annotations

from typing import Any

from keyturn.simulation import Scenario


def scene(providers: dict[str, Any] | None = None, calls: dict[str, Any] | None = None, **members: Any) -> Scenario:
    """A scenario of ten minutes with one good key, unless said."""
    return Scenario.model_validate(
        {
            "duration": "10m",
            "strategies": ["keyturn"],
            "providers": providers or {"groq": {"keys": 1}},
            "calls": {"rate": "6/minute", **(calls or {})},
            **members,
        }
    )
