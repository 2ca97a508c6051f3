"""The number of threads for a step while other programs use the machine."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

PROC_STAT = Path("/proc/stat")
_MIN_INTERVAL_S, _MAX_INTERVAL_S = 0.25, 2.0
"""The period of one count. The kernel counts hundredths of a second, so shorter periods are inexact; longer ones are
out of date."""
_MIN_COUNTED = 0.5
"""A kernel that counts less than this share of the cores' time does not report it."""


@dataclass(frozen=True)
class _CpuTimes:
    """Seconds: wall clock, CPU time of this process, CPU time of its cores, and their idle time."""

    wall: float
    process: float
    cores: float
    idle: float


class FreeCores:
    """Counts the cores that this process uses or could use.

    The threads of a step wait for each other by spinning. If one of them has no core, the others spin until it gets
    one, and the step takes many times as long as with one thread per free core.
    """

    def __init__(self, max_threads: int) -> None:
        """Start to count.

        Args:
            max_threads: the count on an idle machine, and if the kernel does not report CPU times.
        """
        self._max_threads = self._threads = max_threads
        self._previous = _cpu_times()

    def count(self) -> int:
        """Return the number of threads for the next step, at least 1."""
        previous = self._previous
        if previous is None or time.monotonic() - previous.wall < _MIN_INTERVAL_S:
            return self._threads
        self._previous = now = _cpu_times()
        if now is not None and now.wall - previous.wall <= _MAX_INTERVAL_S:
            wall = now.wall - previous.wall
            counted = now.cores - previous.cores >= _MIN_COUNTED * wall * len(os.sched_getaffinity(0))
            free = (now.process - previous.process + now.idle - previous.idle) / wall
            self._threads = max(1, min(self._max_threads, round(free))) if counted else self._max_threads
        return self._threads


def _cpu_times() -> _CpuTimes | None:
    """Read the CPU times; None if the kernel does not report them."""
    try:
        lines = [line.split() for line in PROC_STAT.read_text().splitlines()]
        cores = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        ticks = [[int(field) for field in fields] for name, *fields in lines if name in cores]
        hertz = os.sysconf("SC_CLK_TCK")
        busy_and_idle = sum(sum(core[:8]) for core in ticks) / hertz
        idle = sum(core[3] + core[4] for core in ticks) / hertz  # user nice system idle iowait irq softirq steal
        return _CpuTimes(time.monotonic(), time.process_time(), busy_and_idle, idle)
    except (OSError, AttributeError, ValueError, IndexError):
        return None
