"""The memory of who made which signature: what is foreign to whom, what a client lost, how much is kept."""

from __future__ import annotations

import json
from typing import Any

import pytest

from keyturn.core import Candidate, Credential, Deployment, Message, Request, Signature, Text, ToolUse
from keyturn.dispatch import read_call
from keyturn.dispatch import signatures as memory
from keyturn.dispatch.signatures import SignatureMemory
from keyturn.providers import origin_of
from keyturn.wire import pack


def candidate(provider: str = "gemini", model: str = "gemini-3-pro", secret: str = "a") -> Candidate:
    return Candidate(Deployment(provider, model), Credential.of(provider, secret))


def gemini(signature: str) -> Any:
    parts = [{"functionCall": {"name": "f", "args": {}}, "thoughtSignature": signature}]
    answer = [{"functionResponse": {"name": "f", "response": {}}}]
    contents = [{"role": "user", "parts": [{"text": "Hi"}]}, {"role": "model", "parts": parts}]
    body = {"contents": [*contents, {"role": "user", "parts": answer}]}
    return read_call("gemini", json.dumps(body).encode(), {}, "gemini-3-pro:generateContent")


def items(*given: dict[str, Any]) -> Any:
    """A call of Responses with this history."""
    body = {"model": "openai/gpt-5.1", "input": [{"role": "user", "content": "Hi"}, *given]}
    return read_call("responses", json.dumps(body).encode(), {})


def test_a_signature_is_foreign_to_whoever_did_not_make_it() -> None:
    known = SignatureMemory()
    maker = candidate()
    known.made(["AbC-_d=="], maker)
    assert not known.foreign(gemini("AbC-_d=="), maker)
    assert not known.foreign(gemini("AbC+/d"), maker), "the other alphabet of base64 is the same signature"
    assert known.foreign(gemini("AbC-_d=="), candidate(secret="b"))
    assert known.foreign(gemini("AbC-_d=="), candidate(model="gemini-2.5-pro"))
    assert not known.foreign(gemini("never seen"), candidate(secret="b"))


def test_a_packed_signature_is_never_relayed() -> None:
    packed = pack(Signature("AbCd", "anthropic", origin_of(candidate("anthropic", "claude"))))
    assert SignatureMemory().foreign(gemini(packed), candidate())


@pytest.mark.parametrize(
    ("history", "foreign"),
    [
        ([{"type": "reasoning", "id": "rs_1", "summary": []}], True),
        ([{"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": None}], True),
        ([{"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "AbCd"}], False),
        (
            [
                {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "AbCd"},
                {"type": "reasoning", "id": "rs_2", "summary": []},
            ],
            True,
        ),
        (
            [
                {"type": "compaction", "id": "cmp_1", "encrypted_content": "AbCd"},
                {"type": "reasoning", "id": "rs_2", "summary": []},
            ],
            True,
        ),
        ([{"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm"}]}], False),
        ([{"role": "assistant", "content": 'I said {"type": "reasoning"}.'}], False),
    ],
)
def test_thinking_that_only_kept_responses_could_prove(history: list[dict[str, Any]], foreign: bool) -> None:
    assert SignatureMemory().foreign(items(*history), candidate("openai", "gpt-5.1")) is foreign


def test_what_a_client_lost_is_found_by_the_id_of_the_call() -> None:
    known = SignatureMemory()
    signature = Signature("AbCd", "gemini", origin_of(candidate()))
    known.called([("call_7", signature)])
    lost = Request("openai_chat", "m", (Message("assistant", (ToolUse("call_7", "f"), ToolUse("call_8", "f"))),))
    (message,) = known.recalled(lost).messages
    assert message.parts == (ToolUse("call_7", "f", signature=signature), ToolUse("call_8", "f"))
    asked = Request("openai_chat", "m", (Message("user", (Text("Hi"),)),))
    assert known.recalled(asked) is asked


def test_the_maker_of_a_bare_signature_is_recalled() -> None:
    known = SignatureMemory()
    maker = candidate()
    known.made(["AbCd"], maker)
    bare = Signature("AbCd", "gemini")
    request = Request("gemini", "m", (Message("assistant", (Text("Hi", signature=bare),)),))
    (part,) = known.recalled(request).messages[0].parts
    assert part == Text("Hi", signature=Signature("AbCd", "gemini", origin_of(maker)))


def test_the_oldest_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MOST", 3)
    known = SignatureMemory()
    maker, other = candidate(), candidate(secret="b")
    for value in ("one", "two", "three"):
        known.made([value], maker)
    known.made(["one"], maker)
    known.made(["four"], maker)
    assert [known.foreign(gemini(value), other) for value in ("one", "two", "three", "four")] == [
        True,
        False,
        True,
        True,
    ]


def test_what_an_encoder_escapes_is_the_same_signature() -> None:
    """PHP writes `\\/`, and base64 is full of slashes."""
    known, maker = SignatureMemory(), candidate()
    known.made(["Ab/C/d"], maker)
    call = gemini("Ab/C/d")
    call.members = {name: value.replace(b"/", b"\\/") for name, value in call.members.items()}
    assert not known.foreign(call, maker)
    assert known.foreign(call, candidate(secret="b"))


def test_who_writes_about_our_mark_is_relayed() -> None:
    text = 'the prefix "kt1." is odd, and so is kt1.x'
    call = read_call("chat", json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}).encode(), {})
    assert not SignatureMemory().foreign(call, candidate())
    packed = pack(Signature("s", "gemini", origin_of(candidate())))
    held = {"id": "1", "type": "function", "function": {}, "extra_content": {"google": {"thought_signature": packed}}}
    messages = [{"role": "assistant", "tool_calls": [held]}]
    call = read_call("chat", json.dumps({"model": "m", "messages": messages}).encode(), {})
    assert SignatureMemory().foreign(call, candidate())


def claude(*turns: dict[str, Any], **more: Any) -> Any:
    body = {"model": "dev", "max_tokens": 3000, "messages": [{"role": "user", "content": "Hi"}, *turns], **more}
    return read_call("messages", json.dumps(body).encode(), {})


THINKS = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
ANSWERED = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "22"}]}
ASKED = {"type": "tool_use", "id": "t1", "name": "f", "input": {}}


@pytest.mark.parametrize(
    "block",
    [
        {"type": "thinking", "thinking": "t", "signature": ""},
        {"type": "redacted_thinking", "data": pack(Signature("x", "openai_responses", origin_of(candidate())))},
    ],
)
def test_thinking_that_anthropic_did_not_sign_is_foreign_to_it(block: dict[str, Any]) -> None:
    own = {"role": "assistant", "content": [block, {"type": "text", "text": "Yo"}]}
    call = claude(own, {"role": "user", "content": "More"})
    assert SignatureMemory().foreign(call, candidate("anthropic", "claude-sonnet-4-5"))


def test_a_turn_that_another_began_without_thinking_is_written_anew() -> None:
    known, asked = SignatureMemory(), candidate("anthropic", "claude-sonnet-4-5")
    begun = {"role": "assistant", "content": [ASKED]}
    assert known.foreign(claude(begun, ANSWERED, **THINKS), asked)
    assert not known.foreign(claude(begun, ANSWERED), asked), "nobody asked for thinking"
    thought = {"type": "thinking", "thinking": "t", "signature": "EqQB"}
    assert not known.foreign(claude({"role": "assistant", "content": [thought, ASKED]}, ANSWERED, **THINKS), asked)
    later = ({"role": "assistant", "content": "22"}, {"role": "user", "content": "And now?"})
    assert not known.foreign(claude(begun, ANSWERED, *later, **THINKS), asked), "a new turn thinks again"
