"""The time that a process was ready to run but waited for a core; sleep does not count."""

from __future__ import annotations


def run_queue_wait_s(pid: int) -> float | None:
    """Return the seconds that a process waited for a core, or None if the system does not measure it.

    Source: the second field of /proc/PID/schedstat, in nanoseconds (kernel documentation, sched-stats).
    """
    try:
        with open(f"/proc/{pid}/schedstat", "rb") as stat:  # noqa: PTH123 - pathlib is not loaded here
            ran, waited, _ = map(int, stat.read().split())
    except (OSError, ValueError):
        return None
    return waited / 1e9 if ran else None
