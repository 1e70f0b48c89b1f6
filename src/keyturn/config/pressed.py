"""What settings say of a gateway under pressure: who waits, what is tried again, what streams hold back."""

from __future__ import annotations

from typing import Any

from .sections import Filled
from .settings import Settings
from .steady import hedging_of, steady_of
from .streams import stream_of
from .waiting import waiting_of


def pressed_of(filled: Filled, settings: Settings) -> dict[str, Any]:
    """The members of `Config` that hold while calls press."""
    return {
        "steady": steady_of(filled, settings),
        "hedging": hedging_of(filled, settings),
        "stream": stream_of(filled, settings),
        "waiting": waiting_of(filled, settings),
    }
