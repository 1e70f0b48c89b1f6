"""The shape of callers.yaml."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, RootModel

from keyturn.core import CallerClass

from .shape import Bound, Shape, Text, described

CallerName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)]


class CallerShape(Shape):
    """Who may ask, for what, and how much. `default` is whoever presents `PROXY_API_KEY`; it has no key here."""

    key_env: Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")] | None = described(
        "The variable that holds its key.", "TEAM_A_KEY"
    )
    key_hash: Annotated[str, Field(pattern=r"^sha256:[0-9a-fA-F]{64}$")] | None = described(
        "The SHA-256 of its key, as `keyturn callers add` writes it.", "sha256:" + "0123456789abcdef" * 4
    )
    routes: tuple[Text, ...] = described(
        "Names that it may ask for, with `*` and `?`; all unless said.", ["senior_dev", "groq/*"], default=()
    )
    weight: float = described("Its share when many wait; not heeded yet.", 2, default=1.0, gt=0)
    rank: CallerClass = described(
        "Who is refused first when the gateway cannot keep up: batch, then normal.",
        "interactive",
        default="normal",
        alias="class",
    )
    rpm: Bound = described("Requests a minute; unlimited unless said.", 60)
    tpm: Bound = described("Tokens a minute; unlimited unless said.", 100000)
    monthly_usd: float | None = described("USD a calendar month (UTC); no bound unless said.", 25, gt=0)


class CallersFile(RootModel[dict[CallerName, CallerShape]]):
    """callers.yaml: callers by name."""
