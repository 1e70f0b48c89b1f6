"""The long checks at a small size: what they find here they would find at full size too (`make torture`)."""

from __future__ import annotations

import pytest

from tools.torture.cancelled import cancellations
from tools.torture.cancelled_redis import cancellations_on_redis
from tools.torture.limits import limits
from tools.torture.planted import planted_secrets
from tools.torture.streams import cut_streams


def test_limits_against_exact_logs() -> None:
    assert limits(30_000, seed=5) == []


def test_streams_cut_at_random_places() -> None:
    assert cut_streams(400, seed=5) == []


def test_a_thousand_cancellations() -> None:
    assert cancellations(1_000, seed=5) == []


@pytest.mark.realtime
def test_a_thousand_cancellations_on_redis() -> None:
    assert cancellations_on_redis(1_000, seed=5) == []


@pytest.mark.realtime
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


def test_a_stream_that_looks_whole_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge can say no: with the mark of a cut in place of the terminal one every stream is wrong."""
    import tools.torture.streams as streams

    monkeypatch.setattr(streams, "TOLD", streams.TERMINAL)
    assert streams.cut_streams(40, seed=5)
