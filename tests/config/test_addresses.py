"""Base URLs: https anywhere, plain http at home only, nothing beside scheme, host, port and path."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyturn.config import load
from keyturn.errors import ConfigError


def base(url: str) -> str:
    return load({"MYSERVER_API_BASE": url}, cwd=Path("/nonexistent")).providers["myserver"].base_url


@pytest.mark.parametrize(
    "url",
    [
        "https://api.example.com/v1",
        "https://api.example.com:8443/a/b",
        "http://127.0.0.1:1234/v1",
        "http://127.8.9.10/v1",
        "http://[::1]:1234/v1",
        "http://[fd00::1]/v1",
        "http://localhost:11434/v1",
        "http://10.1.2.3/v1",
        "http://172.31.0.1/v1",
        "http://192.168.0.1/v1",
        "http://100.64.0.1/v1",
        "http://ollama:11434/v1",
        "http://gpu-box.local/v1",
        "http://llm.internal:8080/v1",
    ],
)
def test_accepted(url: str) -> None:
    assert base(url) == url


def test_slashes_at_the_end_go() -> None:
    assert base(" https://api.example.com/v1// ") == "https://api.example.com/v1"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("api.example.com/v1", "must start with https://"),
        ("ftp://host/v1", "must start with https://"),
        ("https:///v1", "must start with https://"),
        ("http://api.example.com/v1", "plain http is for this machine and private networks only"),
        ("http://8.8.8.8/v1", "plain http is"),
        ("http://172.32.0.1/v1", "plain http is"),
        ("http://169.254.169.254/v1", "plain http is"),
        ("http://134744072/v1", "plain http is"),
        ("http://0x08080808/v1", "plain http is"),
        ("http://0.0.0.0/v1", "plain http is"),
        ("http://evil.localhost.example.com/v1", "plain http is"),
        ("https://user:hunter2@host/v1", "holds a user name or password"),
        ("https://host@evil.example/v1", "holds a user name or password"),
        ("https://host/v1?key=hunter2", "holds a query or a fragment"),
        ("https://host/v1?", "holds a query or a fragment"),
        ("https://host/v1#hunter2", "holds a query or a fragment"),
        ("https://host:99999/v1", "is not a URL"),
        ("https://[::1/v1", "is not a URL"),
        ("https://-/v1", "has no valid host and port"),
        ("https://ho st/v1", "holds a space"),
        ("https://hösť/v1", "holds a space or another character"),
        ("https://host\\evil/v1", "holds a space or another character"),
        ("https://host/v1/chat/completions", "write the base URL"),
        ("hunter2", "must start with https://"),
    ],
)
def test_refused_with_the_reason_and_without_quoting_it(url: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        base(url)
    (problem,) = caught.value.problems
    assert problem.startswith("MYSERVER_API_BASE: ")
    assert said in problem
    assert "hunter2" not in problem
