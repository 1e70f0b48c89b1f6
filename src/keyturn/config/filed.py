"""What models.yaml says of each provider, by its canonical name and checked: addresses, keys, tools, rotation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from keyturn.providers import CATALOG, DialectName, Provider, known, nearest, plain_name

from .addresses import base_url
from .files import Files, Read
from .g4f import G4F, plain_http
from .model import Rotation, Strategy
from .settings import Settings
from .tools import cli_provider
from .variables_in_text import VARIABLE, only_variable, unset_in

if TYPE_CHECKING:
    from .shape_models import HttpProvider, ModelsFile

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.\-]*\Z")
MODES = (
    "optimal_concurrent",
    "key_priority",
    "concurrency_multipliers",
    "model_quota_groups",
    "caps",
    "fair_cycle",
    "allow_models",
    "ignore_models",
)
"""Members of an entry that say how its keys are used beyond their order."""
RESERVED = frozenset({"proxy", "keyturn"})


class FiledKey(NamedTuple):
    """A key of `api_key` (number 0) or `api_keys` (its place in the list, from 1)."""

    number: int
    secret: str
    origin: str
    """The variable it is made of, else its place in the file."""


class FiledBlock(NamedTuple):
    """What an entry of `providers:` says, and where."""

    written: str
    block: HttpProvider
    source: Read[ModelsFile]

    def place(self, *path: str | int) -> str:
        """`config/models.yaml:12` of one of its members."""
        return self.source.at("providers", self.written, *path)


class FiledProvider(NamedTuple):
    """One entry of `providers:`."""

    name: str
    place: str
    base_url: str = ""
    env_key: str = ""
    keys: tuple[FiledKey, ...] = ()
    variables: tuple[str, ...] = ()
    """Variables that its keys are made of."""
    keyed: bool = False
    """It says where its keys come from, so without one it cannot be used."""
    plan: str | None = None
    groups: tuple[tuple[int, ...], ...] = ()
    groups_place: str = ""
    dialect: DialectName | None = None
    cli: Provider | None = None
    """The whole provider, for one that is run."""


@dataclass(slots=True)
class Filed:
    """All of `providers:`. Where the environment says something else, that wins."""

    providers: dict[str, FiledProvider] = field(default_factory=dict)
    strategies: dict[str, Strategy] = field(default_factory=dict)
    rotations: dict[str, Rotation] = field(default_factory=dict)
    tiers: dict[str, int] = field(default_factory=dict)
    static_models: dict[str, tuple[str, ...]] = field(default_factory=dict)
    chat_models: dict[str, str] = field(default_factory=dict)
    embedding_models: dict[str, str] = field(default_factory=dict)
    max_concurrent: dict[str, int] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    """`groq.plan` -> its place."""
    spoiled: frozenset[str] = frozenset()
    """Names of entries that are wrong: nothing more is to be said of those who refer to them."""
    blocks: dict[str, FiledBlock] = field(default_factory=dict)
    """Of providers that are called over HTTP: all that their entries say."""

    def claimed(self) -> Iterator[str]:
        """Variables that hold keys although no name of a provider begins them."""
        for provider in self.providers.values():
            yield from provider.variables
            if provider.env_key:
                yield provider.env_key


def filed_providers(files: Files, settings: Settings) -> Filed:
    """The entries of models.yaml; what is wrong with them goes into the report. New names are added to *settings*."""
    filed = Filed()
    source = files.models
    if source is None:
        return filed
    named: dict[str, str] = {}
    for name, block in source.content.providers.items():
        entry = _entry(name, block, source, settings)
        if entry is None:
            continue
        if entry.name in named:
            said = f"is the same provider as {named[entry.name]}; keep one of them"
            settings.report.problem(entry.place, f"providers.{name}: {said}")
            continue
        named[entry.name] = name
        filed.providers[entry.name] = entry
        if settings.names.find(entry.name.upper()) is None:
            settings.names.add(entry.name)
        _rest(filed, entry, name, block, source)
    raw = source.document.data.get("providers") if isinstance(source.document.data, dict) else None
    written = {_canonical(name) for name in raw} if isinstance(raw, dict) else set()
    filed.spoiled = frozenset(written - filed.providers.keys())
    return filed


def _canonical(name: str) -> str:
    row = known(name)
    return row.name if row is not None else plain_name(name)


def _entry(name: str, block: Any, source: Read[ModelsFile], settings: Settings) -> FiledProvider | None:
    place, report = source.at("providers", name), settings.report
    row = known(name)
    if (row is not None and row.local_app) or plain_name(name) in RESERVED:
        report.problem(place, f"providers.{name}: is a name of Keyturn's own; choose another")
        return None
    if not NAME.match(name):
        report.problem(place, f"providers.{name}: is no name of a provider: letters, digits, '_', '-' and '.' only")
        return None
    if block.kind == "cli":
        tool = cli_provider(name, block, source, report)
        return None if tool is None else FiledProvider(tool.name, place, cli=tool)
    if row is None and block.base_url is None:
        near = nearest(name, [each.name for each in CATALOG.values() if not each.local_app])
        meant = f"did you mean {near}?" if near else "give its base_url if it is a server of your own"
        report.problem(place, f"no provider is called {name}, and it has no base_url; {meant}")
        return None
    url = _url(name, block, source, settings)
    if url is None:
        return None
    if row is None and (near := settings.names.nearest(name)):
        report.note(place, f"{name} is taken as a server of your own; was {near.lower()} meant?")
    keys, variables = _keys(name, block, source)
    return FiledProvider(
        _canonical(name),
        place,
        url,
        block.env_key or "",
        keys,
        variables,
        block.env_key is not None or block.api_key is not None or bool(block.api_keys),
        block.plan,
        block.quota_groups or (),
        source.at("providers", name, "quota_groups"),
        block.dialect,
    )


def _url(name: str, block: HttpProvider, source: Read[ModelsFile], settings: Settings) -> str | None:
    if block.base_url is None:
        return ""
    place = source.at("providers", name, "base_url")
    if unset := unset_in(block.base_url):
        said = f"the variable {unset} is not set; set it, or write a default: ${{{unset}:-https://host/v1}}"
        settings.report.problem(place, f"providers.{name}.base_url: {said}")
        return None
    try:
        return base_url(block.base_url, plain_http(settings) if _canonical(name) == G4F else "private")
    except ValueError as refusal:
        settings.report.problem(place, f"providers.{name}.base_url: {refusal}")
        return None


def _keys(name: str, block: HttpProvider, source: Read[ModelsFile]) -> tuple[tuple[FiledKey, ...], tuple[str, ...]]:
    """The keys that are not blank, and the variables that they are made of."""
    found: list[FiledKey] = []
    variables: list[str] = []
    written: list[tuple[int, str, tuple[str | int, ...]]] = []
    if block.api_key is not None:
        written.append((0, block.api_key, ("providers", name, "api_key")))
    for index, text in enumerate(block.api_keys):
        written.append((index + 1, text, ("providers", name, "api_keys", index)))
    for number, text, path in written:
        raw = source.document.raw(path)
        variables += [match[1] for match in VARIABLE.finditer(raw)] if "${" in raw else []
        if text and not unset_in(text):
            found.append(FiledKey(number, text, only_variable(raw) or source.at(*path)))
    return tuple(found), tuple(variables)


def _rest(filed: Filed, entry: FiledProvider, written: str, block: Any, source: Read[ModelsFile]) -> None:
    """What is said beside address and keys."""
    name = entry.name

    def said(setting: str, *path: str) -> None:
        filed.origins[f"{name}.{setting}"] = source.at("providers", written, *path)

    if block.priority is not None:
        filed.tiers[name] = block.priority
        said("tier", "priority")
    if block.models:
        filed.static_models[name] = tuple(dict.fromkeys(block.models))
        said("models", "models")
    if block.chat_model is not None:
        filed.chat_models[name] = block.chat_model
        said("chat_model", "chat_model")
    if block.kind == "cli":
        filed.max_concurrent[name] = block.concurrency
        if source.said("providers", written, "concurrency"):
            said("max_concurrent", "concurrency")
        if block.cmd is not None:
            said("cmd", "cmd")
        return
    filed.blocks[name] = FiledBlock(written, block, source)
    for member in MODES:
        if source.said("providers", written, member):
            said(member, member)
    if block.embedding_model is not None:
        filed.embedding_models[name] = block.embedding_model
        said("embedding_model", "embedding_model")
    if block.max_concurrent is not None and block.max_concurrent > 0:
        filed.max_concurrent[name] = block.max_concurrent
        said("max_concurrent", "max_concurrent")
    if block.base_url is not None:
        said("base_url", "base_url")
    if block.plan is not None:
        said("plan", "plan")
    if block.rotation is not None:
        filed.rotations[name] = Rotation(block.rotation.cooldown_seconds, block.rotation.rotate_each_call)
        said("rotation", "rotation")
        if block.rotation.strategy is not None:
            filed.strategies[name] = block.rotation.strategy
            said("strategy", "rotation", "strategy")
