"""Calls that name no model: what each provider is asked for then, and what to set where that is not known."""

from __future__ import annotations

import re
from collections.abc import Mapping

from keyturn.core import BLIND, Deployment, Kind, ModelFacts
from keyturn.providers import CATALOG, Provider

from .model import Config

SIGHTED = re.compile(r"vision|llava|pixtral|scout|maverick|omni|llama-?4|-vl\b|gemma-?[3-9]|qwen3\.[5-9]")
"""How models that take images are called."""


def default_models(config: Config) -> dict[Kind, tuple[Deployment, ...]]:
    """`chat` and `embeddings` -> the default of each provider, by provider tier, then as the catalog ranks them."""
    ranked = sorted(
        config.providers.values(),
        key=lambda row: (config.last_resort(row.name), config.tier_of(row.name), row.place, row.name),
    )
    chat = [(row, config.chat_models.get(row.name, row.chat_model)) for row in ranked]
    embeddings = [(row, config.embedding_models.get(row.name, row.embedding_model)) for row in ranked]
    found: dict[Kind, tuple[Deployment, ...]] = {
        "chat": tuple(_deployment(row, model) for row, model in chat if model),
        "embeddings": tuple(_deployment(row, model) for row, model in embeddings if model),
    }
    return {kind: deployments for kind, deployments in found.items() if deployments}


def _deployment(provider: Provider, model: str) -> Deployment:
    """Without what names of models may carry in front (`models/`)."""
    return Deployment(provider.name, model.removeprefix(provider.model_prefix) or model)


def blind_defaults(config: Config) -> dict[Deployment, ModelFacts]:
    """Of the default models those that take no images: where the catalog's own takes none, another one takes them only
    if its name says so. What models.yaml says of it wins."""
    found: dict[Deployment, ModelFacts] = {}
    for row in config.providers.values():
        if row.chat_model and not row.chat_sees:
            for model in (row.chat_model, config.chat_models.get(row.name, "")):
                if model and not SIGHTED.search(model.lower()):
                    found[_deployment(row, model)] = BLIND
    return found


def what_to_set(config: Config, missing: Mapping[str, str]) -> dict[Kind, str]:
    """What to do so that a call without a model can be answered. *missing*: provider without a key -> its variable."""
    return {
        "chat": _what_to_set(config, missing, "chat", {row.name: row.chat_model for row in CATALOG.values()}),
        "embeddings": _what_to_set(
            config, missing, "embeddings", {row.name: row.embedding_model for row in CATALOG.values()}
        ),
    }


def _what_to_set(config: Config, missing: Mapping[str, str], kind: Kind, built_in: Mapping[str, str]) -> str:
    usual = sorted((name for name, model in built_in.items() if model), key=lambda name: CATALOG[name].place)
    keys = [missing[name] for name in usual if name in missing]
    said = config.embedding_models if kind == "embeddings" else config.chat_models
    without = (row for row in config.providers.values() if row.variables and not built_in.get(row.name))
    able = (row for row in without if kind == "chat" or row.embeddings_path)
    models = [model_variable(row, kind) for row in able if row.name not in said]
    parts = [f"a key ({', '.join(keys)})"] if keys else []
    if models:
        parts.append(f"the default model of a provider that has one ({', '.join(models)})")
    return f"set {', or '.join(parts)}" if parts else "`keyturn keys list` tells how the keys stand"


def model_variable(provider: Provider, kind: Kind) -> str:
    """The variable that says what *provider* is asked for when a call of this kind names no model."""
    prefix = provider.variables[0] if provider.variables else provider.name.upper()
    return f"{prefix}_{'EMBEDDING' if kind == 'embeddings' else 'CHAT'}_MODEL"
