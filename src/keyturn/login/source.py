"""The tokens of one account: which is in use, when it is renewed, what stands in the way."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from hashlib import sha256
from typing import NamedTuple

from keyturn.core import Account, Clock, Secret, TimerHandle, Transport, answered_at
from keyturn.errors import NoToken, TransportError
from keyturn.providers import Denied, Granted, read_token, renewal, token_request

from .exchange import Answer, ask
from .kept import LOCK_EVERY, Kept, TokenFolder
from .signing import signed_assertion

PATIENCE = 10.0
"""Seconds that a call waits for a token at most; it goes on with another credential then."""
TRIES = 3
PAUSES = (1.0, 3.0)
"""Seconds between the tries of one renewal."""
RESTS = (5.0, 10.0, 20.0, 40.0, 60.0)
"""Seconds after a renewal that failed, until the next may begin."""
FINAL_REST = 3600.0
"""The same after a refusal that only its owner can mend: perhaps he has, elsewhere."""
SOONEST = 10.0
"""Seconds between two renewals ahead of time: a token that holds for less is got when a call needs it."""
ONCE_IN = 60.0
"""Seconds after a renewal in which a token that is rejected is not replaced again."""
LOCK_PATIENCE = 30.0
SKEW = 30.0
"""Seconds that clocks may differ by before it is taken for the reason of a refusal."""
REMEMBERED = 16
"""Tokens that are looked for in texts, of those in use before: the oldest has ended long ago by then."""


class Means(NamedTuple):
    """What all sources of one pool share."""

    clock: Clock
    transport: Transport
    folder: TokenFolder
    hide: Callable[[Secret], None]
    """A secret that must not be seen."""
    forget: Callable[[Secret], None]
    """It need not be looked for any more."""
    tell: Callable[[str], None]
    """Something that the owner should know at once."""


class Tokens:
    """A `TokenSource`. One renewal at a time, in a task of its own; who waits for it may leave."""

    def __init__(self, name: str, shown: str, account: Account, means: Means) -> None:
        self.account = account
        self.latest = Secret("")
        self.trouble = ""
        self._name = name
        """Of its file."""
        self._shown = shown
        self._means = means
        self._clock = means.clock
        self._until = float("-inf")
        """Monotonic seconds to which the latest token holds."""
        self._renew_at = float("-inf")
        self._got_at = float("-inf")
        self._refresh = account.refresh_token
        self._seed = sha256(account.refresh_token.reveal().encode()).hexdigest() if account.refresh_token else ""
        self._flight: asyncio.Task[NoToken | None] | None = None
        self._timer: TimerHandle | None = None
        self._failed: NoToken | None = None
        self._rest_until = float("-inf")
        self._failures = 0
        self._rejected: Secret | None = None
        self._replaced_at = float("-inf")
        """When a token was last given up because it was rejected."""
        self._skew = 0.0
        self._held: deque[Secret] = deque()
        self._closed = False

    def current(self) -> Secret | None:
        return self.latest if self._clock.mono() < self._until else None

    async def obtain(self) -> Secret:
        now = self._clock.mono()
        if self._flight is None:
            if now < self._until:
                return self.latest
            if now < self._rest_until and self._failed is not None:
                wait = self._rest_until - now
                raise NoToken(self._failed.message, final=self._failed.final, retry_after=wait)
        failed = await self._wait(self._flight or self._begin())
        if failed is not None and (failed.final or self.current() is None):
            raise failed
        return self.latest

    def rejected(self, token: Secret) -> bool:
        if token != self.latest:
            return True  # it was replaced meanwhile
        if self._flight is not None:
            return True
        now = self._clock.mono()
        if now - self._replaced_at < ONCE_IN or now < self._rest_until:
            return False
        self._rejected, self._until, self._replaced_at = token, now, now
        return True

    def reset(self) -> None:
        self.trouble, self._failed, self._rest_until, self._failures = "", None, float("-inf"), 0

    def retire(self) -> None:
        """Renew no more ahead of time: only who still needs a token has one got."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    async def close(self) -> None:
        """Renew no more; a renewal under way may end first, for its refresh token may be used up by now."""
        self.retire()
        flight = self._flight
        if flight is not None:
            try:
                await self._wait(flight)
            finally:
                flight.cancel()
            await asyncio.wait([flight])

    async def _wait(self, flight: asyncio.Task[NoToken | None]) -> NoToken | None:
        """What *flight* comes to, or that it takes too long. Leaving does not end it."""
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake(_: object = None) -> None:
            if not over.done():
                over.set_result(None)

        flight.add_done_callback(wake)
        timer = self._clock.call_at(self._clock.mono() + PATIENCE, wake)
        try:
            await over
        finally:
            timer.cancel()
            flight.remove_done_callback(wake)
        if not flight.done() or flight.cancelled():
            return NoToken(f"{self.account.who} got no token within {PATIENCE:g} s", retry_after=RESTS[0])
        return flight.result()

    def _begin(self) -> asyncio.Task[NoToken | None]:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._flight = asyncio.create_task(self._renew(), name=f"token of {self._shown}")
        return self._flight

    async def _renew(self) -> NoToken | None:
        """Get a token, or find out why there is none."""
        try:
            await self._get()
            self.reset()
            self._rejected = None
            self._arm(max(self._renew_at, self._clock.mono() + SOONEST))
            return None
        except NoToken as error:
            return self._fail(error)
        except OSError as error:
            return self._fail(NoToken(f"the folder of tokens cannot be used: {error.strerror}"))
        finally:
            self._flight = None

    def _fail(self, error: NoToken) -> NoToken:
        now = self._clock.mono()
        rest = FINAL_REST if error.final else RESTS[min(self._failures, len(RESTS) - 1)]
        self._failures += 1
        self._failed, self._rest_until = error, now + rest
        if error.final:
            self._until = min(self._until, now)
            if not self.trouble:
                self._means.tell(f"{self._shown} is out of use: {error.message}")
            self.trouble = error.message
        elif now + rest < self._until:  # the old one holds: once more before it ends
            self._arm(now + rest)
        error.retry_after = rest
        return error

    def _arm(self, when: float) -> None:
        if not self._closed:
            self._timer = self._clock.call_at(when, self._due)

    def _due(self) -> None:
        self._timer = None
        if self._flight is None and not self._closed:
            self._begin()

    async def _get(self) -> None:
        if not self.account.rotates:
            self._take(*await self._ask(self._refresh))
            return
        lock = await self._locked()
        try:
            kept = await asyncio.to_thread(self._means.folder.read, self._name)
            if kept is not None and kept.seed == self._seed:
                self._refresh = kept.refresh
                if self._take_kept(kept):
                    return
            elif self._at_hand() and self._take_kept(self._from_account()):
                return
            if not self._refresh:
                raise NoToken(f"{self.account.who} has to log in: {self.account.remedy}", final=True)
            granted, asked = await self._ask(self._refresh)
            self._refresh = granted.refresh or self._refresh
            await self._keep(granted)
            self._take(granted, asked)
        finally:
            self._means.folder.unlock(lock)

    async def _locked(self) -> int:
        """The lock of this account; another process may be renewing its token just now."""
        until = self._clock.mono() + LOCK_PATIENCE
        while True:
            lock = self._means.folder.lock(self._name)
            if lock is not None:
                return lock
            now = self._clock.mono()
            if now >= until:
                raise NoToken(f"another process has been renewing the token of {self._shown} for {LOCK_PATIENCE:g} s")
            await self._clock.sleep_until(now + LOCK_EVERY)

    def _at_hand(self) -> bool:
        """Whether the configuration itself holds a token that was not used up."""
        return bool(self.account.access_token) and self._got_at < 0 and self.account.expires > 0

    def _from_account(self) -> Kept:
        account = self.account
        return Kept(account.access_token, account.refresh_token, 0.0, account.expires, self._seed)

    def _take_kept(self, kept: Kept) -> bool:
        """Use a token that somebody else got, when it is good for a while."""
        left = kept.expires - self._clock.wall()
        if kept.obtained:  # a clock that was set back must not make it last longer
            whole = kept.expires - kept.obtained
            left = min(left, whole)
        else:
            whole = left
        self._hide(kept.refresh)
        spare = whole - renewal(whole) if kept.refresh else 0.0
        if left <= spare or kept.access in (self._rejected, Secret("")):
            return False
        if kept.access == self.latest and self._clock.mono() >= self._renew_at:
            return False
        self._use(kept.access, left, left - spare)
        return True

    async def _keep(self, granted: Granted) -> None:
        """Put the tokens on the disk before the first of them is used: a refresh token may work only once."""
        now = self._clock.wall()
        kept = Kept(granted.token, self._refresh, now, now + granted.lifetime, self._seed)
        self._hide(self._refresh)
        self._hide(granted.token)
        try:
            await asyncio.to_thread(self._means.folder.write, self._name, kept)
        except OSError as error:  # it is used all the same: the one on the disk may be used up
            told = f"the tokens of {self._shown} cannot be kept ({error.strerror}): a restart needs a new login"
            self._means.tell(told)

    def _take(self, granted: Granted, asked: float) -> None:
        left = granted.lifetime - (self._clock.mono() - asked)
        self._use(granted.token, left, renewal(granted.lifetime))

    def _use(self, token: Secret, left: float, renew_in: float) -> None:
        now = self._clock.mono()
        self._hide(token)
        self.latest, self._got_at, self._until, self._renew_at = token, now, now + left, now + renew_in

    def _hide(self, secret: Secret) -> None:
        if not secret:
            return
        if secret in self._held:  # the least recent goes first: a refresh token may be in use for years
            self._held.remove(secret)
        else:
            self._means.hide(secret)
        self._held.append(secret)
        if len(self._held) > REMEMBERED:
            oldest = self._held.popleft()
            if oldest not in self.account.secrets:
                self._means.forget(oldest)

    async def _ask(self, refresh: Secret) -> tuple[Granted, float]:
        """What the authorisation server gives, and when it was asked. Raises NoToken."""
        problem = ""
        for pause in (*PAUSES[: TRIES - 1], None):
            asked = self._clock.mono()
            try:
                answer = await self._question(refresh)
            except TransportError as error:
                problem = error.message
            else:
                found = read_token(answer.status, answer.body, *self.account.secrets, refresh)
                if isinstance(found, Granted):
                    return found, asked
                if found.final and not self._was_skew(answer):
                    raise NoToken(self._refusal(found), final=True)
                problem = f"{found.code} {found.message}".strip()
            if pause is None:
                break
            await self._clock.sleep_until(self._clock.mono() + pause)
        hint = f" ({self.account.remedy})" if self.account.kind.endswith("metadata") else ""
        raise NoToken(f"{self.account.who} got no token: {problem}{hint}")

    async def _question(self, refresh: Secret) -> Answer:
        account, assertion = self.account, ""
        if account.kind == "service_account":
            now = self._clock.wall() + self._skew
            assertion = await asyncio.to_thread(signed_assertion, account, now)
        return await ask(self._means.transport, self._clock, token_request(account, refresh, assertion))

    def _was_skew(self, answer: Answer) -> bool:
        """Whether our clock may be why a signed request was refused: then it is asked again by the server's."""
        wall = self._clock.wall()
        skew = answered_at(answer.headers, wall) - wall
        if self.account.kind != "service_account" or abs(skew - self._skew) < SKEW:
            return False
        self._skew = skew
        return True

    def _refusal(self, denied: Denied) -> str:
        said = f"{denied.code}: {denied.message}" if denied.message else denied.code
        return f"{self.account.who} was refused a token ({said}); {self.account.remedy}"
