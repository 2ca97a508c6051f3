"""System calls that Python does not provide, as functions that raise OSError."""

from __future__ import annotations

import ctypes
import os
import sys

_LIBC = ctypes.CDLL(None, use_errno=True)

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP = 1, 4, 22
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 36, 38


def call(function: str, *arguments: object) -> int:
    """Call a C library function. Arguments are integers, or pointers as bytes, None or ctypes objects.

    Raises:
        OSError: the function returned -1 or does not exist.
    """
    try:
        c_function = getattr(_LIBC, function)
    except AttributeError:
        raise OSError(0, f"{sys.platform} has no function {function}") from None
    result: int = c_function(*[ctypes.c_long(value) if isinstance(value, int) else value for value in arguments])
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")
    return result


def syscall(number: int, *arguments: object) -> int:
    """Make a system call by number.

    Raises:
        OSError: the kernel refused.
    """
    return call("syscall", number, *arguments)


def prctl(option: int, *arguments: object) -> None:
    """Change an attribute of the calling process.

    Raises:
        OSError: the kernel refused, or this is not Linux.
    """
    call("prctl", option, *arguments, *[0] * (4 - len(arguments)))
