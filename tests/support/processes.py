"""The sandbox's processes, as /proc lists them, and signal handlers for processes that a test starts."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path


def descendants(pid: int) -> list[int]:
    """Return the sandbox's processes below `pid`, the deepest first."""
    processes = _running_processes()

    def below(parent: int) -> list[int]:
        children = [pid for pid, (its_parent, _) in processes.items() if its_parent == parent]
        return [descendant for child in children for descendant in (*below(child), child)]

    return [descendant for descendant in below(pid) if processes[descendant][1]]


def orphans() -> set[int]:
    """Return the sandbox's processes whose parent has ended."""
    return {pid for pid, (parent, in_sandbox) in _running_processes().items() if in_sandbox and parent == 1}


def _running_processes() -> dict[int, tuple[int, bool]]:
    """Return the parent of every process, and whether the sandbox started it, in the order of their start."""
    processes = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # the process has ended
            fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()  # from the third on: man 5 proc
            in_sandbox = b"bare.py" in (entry / "cmdline").read_bytes()
            processes.append((int(fields[19]), int(entry.name), int(fields[1]), in_sandbox))
    return {pid: (parent, in_sandbox) for _, pid, parent, in_sandbox in sorted(processes)}


def restore_signals() -> None:
    """Restore the effect of Ctrl-C and hang-up, which children of a background job or of `nohup` ignore."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
