"""The gateway as it comes, but that it can be told to record nothing from now on, and to record again: by SIGUSR1.

python -m tools.bench.switched serve …
"""

from __future__ import annotations

import signal
from typing import Any

from keyturn.cli import main
from keyturn.dispatch.gateway import Gateway
from keyturn.stores import NullLedger

_made = Gateway.__init__


def _make(gateway: Gateway, *given: Any, **named: Any) -> None:
    _made(gateway, *given, **named)
    ledgers = [NullLedger(), gateway.ledger]

    def switch(number: int, frame: object) -> None:
        ledgers.reverse()
        gateway.ledger = ledgers[1]

    signal.signal(signal.SIGUSR1, switch)


if __name__ == "__main__":
    Gateway.__init__ = _make  # type: ignore[method-assign, assignment]
    main()
