"""What a gateway finds out while it works, and how it adapts to it: one place for all who learn from outcomes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from keyturn.core import Limit, Strangers, overload

from .steadiness import Steadiness

if TYPE_CHECKING:
    from keyturn.config import Config, Pin
    from keyturn.core import Outcome

    from .committing import Early
    from .exchange import Exchange
    from .gateway import Gateway
    from .hedging import Watched
    from .kinship import Kindred
    from .learning import Learning
    from .narrowing import Narrowing

    Onlooker = Callable[[Exchange, Outcome], None]
    """Learns from outcomes: of each that is no success, and of successes while its name stands in `Adapting.alert`."""


LOOK_EVERY = 5.0
"""Seconds between two looks at how soon a key's streams begin."""
SPARED = LOOK_EVERY - 0.1
"""By how much sooner it is looked at while more than three attempts are under way."""
SPOKEN = ("chat", "completions")
"""What kinds of streams begin with the first token; others are files."""


class Adapting:
    """Belongs to one gateway and outlives its configurations."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.onlookers: list[Onlooker] = []
        """Who learns from outcomes, told in this order after the cooldowns are set."""
        self.alert: set[str] = set()
        """Who of them wants to see successes too, by name: empty while all is well, so that a success costs nothing."""
        self.steadiness = Steadiness(gateway)
        """How failing providers are treated."""
        self.onlookers.append(self.steadiness.look)
        self._kindred: Kindred | None = None
        self.onlookers.append(self._together)
        self.onlookers.append(self._limited)
        self.strangers = Strangers()
        """What others use of our keys."""
        self._learning: Learning | None = None
        self.pins: Sequence[Pin] = ()
        """The limits that the owner pinned."""
        self.onlookers.append(self._crowded)
        self._narrowing: Narrowing | None = None
        self.holding = 0
        """Calls that wait for who holds their prompt cache."""
        self.early: set[Early] = set()
        """Streams that may begin, or began, before anybody answered; until somebody does."""
        self.watched: Watched | None = None
        """What is known of slow calls, where any may be sent a second time."""

    @property
    def learning(self) -> Learning:
        """What learns limits; loaded with the first that there is to learn."""
        if self._learning is None:
            from .learning import Learning

            self._learning = Learning(self._gateway)
        return self._learning

    def _limited(self, exchange: Exchange, outcome: Outcome) -> None:
        """A refusal for a key's own limit tells how large that is: in its words, or by what was sent until then."""
        own = outcome.meaning in ("rate_limited", "daily_quota") and outcome.scope in ("key", "quota_group")
        if not own or outcome.no_quota or not exchange.run.generation.config.learning.enabled:
            return
        if outcome.stated is not None:
            self.learning.told(exchange, *outcome.stated)
        elif outcome.meaning == "rate_limited" and not self.unclear(exchange):
            self.learning.refused(exchange, outcome)

    def lasting(self, exchange: Exchange, outcome: Outcome) -> float | None:
        """Seconds that a key is to rest which was refused so often that it cannot be for a minute's limit; None: as
        the table says."""
        if (
            outcome.meaning != "rate_limited"
            or outcome.wait_s is not None
            or outcome.scope not in ("key", "quota_group")
        ):
            return None
        config = exchange.run.generation.config
        return self.learning.lasting(exchange) if config.learning.enabled and config.cooldown == "adaptive" else None

    @property
    def narrowing(self) -> Narrowing:
        """What bounds how many attempts are under way at once; loaded with the first sign of overload."""
        if self._narrowing is None:
            from .narrowing import Narrowing

            self._narrowing = Narrowing(self._gateway)
        return self._narrowing

    @property
    def narrowed(self) -> int:
        """How many quota groups and models are sent fewer requests at once."""
        return 0 if self._narrowing is None else len(self._narrowing)

    def _crowded(self, exchange: Exchange, outcome: Outcome) -> None:
        """An overload tells how many attempts at once are too many."""
        if exchange.run.generation.config.steady.learned_concurrency and (
            self._narrowing is not None or overload(outcome)
        ):
            self.narrowing.look(exchange, outcome)

    def begun(self, exchange: Exchange, now: float) -> None:
        """A stream has its first content: how soon that came tells whether calls wait there. To be told of all streams
        of a key with more than three attempts under way, and of others now and then."""
        entry = exchange.grant.entry
        if now < entry.onset_due - SPARED:
            return
        entry.onset_due = now + LOOK_EVERY
        if exchange.run.generation.config.steady.learned_concurrency and exchange.run.call.kind in SPOKEN:
            self.narrowing.begun(exchange, now)

    @property
    def kindred(self) -> Kindred:
        """What finds out which keys share a quota; loaded with the first 429 in a pool of several keys."""
        if self._kindred is None:
            from .kinship import Kindred

            self._kindred = Kindred(self._gateway, self._gateway.carried.folder)
        return self._kindred

    def _together(self, exchange: Exchange, outcome: Outcome) -> None:
        """Who is refused together, and who is not, tells which keys share a quota."""
        if exchange.run.generation.config.learning.groups != "off" and (
            self._kindred is not None
            or (outcome.meaning in ("rate_limited", "daily_quota") and len(exchange.grant.pool.entries) > 1)
        ):
            self.kindred.look(exchange, outcome)

    def unclear(self, exchange: Exchange) -> bool:
        """Whether it is not clear just now whose quota was used up."""
        if self._kindred is None:
            return False
        return self._kindred.tests(exchange.grant.pool, exchange.grant.entry)

    def is_suspected(self, exchange: Exchange) -> bool:
        """Whether the key may share its quota with another one."""
        return self._kindred is not None and self._kindred.suspects(exchange.grant.entry)

    def let_wait(self, exchange: Exchange) -> None:
        """A key refused for a minute's limit: where others may share it, the call may come back to them."""
        if self._kindred is not None:
            self._kindred.let_wait(exchange.run, exchange.grant)

    def groups(self) -> list[dict[str, object]]:
        """The quota groups that were found out, and those that were only told of, with their evidence."""
        return [] if self._kindred is None else self._kindred.told()

    def ungroup(self, fingerprints: Sequence[str]) -> list[str]:
        """The owner says that these keys share with nobody; the fingerprints of all that were in groups with them."""
        return [] if self._kindred is None else self._kindred.ungroup(fingerprints)

    def grouped(self, config: Config) -> Config:
        """*config* with the quota groups that were found out."""
        return config if self._kindred is None else self._kindred.grouped(config)

    def resume(self) -> None:
        """Go on learning where an earlier process, or others, had come to."""
        folder = self._gateway.carried.folder
        if folder is not None and self._gateway.config.learning.groups != "off" and folder.groups_file.exists():
            config = self.kindred.grouped(self._gateway.config)
            if config is not self._gateway.config:
                self._gateway.adopt(config)
        learned = self._gateway.live.meters.book.every_learned()
        self._hear_of_crowds(limit for limit, _ in learned)
        if self._gateway.config.learning.enabled and learned:
            self.learning.resume()

    def heard(self, limits: tuple[Limit, ...]) -> None:
        """Other gateways learned *limits*, or forgot them."""
        self._hear_of_crowds(limits)
        if self._gateway.config.learning.enabled:
            self.learning.heard(limits)

    def _hear_of_crowds(self, limits: Iterable[Limit]) -> None:
        found = [limit for limit in limits if limit.metric == "concurrency"]
        if found and self._gateway.config.steady.learned_concurrency:
            self.narrowing.heard(found)

    def cleared(self) -> None:
        """The owner had learned limits forgotten."""
        if self._learning is not None:
            self._learning.cleared()

    def hindered(self, limit: Limit) -> None:
        """A call was kept away by *limit*, which was learned."""
        if self._learning is not None:
            self._learning.hindered(limit)

    async def close(self) -> None:
        """The gateway ends."""
        for early in list(self.early):
            early.stop()
            await early.ended()
        if self._learning is not None:
            self._learning.close()
        if self._kindred is not None:
            await self._kindred.close()
