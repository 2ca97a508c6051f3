"""The layers that confine a candidate's process. A layer counts only if a self-test saw it deny something."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bilora.sandbox import landlock, seccomp
from bilora.sandbox.kernel import (
    PR_SET_CHILD_SUBREAPER,
    PR_SET_DUMPABLE,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    prctl,
)

_NOBODY = 65534


@dataclass(frozen=True)
class Limits:
    """Limits of one program: times in seconds, memory in MiB of address space."""

    cpu_s: float
    wall_s: float
    memory_mb: int


@dataclass(frozen=True)
class Layers:
    """The layers that hold, in the order of installation, and why each other one is off."""

    on: tuple[str, ...]
    off: Mapping[str, str] = field(default_factory=dict)

    @property
    def level(self) -> str:
        """`strict` if the kernel filters every system call; else `weak`, from which nothing is promoted."""
        return "strict" if any(name.startswith("seccomp") for name in self.on) else "weak"

    def __str__(self) -> str:
        return f"{self.level}: {'+'.join(self.on) or 'process'}"


@dataclass(frozen=True)
class _Layer:
    name: Callable[[], str]
    install: Callable[[Limits], None]
    denies: Callable[[], bool]


def confine(limits: Limits, layers: Layers) -> None:
    """Confine the calling process by the layers that are on, for as long as it runs.

    Raises:
        OSError: a layer that worked in the self-test did not.
    """
    for kind, layer in _LAYERS.items():
        if kind not in layers.off:
            layer.install(limits)


def probe(limits: Limits) -> Layers:
    """Install one layer after the other in a child, and test each before the next one hides its effect."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reading)
            _report(limits, writing)
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:  # noqa: PTH123 - a descriptor, not a path
        results = [json.loads(line) for line in pipe]
    os.waitpid(pid, 0)
    off = {kind: why for kind, _, why in results if why}
    tested = {kind for kind, _, _ in results}
    off |= {kind: "its self-test ended the process" for kind in _LAYERS if kind not in tested}
    return Layers(tuple(name for _, name, why in results if not why), off)


def _report(limits: Limits, writing: int) -> None:
    for kind, layer in _LAYERS.items():
        name, why = kind, ""
        try:
            name = layer.name()
            layer.install(limits)
            if not layer.denies():
                why = "it was installed and denied nothing"
        except OSError as error:
            why = str(error)
        os.write(writing, json.dumps([kind, name, why]).encode() + b"\n")


def become_nobody() -> None:
    """Give up root, and every privilege that a program could gain by executing another, for good.

    Raises:
        OSError: refused, as in some containers.
    """
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    if sys.platform == "linux":
        prctl(PR_SET_NO_NEW_PRIVS, 1)


def guard() -> None:
    """Make the calling process's memory unreadable, and adopt orphans among its descendants."""
    if sys.platform == "linux":
        prctl(PR_SET_DUMPABLE, 0)
        prctl(PR_SET_CHILD_SUBREAPER, 1)


def kill_children() -> int:
    """Kill and reap every child of the calling process, adopted ones too; return how many were still running."""
    running, killed = 0, False
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return running
        if pid > 0:
            running += killed
            continue
        # In the first process of a namespace, -1 means all other processes there.
        for child in [-1] if os.getpid() == 1 else _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        killed = True
        os.sched_yield()


def _children() -> list[int]:
    """Return living children, by the fourth field of /proc/PID/stat; the second may contain anything."""
    parent, children = os.getpid(), []
    for entry in os.listdir("/proc"):  # noqa: PTH208 - pathlib is slow to import in a bare process
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError), open(f"/proc/{entry}/stat", "rb") as stat:  # noqa: PTH123
            if int(stat.read().rpartition(b")")[2].split()[1]) == parent:
                children.append(int(entry))
    return children


def _rlimits(limits: Limits) -> None:
    cpu = max(1, math.ceil(limits.cpu_s))
    memory = limits.memory_mb * 2**20
    wanted_limits = {
        resource.RLIMIT_AS: (memory, memory),
        resource.RLIMIT_CPU: (cpu, cpu + 1),  # SIGXCPU at the first can be ignored, SIGKILL at the second cannot
        resource.RLIMIT_FSIZE: (0, 0),
        resource.RLIMIT_NOFILE: (16, 16),
        resource.RLIMIT_NPROC: (0, 0),
        resource.RLIMIT_CORE: (0, 0),
    }
    try:
        for kind, limit in wanted_limits.items():
            resource.setrlimit(kind, limit)
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error)) from None


def _denies_fork() -> bool:
    try:
        pid = os.fork()
    except OSError as error:
        return error.errno == errno.EAGAIN
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return False


def _unprivileged(_: Limits) -> None:
    become_nobody()
    if sys.platform == "linux":
        prctl(PR_SET_DUMPABLE, 0)
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _denies_root() -> bool:
    try:
        os.setuid(0)
    except OSError:
        return os.geteuid() != 0
    return False


_LAYERS: dict[str, _Layer] = {
    "unprivileged": _Layer(lambda: "unprivileged", _unprivileged, _denies_root),
    "rlimits": _Layer(lambda: "rlimits", _rlimits, _denies_fork),
    "landlock": _Layer(landlock.landlock_name, lambda _: landlock.restrict_self(), landlock.denies_opening),
    "seccomp": _Layer(seccomp.seccomp_name, lambda _: seccomp.install_filter(), seccomp.denies_calls),
}
