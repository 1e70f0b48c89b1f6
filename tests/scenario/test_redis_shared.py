"""Eight gateways in processes of their own share one limit through Redis; the upstream's exact log is the judge."""

from __future__ import annotations

import sys

import pytest

from tools.torture.shared import shared


@pytest.mark.realtime
@pytest.mark.skipif(sys.platform == "win32", reason="the gateways are forked")
def test_eight_gateways_stay_within_one_limit_and_use_it() -> None:
    # How much of the limit is used is a question of the machine; `make torture` asks for 97 %.
    found, said = shared(8, 20.0, 5.0, 500, least_use=0.5)
    assert found == [], said
