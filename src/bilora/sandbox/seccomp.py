"""The system calls that a candidate may make: compute, allocate, read the time, reply. No open, no process, no socket.

A filter in the kernel's BPF (seccomp(2)): every call that is not listed fails with EPERM. All references of MBPP
run with these calls.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import hashlib
import os
import platform
import struct

from bilora.sandbox.kernel import PR_SET_SECCOMP, prctl

_X86_64 = {
    "read": 0, "write": 1, "close": 3, "fstat": 5, "poll": 7, "lseek": 8, "mmap": 9, "mprotect": 10, "munmap": 11,
    "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "readv": 19, "writev": 20,
    "sched_yield": 24, "mremap": 25, "madvise": 28, "nanosleep": 35, "getpid": 39, "sendto": 44, "recvfrom": 45,
    "exit": 60, "uname": 63, "gettimeofday": 96, "getrusage": 98, "times": 100, "getuid": 102, "getgid": 104,
    "geteuid": 107, "getegid": 108, "sigaltstack": 131, "gettid": 186, "time": 201, "futex": 202,
    "sched_getaffinity": 204, "restart_syscall": 219, "clock_gettime": 228, "clock_getres": 229,
    "clock_nanosleep": 230, "exit_group": 231, "ppoll": 271, "set_robust_list": 273, "getrandom": 318, "rseq": 334,
}  # fmt: skip
_AARCH64 = {
    "close": 57, "lseek": 62, "read": 63, "write": 64, "readv": 65, "writev": 66, "ppoll": 73, "fstat": 80,
    "exit": 93, "exit_group": 94, "futex": 98, "set_robust_list": 99, "nanosleep": 101, "clock_gettime": 113,
    "clock_getres": 114, "clock_nanosleep": 115, "sched_getaffinity": 123, "sched_yield": 124,
    "restart_syscall": 128, "sigaltstack": 132, "rt_sigaction": 134, "rt_sigprocmask": 135, "rt_sigreturn": 139,
    "times": 153, "uname": 160, "getrusage": 165, "gettimeofday": 169, "getpid": 172, "getuid": 174, "geteuid": 175,
    "getgid": 176, "getegid": 177, "gettid": 178, "sendto": 206, "recvfrom": 207, "brk": 214, "munmap": 215,
    "mremap": 216, "mmap": 222, "mprotect": 226, "madvise": 233, "getrandom": 278, "rseq": 293,
}  # fmt: skip
ALLOWED = {"x86_64": _X86_64, "aarch64": _AARCH64}
"""By machine: the allowed calls, by name and number."""

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, |JGE|K, BPF_RET|K
_NUMBER, _ARCHITECTURE = 0, 4  # offsets into struct seccomp_data
_ALLOW, _KILL, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EPERM
_MODE_FILTER = 2


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


@functools.cache
def assemble_filter(machine: str) -> bytes:
    """Assemble the filter for a machine.

    Raises:
        OSError: there is no table for it.
    """
    if machine not in ALLOWED:
        raise OSError(errno.ENOTSUP, f"no table of system calls for {machine}")
    numbers = set(ALLOWED[machine].values())
    bounds = [number for number in range(max(numbers) + 2) if (number in numbers) != (number - 1 in numbers)]
    instructions = [
        _instruction(_LOAD, _ARCHITECTURE),
        _instruction(_EQUAL, _AUDIT_ARCH[machine], yes=1),
        _instruction(_RETURN, _KILL),
        _instruction(_LOAD, _NUMBER),
        *_search(bounds, False),
    ]
    return b"".join(instructions)


def _instruction(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("HBBI", code, yes, no, value)


def _search(bounds: list[int], allowed: bool) -> list[bytes]:
    """Write a binary search of a call's number among the bounds between ranges of allowed and refused calls.

    Numbers below the first bound are `allowed` or not; each bound changes that. When a filter is installed the kernel
    evaluates it for every system call that it has, so its depth decides how long that takes.
    """
    if not bounds:
        return [_instruction(_RETURN, _ALLOW if allowed else _REFUSE)]
    middle = len(bounds) // 2
    below = _search(bounds[:middle], allowed)
    above = _search(bounds[middle + 1 :], allowed != (middle % 2 == 0))
    return [_instruction(_AT_LEAST, bounds[middle], yes=len(below)), *below, *above]


def seccomp_name() -> str:
    """Return the layer's name, with a hash of this machine's filter."""
    return f"seccomp-{hashlib.sha256(assemble_filter(platform.machine())).hexdigest()[:8]}"


def install_filter() -> None:
    """Filter the calling process's system calls from now on. `PR_SET_NO_NEW_PRIVS` must be set.

    Raises:
        OSError: the kernel refused, or has no such filter.
    """
    instructions = assemble_filter(platform.machine())
    filtered = _Program(len(instructions) // 8, instructions)
    prctl(PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(filtered))


def denies_calls() -> bool:
    """Whether opening a file, forking and making a socket are not permitted (call after `install_filter`)."""
    import socket

    for forbidden in (lambda: os.open("/", os.O_RDONLY), os.fork, socket.socket):
        try:
            forbidden()
        except OSError as error:
            if error.errno != errno.EPERM:
                return False
        else:
            return False
    return True
