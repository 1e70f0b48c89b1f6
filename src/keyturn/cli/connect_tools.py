"""How each tool is pointed at a gateway: its variables, its files, and what has to be done by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import click

from .connect_parts import FileEdit, ToolSettings
from .connect_target import Target

PROVIDER = "keyturn"
"""What the gateway is called in files that give providers names."""
KEY_VARIABLE = "PROXY_API_KEY"
"""The variable that files name instead of holding the key."""
SELECTED = {"security": {"auth": {"selectedType": "gemini-api-key"}}}
"""Without it Gemini CLI, where it has no terminal, refuses a base URL from the environment: invalid auth method."""


class Keys(NamedTuple):
    """The caller key, or what stands for it: behind `NAME=` in a shell, and inside a file."""

    shell: str
    file: str


class Place(NamedTuple):
    """Where a tool looks for its files."""

    home: Path
    environ: Mapping[str, str]

    def folder(self, variable: str, usual: str = "") -> Path:
        """The folder that *variable* names; else *usual* in the home folder."""
        named = self.environ.get(variable, "").strip()
        return Path(named).expanduser() if named else self.home / usual


Settings = Callable[[Target, Keys, Place], ToolSettings]


def claude_variables(target: Target, key: str) -> dict[str, str]:
    """The environment of Claude Code. An ANTHROPIC_API_KEY would win over the token, so it is emptied."""
    return {
        "ANTHROPIC_BASE_URL": target.url,
        "ANTHROPIC_AUTH_TOKEN": key,
        "ANTHROPIC_API_KEY": "",
        "ANTHROPIC_MODEL": target.model,
        "ANTHROPIC_DEFAULT_OPUS_MODEL": target.model,
        "ANTHROPIC_DEFAULT_SONNET_MODEL": target.model,
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": target.model,
    }


def codex_provider(target: Target) -> dict[str, str]:
    """The block `model_providers.keyturn` of Codex."""
    return {
        "name": "Keyturn",
        "base_url": f"{target.url}/v1",
        "env_key": KEY_VARIABLE,
        "wire_api": "responses",
    }


def opencode_config(target: Target) -> dict[str, object]:
    """The configuration of opencode; the key stays in the environment."""
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "Keyturn",
        "options": {"baseURL": f"{target.url}/v1", "apiKey": f"{{env:{KEY_VARIABLE}}}"},
        "models": {target.model: {"name": target.model}},
    }
    name = f"{PROVIDER}/{target.model}"
    return {"model": name, "small_model": name, "provider": {PROVIDER: provider}}


def llm_model(target: Target) -> dict[str, str]:
    """An entry of llm's extra-openai-models.yaml."""
    return {
        "model_id": PROVIDER,
        "model_name": target.model,
        "api_base": f"{target.url}/v1",
        "api_key_name": PROVIDER,
    }


def _claude(target: Target, keys: Keys, place: Place) -> ToolSettings:
    file = place.folder("CLAUDE_CONFIG_DIR", ".claude") / "settings.json"
    return ToolSettings(
        "claude",
        "Claude Code",
        target.model,
        claude_variables(target, keys.shell),
        (FileEdit(file, "json", {"env": claude_variables(target, keys.file)}, secret=True),),
        ("The variables or the file: either is enough.",),
        "claude",
    )


def _codex(target: Target, keys: Keys, place: Place) -> ToolSettings:
    changes = {
        "model": target.model,
        "model_provider": PROVIDER,
        "model_providers": {PROVIDER: codex_provider(target)},
    }
    file = place.folder("CODEX_HOME", ".codex") / "config.toml"
    return ToolSettings(
        "codex",
        "Codex",
        target.model,
        {KEY_VARIABLE: keys.shell},
        (FileEdit(file, "toml", changes),),
        (f"Both are needed: the file names the variable, {KEY_VARIABLE} holds the key.",),
        "codex",
    )


def _gemini(target: Target, keys: Keys, place: Place) -> ToolSettings:
    folder = place.folder("GEMINI_CLI_HOME") / ".gemini"
    variables = {"GOOGLE_GEMINI_BASE_URL": target.url, "GEMINI_API_KEY": keys.shell}
    return ToolSettings(
        "gemini",
        "Gemini CLI",
        target.model,
        variables,
        (
            FileEdit(folder / "settings.json", "json", {**SELECTED, "model": {"name": target.model}}),
            FileEdit(folder / ".env", "env", {**variables, "GEMINI_API_KEY": keys.file}, secret=True),
        ),
        (
            "settings.json is needed in any case; .env holds the variables where no project has an .env.",
            "It takes plain http for this machine only; elsewhere the URL must be https.",
        ),
        "gemini",
    )


def _opencode(target: Target, keys: Keys, place: Place) -> ToolSettings:
    file = place.folder("XDG_CONFIG_HOME", ".config") / "opencode" / "opencode.json"
    initial = '{\n  "$schema": "https://opencode.ai/config.json"\n}\n'
    return ToolSettings(
        "opencode",
        "opencode",
        f"{PROVIDER}/{target.model}",
        {KEY_VARIABLE: keys.shell},
        (FileEdit(file, "json", opencode_config(target), initial),),
        (f"Both are needed: the file names the variable, {KEY_VARIABLE} holds the key.",),
        "opencode",
    )


def _cursor(target: Target, keys: Keys, place: Place) -> ToolSettings:
    return ToolSettings(
        "cursor",
        "Cursor",
        target.model,
        steps=(
            "Open Cursor Settings > Models > API Keys.",
            f"OpenAI API Key: {keys.file}",
            f"Switch on Override OpenAI Base URL: {target.url}/v1",
            f"Add a custom model called {target.model} and choose it in the chat.",
            "If Cursor cannot reach an address of this machine, give Keyturn one that it can, and say it with --url.",
        ),
    )


def _continue(target: Target, keys: Keys, place: Place) -> ToolSettings:
    entry = {
        "name": "Keyturn",
        "provider": "openai",
        "model": target.model,
        "apiBase": f"{target.url}/v1",
        "apiKey": keys.file,
    }
    file = place.folder("CONTINUE_GLOBAL_DIR", ".continue") / "config.yaml"
    initial = "name: Local\nversion: 1.0.0\nschema: v1\n"
    return ToolSettings(
        "continue",
        "Continue",
        target.model,
        edits=(FileEdit(file, "yaml", {"models": [entry]}, initial, secret=True),),
        steps=("Choose the model Keyturn in the chat.",),
    )


def _openwebui(target: Target, keys: Keys, place: Place) -> ToolSettings:
    return ToolSettings(
        "openwebui",
        "Open WebUI",
        target.model,
        {"OPENAI_API_BASE_URL": f"{target.url}/v1", "OPENAI_API_KEY": keys.shell},
        steps=(
            "Open Admin Panel > Settings > Connections, and add an OpenAI API connection.",
            f"URL: {target.url}/v1",
            f"Key: {keys.file}",
            "Or start it with the variables above; what was saved in the settings before goes over them.",
            "In a container 127.0.0.1 is the container: let Keyturn listen with --host, and name this machine in the "
            "URL (--url http://host.docker.internal:8000).",
        ),
    )


def _aider(target: Target, keys: Keys, place: Place) -> ToolSettings:
    name = f"openai/{target.model}"
    variables = {"OPENAI_API_BASE": f"{target.url}/v1", "OPENAI_API_KEY": keys.shell}
    changes = {"openai-api-base": f"{target.url}/v1", "openai-api-key": keys.file, "model": name}
    return ToolSettings(
        "aider",
        "aider",
        name,
        variables,
        (FileEdit(place.home / ".aider.conf.yml", "yaml", changes, secret=True),),
        ("The variables or the file: either is enough.",),
        f"aider --model {name}",
    )


def _llm(target: Target, keys: Keys, place: Place) -> ToolSettings:
    named = place.environ.get("LLM_USER_PATH", "").strip()
    folder = Path(named) if named else Path(click.get_app_dir("io.datasette.llm"))
    return ToolSettings(
        "llm",
        "llm",
        PROVIDER,
        edits=(
            FileEdit(folder / "extra-openai-models.yaml", "yaml", [llm_model(target)]),
            FileEdit(folder / "keys.json", "json", {PROVIDER: keys.file}, secret=True),
        ),
        start=f"llm -m {PROVIDER} 'Hello'",
    )


TOOLS: dict[str, Settings] = {
    "claude": _claude,
    "codex": _codex,
    "gemini": _gemini,
    "opencode": _opencode,
    "cursor": _cursor,
    "continue": _continue,
    "openwebui": _openwebui,
    "aider": _aider,
    "llm": _llm,
}
