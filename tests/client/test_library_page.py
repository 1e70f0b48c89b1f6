"""The page about the library: its examples run, and it names every argument and method."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

import pytest

from keyturn import AsyncClient, Client
from keyturn.client.arguments import ARGUMENTS
from tests.support.serving import Upstreams

PAGE = Path(__file__).parents[2] / "docs" / "library.md"
ROLE = "roles:\n  senior_dev: { model_chain: [llama-3.1-8b-instant], providers: [groq] }\n"


def examples() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.realtime
@pytest.mark.parametrize("number", range(len(examples())))
def test_LIB_01_the_examples_of_the_page_run(
    elsewhere: Path, upstreams: Upstreams, number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    (elsewhere / "config").mkdir()
    (elsewhere / "config" / "roles.yaml").write_text(ROLE)
    space: dict[str, object] = {"__name__": "example"}
    exec(compile(examples()[number], f"library.md, example {number}", "exec"), space)
    main = space.get("main")
    if main is not None:
        asyncio.run(main())  # type: ignore[operator]
    client = space.get("client")
    if isinstance(client, Client) and "sign" in space:
        client.chat("Hello", "groq/llama-3.1-8b-instant")
        client.close()
        assert b'"user":"team-a"' in upstreams.seen()[-1].body
    assert "All API keys exhausted" not in capsys.readouterr().out
    assert os.getcwd() == str(elsewhere)


def test_LIB_02_every_argument_and_every_method_is_on_the_page() -> None:
    text = PAGE.read_text()
    assert [name for name in ARGUMENTS if f"`{name}`" not in text] == []
    for kind in (AsyncClient, Client):
        public = [name for name in vars(kind) if not name.startswith("_") and name not in ("of", "aclose")]
        assert [name for name in public if name not in text] == []
