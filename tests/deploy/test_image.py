"""The image: what its Dockerfile says, and the gateway in it at work, or, where no Docker runs, what its steps make."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from keyturn.dispatch import SystemClock, draw
from keyturn.simulator import Simulator
from tests.support.serving import Response, Upstreams, ask, simulate, start, wait_until_ready

from .dockerfile import Build, ignored, read

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
FINAL = read(DOCKERFILE)[-1]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
SERVICE: dict[str, Any] = COMPOSE["services"]["keyturn"]
CALLER_KEY = "kt-the-callers-key-0123456789"
MODEL = "llama-3.1-8b-instant"


def docker_runs(*more: str) -> bool:
    """Whether there is a Docker daemon to ask, and *more* works with it."""
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", *(more or ("info",))], capture_output=True, check=False).returncode == 0


DOCKER = docker_runs()


class Running(NamedTuple):
    """A gateway from the image, and the providers that it calls."""

    url: str
    upstreams: Upstreams

    def chat(self, model: str, **members: Any) -> Response:
        body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], **members}
        headers = {"authorization": f"Bearer {CALLER_KEY}"}
        return ask(self.url, "POST", "/v1/chat/completions", headers=headers, body=body)


def environ_of(upstreams: Upstreams, port: int) -> dict[str, str]:
    return {
        "KEYTURN_PORT": str(port),
        "PROXY_API_KEY": CALLER_KEY,
        "GROQ_API_KEY": "gsk_key_of_the_image",
        "GROQ_API_BASE": f"{upstreams.url}/groq/v1",
        "G4F_MAIN_API_BASE": f"{upstreams.url}/g4f/v1",
    }


def drive(running: Running) -> None:
    """Chat, stream, G4F by its own name and as the fallback, and the doors that a deployment asks."""
    answer = running.chat(f"groq/{MODEL}")
    assert (answer.status, answer.headers["x-keyturn-provider"]) == (200, "groq")
    assert answer.json()["choices"][0]["message"]["content"]
    stream = running.chat(f"groq/{MODEL}", stream=True)
    assert stream.body.rstrip().endswith(b"data: [DONE]")
    assert stream.body.count(b"data: ") > 3
    answer = running.chat("g4f/gpt-4o-mini")
    assert (answer.status, answer.headers["x-keyturn-provider"]) == (200, "g4f")
    assert running.chat("g4f/gpt-4o-mini", stream=True).body.rstrip().endswith(b"data: [DONE]")
    running.upstreams.script({"provider": "groq", "kind": "chat", "status": 500})
    answer = running.chat("auto")
    assert (answer.status, answer.headers["x-keyturn-provider"]) == (200, "g4f")
    assert answer.headers["x-fallback-provider"] == "g4f"
    running.upstreams.script()
    assert ask(running.url, "POST", "/v1/chat/completions", body={}).status == 401, "a caller key is required"
    assert ask(running.url, "GET", "/healthz").status == 200
    assert ask(running.url, "GET", "/readyz").status == 200
    page = ask(running.url, "GET", "/metrics", headers={"authorization": f"Bearer {CALLER_KEY}"}).body.decode()
    assert re.search(r'keyturn_served_total\{fallback="last",provider="g4f",tier="5"\} 1\.0', page)
    rows = ask(running.url, "GET", "/v1/providers", headers={"authorization": f"Bearer {CALLER_KEY}"}).json()["data"]
    assert {row["name"]: row["state"] for row in rows}["g4f"] == "ready"


@contextmanager
def upstreams() -> Iterator[Upstreams]:
    models = {"groq": [MODEL, "gpt-4o-mini"], "g4f": ["gpt-4o-mini"]}
    with simulate(Simulator(SystemClock(), draw, models=models)) as found:
        yield found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.skipif(DOCKER, reason="Docker runs here: the image itself is tested")
def test_DEP_02_DEP_08_the_steps_of_the_image_make_a_gateway_that_serves(tmp_path: Path) -> None:
    build = Build(ROOT, DOCKERFILE, tmp_path)
    build.make()
    assert len(build.ran) >= 7
    (package,) = (tmp_path / "opt" / "keyturn").glob("lib/python*/site-packages/keyturn")
    assert not package.is_symlink()
    assert (package / "server" / "serve.py").is_file()
    program = tmp_path / "opt" / "keyturn" / "bin"
    port = free_port()
    with upstreams() as providers:
        environ = {
            **{name: build.here(value) for name, value in FINAL.environ().items()},
            **environ_of(providers, port),
            "G4F_CHAT_MODEL": "gpt-4o-mini",
            "GROQ_CHAT_MODEL": MODEL,
            "PATH": f"{program}:/usr/bin:/bin",
        }
        log = tmp_path / "log"
        command = FINAL.command()
        command[0] = str(program / command[0])
        with start(command, log, environ, cwd=tmp_path / "app") as process:
            url = wait_until_ready(process, log, lambda: f"http://127.0.0.1:{port}", "/healthz")
            drive(Running(url, providers))
            (check,) = FINAL.all("HEALTHCHECK")
            healthy = [str(program / "python"), *FINAL.command(check)[1:]]
            assert subprocess.run(healthy, env=environ, cwd=tmp_path, check=False).returncode == 0
            process.terminate()
            assert process.wait(20) == 0, log.read_text()
        told = subprocess.run(healthy, env=environ, cwd=tmp_path, capture_output=True, check=False)
        assert told.returncode == 1, "nobody answers any more"
    assert (tmp_path / "data" / "lock").is_file()
    assert list((tmp_path / "app").iterdir()) == [], "nothing is written outside of the data folder"
    assert not list(package.rglob("__pycache__/*.tmp"))


@pytest.mark.skipif(not DOCKER, reason="no Docker daemon here: the image's own steps are tested instead")
def test_DEP_02_DEP_08_the_image_is_built_and_serves() -> None:
    name = f"keyturn-test-{uuid.uuid4().hex[:8]}"
    built = subprocess.run(["docker", "build", "-q", "-f", "deploy/Dockerfile", "-t", name, "."], cwd=ROOT, check=False)
    assert built.returncode == 0
    port = free_port()
    try:
        with upstreams() as providers:
            environ = environ_of(providers, port) | {"G4F_CHAT_MODEL": "gpt-4o-mini", "GROQ_CHAT_MODEL": MODEL}
            options = [f"--env={variable}={value}" for variable, value in environ.items()]
            options += ["--network=host", "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--user=10001"]
            subprocess.run(["docker", "run", "-d", "--name", name, *options, name], check=True, capture_output=True)
            following = ["docker", "wait", name]
            log = Path("/dev/null")
            with start(following, log, {}, cwd=ROOT) as process:
                url = wait_until_ready(process, log, lambda: f"http://127.0.0.1:{port}", "/healthz")
                drive(Running(url, providers))
                check = ["docker", "exec", name, *FINAL.command(FINAL.all("HEALTHCHECK")[0])]
                assert subprocess.run(check, check=False).returncode == 0
                who = subprocess.run(["docker", "exec", name, "id", "-u"], capture_output=True, check=True)
                assert who.stdout.strip() == b"10001"
                subprocess.run(["docker", "stop", name], check=True, capture_output=True)
    finally:
        subprocess.run(["docker", "rm", "-f", "-v", name], check=False, capture_output=True)
        subprocess.run(["docker", "rmi", "-f", name], check=False, capture_output=True)


def test_DEP_02_the_dockerfile_is_one_of_two_small_stages_without_root_and_without_secrets() -> None:
    stages = read(DOCKERFILE)
    assert [re.fullmatch(r"python:3\.\d+-slim( AS \w+)?", stage.base) is not None for stage in stages] == [True, True]
    assert FINAL.all("USER") == ["10001"]
    assert FINAL.command() == ["keyturn", "serve"]
    environ = FINAL.environ()
    assert environ["KEYTURN_DATA"] == "/data" == FINAL.all("VOLUME")[0]
    assert environ["KEYTURN_HOST"] == "0.0.0.0"
    assert environ["PYTHONUNBUFFERED"] == "1"
    assert environ["KEYTURN_PORT"] == FINAL.all("EXPOSE")[0] == "8000"
    assert not any(
        re.search("KEY|TOKEN|SECRET", name) for stage in stages for name in stage.environ() if name[:8] != "KEYTURN_"
    )
    assert "curl" not in FINAL.all("HEALTHCHECK")[0]
    assert "trust-local" not in DOCKERFILE
    assert not re.search(r"https?://(?!127\.0\.0\.1)", DOCKERFILE), "no address of a registry"


def test_DEP_02_the_build_backend_of_the_image_is_whole() -> None:
    lock = (ROOT / "requirements" / "dev.txt").read_text()
    (named,) = re.findall(r"keep = /\^\(([a-z|-]+)\)==/", DOCKERFILE)
    blocks = re.split(r"\n(?=[a-z])", lock)
    needed = {each.partition("==")[0] for each in blocks if re.search(r"# .*via hatchling|#   hatchling$", each, re.M)}
    assert {"hatchling", *needed} == set(named.split("|"))
    assert {name for name in named.split("|") if f"\n{name}==" not in lock} == set()


@pytest.mark.parametrize("path", [".env", ".cache", ".git", "config", "tests", ".venv", ".env.production", "docs"])
def test_DEP_02_only_what_the_image_is_made_of_goes_to_the_builder(path: str) -> None:
    patterns = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored(patterns, path)
    assert not ignored(patterns, "src")


def test_DEP_03_compose_gives_the_container_as_little_as_it_needs() -> None:
    assert SERVICE["read_only"] is True
    assert SERVICE["cap_drop"] == ["ALL"]
    assert SERVICE["security_opt"] == ["no-new-privileges:true"]
    assert SERVICE["tmpfs"][0].startswith("/tmp:")
    assert SERVICE["logging"] == {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}}
    assert SERVICE["env_file"] == [{"path": "../.env", "required": False}]
    assert all(port.startswith("127.0.0.1:") for port in SERVICE["ports"])
    assert "privileged" not in SERVICE
    assert not [name for name in SERVICE["environment"] if re.search("API_KEY|TOKEN|SECRET", name)]
    volumes = {each.split(":")[1]: each for each in SERVICE["volumes"]}
    assert volumes["/data"].split(":")[0] in COMPOSE["volumes"]
    assert volumes["/app/config"].endswith(":ro")
    assert (ROOT / "deploy" / SERVICE["build"]["context"] / SERVICE["build"]["dockerfile"]).is_file()
    drain = 30
    assert int(SERVICE["stop_grace_period"].removesuffix("s")) > drain
    assert SERVICE["healthcheck"]["test"][:2] == ["CMD", "python"]


@pytest.mark.skipif(not docker_runs("compose", "version"), reason="no docker compose here: the YAML is checked instead")
def test_DEP_03_docker_compose_reads_its_file() -> None:
    command = ["docker", "compose", "-f", "deploy/compose.yaml", "config", "--format", "json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["services"]) == {"keyturn"}


def unit() -> dict[str, list[str]]:
    """The settings of the unit by name, in order."""
    found: dict[str, list[str]] = {}
    for line in (ROOT / "deploy" / "keyturn.service").read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def test_DEP_06_the_unit_is_hardened_and_starts_again() -> None:
    settings = {name: values[-1] for name, values in unit().items()}
    expected = {
        "DynamicUser": "yes",
        "ProtectSystem": "strict",
        "NoNewPrivileges": "yes",
        "StateDirectory": "keyturn",
        "Restart": "always",
        "EnvironmentFile": "-/etc/keyturn/keyturn.env",
        "CapabilityBoundingSet": "",
    }
    assert {name: settings.get(name) for name in expected} == expected
    assert "KEYTURN_DATA=/var/lib/keyturn" in settings["Environment"]
    assert settings["RestartPreventExitStatus"] == "2 3", "the exit codes of mistakes that stay"
    assert settings["ExecStart"].startswith("/opt/keyturn/bin/keyturn serve")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here: the text is checked")
def test_DEP_06_systemd_reads_the_unit(tmp_path: Path) -> None:
    text = (ROOT / "deploy" / "keyturn.service").read_text()
    copy = tmp_path / "keyturn.service"
    copy.write_text(text.replace("/opt/keyturn/bin/keyturn", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, "")
