"""A progress bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tqdm import tqdm


class Bar:
    """The progress of one operation; calling it counts items done."""

    def __init__(self, shown: tqdm[None]) -> None:
        self._tqdm = shown

    def __call__(self, count: int) -> None:
        """Count items done."""
        self._tqdm.update(count)

    def postfix(self, text: str) -> None:
        """Show `text` behind the numbers from the next refresh on."""
        self._tqdm.set_postfix_str(text, refresh=False)

    def note(self, text: str) -> None:
        """Print a line that stays."""
        self._tqdm.write(f"  {text}", file=sys.stderr)


@contextmanager
def bar(title: str, total: int | None, unit: str = "rows") -> Iterator[Bar]:
    """Show progress with rate and ETA while the block runs."""
    from tqdm import tqdm

    watched = sys.stderr.isatty()
    with tqdm(
        total=total,
        desc=title,
        unit=f" {unit}",
        mininterval=0.2 if watched else 15.0,
        dynamic_ncols=watched,
        leave=watched,
    ) as shown:
        yield Bar(shown)
