"""What is said of streams: `[stream]` of settings.toml, with its variables over it."""

from __future__ import annotations

from .model import StreamSettings
from .sections import Filled
from .settings import Settings, as_number


def stream_of(filled: Filled, settings: Settings) -> StreamSettings:
    """How streams begin, and which of them go on when they are cut."""
    return StreamSettings(
        hold_tools=settings.words("STREAM_HOLD_TOOLS") or filled.value("stream", "hold_tools") or (),
        goes_on=settings.words("STREAM_CONTINUE") or filled.value("stream", "continue") or (),
        goes_on_elsewhere=settings.words("STREAM_CONTINUE_ELSEWHERE")
        or filled.value("stream", "continue_elsewhere")
        or (),
        commit_after=_commit_after(filled, settings),
    )


def _commit_after(filled: Filled, settings: Settings) -> float | None:
    """Seconds; None: never."""
    text = settings.text("STREAM_COMMIT_AFTER")
    if text is None:
        said: float | None = filled.value("stream", "commit_after")
        return said
    seconds = as_number(text)
    if seconds is None or seconds < 0:
        settings.report.problem(
            "STREAM_COMMIT_AFTER", f"{settings.report.quote(text)} is not a number of seconds from 0"
        )
        return None
    return seconds
