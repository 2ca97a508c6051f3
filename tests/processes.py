"""Processes: the sandbox's own, found through /proc, and how a test starts one."""

from __future__ import annotations

import signal
from pathlib import Path


def descendants(pid: int) -> list[int]:
    """The sandbox's own processes below `pid`, the deepest first."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            found += descendants(child)
            if b"bare.py" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found


def orphans() -> set[int]:
    """The sandbox's own processes that nobody looks after any more."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and b"bare.py" in (entry / "cmdline").read_bytes():
                parent = int((entry / "stat").read_bytes().rpartition(b")")[2].split()[1])
                found |= {int(entry.name)} if parent == 1 else set()
        except OSError:
            continue  # it has ended meanwhile
    return found


def heeding_ctrl_c() -> None:
    """Undo what a job in the background starts with: it ignores Ctrl-C, and so does all that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
