"""`keyturn run`: starts a tool that asks the running gateway, without touching the tool's own files."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click

from .connect_target import PLACEHOLDER, Target, needed_key, target_of
from .connect_tools import (
    KEY_VARIABLE,
    PROVIDER,
    SELECTED,
    claude_variables,
    codex_provider,
    llm_model,
    opencode_config,
)
from .connect_tools import Place as ToolPlace
from .entry import Failure
from .setup import Place, place_options, read_config


def _signals(*names: str) -> tuple[signal.Signals, ...]:
    """Those of them that this system has."""
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))


INSTALL = {
    "claude": "npm install -g @anthropic-ai/claude-code",
    "codex": "npm install -g @openai/codex",
    "gemini": "npm install -g @google/gemini-cli",
    "opencode": "npm install -g opencode-ai",
    "aider": "pipx install aider-chat",
    "llm": "pipx install llm",
}
"""How each program comes to be there."""
FORWARDED = _signals("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
"""What is handed on to the tool."""
FROM_TERMINAL = _signals("SIGINT", "SIGQUIT")
"""What the terminal sends to the tool itself."""


class Launch(NamedTuple):
    """What is started: arguments before the user's own, variables set and taken away, whether a folder goes after."""

    args: tuple[str, ...]
    environ: dict[str, str]
    without: tuple[str, ...] = ()
    temporary: bool = False


Plan = Callable[[Target, str, Mapping[str, str], Callable[[], Path]], Launch]
"""Target, key, the environment, and what makes a private temporary folder."""


@click.command()
@click.argument("tool", type=click.Choice([*INSTALL]))
@click.option("-m", "--model", help="The route to ask for; without it the first model of the gateway.")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@place_options
def command(tool: str, model: str | None, args: tuple[str, ...], **place: Any) -> None:
    """Start TOOL so that it asks this gateway; ARGS, after `--`, are its own."""
    from keyturn.config import environment

    from .live import find_gateway

    config = read_config(Place(**place))
    environ = environment()
    program = shutil.which(tool, path=environ.get("PATH", os.defpath))
    if program is None:
        raise Failure(f"{tool} is not on the PATH. It is installed with: {INSTALL[tool]}")
    gateway = find_gateway(config, "start one with `keyturn serve`")
    if gateway is None:
        sys.exit(1)
    target = target_of(config, gateway, None, model)
    if target.model == PLACEHOLDER:
        raise click.UsageError("which model? Say it with -m; `keyturn models` lists the names.")
    with _scratch() as folder:
        launch = PLANS[tool](target, needed_key(config), environ, folder)
        if tool == "claude" and "--settings" in args:
            launch = launch._replace(args=())  # it takes one; what else is said there is the user's own word
        kept = {name: value for name, value in environ.items() if name not in launch.without}
        code = _start((program, *launch.args, *args), {**kept, **launch.environ}, wait=launch.temporary)
    sys.exit(code)


@contextlib.contextmanager
def _scratch() -> Iterator[Callable[[], Path]]:
    """What makes a private folder; it is gone afterwards."""
    with contextlib.ExitStack() as stack:
        yield lambda: Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="keyturn-")))


def _start(argv: tuple[str, ...], environ: Mapping[str, str], *, wait: bool) -> int:
    """Becomes the program; where something is left to do afterwards, or cannot be done, runs it and gives its code."""
    sys.stdout.flush()
    sys.stderr.flush()
    if not wait and sys.platform != "win32":
        os.execve(argv[0], argv, environ)
    child: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def hand_on(number: int, _: object) -> None:
        if child is None:
            early.append(number)
        else:
            child.send_signal(number)

    before: dict[int, Any] = {}
    for each in (*FORWARDED, *FROM_TERMINAL):
        if signal.getsignal(each) is not signal.SIG_IGN:  # nohup means the tool too
            before[each] = signal.signal(each, hand_on if each in FORWARDED else _pass)
    try:
        child = subprocess.Popen(argv, env=environ)
        for number in early:
            child.send_signal(number)
        code = child.wait()
    finally:
        for number, action in before.items():
            signal.signal(number, action)
    return code if code >= 0 else 128 - code


def _pass(*_: object) -> None:
    """Leaves a signal to the tool, which got it too."""


def _claude(target: Target, key: str, environ: Mapping[str, str], folder: Callable[[], Path]) -> Launch:
    """Variables alone do not do: the `env` of its own settings wins over them, and named settings win over both."""
    variables = claude_variables(target, key)
    settings = folder() / "settings.json"
    settings.touch(mode=0o600)
    settings.write_text(json.dumps({"env": variables}))
    without = ("CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX")
    return Launch(("--settings", str(settings)), variables, without, temporary=True)


def _codex(target: Target, key: str, environ: Mapping[str, str], folder: Callable[[], Path]) -> Launch:
    settings = {"model": target.model, "model_provider": PROVIDER}
    settings |= {f"model_providers.{PROVIDER}.{name}": value for name, value in codex_provider(target).items()}
    args = [word for name, value in settings.items() for word in ("-c", f"{name}={json.dumps(value)}")]
    return Launch((*args,), {KEY_VARIABLE: key})


def _gemini(target: Target, key: str, environ: Mapping[str, str], folder: Callable[[], Path]) -> Launch:
    """A home whose `.gemini` leads to the user's in everything but the settings.

    Without `selectedType` in its settings it refuses the base URL, and settings of the system count from root's folders
    only.
    """
    from .connect_json import read_json
    from .connect_parts import Unfit, merged

    present = ToolPlace(Path.home(), environ).folder("GEMINI_CLI_HOME") / ".gemini"
    settings = present / "settings.json"
    try:
        theirs = read_json(settings.read_text()) if settings.exists() else {}
    except Unfit as error:
        raise Failure(f"{settings}:{error.line}: {error.why}, so it cannot be added to for one run") from error
    home = folder()
    ours = home / ".gemini"
    ours.mkdir()
    for entry in present.iterdir() if present.is_dir() else ():
        if entry.name != settings.name:
            (ours / entry.name).symlink_to(entry.absolute())
    (ours / settings.name).write_text(json.dumps(merged(theirs, {**SELECTED, "model": {"name": target.model}})))
    return Launch(
        (),
        {
            "GOOGLE_GEMINI_BASE_URL": target.url,
            "GEMINI_API_KEY": key,
            "GEMINI_MODEL": target.model,
            "GEMINI_CLI_HOME": str(home),
        },
        ("GOOGLE_API_KEY", "GOOGLE_GENAI_USE_GCA", "GOOGLE_GENAI_USE_VERTEXAI"),
        temporary=True,
    )


def _opencode(target: Target, key: str, environ: Mapping[str, str], folder: Callable[[], Path]) -> Launch:
    return Launch((), {"OPENCODE_CONFIG_CONTENT": json.dumps(opencode_config(target)), KEY_VARIABLE: key})


def _aider(target: Target, key: str, environ: Mapping[str, str], folder: Callable[[], Path]) -> Launch:
    variables = {"OPENAI_API_BASE": f"{target.url}/v1", "OPENAI_API_KEY": key}
    return Launch(("--model", f"openai/{target.model}"), variables)


def _llm(target: Target, key: str, environ: Mapping[str, str], folder: Callable[[], Path]) -> Launch:
    """A folder of its own: llm reads models and keys from nowhere else."""
    path = folder()
    # JSON is YAML
    (path / "extra-openai-models.yaml").write_text(json.dumps([llm_model(target)]))
    (path / "keys.json").write_text(json.dumps({PROVIDER: key}))
    return Launch((), {"LLM_USER_PATH": str(path), "LLM_MODEL": PROVIDER}, temporary=True)


PLANS: dict[str, Plan] = {
    "claude": _claude,
    "codex": _codex,
    "gemini": _gemini,
    "opencode": _opencode,
    "aider": _aider,
    "llm": _llm,
}
