"""Who waits where: lines of calls, the bundles that are served together, and what each caller has of the room."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Collection, Iterable
from math import log
from typing import Generic, NamedTuple, Protocol, TypeVar

from keyturn.core import CallerClass, Crowd, Deployment, Exhausted, Place, Queue, Shares, Supply, Weighed

FOREVER = float("inf")
TENTH = 0.1
"""Of a full room, what one caller may have when others want to come in."""
HOLDS = 1.0
"""Seconds that a supply, once worked out, is believed at least."""
QUARTER = log(1.25)
MOST_SORTS = 8
"""Sizes of calls of which the supplies are kept."""
MOST_SERVED = 1000
"""Of how many it is remembered when they were served."""


class Line(NamedTuple):
    """What is waited for. Calls of different configurations do not wait for one another: their pools differ."""

    generation: int
    deployments: tuple[Deployment, ...]


Held = tuple[Deployment, int]
"""A key that is kept for somebody: its deployment, and its position in the pool."""


class Closable(Protocol):
    """A grant that is given back when nobody is there any more to use it."""

    def close(self) -> None: ...


G = TypeVar("G", bound=Closable)
T = TypeVar("T", covariant=True)


class Asks(Protocol[T]):
    """A call that waits, as the room sees it."""

    @property
    def hindered(self) -> bool:
        """It has tried candidates already, so that the next in line may be able to use what it cannot."""
        ...

    @property
    def sent(self) -> bool:
        """Somebody was asked for it."""
        ...

    def take(self, kept: Collection[Held]) -> T | Exhausted:
        """What it waits for, if it can be had now; none of *kept*."""
        ...

    def fits_first(self, kept: Held | None) -> Held | None:
        """The key where it will fit first; None when nobody knows. *kept*: which that was before, if any."""
        ...

    def hopeless(self, latest: float) -> str:
        """Why it will not get anything by *latest* (monotonic seconds), as far as is known by now; else empty."""
        ...


class Waiter(Place, Generic[G]):
    """A call that waits. *size*: bytes of its request."""

    __slots__ = ("asks", "future", "latest", "present", "size", "standing")

    standing: Standing[G]
    """The line that it stands in, once it does."""

    def __init__(
        self, number: int, rank: CallerClass, caller: str, weight: float, cost: int, size: int, asks: Asks[G]
    ) -> None:
        super().__init__(number, rank, caller, weight, cost)
        self.size = size
        self.asks: Asks[G] | None = asks
        self.future: asyncio.Future[G | None] = asyncio.get_running_loop().create_future()
        self.latest = FOREVER
        """Until when it waits."""
        self.present = False
        """It has a place in the room."""


class Standing(Generic[G]):
    """One line, and who stands in it."""

    __slots__ = ("bundle", "due", "holder", "kept", "line", "queue", "small", "unjudged")

    def __init__(self, line: Line, bundle: Bundle[G]) -> None:
        self.line = line
        self.bundle = bundle
        self.queue = Queue(bundle.shares)
        self.due = FOREVER
        """When the first may get something, as far as was known when it last asked."""
        self.kept: Held | None = None
        self.holder = -1
        """For whom: its number."""
        self.small = 0.0
        """Tokens: who costs less may fit where those before it did not. 0: there is room for nobody."""
        self.unjudged: dict[int, Waiter[G]] = {}
        """Who came while nobody could know what attempts under way would leave, by number: to be judged once that is
        known."""

    def let_go(self, number: int) -> None:
        """No key is kept for the waiter *number* any more."""
        if number == self.holder:
            self.kept, self.holder = None, -1


class Made(NamedTuple):
    """A supply, and when and for what it was worked out."""

    supply: Supply
    at: float
    of: float
    """About how much one call takes of it."""
    taken: int
    """How many had got something by then."""


class Supplies:
    """The supplies of the same keys for calls of different sizes."""

    def __init__(self) -> None:
        self._made: dict[int, Made] = {}

    def get(self, size: float) -> Made | None:
        """That for calls of about *size*; None when there is none."""
        return self._made.get(sort_of(size))

    def put(self, made: Made) -> Made:
        """Keep *made* in mind."""
        sort = sort_of(made.of)
        self._made.pop(sort, None)
        self._made[sort] = made
        if len(self._made) > MOST_SORTS:
            del self._made[next(iter(self._made))]
        return made


class Known:
    """A large crowd, and until when and for how many calls more it is believed to be as it was."""

    __slots__ = ("crowd", "left", "until")

    def __init__(self, crowd: Crowd, until: float, left: int) -> None:
        self.crowd = crowd
        self.until = until
        self.left = left


def sort_of(size: float) -> int:
    """Calls of one sort differ by less than a quarter in size."""
    return round(log(max(size, 1e-6)) / QUARTER)


class Bundle(Generic[G]):
    """Lines that have deployments in common: whose turn it is, is decided over all of them."""

    def __init__(self, shares: Shares) -> None:
        self.shares = shares
        self.lines: dict[Line, Standing[G]] = {}
        self.turn = 0
        """When it was last served, counted in grants."""
        self.served: deque[float] = deque(maxlen=MOST_SERVED)
        """When the latest got what they waited for."""
        self.taken = 0
        """How many got it, ever."""
        self.supplies = Supplies()

    def has(self, rank: CallerClass, caller: str) -> Weighed | None:
        """What *caller* waits for in one class; None: nothing."""
        share = self.shares.ranks.get(rank)
        account = None if share is None else share.accounts.get(caller)
        if account is None or not account.calls:
            return None
        return Weighed(account.weight, float(account.work), float(account.calls))

    def kept(self, waiter: Waiter[G]) -> set[Held]:
        """The keys that *waiter* must not use, as they are kept for others; in its own line only for who was before."""
        return {
            each.kept
            for each in self.lines.values()
            if each.kept is not None and each.holder != waiter.number and (each.small or each is not waiter.standing)
        }

    def wants(self) -> dict[CallerClass, dict[str, Weighed]]:
        """What everybody waits for."""
        return {
            rank: {
                caller: Weighed(account.weight, float(account.work), float(account.calls))
                for caller, account in share.accounts.items()
                if account.calls
            }
            for rank, share in self.shares.ranks.items()
        }


class Lines(Generic[G]):
    """All lines that somebody stands in."""

    def __init__(self) -> None:
        self.lines: dict[Line, Standing[G]] = {}
        self._at: dict[Deployment, dict[Line, Standing[G]]] = {}
        """The lines that each deployment is waited for in."""
        self._wanted: Counter[tuple[int, Deployment]] = Counter()
        """How many those are, by configuration."""

    def wanted(self, generation: int, deployment: Deployment) -> bool:
        """Whether somebody waits for *deployment* by that configuration."""
        return (generation, deployment) in self._wanted

    def at(self, deployment: Deployment) -> Iterable[Standing[G]]:
        """The lines of those who wait for *deployment*."""
        return self._at.get(deployment, {}).values()

    def bundle(self, line: Line) -> Bundle[G] | None:
        """What *line* is, or would be, served together with; None when nobody waits for any of the same."""
        if not self.lines:
            return None
        standing = self.lines.get(line)
        if standing is not None:
            return standing.bundle
        for deployment in line.deployments:
            for standing in self.at(deployment):
                if standing.line.generation == line.generation:
                    return standing.bundle
        return None

    def due(self, line: Line) -> float:
        """When the first of *line* may get something (monotonic seconds); infinite when an attempt must end first."""
        standing = self.lines.get(line)
        if standing is not None:
            return standing.due
        return min((each.due for bundle in self._near(line) for each in bundle.lines.values()), default=FOREVER)

    def stand(self, line: Line, waiter: Waiter[G], *, counts_tokens: bool) -> Standing[G]:
        """*waiter* stands in *line* from now on. *counts_tokens*: what waits there counts by its tokens."""
        standing = self.lines.get(line) or self._open(line, counts_tokens=counts_tokens)
        if counts_tokens and not standing.bundle.shares.counts_tokens:
            self._bundle_up([standing.bundle], standing.bundle.lines.values(), counts_tokens=True)
        waiter.standing = standing
        standing.queue.add(waiter)
        return standing

    def close(self, standing: Standing[G]) -> None:
        """Nobody stands in it any more. Lines that have nothing in common without it part."""
        line, bundle = standing.line, standing.bundle
        del self.lines[line], bundle.lines[line]
        standing.due = FOREVER
        for deployment in dict.fromkeys(line.deployments):
            del self._at[deployment][line]
            if not self._at[deployment]:
                del self._at[deployment]
            key = (line.generation, deployment)
            self._wanted[key] -= 1
            if not self._wanted[key]:
                del self._wanted[key]
        if len(bundle.lines) > 1:
            parts = _parts(bundle.lines.values())
            for part in parts if len(parts) > 1 else ():
                self._bundle_up([bundle], part, counts_tokens=bundle.shares.counts_tokens)

    def _near(self, line: Line) -> dict[Bundle[G], None]:
        """What is waited for together with any deployment of *line*."""
        return {
            standing.bundle: None
            for deployment in line.deployments
            for standing in self.at(deployment)
            if standing.line.generation == line.generation
        }

    def _open(self, line: Line, *, counts_tokens: bool) -> Standing[G]:
        near = list(self._near(line))
        counts_tokens = counts_tokens or any(each.shares.counts_tokens for each in near)
        if len(near) == 1 and near[0].shares.counts_tokens == counts_tokens:
            bundle = near[0]
        else:
            lines = [standing for each in near for standing in each.lines.values()]
            bundle = self._bundle_up(near, lines, counts_tokens=counts_tokens)
        standing = self.lines[line] = bundle.lines[line] = Standing(line, bundle)
        for deployment in dict.fromkeys(line.deployments):
            self._at.setdefault(deployment, {})[line] = standing
            self._wanted[line.generation, deployment] += 1
        return standing

    def _bundle_up(
        self, before: Iterable[Bundle[G]], lines: Iterable[Standing[G]], *, counts_tokens: bool
    ) -> Bundle[G]:
        """Have *lines* served together from now on; what who was given *before* counts."""
        bundle: Bundle[G] = Bundle(Shares(counts_tokens=counts_tokens))
        for each in before:
            bundle.shares.take_over(each.shares)
        for standing in lines:
            standing.bundle = bundle
            bundle.lines[standing.line] = standing
            standing.queue.move(bundle.shares)
        return bundle


def _parts(lines: Iterable[Standing[G]]) -> list[list[Standing[G]]]:
    """*lines* in groups that have no deployment in common."""
    parts: list[tuple[set[Deployment], list[Standing[G]]]] = []
    for standing in lines:
        reach, members = set(standing.line.deployments), [standing]
        apart = []
        for deployments, others in parts:
            if reach.isdisjoint(deployments):
                apart.append((deployments, others))
            else:
                reach |= deployments
                members += others
        parts = [*apart, (reach, members)]
    return [members for _, members in parts]


class Holding(Generic[G]):
    """What one caller has of the room."""

    __slots__ = ("bytes", "waiters")

    def __init__(self) -> None:
        self.bytes = 0
        self.waiters: dict[int, Waiter[G]] = {}


class Holdings(Generic[G]):
    """What everybody has of a room of *most* places and *most_bytes* bytes."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self.most = most
        self.most_bytes = most_bytes
        self.count = 0
        self.bytes = 0
        self.waiters: dict[int, Waiter[G]] = {}
        """All, by number."""
        self.classes: Counter[CallerClass] = Counter()
        self._callers: dict[str, Holding[G]] = {}
        self._greedy: dict[str, None] = {}
        """Callers that have more than a tenth."""

    def fits(self, size: int) -> bool:
        """Whether there is a place, and *size* bytes."""
        return self.count < self.most and self.bytes + size <= self.most_bytes

    def gives_way(self, caller: str, size: int) -> Waiter[G] | None:
        """Who has to go for one more request of *caller*, which has less than a tenth: the newest of who has most, and
        more than a tenth. None: nobody has to."""
        own = self._callers.get(caller)
        count, held = (0, 0) if own is None else (len(own.waiters), own.bytes)
        if count >= max(1, TENTH * self.most) or held + size > TENTH * self.most_bytes:
            return None
        greedy = [name for name in self._greedy if name != caller]
        if not greedy:
            return None
        most = self._callers[max(greedy, key=lambda name: self._share(self._callers[name]))]
        return next(reversed(most.waiters.values()))

    def come(self, waiter: Waiter[G]) -> None:
        """*waiter* has a place from now on."""
        waiter.present = True
        self.waiters[waiter.number] = waiter
        holding = self._callers.setdefault(waiter.caller, Holding())
        holding.waiters[waiter.number] = waiter
        self._change(waiter, holding, 1)

    def go(self, waiter: Waiter[G]) -> None:
        """*waiter*, which had a place, has none any more."""
        waiter.present = False
        holding = self._callers[waiter.caller]
        del self.waiters[waiter.number], holding.waiters[waiter.number]
        self._change(waiter, holding, -1)
        if not holding.waiters:
            del self._callers[waiter.caller]

    def _change(self, waiter: Waiter[G], holding: Holding[G], step: int) -> None:
        self.count += step
        self.bytes += step * waiter.size
        self.classes[waiter.rank] += step
        holding.bytes += step * waiter.size
        if self._share(holding) > TENTH:
            self._greedy[waiter.caller] = None
        else:
            self._greedy.pop(waiter.caller, None)

    def _share(self, holding: Holding[G]) -> float:
        return max(len(holding.waiters) / self.most, holding.bytes / self.most_bytes)
