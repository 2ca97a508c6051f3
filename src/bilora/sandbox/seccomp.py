"""The system calls that a candidate may make: to compute, allocate memory, read the time and reply.

A BPF filter (seccomp(2)) makes every other call fail with EPERM, among them open, fork and socket. All references
of MBPP run with these calls.
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
"""The allowed calls by machine: name to number."""

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, |JGE|K, BPF_RET|K
_NUMBER, _ARCHITECTURE = 0, 4  # offsets into struct seccomp_data
_ALLOW, _KILL, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EPERM
_MODE_FILTER = 2


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


@functools.cache
def assemble_filter(machine: str) -> bytes:
    """Return the filter's BPF instructions for a machine.

    Raises:
        OSError: there is no table for the machine.
    """
    if machine not in ALLOWED:
        raise OSError(errno.ENOTSUP, f"no table of system calls for {machine}")
    numbers = set(ALLOWED[machine].values())
    bounds = [number for number in range(max(numbers) + 2) if (number in numbers) != (number - 1 in numbers)]
    instructions = [
        _instruction(_LOAD, _ARCHITECTURE),
        _instruction(_EQUAL, _AUDIT_ARCH[machine], jump_true=1),
        _instruction(_RETURN, _KILL),
        _instruction(_LOAD, _NUMBER),
        *_binary_search(bounds, False),
    ]
    return b"".join(instructions)


def _instruction(code: int, value: int, jump_true: int = 0, jump_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, jump_true, jump_false, value)


def _binary_search(bounds: list[int], allowed: bool) -> list[bytes]:
    """Return a binary search for a call's number among the bounds between ranges of allowed and refused calls.

    Numbers below the first bound are `allowed` or not; each bound inverts that. The search is binary because the
    kernel evaluates a new filter once for every system call.
    """
    if not bounds:
        return [_instruction(_RETURN, _ALLOW if allowed else _REFUSE)]
    middle = len(bounds) // 2
    below = _binary_search(bounds[:middle], allowed)
    above = _binary_search(bounds[middle + 1 :], allowed != (middle % 2 == 0))
    return [_instruction(_AT_LEAST, bounds[middle], jump_true=len(below)), *below, *above]


def seccomp_name() -> str:
    """Return the layer's name, with a hash of this machine's filter."""
    return f"seccomp-{hashlib.sha256(assemble_filter(platform.machine())).hexdigest()[:8]}"


def install_filter() -> None:
    """Filter the calling process's system calls from now on. `PR_SET_NO_NEW_PRIVS` must be set.

    Raises:
        OSError: the kernel refused, or has no seccomp filters.
    """
    instructions = assemble_filter(platform.machine())
    program = _Program(len(instructions) // 8, instructions)
    prctl(PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program))


def denies_calls() -> bool:
    """Return whether open, fork and socket fail with EPERM (call after `install_filter`)."""
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
