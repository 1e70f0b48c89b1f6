"""The long checks at a small size: what they find here they would find at full size too (`make torture`)."""

from __future__ import annotations

import pytest

from tools.torture.cancelled import cancellations
from tools.torture.cancelled_redis import cancellations_on_redis
from tools.torture.limits import limits
from tools.torture.planted import planted_secrets
from tools.torture.streams import cut_streams, end_of, judged


def test_limits_against_exact_logs() -> None:
    assert limits(30_000, seed=5) == []


def test_streams_cut_at_random_places() -> None:
    assert cut_streams(400, seed=5) == []


def test_a_thousand_cancellations() -> None:
    assert cancellations(1_000, seed=5) == []


def test_a_thousand_cancellations_on_redis() -> None:
    assert cancellations_on_redis(1_000, seed=5) == []


def test_what_a_cancelled_call_leaves_in_redis_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge can say no: nobody tells Redis that an attempt was given up."""
    import tools.torture.cancelled_redis as check
    from keyturn.stores.redis_state import RedisState

    monkeypatch.setattr(check, "PATIENCE", 0.2)
    monkeypatch.setattr(RedisState, "release", lambda state, attempt_id: state.meters.release(attempt_id))
    found = check.cancellations_on_redis(check.TOGETHER, seed=5)
    assert any("leases in Redis" in each for each in found)
    assert any("records in Redis" in each for each in found)


def test_planted_secrets_in_every_form() -> None:
    assert planted_secrets(50, seed=5) == []


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        (b'data: {"choices":[{"delta":{"content":"Hi"}}]}\n\n', "neither whole nor told to be cut"),
        (b'data: {"choices":[{"finish_reason":"stop"}]}\n\ndata: [DO', ""),
        (b'data: {"choices":[{"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n', ""),
        (b'data: {"error":{"code":"upstream_interrupted"}}\n\n', ""),
        (b'data: {"error":{}}\n\ndata: [DONE]\n\n', "both whole and cut"),
        (b'event: message_stop\ndata: {"type":"mess', "neither whole nor told to be cut"),
        (b'event: message_stop\ndata: {"type":"message_stop"}\n\n', ""),
        (b'data: {"candidates":[{"content":{}}]}\r\n\r\n', "neither whole nor told to be cut"),
        (b'data: {"candidates":[{"finishReason":"STOP"}]}\r\n\r\n', ""),
        (b'data: {"type":"response.completed","response":{}}\n\n', ""),
        (b'data: {"type":"response.output_text.delta","delta":"Hi"}\n\n', "neither whole nor told to be cut"),
    ],
)
def test_the_judge_of_streams(body: bytes, wrong: str) -> None:
    assert judged(end_of(body)) == wrong
