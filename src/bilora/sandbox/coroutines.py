"""An event loop for coroutines that only compute and sleep. It makes only system calls that the sandbox allows."""

from __future__ import annotations

import asyncio
import time


class _SleepSelector:
    """A selector without files or sockets, which only sleeps."""

    def select(self, timeout: float | None) -> list[object]:
        """Sleep for `timeout` seconds.

        Raises:
            RuntimeError: every coroutine waits for an event that cannot happen.
        """
        if timeout is None:
            raise RuntimeError("every coroutine waits for an event that cannot happen in the sandbox")
        time.sleep(timeout)
        return []

    def close(self) -> None:
        """Do nothing: the selector has no open files."""


class _Loop(asyncio.BaseEventLoop):
    """asyncio's event loop with `_SleepSelector`."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = _SleepSelector()

    def _process_events(self, events: list[object]) -> None:
        """Do nothing: there are no events."""

    def _write_to_self(self) -> None:
        """Do nothing: no other thread wakes the loop."""


class _Policy(asyncio.DefaultEventLoopPolicy):
    _loop_factory = _Loop


def set_compute_only_event_loop() -> None:
    """Make asyncio create `_Loop` as its event loop."""
    asyncio.set_event_loop_policy(_Policy())
