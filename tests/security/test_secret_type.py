"""A Secret shows itself to nobody: no way of printing, copying or encoding it, or what holds it, gives its value."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import json
import logging
import pickle
import pprint
import traceback
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import yaml

from keyturn.core import Candidate, Credential, Deployment, HttpRequest, Secret

from .planted import SECRETS, Scanner

VALUE = SECRETS[0]
SECRET = Secret(VALUE)
CREDENTIAL = Credential.of("groq", VALUE, 2)
HOLDERS = [
    SECRET,
    CREDENTIAL,
    Candidate(Deployment("groq", "small"), CREDENTIAL),
    HttpRequest("POST", "https://api.groq.com/v1", (), b"", ("authorization", "Bearer ", SECRET)),
    [SECRET],
    {"key": SECRET},
]
SHOWN: dict[str, Callable[[Any], object]] = {
    "repr": repr,
    "str": str,
    "format": lambda it: f"{it}",
    "percent": lambda it: "%s %r %a" % (it, it, it),  # noqa: UP031
    "join": lambda it: "".join([it]),
    "pprint": pprint.pformat,
    "logging": lambda it: logging.LogRecord("a", 10, "b", 1, "%s", (it,), None).getMessage(),
    "json": json.dumps,
    "json default": lambda it: json.dumps(it, default=str),
    "json vars": lambda it: json.dumps(it, default=vars),
    "msgspec json": msgspec.json.encode,
    "msgspec msgpack": msgspec.msgpack.encode,
    "msgspec builtins": msgspec.to_builtins,
    "asdict": lambda it: dataclasses.asdict(it),
    "pickle": pickle.dumps,
    "deepcopy": copy.deepcopy,
    "yaml": yaml.dump,
    "yaml safe": yaml.safe_dump,
    "bytes": lambda it: bytes(it),
    "list": lambda it: list(it),
    "error": lambda it: "".join(traceback.format_exception(ValueError(it))),
    "locals": lambda it: "".join(_with_locals(it)),
}


def _with_locals(it: Any) -> list[str]:
    try:
        raise ValueError(it)
    except ValueError as error:
        return list(traceback.TracebackException.from_exception(error, capture_locals=True).format())


@pytest.mark.parametrize("holder", HOLDERS, ids=lambda it: type(it).__name__)
@pytest.mark.parametrize("way", SHOWN)
def test_no_way_of_showing_it_gives_the_value(way: str, holder: Any) -> None:
    try:
        result = SHOWN[way](holder)
    except (TypeError, yaml.YAMLError) as error:
        result = error
    shown = result if isinstance(result, bytes) else f"{result!r} {result}".encode()
    assert Scanner([VALUE]).search(way, shown) == []


@pytest.mark.parametrize("way", ["pickle", "deepcopy", "msgspec json", "json", "yaml"])
def test_encoding_it_is_an_error_rather_than_a_mask(way: str) -> None:
    with pytest.raises(TypeError):
        SHOWN[way](SECRET)


def test_an_error_that_is_logged_by_asyncio_does_not_show_it() -> None:
    seen: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: seen.append(f"{context}"))
        loop.call_soon(lambda: {}[CREDENTIAL])  # type: ignore[index]
        await asyncio.sleep(0)

    asyncio.run(main())
    assert seen
    assert Scanner([VALUE]).search("asyncio", "".join(seen).encode()) == []


def test_it_is_there_for_who_asks_and_can_be_compared() -> None:
    assert SECRET.reveal() == VALUE
    assert Secret(VALUE) == SECRET
    assert Secret(VALUE[:-1]) != SECRET
    assert SECRET != VALUE
    assert bool(SECRET)
    assert not Secret("")
