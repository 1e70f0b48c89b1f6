"""Programs of the smart-client toolkit run as they are with `examples/compat` on the path, else with a new import."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

import keyturn
import keyturn.client
import keyturn.settings
from tests.support.serving import Upstreams

from .smart_world import KEYS, TRIED, addresses, asked, set_all, smart_upstreams

ROOT = Path(__file__).parents[2]
COMPAT = ROOT / "examples" / "compat"
LIMITED = {"kind": "chat", "error": "rate_limited", "wait": 60}

TRANSPARENT = """
from llms import get_smart_client

# keys and providers are changed behind this
client = get_smart_client()
response = client.chat([
    {"role": "user", "content": "Something to say"}
], temperature=0.3, max_tokens=500)
"""
BASIC = """
from llms import get_smart_client

client = get_smart_client()
response = client.chat([
    {"role": "system", "content": "You are terse"},
    {"role": "user", "content": "What is a neutrino?"}
])
print(response)
"""
MONITORING = """
from llms import get_smart_client

client = get_smart_client()
status = client.get_status_summary()

print("Keys:")
for provider, info in status.items():
    if provider != 'timestamp':
        print(f"{provider}: {info['available']}/{info['total']} available")
"""
ERRORS = """
from llms import get_smart_client

try:
    client = get_smart_client()
    response = client.chat([{"role": "user", "content": "Hello"}])
except RuntimeError as e:
    if "All API keys exhausted" in str(e):
        print("everybody is at a limit")
    else:
        print(f"another error: {e}")
"""
BY_HAND = """
from llms import get_client
from config.settings import SETTINGS
messages = [{"role": "user", "content": "Hello"}]
groq_key = SETTINGS.groq_api_key
try:
    client = get_client("openrouter", SETTINGS.openrouter_api_key)
    response = client.chat(messages)
except Exception as e:
    if groq_key:
        g_client = get_client("groq", groq_key)
        response = g_client.chat(messages)
print(response)
"""
COUNTS = """
from config.settings import SETTINGS
print(f'OpenRouter: {len(SETTINGS.openrouter_api_keys)} keys')
print(f'Groq: {len(SETTINGS.groq_api_keys)} keys')
print(f'Gemini: {len(SETTINGS.gemini_api_keys)} keys')
"""
SMART = """
from llms import get_smart_client
client = get_smart_client()
response = client.chat([{'role': 'user', 'content': 'Hello'}])
print(f'Response: {response}')
print(f'Provider: {client.get_current_provider()}')
"""


@pytest.fixture(scope="module")
def simulated() -> Iterator[Upstreams]:
    with smart_upstreams() as found:
        yield found


@pytest.fixture
def upstreams(simulated: Upstreams) -> Upstreams:
    simulated.script()
    simulated.forget()
    return simulated


@pytest.fixture
def place(upstreams: Upstreams, tmp_path: Path) -> Path:
    """Where a program runs: its `.env` holds the keys."""
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in KEYS.items()))
    return tmp_path


def run(code: str, place: Path, upstreams: Upstreams) -> str:
    """What `python -c` prints for *code*, which must end well and complain of nothing."""
    environ = {**os.environ, **addresses(upstreams), "PYTHONPATH": str(COMPAT)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=place, env=environ, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


Execute = Callable[..., str]


@pytest.fixture
def execute(
    upstreams: Upstreams, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Execute:
    """The same in this process, which takes less time; with *new*, after changing the import lines."""
    monkeypatch.chdir(place)
    set_all(monkeypatch, addresses(upstreams))

    def executed(code: str, *, new: bool = False) -> str:
        monkeypatch.setattr(keyturn.settings, "SETTINGS", keyturn.settings.Settings())
        if new:
            code = code.replace("from llms import", "from keyturn import")
            code = code.replace("from config.settings import", "from keyturn.settings import")
        else:
            monkeypatch.syspath_prepend(str(COMPAT))
        before = set(sys.modules)
        try:
            exec(code, {"__name__": "__main__"})
        finally:
            keyturn.get_smart_client().close()
            for name in set(sys.modules) - before:
                if name.partition(".")[0] in ("llms", "config"):
                    del sys.modules[name]
        return capsys.readouterr().out

    return executed


COUNTED = ["OpenRouter: 2 keys", "Groq: 1 keys", "Gemini: 1 keys"]


def test_TST_10_LIB_08_the_two_one_liners(upstreams: Upstreams, place: Path) -> None:
    assert run(COUNTS, place, upstreams).splitlines() == COUNTED
    response, provider = run(SMART, place, upstreams).splitlines()
    assert response.startswith("Response: This is the Keyturn simulator")
    assert provider == "Provider: openrouter"


@pytest.mark.parametrize("new", [True, False], ids=["new import", "old import"])
def test_LIB_08_chat_and_monitoring(execute: Execute, upstreams: Upstreams, new: bool) -> None:
    told = execute(f"{TRANSPARENT}\n{BASIC}\n{MONITORING}\n{COUNTS}\n{SMART}", new=new).splitlines()
    assert told[0].endswith("You said: What is a neutrino?")
    assert told[1] == "Keys:"
    assert sorted(told[2:5]) == ["gemini: 1/1 available", "groq: 1/1 available", "openrouter: 2/2 available"]
    assert told[5:8] == COUNTED
    assert told[-1] == "Provider: openrouter"
    assert asked(upstreams) == ["openrouter"] * 3


def test_LIB_08_errors_when_all_are_limited(execute: Execute, upstreams: Upstreams) -> None:
    upstreams.script(LIMITED)
    assert execute(ERRORS) == "everybody is at a limit\n"
    assert asked(upstreams) == TRIED


def test_LIB_08_errors_when_there_is_no_key(execute: Execute, upstreams: Upstreams, place: Path) -> None:
    (place / ".env").write_text("OPENROUTER_API_KEY_1=\n")
    told = execute(f"{ERRORS}\n{COUNTS}\n{MONITORING}").splitlines()
    assert told[:2] == ["everybody is at a limit", "OpenRouter: 0 keys"]
    assert told[-3:] == ["openrouter: 0/0 available", "groq: 0/0 available", "gemini: 0/0 available"]


def test_LIB_08_a_fallback_by_hand_still_works(execute: Execute, upstreams: Upstreams) -> None:
    upstreams.script(LIMITED | {"provider": "openrouter"})
    assert "groq/llama3-8b-8192" in execute(BY_HAND)
    assert asked(upstreams) == ["openrouter", "groq"]
    assert [each.key for each in upstreams.seen()] == ["sk-or-one", "gsk_one"], "one key each, as it was asked"


def test_LIB_08_the_folder_stands_in_nobodys_way() -> None:
    """Without it on the path there is no `llms`, and a `config` is another one."""
    assert find_spec("llms") is None
    found = find_spec("config")
    assert found is None or str(COMPAT / "config") not in (found.submodule_search_locations or ())


# --- the guide --------------------------------------------------------------------------------------------------------

GUIDE = (ROOT / "docs" / "migration.md").read_text()
SYSTEMS = (
    "The router with roles and CLI tools",
    "The proxy with the rotation library",
    "The smart-client toolkit",
)
GONE = ("UsageManager", "CredentialManager", "CooldownManager", "key_manager", "ProviderInterface")
"""Names of the libraries that nobody can import any more."""
NAMES = (
    *GONE,
    "RotatingClient",
    "NoAvailableKeysError",
    "get_smart_client",
    "get_client(provider, key)",
    "config.settings.SETTINGS",
    "llms/gemini.py",
    "usage/*.json",
    "key_usage.json",
    "oauth_creds/*.json",
    ".llm_key_state.json",
    "CUSTOM_CAP_",
    "FAIR_CYCLE_",
    "FAIR_CYCLE_QUOTA_THRESHOLD",
    "EXHAUSTION_COOLDOWN_THRESHOLD",
    "QUOTA_GROUPS_",
    "TIMEOUT_READ_STREAMING",
    "TIMEOUT_READ_NON_STREAMING",
    "TRANSIENT_RETRY_DELAY",
    "SMALL_COOLDOWN_RETRY_THRESHOLD",
    "STREAM_RETRY_ON_REASONING_ONLY",
    "ROTATION_TOLERANCE",
    "G4F_FALLBACK_ENABLED",
    "OVERRIDE_TEMPERATURE_ZERO",
    "max_retries=",
    "usage_file_path=",
    "Router.complete(role, prompt, model_id)",
    "BaseProvider",
    "RateLimiter",
)


def parts() -> dict[str, str]:
    """What the guide says of each system."""
    found = re.split(r"^## (.+)$", GUIDE, flags=re.MULTILINE)[1:]
    return dict(zip(found[::2], found[1::2], strict=True))


@pytest.mark.parametrize("system", SYSTEMS)
def test_DOC_06_each_system_has_before_after_and_at_least_four_steps(system: str) -> None:
    text = parts()[system]
    assert text.index("Before") < text.index("After") < text.index("Steps")
    assert len(re.findall(r"^\d+\. ", text, re.MULTILINE)) >= 4
    assert "| before | now |" in text


@pytest.mark.parametrize("name", NAMES)
def test_LIB_04_DOC_06_every_old_name_stands_beside_what_replaces_it(name: str) -> None:
    rows = [line.strip("| ").split(" | ", 1) for line in GUIDE.splitlines() if line.startswith("| ")]
    found = [now for before, now in rows if name in before]
    assert found, f"{name} is in no table"
    assert all(len(now.strip()) > 10 for now in found)


def test_LIB_04_the_old_managers_are_not_importable() -> None:
    for name in GONE:
        assert not hasattr(keyturn, name)
        assert not hasattr(keyturn.client, name)
    assert keyturn.RotatingClient is keyturn.AsyncClient
