"""The pool inside this process: for commands that answer without a running gateway, and for `serve` itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from keyturn.config import Config, DataFolder
    from keyturn.dispatch import Gateway
    from keyturn.simulator import Simulator


def open_pool(config: Config, folder: DataFolder | None = None) -> Gateway:
    """A gateway over *config*: without the keys that its owner disabled, with the simulator behind the demo.

    Who has locked the data folder hands it in, so that rotation indexes and spend last.
    """
    from keyturn.config import DataFolder
    from keyturn.dispatch import SystemClock, build, draw
    from keyturn.providers import CATALOG

    clock = SystemClock()
    simulators: list[Simulator] = []

    async def demo(*exchange: Any) -> None:
        if not simulators:  # made when it is first asked: few need it, and a reload may
            from keyturn.simulator import Simulator

            simulators.append(Simulator(clock, draw, log_limit=1000))
        await simulators[0](*exchange)

    apps = {row.local_app: demo for row in CATALOG.values() if row.local_app}
    data = DataFolder(config.data)
    return build(config, clock=clock, apps=apps, disabled=data.disabled(), folder=folder, pins=data.pins())


def own_folder(config: Config) -> DataFolder | None:
    """The data folder, taken for this command, which releases it; None when another process has it, when it cannot be
    written, and for the demo, of which nothing is to be kept."""
    from keyturn.config import DataFolder
    from keyturn.errors import ConfigError, DataFolderInUse

    folder = DataFolder(config.data)
    if config.demo:
        return None
    try:
        folder.lock()
    except (ConfigError, DataFolderInUse):
        return None
    return folder


def usual_model(config: Config) -> str | None:
    """The route to ask when none is named: the `<P>_CHAT_MODEL` of the first provider by tier, or the demo."""
    for name in config.by_tier():
        if name in config.chat_models:
            return f"{name}/{config.chat_models[name]}"
    return "demo/echo" if config.demo else None


def model_to_ask(config: Config, model: str | None) -> str:
    """*model*, or the default of whoever can answer, or the demo. Raises UsageError, naming some models, when there is
    none."""
    from keyturn.config import default_models
    from keyturn.core import AUTO

    chosen = model or (AUTO if default_models(config).get("chat") else usual_model(config))
    if chosen is None:
        examples = known_models(config)[:5]
        hint = f" One of {', '.join(examples)};" if examples else ""
        variables = ", ".join(f"{provider.variables[0]}_CHAT_MODEL" for provider in config.providers.values())
        raise click.UsageError(f"which model? Say it with -m.{hint} `keyturn models` lists all; or set {variables}.")
    return chosen


def known_models(config: Config) -> list[str]:
    """Every `provider/model` that is known without asking a provider."""
    routes: dict[str, list[str]] = {}
    for deployment, facts in config.facts.items():
        if not facts.paid or config.use_paid:
            routes.setdefault(deployment.provider, []).append(deployment.model)
    return [
        f"{name}/{model}"
        for name, provider in config.providers.items()
        if provider.tool is None or provider.tool.found
        for model in dict.fromkeys((*config.static_models.get(name, ()), *provider.models, *routes.get(name, ())))
    ]
