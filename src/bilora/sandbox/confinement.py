"""What a candidate's process is denied. Each further layer is one more entry of `_LAYERS`."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass

_NOBODY = 65534
_SET_PDEATHSIG, _SET_DUMPABLE, _SET_CHILD_SUBREAPER, _SET_NO_NEW_PRIVS = 1, 4, 36, 38


@dataclass(frozen=True)
class Limits:
    """What one program may use. Times in seconds, memory in MiB of address space."""

    cpu_s: float
    wall_s: float
    memory_mb: int


def confine(limits: Limits) -> list[str]:
    """Shut the calling process in, for ever, and return the names of the layers now in force."""
    return [name for name, layer in _LAYERS.items() if layer(limits)]


def guard() -> None:
    """Let nobody read the calling process's memory, and let orphans below it become its children."""
    _prctl(_SET_DUMPABLE, 0)
    _prctl(_SET_CHILD_SUBREAPER, 1)


def kill_children() -> int:
    """Kill and reap every child of the calling process, adopted ones too; return how many there were."""
    killed: set[int] = set()
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return len(killed)
        if pid == 0:
            for child in _children():
                killed.add(child)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            os.sched_yield()


def _children() -> list[int]:
    """Living children, from the fourth field of /proc/PID/stat; the second may hold anything."""
    me, found = os.getpid(), []
    for entry in os.listdir("/proc"):  # noqa: PTH208 - pathlib is slow to import in a bare process
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError), open(f"/proc/{entry}/stat", "rb") as stat:  # noqa: PTH123
            if int(stat.read().rpartition(b")")[2].split()[1]) == me:
                found.append(int(entry))
    return found


def _rlimits(limits: Limits) -> bool:
    cpu = max(1, math.ceil(limits.cpu_s))
    memory = limits.memory_mb * 2**20
    wanted = {
        resource.RLIMIT_AS: (memory, memory),
        resource.RLIMIT_CPU: (cpu, cpu + 1),  # the first only asks; the second kills who does not listen
        resource.RLIMIT_FSIZE: (0, 0),
        resource.RLIMIT_NOFILE: (16, 16),
        resource.RLIMIT_NPROC: (0, 0),
        resource.RLIMIT_CORE: (0, 0),
    }
    try:
        for kind, limit in wanted.items():
            resource.setrlimit(kind, limit)
    except (ValueError, OSError):
        return False
    return True


def _unprivileged(_: Limits) -> bool:
    """Root is exempt from RLIMIT_NPROC and may signal everyone, so root becomes nobody first."""
    if os.geteuid() == 0:
        try:
            os.setgroups([])
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)
        except (OSError, AttributeError):  # refused in some containers; absent outside Linux
            return False
    _prctl(_SET_NO_NEW_PRIVS, 1)
    _prctl(_SET_DUMPABLE, 0)
    _prctl(_SET_PDEATHSIG, signal.SIGKILL)
    return True


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        _LIBC.prctl(option, value, 0, 0, 0)


_LIBC = ctypes.CDLL(None)
_LAYERS: dict[str, Callable[[Limits], bool]] = {"rlimits": _rlimits, "unprivileged": _unprivileged}
