"""`keyturn dry-run`: the request that would be sent, built by the code that sends it; no network, no secret."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from keyturn.errors import NoValidCredentials

from .output import print_json, say
from .setup import Place, place_options, read_config

if TYPE_CHECKING:
    from keyturn.config import Config
    from keyturn.core import Call, Credential, Deployment, UpstreamRequest

GREETING = "Hello"
SOME_MODEL = "MODEL"
"""Stands for a model of a provider of whom none is known."""


@click.command()
@click.option("-m", "--model", help="The route: provider/model, or a model id.")
@click.argument("text", nargs=-1)
@place_options
def command(model: str | None, text: tuple[str, ...], **place: Any) -> None:
    """Print the request that would be sent first, as {"method","url","headers","body"}, without sending it.

    For a command line tool, what would be run: {"argv","stdin","environ"}, of the environment the names only. Without
    a model and a text: a list, one request per HTTP provider.
    """
    config = read_config(Place(**place))
    if model is None and not text:
        print_json([_example(config, name) for name, row in config.providers.items() if row.tool is None])
        return
    _print_one(config, model, " ".join(text) or GREETING)


def _print_one(config: Config, model: str | None, text: str) -> None:
    from keyturn.core import Caller, resolve

    from .pool import model_to_ask, open_pool

    call = _call(model_to_ask(config, model), text)
    plan = resolve(call, Caller(), open_pool(config).lists.catalog)
    deployment = plan.deployments[0]
    keys = _keys(config, deployment.provider)
    if not keys:
        raise NoValidCredentials(f"every key of {deployment.provider} is disabled; `keyturn keys enable` takes it back")
    request, notes = _prepared(config, call, deployment, keys[0])
    print_json(_shown(request))
    say(f"key: {keys[0].shown}, the first of {len(keys)}")
    if plan.listed:
        say(
            f"note: who offers {call.model} is told by the providers' lists, which are not asked here; "
            "`keyturn routes explain` asks a running gateway"
        )
    for note in notes:
        say(f"note: {note}")


def _example(config: Config, name: str) -> dict[str, Any]:
    """A first request to the provider *name*, for whatever model of it is known."""
    from keyturn.core import Deployment

    from .pool import known_models

    known = [model.removeprefix(f"{name}/") for model in known_models(config) if model.startswith(f"{name}/")]
    model = config.chat_models.get(name) or next(iter(known), SOME_MODEL)
    keys = _keys(config, name)
    if not keys:
        return {"provider": name, "error": f"every key is disabled; `keyturn keys enable {name}` takes them back"}
    request, _ = _prepared(config, _call(f"{name}/{SOME_MODEL}", GREETING), Deployment(name, model), keys[0])
    return {"provider": name, "key": keys[0].shown, **_shown(request)}


def _call(model: str, text: str) -> Call:
    from keyturn.dispatch import read_call

    question = {"model": model, "messages": [{"role": "user", "content": text}]}
    return read_call("chat", json.dumps(question).encode(), {})


def _keys(config: Config, provider: str) -> list[Credential]:
    """Those that its owner left in use."""
    from keyturn.config import DataFolder

    disabled = DataFolder(config.data).disabled()
    return [key for key in config.credentials[provider] if key.fingerprint not in disabled]


def _prepared(config: Config, call: Call, deployment: Deployment, key: Credential) -> tuple[UpstreamRequest, list[str]]:
    """The request, and what was dropped or renamed on the way."""
    from keyturn.core import Candidate
    from keyturn.providers import prepare

    notes: list[str] = []
    return prepare(config.providers[deployment.provider], call, Candidate(deployment, key), notes), notes


def _shown(request: UpstreamRequest) -> dict[str, Any]:
    """*request* as people may see it."""
    from keyturn.core import LocalRequest, ProcessRequest

    if isinstance(request, ProcessRequest):
        return {"argv": request.argv, "stdin": request.stdin.decode(), "environ": sorted(request.environ)}
    sent = request.http if isinstance(request, LocalRequest) else request
    headers = dict(sent.headers)
    if sent.auth is not None:
        name, prefix, _ = sent.auth
        headers[name] = f"{prefix}***"
    return {"method": sent.method, "url": sent.url, "headers": headers, "body": json.loads(sent.body)}
