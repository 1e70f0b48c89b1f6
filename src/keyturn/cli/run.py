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
    return Launch((), claude_variables(target, key), ("CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX"))


def _codex(target: Target, key: str, environ: Mapping[str, str], folder: Callable[[], Path]) -> Launch:
    settings = {"model": target.model, "model_provider": PROVIDER}
    settings |= {f"model_providers.{PROVIDER}.{name}": value for name, value in codex_provider(target).items()}
    args = [word for name, value in settings.items() for word in ("-c", f"{name}={json.dumps(value)}")]
    return Launch((*args,), {KEY_VARIABLE: key})


def _gemini(target: Target, key: str, environ: Mapping[str, str], folder: Callable[[], Path]) -> Launch:
    """Settings of the system go over the user's; those that are there are kept."""
    from .connect_parts import merged

    system = Path(environ.get("GEMINI_CLI_SYSTEM_SETTINGS_PATH") or _GEMINI_SYSTEM)
    try:
        present = json.loads(system.read_bytes()) if system.exists() else {}
    except ValueError as error:
        raise Failure(f"{system}: is not plain JSON ({error}), so nothing can be added to it for one run") from error
    file = folder() / "settings.json"
    file.write_text(json.dumps(merged(present, {**SELECTED, "model": {"name": target.model}})))
    return Launch(
        (),
        {
            "GOOGLE_GEMINI_BASE_URL": target.url,
            "GEMINI_API_KEY": key,
            "GEMINI_MODEL": target.model,
            "GEMINI_CLI_SYSTEM_SETTINGS_PATH": str(file),
        },
        ("GOOGLE_API_KEY", "GOOGLE_GENAI_USE_GCA", "GOOGLE_GENAI_USE_VERTEXAI"),
        temporary=True,
    )


_GEMINI_SYSTEM = {
    "darwin": "/Library/Application Support/GeminiCli/settings.json",
    "win32": "C:\\ProgramData\\gemini-cli\\settings.json",
}.get(sys.platform, "/etc/gemini-cli/settings.json")


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
