"""An event loop for coroutines that only compute and sleep: it makes no system call that programs are refused."""

from __future__ import annotations

import asyncio
import time


class _Clock:
    """A selector for the loop without files: no file or socket can become ready, so it only sleeps."""

    def select(self, timeout: float | None) -> list[object]:
        """Sleep for `timeout` seconds.

        Raises:
            RuntimeError: the coroutines wait for something that will never happen.
        """
        if timeout is None:
            raise RuntimeError("all coroutines wait for something that cannot happen here")
        time.sleep(timeout)
        return []

    def close(self) -> None:
        """Do nothing: nothing is open."""


class _Loop(asyncio.BaseEventLoop):
    """asyncio's own loop with that selector."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = _Clock()

    def _process_events(self, events: list[object]) -> None:
        """Do nothing: no event comes."""

    def _write_to_self(self) -> None:
        """Do nothing: no other thread has to wake the loop."""


class _Policy(asyncio.DefaultEventLoopPolicy):
    _loop_factory = _Loop


def set_computing_event_loop() -> None:
    """Make asyncio create that loop."""
    asyncio.set_event_loop_policy(_Policy())
