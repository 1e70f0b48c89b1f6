"""Log lines: one per call, for people or as JSON, and what libraries log; no secret and no control character in any."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import TextIO

import msgspec

from keyturn.core import FOREVER, Attempt, Redactor
from keyturn.dispatch import CallEnded, Cooled, Event, LimitLearned, Reloaded, Rotated

LONGEST = 500
"""Characters of one field."""
_REMEMBERED = 4096
"""Texts whose clean form is kept: the same few routes, models and keys come up in every line."""


class Lines:
    """Turns events into log lines. *as_json* chooses JSON, one object per line."""

    def __init__(self, redactor: Redactor, *, as_json: bool = False) -> None:
        self._redactor = redactor
        self._as_json = as_json
        self._remembered = lru_cache(_REMEMBERED)(self._clean)
        self._places = lru_cache(_REMEMBERED)(self._place)

    def clean(self, text: str) -> str:
        """*text* on one line, without secrets, not longer than a line can bear."""
        return self._remembered(text) if len(text) <= LONGEST else self._clean(text)[:LONGEST]

    def line(self, event: Event, wall: float) -> str:
        """The line of *event*, which happened at *wall* (Unix seconds)."""
        if isinstance(event, CallEnded):
            return self._json_call(event, wall) if self._as_json else self._console_call(event, wall)
        if isinstance(event, Cooled):
            return self._cooled(event, wall)
        if isinstance(event, Rotated):
            return self._rotated(event, wall)
        if isinstance(event, Reloaded):
            return self._reloaded(event, wall)
        if isinstance(event, LimitLearned):
            return self.note(event.text, wall, "limit_learned")
        return self.note(event.text, wall, "alarm")

    def note(self, text: str, wall: float, kind: str = "note") -> str:
        """A line of prose: start, stop, an alarm, something the owner should know."""
        if self._as_json:
            return _json({"time": _stamp(wall), "event": kind, "text": self.clean(text)})
        return f"{_clock(wall)} {'ALARM: ' if kind == 'alarm' else ''}{self.clean(text)}"

    def _cooled(self, event: Cooled, wall: float) -> str:
        key, model, reason = self.clean(event.key), self.clean(event.model), self.clean(event.reason)
        seconds = round(event.seconds, 3) if event.seconds < FOREVER else None
        if self._as_json:
            row = {"provider": event.provider, "key": key, "model": model, "reason": reason, "seconds": seconds}
            return _json({"time": _stamp(wall), "event": "cooldown", **row})
        rest = f"rests for {seconds:.0f} s" if seconds is not None else "is out of use"
        return f"{_clock(wall)} {key or event.provider} {rest}{f' on {model}' if model else ''}: {reason}"

    def _rotated(self, event: Rotated, wall: float) -> str:
        if self._as_json:
            row = {"provider": event.provider, "position": event.position, "count": event.count}
            return _json({"time": _stamp(wall), "event": "rotation", **row})
        return f"{_clock(wall)} {event.provider}: key {event.position} of {event.count} is in use now"

    def _reloaded(self, event: Reloaded, wall: float) -> str:
        changes, problems = [*map(self.clean, event.changes)], [*map(self.clean, event.problems)]
        if self._as_json:
            row = {"result": "invalid" if problems else "ok", "problems": problems, "changes": changes}
            return _json({"time": _stamp(wall), "event": "reload", **row})
        if problems:
            return f"{_clock(wall)} the changed configuration is not used: {'; '.join(problems)}"
        return f"{_clock(wall)} the configuration was read again: {'; '.join(changes) or 'nothing is different'}"

    def _console_call(self, event: CallEnded, wall: float) -> str:
        trail, clean = event.trail, self.clean
        input_tokens, output_tokens, exact = tokens_of(trail.attempts)
        line = f"{_clock(wall)} {trail.call} {clean(trail.route) or '-'} {trail.status or 'left'}"
        if trail.code:
            line += f" {clean(trail.code)}"
        line += f" {_ms(trail.started, trail.ended):.0f} ms"
        if trail.waited:
            line += f" waited {trail.waited * 1000:.0f} ms"
        if input_tokens or output_tokens:
            line += f" {'' if exact else '~'}{input_tokens}+{output_tokens} tokens"
        for attempt in trail.attempts:
            line += self._console_attempt(attempt)
        if trail.refusals and not trail.attempts:
            line += " | " + "; ".join(map(clean, trail.refusals))
        if trail.notes:
            line += " | " + "; ".join(map(clean, trail.notes))
        return line

    def _console_attempt(self, attempt: Attempt) -> str:
        clean, detail = self.clean, ""
        outcome = clean(attempt.meaning) or "unfinished"
        if attempt.meaning != "ok":
            if attempt.status is not None:
                outcome += f" {attempt.status}"
            if attempt.detail:
                detail = f" ({clean(attempt.detail)})"
        known = self._places if len(attempt.model) <= LONGEST else self._place
        place = known(attempt.provider, attempt.model, attempt.key)
        return f" | {place} → {outcome} → {_ms(attempt.started, attempt.ended):.0f} ms{detail}"

    def _place(self, provider: str, model: str, key: str) -> str:
        return f"{self.clean(provider)} → {self.clean(model)} → {self.clean(key)}"

    def _json_call(self, event: CallEnded, wall: float) -> str:
        trail, clean = event.trail, self.clean
        input_tokens, output_tokens, exact = tokens_of(trail.attempts)
        return _json(
            {
                "time": _stamp(wall),
                "event": "call",
                "call": trail.call,
                "caller": clean(event.caller.name),
                "route": clean(trail.route),
                "stream": trail.stream,
                "status": trail.status,
                "code": clean(trail.code),
                "ms": round(_ms(trail.started, trail.ended), 1),
                "waited_ms": round(trail.waited * 1000, 1),
                "tokens": {"input": input_tokens, "output": output_tokens, "exact": exact},
                "attempts": [attempt_row(attempt, clean) for attempt in trail.attempts],
                "refusals": [clean(text) for text in trail.refusals],
                "notes": [clean(text) for text in trail.notes],
                **({"trace": trail.trace.trace_id} if trail.trace is not None else {}),
            }
        )

    def _clean(self, text: str) -> str:
        text = self._redactor.text(text)
        return text if text.isprintable() else "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def attempt_row(attempt: Attempt, clean: Callable[[str], str]) -> dict[str, object]:
    """One attempt as JSON logs and recordings show it; times in milliseconds."""
    first = attempt.first_token
    return {
        "provider": clean(attempt.provider),
        "model": clean(attempt.model),
        "key": clean(attempt.key),
        "meaning": clean(attempt.meaning) or "unfinished",
        "status": attempt.status,
        "ms": round(_ms(attempt.started, attempt.ended), 1),
        "first_token_ms": round(_ms(attempt.started, first), 1) if first is not None else None,
        "detail": clean(attempt.detail),
        "resend": attempt.resend,
    }


def tokens_of(attempts: list[Attempt]) -> tuple[int, int, bool]:
    """Input and output tokens that all attempts of a call used, and whether every figure is the upstream's own."""
    input_tokens, output_tokens, exact = 0, 0, True
    for attempt in attempts:
        usage = attempt.usage
        if usage is not None:
            input_tokens += usage.input
            output_tokens += usage.output
            exact = exact and usage.exact
    return input_tokens, output_tokens, exact


class RedactedFormatter(logging.Formatter):
    """Formats what libraries log, tracebacks included, without secrets."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S")
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        return self._redactor.text(super().format(record))


def redact_libraries(redactor: Redactor, stream: TextIO) -> None:
    """Sends what is logged through `logging`, by libraries and by us, to *stream*, redacted; warnings and above."""
    sink = logging.StreamHandler(stream)
    sink.setFormatter(RedactedFormatter(redactor))
    root = logging.getLogger()
    root.handlers[:] = [sink]
    root.setLevel(logging.WARNING)
    # uvicorn repeats what the server has logged by itself, and reports every malformed request of a port scan.
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)


def _json(row: dict[str, object]) -> str:
    return msgspec.json.encode(row).decode()


def _ms(start: float, end: float | None) -> float:
    return (end - start) * 1000 if end is not None else 0.0


def _stamp(wall: float) -> str:
    moment = datetime.fromtimestamp(wall, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def _clock(wall: float) -> str:
    """The time of day where the gateway runs."""
    return _clock_at(int(wall))


@lru_cache(16)
def _clock_at(second: int) -> str:
    return f"{datetime.fromtimestamp(second):%H:%M:%S}"
