"""Processes: the sandbox's own, found through /proc, and how a test starts one."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path


def descendants(pid: int) -> list[int]:
    """The sandbox's own processes below `pid`, the deepest first."""
    running = _running()

    def below(parent: int) -> list[int]:
        children = [pid for pid, (its_parent, _) in running.items() if its_parent == parent]
        return [found for child in children for found in (*below(child), child)]

    return [found for found in below(pid) if running[found][1]]


def orphans() -> set[int]:
    """The sandbox's own processes that nobody looks after any more."""
    return {pid for pid, (parent, own) in _running().items() if own and parent == 1}


def _running() -> dict[int, tuple[int, bool]]:
    """Of every process, in the order they were started: its parent, and whether it is the sandbox's own."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()  # from the third on: man 5 proc
            own = b"bare.py" in (entry / "cmdline").read_bytes()
            found.append((int(fields[19]), int(entry.name), int(fields[1]), own))
    return {pid: (parent, own) for _, pid, parent, own in sorted(found)}


def restore_signals() -> None:
    """Give Ctrl-C and hang-ups their effect again, which a background job and `nohup` take from all that they start."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
