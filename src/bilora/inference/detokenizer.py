"""From tokens to text, piece by piece."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""What a decoder writes for bytes that are no whole character, or not yet."""


class Writer:
    """Turns tokens into text as they come, and ends it before the first stop string.

    The pieces put together are the decoded answer. Held back are the bytes of a character that is not yet
    whole, and text that may yet turn out to be the beginning of a stop string.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(text for text in stop if text)
        self._ids: list[int] = []
        self._context = 0  # where decoding starts: a decoder looks at the token before
        self._read = 0
        self._before = ""
        self._held = ""
        self.stopped = False

    def add(self, token: int) -> str:
        """Return the text that is certain now and was not before."""
        self._ids.append(token)
        text = self._decode(self._context)
        if text.endswith(UNFINISHED) or len(text) <= len(self._before):
            return ""
        fresh = text[len(self._before) :]
        self._context, self._read = self._read, len(self._ids)
        self._before = self._decode(self._context)
        return self._released(fresh)

    def end(self) -> str:
        """Return what was held back and is text after all."""
        rest = self._decode(self._context)[len(self._before) :]
        released = self._released(rest)
        if self.stopped:
            return released
        held, self._held = self._held, ""
        return released + held

    def _decode(self, start: int) -> str:
        text: str = self._tokenizer.decode(self._ids[start:], skip_special_tokens=True)
        return text

    def _released(self, fresh: str) -> str:
        text = self._held + fresh
        places = [place for place in (text.find(stop) for stop in self._stop) if place >= 0]
        if places:
            self.stopped, self._held = True, ""
            return text[: min(places)]
        keep = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Return how many last characters of `text` are the first ones of `stop`."""
    most = min(len(text), len(stop) - 1)
    return next((count for count in range(most, 0, -1) if text.endswith(stop[:count])), 0)
