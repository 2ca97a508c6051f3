"""Event ids: ULIDs (github.com/ulid/spec), which need no central registry."""

from __future__ import annotations

import secrets
import time

from pydantic import TypeAdapter, ValidationError

from bilora.records import EventId

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base 32, without I, L, O and U, which people misread."""
LENGTH = 26
RANDOM_BITS = 80


def new_event_id(now_ms: int | None = None, *, after: str | None = None) -> str:
    """Return a new ULID: 48 bits of time in milliseconds since 1970, then 80 random bits.

    It sorts after the event `after`, even if the clock was set back.
    """
    time_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    if after is not None:
        time_ms = max(time_ms, _time_ms(after) + 1)
    number = (time_ms << RANDOM_BITS) | secrets.randbits(RANDOM_BITS)
    return "".join(ALPHABET[number >> shift & 31] for shift in range(5 * (LENGTH - 1), -1, -5))


def _time_ms(event_id: str) -> int:
    """Return the time of an event id."""
    number = 0
    for character in event_id:
        number = number << 5 | ALPHABET.index(character)
    return number >> RANDOM_BITS


def is_event_id(text: str) -> bool:
    """Return whether a text has the format of an event id."""
    try:
        TypeAdapter(EventId).validate_python(text)
    except ValidationError:
        return False
    return True
