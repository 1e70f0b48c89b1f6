"""`keyturn dry-run`: the request that would be sent, built by the code that sends it; no network, no secret."""

from __future__ import annotations

import json
from typing import Any

import click

from keyturn.errors import NoValidCredentials

from .output import print_json, say
from .setup import Place, place_options, read_config


@click.command()
@click.option("-m", "--model", help="The route: provider/model, or a model id.")
@click.argument("text", nargs=-1, required=True)
@place_options
def command(model: str | None, text: tuple[str, ...], **place: Any) -> None:
    """Print the request that would be sent first, as {"method","url","headers","body"}, without sending it."""
    from keyturn.config import DataFolder
    from keyturn.core import Caller, Candidate, LocalRequest, resolve
    from keyturn.dispatch import read_call
    from keyturn.providers import prepare

    from .pool import model_to_ask, open_pool

    config = read_config(Place(**place))
    question = {"model": model_to_ask(config, model), "messages": [{"role": "user", "content": " ".join(text)}]}
    call = read_call("chat", json.dumps(question).encode(), {})
    plan = resolve(call, Caller(), open_pool(config).lists.catalog)
    deployment = plan.deployments[0]
    disabled = DataFolder(config.data).disabled()
    keys = [key for key in config.credentials[deployment.provider] if key.fingerprint not in disabled]
    if not keys:
        raise NoValidCredentials(f"every key of {deployment.provider} is disabled; `keyturn keys enable` takes it back")
    notes: list[str] = []
    request = prepare(config.providers[deployment.provider], call, Candidate(deployment, keys[0]), notes)
    sent = request.http if isinstance(request, LocalRequest) else request
    headers = dict(sent.headers)
    if sent.auth is not None:
        name, prefix, _ = sent.auth
        headers[name] = f"{prefix}***"
    print_json({"method": sent.method, "url": sent.url, "headers": headers, "body": json.loads(sent.body)})
    say(f"key: {keys[0].shown}, the first of {len(keys)}")
    for note in notes:
        say(f"note: {note}")
