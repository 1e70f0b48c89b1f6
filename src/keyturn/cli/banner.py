"""What `serve` says once it listens: what is configured, what to know, and a command that works when pasted."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .output import keys_counted
from .pool import known_models, usual_model

if TYPE_CHECKING:
    from keyturn.config import Config


def banner(config: Config, url: str) -> Iterator[str]:
    """The lines to print, without any secret."""
    if config.demo and any(row.tool is not None and row.tool.found for row in config.providers.values()):
        yield "DEMO: no key is configured. Besides the tools below only models named demo/… are served, by a simulator."
    elif config.demo:
        yield "DEMO: no key is configured. Only models named demo/… are served, by a simulator: no answer is real."
        yield "`keyturn keys add PROVIDER` adds a key; it is used within a moment."
    for name, keys in config.credentials.items():
        said = keys_counted(keys)
        if not config.demo and config.providers[name].tool is None:
            yield f"{name}: {said}{_turn(config, name)}" if said else f"{name}: no key needed"
    yield from _tools(config)
    paid = "routes marked paid may be used" if config.use_paid else "routes marked paid are skipped"
    yield f"USE_PAID_MODELS={str(config.use_paid).lower()}: {paid}"
    for note in config.notes:
        yield f"note: {note}"
    if config.server.trust_local:
        yield "caller key: not needed by callers on this machine"
    else:
        where = "PROXY_API_KEY" if config.caller_key is not None else str(config.data / "caller.key")
        yield f"caller key: {where}"
    yield "try it:"
    yield f"  {curl(config, url)}"


def _turn(config: Config, name: str) -> str:
    """Where the round robin of *name* goes on, if it has one."""
    from keyturn.config import DataFolder

    keys = config.credentials[name]
    if config.strategies.get(name) != "round_robin" or len(keys) < 2:
        return ""
    return f", in turn: key {DataFolder(config.data).rotation_index(name) % len(keys) + 1} of {len(keys)} is next"


def _tools(config: Config) -> Iterator[str]:
    """The command line tools, in two lines at most."""
    tools = {name: row.tool for name, row in config.providers.items() if row.tool is not None}
    found = [name for name, tool in tools.items() if tool.found]
    missing = [f"{name} ({tool.argv[0]})" for name, tool in tools.items() if not tool.found]
    if found:
        yield f"tools: {', '.join(found)}"
    if missing and not config.demo:
        yield f"not used, for the program is not on the PATH: {', '.join(missing)}"


def curl(config: Config, url: str) -> str:
    """One command line that asks the gateway something. It reads the caller key where it is set, today and later."""
    words = ["curl"]
    model = usual_model(config) or next(iter(known_models(config)), None)
    words.append(f"{url}/v1/chat/completions" if model else f"{url}/v1/models")
    if not config.server.trust_local:
        words.append(f'-H "Authorization: Bearer {key_in_shell(config)}"')
    if model:
        question = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
        body = json.dumps(question, separators=(",", ":"), ensure_ascii=True)
        words += ["-H 'Content-Type: application/json'", f"-d {shlex.quote(body)}"]
    return " ".join(words)


def key_in_shell(config: Config) -> str:
    """What a shell expands, inside double quotes, to the caller key."""
    if config.caller_key is None:
        return f"$(cat {shlex.quote(str(config.data / 'caller.key'))})"
    if config.env_file is None or config.origins["PROXY_API_KEY"] == "environment":
        return "$PROXY_API_KEY"
    file = shlex.quote(str(config.env_file))  # the shell has not read it: the last such line counts, as it does for us
    return rf"""$(sed -n 's/^ *\(export  *\)*PROXY_API_KEY *= *\([^ ]*\).*/\2/p' {file} | tail -n 1 | tr -d '\r"'\')"""
