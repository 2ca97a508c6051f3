"""Processes: the sandbox's own, found through /proc, and how a test starts one."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path


def descendants(pid: int) -> list[int]:
    """The sandbox's own processes below `pid`, the deepest first."""
    running = _running()

    def below(parent: int) -> list[int]:
        found = []
        for child in sorted(child for child, (its_parent, _) in running.items() if its_parent == parent):
            found += [*below(child), child]
        return found

    return [found for found in below(pid) if running[found][1]]


def orphans() -> set[int]:
    """The sandbox's own processes that nobody looks after any more."""
    return {pid for pid, (parent, own) in _running().items() if own and parent == 1}


def _running() -> dict[int, tuple[int, bool]]:
    """Of every process: its parent, and whether it is the sandbox's own."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            parent = int((entry / "stat").read_bytes().rpartition(b")")[2].split()[1])
            found[int(entry.name)] = (parent, b"bare.py" in (entry / "cmdline").read_bytes())
    return found


def heeding_ctrl_c() -> None:
    """Undo what a job in the background starts with: it ignores Ctrl-C, and so does all that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
