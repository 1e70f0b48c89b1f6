"""Plays providers: an ASGI app with true limiters, real error bodies and headers, and a script of faults.

It counts its own 429s: the judge of a limiter is the upstream, never our counters.
"""

from .app import Simulator, application
from .personas import PERSONAS, Persona, rate_headers
from .quotas import KeyRule, Quota, Refusal
from .record import Exchange
from .saying import answer_of
from .script import Fault, fault_of

__all__ = [
    "PERSONAS",
    "Exchange",
    "Fault",
    "KeyRule",
    "Persona",
    "Quota",
    "Refusal",
    "Simulator",
    "answer_of",
    "application",
    "fault_of",
    "rate_headers",
]
