"""The example of a chat page: it can be imported, and talks through the smart client."""

from __future__ import annotations

import importlib.util
import sys
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from keyturn.errors import ProviderExhaustedError

PAGE = Path(__file__).parents[2] / "examples" / "streamlit_chat.py"
PICTURE = SimpleNamespace(type="image/png", getvalue=lambda: b"\x89PNG")


class Streamlit(ModuleType):
    """What the page uses of `streamlit`. *said* is what the user typed, *shown* what the page wrote."""

    def __init__(self) -> None:
        super().__init__("streamlit")
        self.shown: list[str] = []
        self.said: str | None = "Hello"
        self.pictures: list[Any] = []
        self.session_state: dict[str, Any] = {}
        self.sidebar = nullcontext()
        self.title = self.caption = self.markdown = self.error = self.shown.append

    def chat_input(self, label: str) -> str | None:
        return self.said

    def file_uploader(self, label: str, **options: Any) -> list[Any]:
        return self.pictures

    def chat_message(self, role: str) -> Any:
        return nullcontext()


class Client:
    def __init__(self) -> None:
        self.asked: list[tuple[list[dict[str, Any]], dict[str, Any]]] = []
        self.error: Exception | None = None

    def chat(self, messages: list[dict[str, Any]], **members: Any) -> str:
        self.asked.append((messages, members))
        if self.error is not None:
            raise self.error
        return "Hi there."

    def get_current_provider(self) -> str:
        return "groq"

    def get_status_summary(self) -> dict[str, Any]:
        return {"groq": {"total": 3, "available": 2}, "timestamp": "2026-01-01T00:00:00Z"}


@pytest.fixture
def streamlit(monkeypatch: pytest.MonkeyPatch) -> Streamlit:
    stub = Streamlit()
    monkeypatch.setitem(sys.modules, "streamlit", stub)
    return stub


@pytest.fixture
def page(streamlit: Streamlit, monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("streamlit_chat", PAGE)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    client = Client()
    monkeypatch.setattr(module, "get_smart_client", lambda: client)
    module.client = client
    return module


def test_VIS_03_importing_the_page_does_nothing(page: Any, streamlit: Streamlit) -> None:
    assert streamlit.shown == []
    assert page.client.asked == []


def test_VIS_03_VIS_04_a_turn_with_a_picture(page: Any, streamlit: Streamlit) -> None:
    streamlit.pictures = [PICTURE]
    page.main()
    [(messages, members)] = page.client.asked
    assert members == {"temperature": 0.7, "max_tokens": 1000}
    assert [message["role"] for message in messages] == ["system", "user"]
    text, image = messages[1]["content"]
    assert text == {"type": "text", "text": "Hello"}
    assert image["image_url"]["url"].startswith("data:image/png;base64,")
    assert streamlit.shown == ["Chat", "groq: 2/3 keys", "Hello", "Hi there.", "answered by groq"]
    streamlit.said, streamlit.pictures = "And now?", []
    page.main()
    assert [message["role"] for message in page.client.asked[-1][0]] == ["system", "user", "assistant", "user"]


def test_VIS_03_exhausted_keys_are_told_and_the_turn_can_be_tried_again(page: Any, streamlit: Streamlit) -> None:
    page.client.error = ProviderExhaustedError("All API keys exhausted: try later")
    page.main()
    assert streamlit.shown[-1] == "All API keys exhausted: try later"
    assert streamlit.session_state["history"] == []
    streamlit.said = None
    page.main()
    assert len(page.client.asked) == 1
