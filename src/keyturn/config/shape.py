"""What all shapes of configuration files have in common. Imported only once there is a file to read."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints


class Shape(BaseModel):
    """A mapping in a file: its members are known, it is never changed, and every number is finite."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True, str_strip_whitespace=True
    )


Text = Annotated[str, StringConstraints(min_length=1)]
"""A text that says something."""
Word = Annotated[str, StringConstraints(strip_whitespace=False)]
"""An argument of a program, which may be empty."""
Names = Annotated[tuple[Text, ...], Field(min_length=1)]
Bound = int | None
"""A capacity: absent, null, 0 and below mean unlimited."""


def described(meaning: str, *examples: Any, default: Any = None, **more: Any) -> Any:
    """A member that may be left out."""
    return Field(default, description=meaning, examples=list(examples) or None, **more)


def needed(meaning: str, *examples: Any, **more: Any) -> Any:
    """A member that must be there."""
    return Field(..., description=meaning, examples=list(examples) or None, **more)
