"""The layers that confine a candidate's process. A layer counts only if it denied something in its self-test."""

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
    """Limits of one program: times in seconds, address space in MiB."""

    cpu_s: float
    wall_s: float
    memory_mb: int


@dataclass(frozen=True)
class Layers:
    """The active layers, in installation order, and why each other layer is off."""

    on: tuple[str, ...]
    off: Mapping[str, str] = field(default_factory=dict)

    @property
    def level(self) -> str:
        """`strict` if the kernel filters every system call; else `weak`, and no adapter is promoted."""
        return "strict" if any(name.startswith("seccomp") for name in self.on) else "weak"

    def __str__(self) -> str:
        return f"{self.level}: {'+'.join(self.on) or 'process'}"


@dataclass(frozen=True)
class _Layer:
    name: Callable[[], str]
    install: Callable[[Limits], None]
    denies: Callable[[], bool]


def confine(limits: Limits, layers: Layers) -> None:
    """Confine the calling process permanently by the active layers.

    Raises:
        OSError: a layer that passed its self-test failed.
    """
    for kind, layer in _LAYERS.items():
        if kind not in layers.off:
            layer.install(limits)


def probe(limits: Limits) -> Layers:
    """Return the layers that work, each tested in a child process before the next one hides its effect."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reading)
            _run_self_tests(limits, writing)
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:  # noqa: PTH123 - a descriptor, not a path
        results = [json.loads(line) for line in pipe]
    os.waitpid(pid, 0)
    off = {kind: reason for kind, _, reason in results if reason}
    tested = {kind for kind, _, _ in results}
    off |= {kind: "its self-test ended the process" for kind in _LAYERS if kind not in tested}
    return Layers(tuple(name for _, name, reason in results if not reason), off)


def _run_self_tests(limits: Limits, writing: int) -> None:
    for kind, layer in _LAYERS.items():
        name, reason = kind, ""
        try:
            name = layer.name()
            layer.install(limits)
            if not layer.denies():
                reason = "it was installed and denied nothing"
        except OSError as error:
            reason = str(error)
        os.write(writing, json.dumps([kind, name, reason]).encode() + b"\n")


def drop_privileges() -> None:
    """Give up root permanently, and all privileges that a process could gain by exec.

    Raises:
        OSError: the kernel refused, as in some containers.
    """
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    if sys.platform == "linux":
        prctl(PR_SET_NO_NEW_PRIVS, 1)


def protect_process() -> None:
    """Make the calling process's memory unreadable, and make it the reaper of its orphaned descendants."""
    if sys.platform == "linux":
        prctl(PR_SET_DUMPABLE, 0)
        prctl(PR_SET_CHILD_SUBREAPER, 1)


def kill_children() -> int:
    """Kill and reap every child of the calling process, adopted ones too; return the number still running."""
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
    """Return the running children, by the fourth field of /proc/PID/stat; the second may contain anything."""
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
    rlimits = {
        resource.RLIMIT_AS: (memory, memory),
        resource.RLIMIT_CPU: (cpu, cpu + 1),  # a program can ignore SIGXCPU at the first, not SIGKILL at the second
        resource.RLIMIT_FSIZE: (0, 0),
        resource.RLIMIT_NOFILE: (16, 16),
        resource.RLIMIT_NPROC: (0, 0),
        resource.RLIMIT_CORE: (0, 0),
    }
    try:
        for kind, limit in rlimits.items():
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
    drop_privileges()
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
    "landlock": _Layer(landlock.landlock_name, lambda _: landlock.restrict_self(), landlock.denies_open),
    "seccomp": _Layer(seccomp.seccomp_name, lambda _: seccomp.install_filter(), seccomp.denies_calls),
}
