"""A progress bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tqdm import tqdm

REFRESH_S = 1.0
"""How often a terminal's bar is drawn again while no item is finished, so that its clock runs."""
NESTED_DELAY_S = 1.0
"""How long an operation inside another one takes before it gets a bar of its own."""


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

    def say(self, text: str) -> None:
        """Print a line to standard output, above the bar."""
        self._tqdm.write(text, file=sys.stdout)

    def note(self, text: str) -> None:
        """Print a line that stays."""
        self._tqdm.write(f"  {text}", file=sys.stderr)

    @contextmanager
    def nested(self, title: str, total: int) -> Iterator[Bar]:
        """Show an operation inside this one; its time does not count for this one's rate and ETA."""
        with bar(title, total, delay=NESTED_DELAY_S, leave=False) as inner:
            yield inner
        self._tqdm.unpause()


@contextmanager
def bar(title: str, total: int | None, unit: str = "rows", *, delay: float = 0.0, leave: bool = True) -> Iterator[Bar]:
    """Show progress with rate and ETA while the block runs.

    Args:
        delay: seconds after which it appears first.
        leave: whether a terminal keeps it when the block has ended.
    """
    from tqdm import tqdm

    watched = sys.stderr.isatty()
    with tqdm(
        total=total,
        desc=title,
        unit=f" {unit}",
        mininterval=0.2 if watched else 15.0,
        dynamic_ncols=watched,
        leave=watched and leave,
        delay=delay,
    ) as shown:
        done = threading.Event()
        clock = threading.Thread(target=_run_clock, args=(shown, done, delay), name="bar", daemon=True)
        if watched:
            clock.start()
        try:
            yield Bar(shown)
        finally:
            done.set()
            if watched:
                clock.join()


def _run_clock(shown: tqdm[None], done: threading.Event, delay: float) -> None:
    """Draw a bar again every second until `done`."""
    if not done.wait(max(delay, REFRESH_S)):
        shown.refresh()
    while not done.wait(REFRESH_S):
        shown.refresh()
