"""Hundreds of planted keys that an upstream echoes in every form: none may be found in anything that the gateway shows.

Looked through are answers and headers, both logs, recordings, metrics, every page, and all files of the data folder.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.security.exposed import PROVIDERS, Exposed, dealt
from tests.security.planted import ECHOES, more_secrets
from tests.security.talkative import Talkative, Words, page, plain
from tests.support import virtual

WORDS = (
    Words(status=400),
    Words(status=401),
    Words(status=429),
    Words(status=500),
    Words(status=200, media="text/html", body=page),
    Words(status=429, media="text/plain", body=plain),
    Words(when="first event"),
    Words(when="late event"),
    Words(when="late text"),
)
"""What the upstream says, each in all forms of ECHOES at once."""
MINUTE = 61.0
FORMS = 12
"""So many are promised."""


def planted_secrets(size: int, seed: int) -> list[str]:
    """*size* keys, each of which is echoed in every form, in every one of WORDS."""
    secrets = more_secrets(size)
    keys = dealt(secrets)
    upstream = Talkative()
    calls = 0

    async def main(folder: Path) -> Exposed:
        nonlocal calls
        async with Exposed(folder, upstream, keys) as exposed:
            clock = exposed.gateway.clock
            for words in WORDS:
                upstream.say(words)
                exposed.chapter = f"{words.when or words.status} {words.media}"
                for provider in PROVIDERS:
                    for turn in range(3 * len(keys[provider])):
                        exposed.gateway.reset(None)
                        await clock.sleep_until(clock.mono() + MINUTE)  # limits were learned from what it says
                        await exposed.chat(f"{provider}/small", stream=bool(words.when or turn % 2))
                        calls += 1
                        if upstream.heard >= set(keys[provider]):
                            break
                if upstream.heard != set(secrets):
                    raise RuntimeError(f"{len(set(secrets) - upstream.heard)} keys were never asked")
            exposed.chapter = "afterwards"
            await exposed.visit_pages()
        return exposed

    with tempfile.TemporaryDirectory() as folder:
        exposed = virtual.run(lambda: main(Path(folder)))
    hits = exposed.collected.hits(secrets)
    print(
        f"secrets: {len(secrets):,} keys in {len(ECHOES)} forms by {len(WORDS)} kinds of answers, {calls:,} calls, "
        f"{exposed.collected.size / 1e6:,.0f} MB looked through, {len(hits)} found"
    )
    wrong = [f"{hit.place}: {hit.form} of a key" for hit in hits]
    return wrong if len(ECHOES) >= FORMS else [*wrong, f"only {len(ECHOES)} forms"]
