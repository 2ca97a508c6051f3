"""Detokenization, one token at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bilora.bases.tokenizer import Tokenizer

_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
"""The tokenizer's text for the bytes of an incomplete character."""


class IncrementalDetokenizer:
    """Decodes tokens as they come, and cuts the text before the first stop string.

    The returned texts join to the decoded answer. The bytes of an incomplete character wait for the next token, and
    so does text that may be the beginning of a stop string.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = (), *, min_tokens: int = 0) -> None:
        """Decode with `tokenizer`; a stop string within the first `min_tokens` tokens does not stop."""
        self._tokenizer = tokenizer
        self._stop = tuple(text for text in stop if text)
        self._min_tokens = min_tokens
        self._ids: list[int] = []
        self._start = 0  # decoding starts one token early: a token's text may depend on the token before
        self._decoded_ids = 0
        self._prefix = ""  # the text from `_start` that was returned already
        self._pending_text = ""
        self.stopped = False

    def add(self, token: int) -> str:
        """Return the text that this token completes."""
        self._ids.append(token)
        text = self._decode(self._start)
        if text.endswith(_INCOMPLETE) or len(text) <= len(self._prefix):
            return ""
        new_text = text[len(self._prefix) :]
        self._start, self._decoded_ids = self._decoded_ids, len(self._ids)
        self._prefix = self._decode(self._start)
        return self._release(new_text)

    def flush(self) -> str:
        """Return the pending text, at the end of the answer."""
        new_text = self._decode(self._start)[len(self._prefix) :]
        released = self._release(new_text)
        if self.stopped:
            return released
        pending, self._pending_text = self._pending_text, ""
        return released + pending

    def _decode(self, start: int) -> str:
        text: str = self._tokenizer.decode(self._ids[start:], skip_special_tokens=True)
        return text

    def _release(self, new_text: str) -> str:
        """Return the text before a stop string, or else all that cannot be the beginning of one."""
        text = self._pending_text + new_text
        if len(self._ids) > self._min_tokens:
            starts = [text.find(stop, max(0, len(self._pending_text) - len(stop) + 1)) for stop in self._stop]
            if matches := [start for start in starts if start >= 0]:
                self.stopped, self._pending_text = True, ""
                return text[: min(matches)]
        end = len(text) - max((_overlap(text, stop) for stop in self._stop), default=0)
        self._pending_text = text[end:]
        return text[:end]


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` that is a beginning of `stop`, but not all of it."""
    longest = min(len(text), len(stop) - 1)
    return next((count for count in range(longest, 0, -1) if text.endswith(stop[:count])), 0)
