"""Progress bars that are recorded instead of drawn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bilora.protocols import Progress


class RecordedBars:
    """Implements `protocols.ProgressBars`; records title, total, count and end of each bar."""

    def __init__(self) -> None:
        self._bars: list[tuple[str, int, list[int], list[bool]]] = []

    @property
    def recorded(self) -> list[tuple[str, int, int, bool]]:
        """The bars in the order of their start: title, total, count, and whether the bar has ended."""
        return [(title, total, sum(counts), bool(ended)) for title, total, counts, ended in self._bars]

    @contextmanager
    def __call__(self, title: str, total: int) -> Iterator[Progress]:
        counts: list[int] = []
        ended: list[bool] = []
        self._bars.append((title, total, counts, ended))
        yield counts.append
        ended.append(True)
