"""Two gateways behind a load balancer: what the compose file and HAProxy's configuration say fits what is served."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from keyturn.config import VARIABLES, Timeouts, load
from keyturn.server import ENDPOINTS

from .dockerfile import read
from .test_image import docker_runs

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "replicas"
TEXT = (FOLDER / "compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
GATEWAYS = {name: each for name, each in SERVICES.items() if each["image"] == "keyturn"}
BALANCER = (FOLDER / "haproxy.cfg").read_text()
HAPROXY = shutil.which("haproxy")


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


def setting(name: str) -> str:
    """What follows *name* in HAProxy's configuration."""
    (found,) = re.findall(rf"^ *{re.escape(name)} +(.+)$", BALANCER, re.MULTILINE)
    return str(found)


def filled(text: str) -> str:
    """*text* as Compose fills it in, with passwords."""
    return re.sub(r"\$\{(\w+)[^}]*\}", lambda found: f"a0{found[1].lower().replace('_', '')}", text)


def test_what_it_asks_for_is_in_the_example_and_nothing_else() -> None:
    asked = set(re.findall(r"(?<!\$)\$\{(\w+)", TEXT))
    example = dict(line.split("=", 1) for line in (FOLDER / ".env.example").read_text().splitlines() if "=" in line)
    assert asked == set(example)
    assert set(example.values()) == {""}, "no password is shipped"
    ignored = subprocess.run(["git", "check-ignore", "-q", str(FOLDER / ".env")], cwd=ROOT, check=False).returncode
    assert ignored in (0, 128), "git must not take it (128: no git repository here)"


def test_the_replicas_are_alike_but_for_their_data() -> None:
    assert len(GATEWAYS) == 2
    volumes = [each["volumes"] for each in GATEWAYS.values()]
    assert volumes[0][1:] == volumes[1][1:]
    assert len({each[0] for each in volumes}) == 2, "each has a data folder of its own"
    first, second = ({name: value for name, value in each.items() if name != "volumes"} for each in GATEWAYS.values())
    assert first == second
    environ = {name: filled(str(value)) for name, value in first["environment"].items()}
    assert set(environ) <= {variable.name for variable in VARIABLES}
    assert environ["REDIS_LEAST_REPLICAS"] == str(len(GATEWAYS))
    config = load(environ, cwd=Path("/nonexistent"))
    assert config.redis is not None
    assert config.redis.url.reveal() == "redis://:a0redispassword@redis:6379/0"
    assert config.redis.least_replicas == 2
    assert config.ledger.database_url is not None
    assert config.ledger.database_url.reveal() == "postgresql://keyturn:a0postgrespassword@postgres:5432/keyturn"
    assert config.server.grace_seconds == 5
    least = config.server.grace_seconds + config.server.drain_seconds + 5
    assert seconds(first["stop_grace_period"]) > least
    assert set(first["depends_on"]) == {"redis", "postgres"}


def test_every_container_is_bounded_named_by_a_major_version_and_holds_no_secret() -> None:
    for name, service in SERVICES.items():
        assert re.fullmatch(r"keyturn|(haproxy|redis|postgres):\d+(\.\d+)?-alpine", service["image"]), name
        assert service["restart"] == "unless-stopped"
        assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
        assert "mem_limit" in service
        assert "privileged" not in service
        for mount in service.get("volumes", ()):
            source = mount.partition(":")[0]
            assert source in COMPOSE["volumes"] or (FOLDER / source).exists()
        for port in service.get("ports", ()):
            assert (name, port) == ("balancer", "127.0.0.1:8000:8000"), "nothing else is reached from outside"
        for variable, value in service.get("environment", {}).items():
            if re.search("PASSWORD|URL", variable):
                assert "${" in value
    used = {mount.partition(":")[0] for service in SERVICES.values() for mount in service.get("volumes", ())}
    assert set(COMPOSE["volumes"]) <= used
    assert (FOLDER / GATEWAYS["keyturn-1"]["build"]["context"]).resolve() == ROOT


def test_redis_keeps_what_it_is_told_and_evicts_nothing() -> None:
    command = SERVICES["redis"]["command"][-1]
    for said in ("--appendonly yes", "--maxmemory-policy noeviction", "requirepass"):
        assert said in command
    assert "$$REDIS_PASSWORD" in command, "the shell in the container fills it in, and no list of processes shows it"


def test_the_balancer_sends_to_every_replica_that_is_ready() -> None:
    servers = dict(re.findall(r"^ *server (\S+) (\S+)$", BALANCER, re.MULTILINE))
    assert servers == {name: f"{name}:{each['environment']['KEYTURN_PORT']}" for name, each in GATEWAYS.items()}
    assert setting("balance") == "leastconn"
    method, path = re.findall(r"http-check send meth (\S+) uri (\S+)", BALANCER)[0]
    assert (method, path) in {(each.method, each.path) for each in ENDPOINTS if each.need == "nothing"}
    inter, fall = re.findall(r"inter (\d+)s fall (\d+)", BALANCER)[0]
    grace = float(GATEWAYS["keyturn-1"]["environment"]["KEYTURN_GRACE_SECONDS"])
    assert int(inter) * (int(fall) + 1) < grace, "a replica that leaves is seen before it refuses calls"


def test_the_balancer_neither_repeats_a_call_nor_cuts_one_short() -> None:
    assert setting("retry-on") == "conn-failure"
    total = Timeouts().total
    for name in ("hard-stop-after", "timeout client", "timeout server"):
        assert seconds(setting(name)) > total
    assert not re.search(r"option (http-buffer-request|forceclose|httpclose)|compression", BALANCER)
    assert "%HP" in setting("log-format"), "the path without its query"
    assert not re.search(r"%(HU|HQ|r|hr|\[)", setting("log-format"))
    for inside in ("/admin", "/metrics"):
        assert re.search(rf"acl inside path.* {inside}$", BALANCER, re.MULTILINE)


@pytest.mark.skipif(
    HAPROXY is None, reason="HAProxy is not installed here: its configuration is read by the tests above"
)
def test_haproxy_reads_its_configuration() -> None:
    command = [HAPROXY or "", "-c", "-f", str(FOLDER / "haproxy.cfg")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "ALERT" not in done.stderr


@pytest.mark.skipif(not docker_runs("compose", "version"), reason="no docker compose here: the YAML is checked instead")
def test_docker_compose_reads_its_file(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("REDIS_PASSWORD=a\nPOSTGRES_PASSWORD=b\n")
    command = [
        "docker",
        "compose",
        "-f",
        str(FOLDER / "compose.yaml"),
        "--env-file",
        str(tmp_path / "env"),
        "config",
        "-q",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or "env file" in done.stderr, done.stderr


def test_the_image_has_what_replicas_need() -> None:
    (first,) = [each for each in read((ROOT / "deploy" / "Dockerfile").read_text())[0].all("RUN") if " -r req" in each]
    lock = (ROOT / first.split(" -r ")[1]).read_text()
    assert {name for name in ("redis", "asyncpg") if f"\n{name}==" in lock} == {"redis", "asyncpg"}
