"""The long checks at full size: `make torture`. Each returns what it found wrong; exits 1 when that is anything.

make torture ARGS="limits streams --size 10000000 --seed 7"
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable

from keyturn import __version__


def _limits(size: int, seed: int) -> list[str]:
    from .limits import limits

    return limits(size, seed)


def _streams(size: int, seed: int) -> list[str]:
    from .streams import cut_streams

    return cut_streams(size, seed)


def _cancellations(size: int, seed: int) -> list[str]:
    from .cancelled import cancellations

    return cancellations(size, seed)


def _cancellations_on_redis(size: int, seed: int) -> list[str]:
    from .cancelled_redis import cancellations_on_redis

    return cancellations_on_redis(size, seed)


def _secrets(size: int, seed: int) -> list[str]:
    from .planted import planted_secrets

    return planted_secrets(size, seed)


def _kills(size: int, seed: int) -> list[str]:
    from .kills import kills

    return kills(size, seed)


def _kills_in_postgres(size: int, seed: int) -> list[str]:
    from .kills_postgres import kills_in_postgres

    return kills_in_postgres(size, seed)


def _soak(size: int, seed: int) -> list[str]:
    from .soak import soak

    return soak(size, seed)


def _shared(size: int, seed: int) -> list[str]:
    from .shared import shared_limit

    return shared_limit(size, seed)


def _shared_killed(size: int, seed: int) -> list[str]:
    from .shared import shared_limit_killed

    return shared_limit_killed(size, seed)


def _simulated(size: int, seed: int) -> list[str]:
    from .simulated import simulated_days

    return simulated_days(size, seed)


def _agreement(size: int, seed: int) -> list[str]:
    from .agreement import agreement

    return agreement(size, seed)


CHECKS: dict[str, tuple[Callable[[int, int], list[str]], int, str]] = {
    "limits": (_limits, 10_000_000, "admission decisions against exact logs"),
    "streams": (_streams, 100_000, "streams cut at a random place"),
    "cancellations": (_cancellations, 100_000, "calls whose client leaves at a random moment"),
    "cancellations-redis": (_cancellations_on_redis, 100_000, "the same on two gateways that share a real Redis"),
    "secrets": (_secrets, 500, "keys planted, echoed by the upstream in every form"),
    "kills": (_kills, 1_000, "SIGKILLs of a gateway under load, its ledger read afterwards"),
    "kills_postgres": (_kills_in_postgres, 50, "SIGKILLs of a gateway, and of the PostgreSQL behind it all the while"),
    "shared": (_shared, 130, "seconds that eight gateways share one limit through Redis"),
    "shared-killed": (_shared_killed, 130, "the same, and Redis is killed in the middle"),
    "simulated": (_simulated, 100, "% of a simulated day of 100 keys, at three loads"),
    "agreement": (_agreement, 900, "seconds of a scenario, simulated and on real sockets at five times the speed"),
    "soak": (_soak, 1800, "seconds of load with 5 % faults on a real gateway"),
}
"""Name → check(size, seed), its full size, and what is counted."""


def main() -> int:
    arguments = argparse.ArgumentParser(
        prog="make torture",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(f"{name:<19} {size:>12,} {what}" for name, (_, size, what) in CHECKS.items()),
    )
    arguments.add_argument("names", nargs="*", choices=[*CHECKS, []], help="which checks; all by default")
    arguments.add_argument("--size", type=int, help="how many of what each check counts")
    arguments.add_argument("--seed", type=int, default=1)
    options = arguments.parse_args()
    print(f"keyturn {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    failed = False
    for name in options.names or CHECKS:
        check, full, _ = CHECKS[name]
        started = time.monotonic()
        found = check(options.size or full, options.seed)
        print(f"{'FAIL' if found else 'PASS'}  {name}  ({time.monotonic() - started:.0f} s, seed {options.seed})")
        print(*found[:10], sep="\n", end="\n" if found else "")
        sys.stdout.flush()
        failed = failed or bool(found)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
