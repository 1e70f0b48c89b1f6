"""A plot of a comparison as SVG, written by hand: what was served, refused by upstreams and waited for, by strategy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

from .figures import Figures

COLOURS = {"keyturn": "#0b7a75", "round_robin": "#c8553d", "least_used": "#b08900", "random": "#6b6f76"}
OTHER = "#6b6f76"
WIDTH, ROW, PANEL, LEFT, RIGHT, TOP = 760, 24, 46, 120, 110, 64
FONT = "font-family='system-ui, sans-serif'"


class Panel(NamedTuple):
    """One group of bars. *value* may give None, which is drawn as a dash."""

    title: str
    value: Callable[[Figures], float | None]
    text: Callable[[float], str]
    most: float | None = None
    """What fills the whole width; the largest value unless said."""


PANELS = (
    Panel("Served, of the most that anybody could", lambda row: row.of_bound, lambda value: f"{value:.1%}", 1.0),
    Panel(
        "Refused by upstreams (429) per 1,000 served", lambda row: row.limited_per_1000, lambda value: f"{value:,.1f}"
    ),
    Panel("Attempts per call served", lambda row: row.attempts_per_served, lambda value: f"{value:.2f}"),
    Panel("Wait of one call in a hundred (p99), seconds", lambda row: row.wait_p99, lambda value: f"{value:,.1f}"),
    Panel("Fairness among callers (Jain)", lambda row: row.fairness, lambda value: f"{value:.3f}", 1.0),
)


def plot(title: str, subtitle: str, rows: Sequence[Figures]) -> str:
    """The comparison of *rows* as one SVG document."""
    height = TOP + len(PANELS) * (PANEL + ROW * len(rows)) + 16
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{height}'"
        f" viewBox='0 0 {WIDTH} {height}' {FONT}>",
        f"<rect width='{WIDTH}' height='{height}' fill='#ffffff'/>",
        f"<text x='16' y='28' font-size='18' font-weight='600' fill='#111'>{escape(title)}</text>",
        f"<text x='16' y='48' font-size='12' fill='#555'>{escape(subtitle)}</text>",
    ]
    top = TOP
    for panel in PANELS:
        parts += _panel(panel, rows, top)
        top += PANEL + ROW * len(rows)
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: Panel, rows: Sequence[Figures], top: int) -> list[str]:
    values = [panel.value(row) for row in rows]
    most = panel.most or max((value for value in values if value is not None), default=0.0) or 1.0
    parts = [f"<text x='16' y='{top + 22}' font-size='13' font-weight='600' fill='#222'>{escape(panel.title)}</text>"]
    for place, (row, value) in enumerate(zip(rows, values, strict=True)):
        y = top + 32 + place * ROW
        name = row.strategy.replace("_", " ")
        parts.append(
            f"<text x='{LEFT - 8}' y='{y + 13}' font-size='12' text-anchor='end' fill='#333'>{escape(name)}</text>"
        )
        room = WIDTH - LEFT - RIGHT
        parts.append(f"<rect x='{LEFT}' y='{y}' width='{room}' height='17' fill='#f2f2f2'/>")
        if value is not None:
            width = round(room * min(1.0, max(0.0, value / most)), 1)
            colour = COLOURS.get(row.strategy, OTHER)
            parts.append(f"<rect x='{LEFT}' y='{y}' width='{width}' height='17' fill='{colour}'/>")
        said = "-" if value is None else panel.text(value)
        parts.append(f"<text x='{WIDTH - RIGHT + 8}' y='{y + 13}' font-size='12' fill='#111'>{escape(said)}</text>")
    return parts
