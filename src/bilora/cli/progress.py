"""Progress bars on a terminal; elsewhere a line at intervals."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tqdm import tqdm

REFRESH_S = 1.0
"""The interval at which a terminal's bar is redrawn even if no item is finished, so that its clock runs."""
NESTED_DELAY_S = 1.0
"""The time after which a nested operation gets its bar."""


class Bar:
    """The progress bar of one operation; call it to count finished items."""

    def __init__(self, tqdm_bar: tqdm[None]) -> None:
        self._tqdm = tqdm_bar

    def __call__(self, count: int) -> None:
        """Count finished items."""
        self._tqdm.update(count)

    def postfix(self, text: str) -> None:
        """Show `text` after the numbers, from the next refresh on."""
        self._tqdm.set_postfix_str(text, refresh=False)

    def say(self, text: str) -> None:
        """Print a line to standard output, above the bar."""
        self._tqdm.write(text, file=sys.stdout)

    def note(self, text: str) -> None:
        """Print an indented line to standard error, above the bar."""
        self._tqdm.write(f"  {text}", file=sys.stderr)

    @contextmanager
    def nested(self, title: str, total: int) -> Iterator[Bar]:
        """Show a nested operation, whose time does not count for this bar's rate and ETA."""
        with bar(title, total, delay=NESTED_DELAY_S, leave=False) as inner:
            yield inner
        self._tqdm.unpause()


@contextmanager
def bar(title: str, total: int | None, unit: str = "rows", *, delay: float = 0.0, leave: bool = True) -> Iterator[Bar]:
    """Show progress with rate and ETA while the block runs.

    Args:
        delay: seconds before the bar appears.
        leave: whether the bar stays on a terminal after the block.
    """
    from tqdm import tqdm

    is_terminal = sys.stderr.isatty()
    with tqdm(
        total=total,
        desc=title,
        unit=f" {unit}",
        mininterval=0.2 if is_terminal else 15.0,
        dynamic_ncols=is_terminal,
        leave=is_terminal and leave,
        delay=delay,
    ) as tqdm_bar:
        stopped = threading.Event()
        clock = threading.Thread(target=_run_clock, args=(tqdm_bar, stopped, delay), name="bar", daemon=True)
        if is_terminal:
            clock.start()
        try:
            yield Bar(tqdm_bar)
        finally:
            stopped.set()
            if is_terminal:
                clock.join()


def _run_clock(tqdm_bar: tqdm[None], stopped: threading.Event, delay: float) -> None:
    """Redraw a bar every second until `stopped` is set."""
    if not stopped.wait(max(delay, REFRESH_S)):
        tqdm_bar.refresh()
    while not stopped.wait(REFRESH_S):
        tqdm_bar.refresh()
