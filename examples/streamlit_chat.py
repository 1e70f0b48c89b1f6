"""A chat page on the pool: `streamlit run examples/streamlit_chat.py`, with keys in the environment or in `.env`.

Pictures may be attached; they go to models that see. Which provider answered stands below each answer.
"""

from __future__ import annotations

import base64
from typing import Any

import streamlit as st

from keyturn import get_smart_client

TEMPERATURE = 0.7
MAX_TOKENS = 1000
SYSTEM = "You are a helpful assistant."


def answer(history: list[dict[str, Any]]) -> tuple[str, str | None]:
    """The next turn of *history*, and which provider gave it. Raises RuntimeError when no key can answer."""
    client = get_smart_client()
    messages = [{"role": "system", "content": SYSTEM}, *history]
    text = client.chat(messages, temperature=TEMPERATURE, max_tokens=MAX_TOKENS)
    return text, client.get_current_provider()


def turn(text: str, pictures: list[tuple[str, bytes]]) -> dict[str, Any]:
    """What the user says, with *pictures* as (media type, bytes)."""
    if not pictures:
        return {"role": "user", "content": text}
    parts: list[dict[str, Any]] = [{"type": "text", "text": text}]
    for media, data in pictures:
        url = f"data:{media};base64,{base64.b64encode(data).decode()}"
        parts.append({"type": "image_url", "image_url": {"url": url}})
    return {"role": "user", "content": parts}


def keys_available() -> list[str]:
    """One line for each provider: how many of its keys can answer now."""
    status = get_smart_client().get_status_summary()
    return [
        f"{provider}: {row['available']}/{row['total']} keys"
        for provider, row in status.items()
        if provider != "timestamp"
    ]


def main() -> None:
    """The page; Streamlit runs it from the top after every input."""
    st.title("Chat")
    history: list[dict[str, Any]] = st.session_state.setdefault("history", [])
    with st.sidebar:
        pictures = st.file_uploader("Pictures", type=["jpg", "jpeg", "png"], accept_multiple_files=True)
        for line in keys_available():
            st.caption(line)
    for message in history:
        content = message["content"]
        with st.chat_message(message["role"]):
            st.markdown(content if isinstance(content, str) else content[0]["text"])
    said = st.chat_input("Message")
    if not said:
        return
    history.append(turn(said, [(each.type, each.getvalue()) for each in pictures or []]))
    with st.chat_message("user"):
        st.markdown(said)
    with st.chat_message("assistant"):
        try:
            text, provider = answer(history)
        except RuntimeError as error:
            history.pop()
            st.error(str(error))
            return
        st.markdown(text)
        st.caption(f"answered by {provider}")
    history.append({"role": "assistant", "content": text})


if __name__ == "__main__":
    main()
