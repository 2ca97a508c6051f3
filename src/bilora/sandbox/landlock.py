"""Landlock (landlock(7)) with an empty rule set: no files, TCP, abstract sockets or signals to other processes.

The seccomp filter denies what Landlock does not cover (stat, chmod, UDP).
"""

from __future__ import annotations

import os
import struct

from bilora.sandbox.kernel import syscall

_CREATE_RULESET, _RESTRICT_SELF = 444, 446  # the same on every machine
_GET_VERSION = 1
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # ABI version to its number of file rights, from the lowest bit
_TCP_RIGHTS, _TCP_MIN_ABI = 0b11, 4
_SCOPES, _SCOPES_MIN_ABI = 0b11, 6


def abi_version() -> int:
    """Return the kernel's Landlock ABI version.

    Raises:
        OSError: the kernel has no Landlock, or it is disabled.
    """
    return syscall(_CREATE_RULESET, 0, 0, _GET_VERSION)


def landlock_name() -> str:
    """Return the layer's name with the ABI version.

    Raises:
        OSError: the kernel has no Landlock, or it is disabled.
    """
    return f"landlock-{abi_version()}"


def restrict_self() -> None:
    """Remove every Landlock right from the calling process. `PR_SET_NO_NEW_PRIVS` must be set.

    Raises:
        OSError: the kernel refused, or has no Landlock.
    """
    abi = abi_version()
    rights = [(1 << _FILE_RIGHTS[min(abi, 5)]) - 1]
    if abi >= _TCP_MIN_ABI:
        rights.append(_TCP_RIGHTS)
    if abi >= _SCOPES_MIN_ABI:
        rights.append(_SCOPES)
    ruleset = struct.pack(f"{len(rights)}Q", *rights)
    rules = syscall(_CREATE_RULESET, ruleset, len(ruleset), 0)
    try:
        syscall(_RESTRICT_SELF, rules, 0)
    finally:
        os.close(rules)


def denies_open() -> bool:
    """Return whether opening a world-readable folder fails (call after `restrict_self`)."""
    try:
        os.close(os.open("/", os.O_RDONLY))
    except PermissionError:
        return True
    return False
