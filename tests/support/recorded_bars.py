"""Progress bars that are remembered in place of being drawn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bilora.protocols import Progress


class RecordedBars:
    """Implements `protocols.ProgressBars`; a shown bar is its title, its total, what was counted, whether it ended."""

    def __init__(self) -> None:
        self._bars: list[tuple[str, int, list[int], list[bool]]] = []

    @property
    def shown(self) -> list[tuple[str, int, int, bool]]:
        """The bars in their order."""
        return [(title, total, sum(counts), bool(ended)) for title, total, counts, ended in self._bars]

    @contextmanager
    def __call__(self, title: str, total: int) -> Iterator[Progress]:
        counts: list[int] = []
        ended: list[bool] = []
        self._bars.append((title, total, counts, ended))
        yield counts.append
        ended.append(True)
