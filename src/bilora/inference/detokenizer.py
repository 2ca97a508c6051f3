"""From tokens to text, one token at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bilora.bases.tokenizer import Tokenizer

_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
"""What a tokenizer decodes bytes to that are no complete character, or not yet."""


class IncrementalDetokenizer:
    """Decodes tokens as they come, and cuts the text before the first stop string.

    Joined, the returned texts are the decoded answer. The bytes of an incomplete character are held back, and text
    that may be the beginning of a stop string.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = (), *, min_tokens: int = 0) -> None:
        """Decode with `tokenizer`; a stop string that ends within the first `min_tokens` tokens is plain text."""
        self._tokenizer = tokenizer
        self._stop = tuple(text for text in stop if text)
        self._min_tokens = min_tokens
        self._ids: list[int] = []
        self._start = 0  # decoding starts a token early: its text may depend on the token before
        self._decoded_ids = 0
        self._prefix = ""  # the text that decoding from `_start` repeats
        self._held = ""
        self.stopped = False

    def add(self, token: int) -> str:
        """Return the text that this token has completed."""
        self._ids.append(token)
        text = self._decode(self._start)
        if text.endswith(_INCOMPLETE) or len(text) <= len(self._prefix):
            return ""
        fresh = text[len(self._prefix) :]
        self._start, self._decoded_ids = self._decoded_ids, len(self._ids)
        self._prefix = self._decode(self._start)
        return self._release(fresh)

    def flush(self) -> str:
        """Return the text that was held back, at the end of the answer."""
        fresh = self._decode(self._start)[len(self._prefix) :]
        released = self._release(fresh)
        if self.stopped:
            return released
        held, self._held = self._held, ""
        return released + held

    def _decode(self, start: int) -> str:
        text: str = self._tokenizer.decode(self._ids[start:], skip_special_tokens=True)
        return text

    def _release(self, fresh: str) -> str:
        """Return the text before a stop string that ends in `fresh`, or as much as cannot begin one."""
        text = self._held + fresh
        if len(self._ids) > self._min_tokens:
            starts = [text.find(stop, max(0, len(self._held) - len(stop) + 1)) for stop in self._stop]
            if places := [place for place in starts if place >= 0]:
                self.stopped, self._held = True, ""
                return text[: min(places)]
        keep = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Return how many last characters of `text` are the first ones of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((count for count in range(longest, 0, -1) if text.endswith(stop[:count])), 0)
