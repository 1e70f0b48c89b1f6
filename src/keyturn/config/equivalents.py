"""Which deployments serve the same model: the groups of models.yaml, joined with those that are shipped."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, get_args

from keyturn.core import Deployment, Equivalents
from keyturn.providers import shipped_equivalents

from .files import Files, Read
from .model import EquivalentsMode
from .routing import ProviderNames, deployment_of
from .sections import Filled
from .settings import Settings, choose

if TYPE_CHECKING:
    from .shape_models import ModelsFile

VARIABLE = "KEYTURN_EQUIVALENTS"
MODES: tuple[str, ...] = get_args(EquivalentsMode)


def find_equivalents(files: Files, filled: Filled, settings: Settings, providers: ProviderNames) -> Equivalents:
    """The groups in use; what is wrong with them goes into the report, also while they are off."""
    mode = _mode(filled, settings)
    own = [] if files.models is None else _own(files.models, settings, providers)
    if mode == "off":
        return Equivalents()
    if mode == "shipped":
        return Equivalents((*own, *shipped_equivalents())) if own else _shipped()
    return Equivalents(own)


@cache
def _shipped() -> Equivalents:
    """What nearly every configuration has; most of the time of reading one would be spent on it."""
    return Equivalents(shipped_equivalents())


def _mode(filled: Filled, settings: Settings) -> str:
    """A word that is none of them is a problem: a guess could ask providers that nobody wanted asked."""
    filed: str | None = filled.value("routing", "equivalents", "equivalents")
    text = settings.text(VARIABLE)
    if text is None:
        return filed or MODES[0]
    if text.lower() not in MODES:
        settings.report.problem(VARIABLE, choose(settings.report, text, MODES))
    return text.lower()


def _own(source: Read[ModelsFile], settings: Settings, providers: ProviderNames) -> list[list[Deployment]]:
    groups: list[list[Deployment]] = []
    for number, group in enumerate(source.content.equivalents):
        groups.append([])
        for index, written in enumerate(group):
            place = source.at("equivalents", number, index)
            head, slash, model = written.partition("/")
            if not slash or not model or not head:
                said = f"equivalents.{number}: {written} is not like provider/model, openai/gpt-4o for instance"
                settings.report.problem(place, said)
            elif (provider := providers.find(head, place)) is not None:
                groups[-1].append(deployment_of(provider, model))
    return groups
