"""The shape of roles.yaml."""

from __future__ import annotations

from keyturn.core import RouteStrategy

from .shape import Names, Shape, Text, described


class BudgetShape(Shape):
    """What a role may cost."""

    monthly_limit: float | None = described(
        "USD a calendar month (UTC); calls are refused above it. No bound unless said.", 200, gt=0
    )
    current_usage: float = described(
        "USD that were already spent this month when Keyturn began to count.", 12.5, default=0.0, ge=0
    )


class RoleShape(Shape):
    """A kind of work, and the models that do it, best first."""

    name: str = described("For people.", "Senior developer", default="")
    description: str = described("For people.", "hard changes", default="")
    model: Text | None = described("Its model; tried before the chain if the chain lacks it.", "gemini-2.5-pro")
    model_chain: Names | None = described(
        "Models to try, one after the other.", ["gemini-2.5-pro", "deepseek/deepseek-r1-0528:free"]
    )
    providers: Names | None = described(
        "With these, the chain holds their own names of models; for each model they are asked in this order.",
        ["google_ai_studio", "openrouter"],
    )
    budgets: BudgetShape | None = described("What it may cost.", {"monthly_limit": 200})
    strategy: RouteStrategy | None = described("In which order the deployments of one step are tried.", "in_order")


class RolesFile(Shape):
    """roles.yaml: names for kinds of work."""

    roles: dict[str, RoleShape] = described(
        "Roles by the name that clients ask for.",
        {"senior_dev": {"model_chain": ["gemini-2.5-pro"], "providers": ["google_ai_studio"]}},
        default={},
    )
