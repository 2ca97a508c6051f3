"""How many threads a step should have while other programs use the machine too."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

PROC_STAT = Path("/proc/stat")
_INTERVAL_S, _LONGEST_S = 0.25, 2.0
"""How much time a count is about. The kernel counts hundredths of a second, so that shorter intervals say little, and
what happened in a long pause says nothing about now."""
_MIN_COUNTED = 0.5
"""A kernel that counts less than this share of the cores' time does not count it."""


@dataclass(frozen=True)
class _Clocks:
    """Seconds since some beginning: of the wall, of this process, and of its cores, in all and idle."""

    wall: float
    own: float
    cores: float
    idle: float


class FreeCores:
    """Counts the cores that this process has or could have: what it has used lately, and what was idle.

    Threads of a step wait for each other by spinning. Where one of them has no core, the others spin until it gets one,
    and a step takes many times as long as with one thread per core that is free.
    """

    def __init__(self, most: int) -> None:
        """Start to count.

        Args:
            most: the count on an otherwise idle machine, and where the kernel does not report it.
        """
        self._most = self._found = most
        self._seen = _clocks()

    def count(self) -> int:
        """Return how many threads a step should have now, at least 1."""
        seen = self._seen
        if seen is None or time.monotonic() - seen.wall < _INTERVAL_S:
            return self._found
        self._seen = now = _clocks()
        if now is not None and now.wall - seen.wall <= _LONGEST_S:
            wall = now.wall - seen.wall
            counted = now.cores - seen.cores >= _MIN_COUNTED * wall * len(os.sched_getaffinity(0))
            free = (now.own - seen.own + now.idle - seen.idle) / wall
            self._found = max(1, min(self._most, round(free))) if counted else self._most
        return self._found


def _clocks() -> _Clocks | None:
    """Read the clocks; None where the kernel has none."""
    try:
        lines = [line.split() for line in PROC_STAT.read_text().splitlines()]
        own_cores = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        ticks = [[int(field) for field in fields] for name, *fields in lines if name in own_cores]
        hertz = os.sysconf("SC_CLK_TCK")
        idle = sum(one[3] + one[4] for one in ticks)  # of user, nice, system, idle, iowait, irq, softirq, steal
        return _Clocks(time.monotonic(), time.process_time(), sum(sum(one[:8]) for one in ticks) / hertz, idle / hertz)
    except (OSError, AttributeError, ValueError, IndexError):
        return None
