"""No file, no TCP port, no abstract socket, no signal to the outside: Landlock with an empty rule set (landlock(7)).

The system-call filter covers the rest (stat, chmod, UDP).
"""

from __future__ import annotations

import os
import struct

from bilora.sandbox.kernel import syscall

_CREATE_RULESET, _RESTRICT_SELF = 444, 446  # the same on every machine
_ASK_VERSION = 1
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # how many of the lowest bits each version knows
_TCP_RIGHTS, _TCP_SINCE = 0b11, 4
_SCOPES, _SCOPES_SINCE = 0b11, 6


def version() -> int:
    """Return the kernel's version of the interface.

    Raises:
        OSError: the kernel has no Landlock, or it is switched off.
    """
    return syscall(_CREATE_RULESET, 0, 0, _ASK_VERSION)


def landlock_name() -> str:
    """Return the layer's name, with its version.

    Raises:
        OSError: as `version`.
    """
    return f"landlock-{version()}"


def restrict_self() -> None:
    """Take every right that the kernel knows from the calling process. `PR_SET_NO_NEW_PRIVS` must be set.

    Raises:
        OSError: the kernel refused, or does not know Landlock.
    """
    known = version()
    rights = [(1 << _FILE_RIGHTS[min(known, 5)]) - 1]
    if known >= _TCP_SINCE:
        rights.append(_TCP_RIGHTS)
    if known >= _SCOPES_SINCE:
        rights.append(_SCOPES)
    wanted = struct.pack(f"{len(rights)}Q", *rights)
    rules = syscall(_CREATE_RULESET, wanted, len(wanted), 0)
    try:
        syscall(_RESTRICT_SELF, rules, 0)
    finally:
        os.close(rules)


def denies_opening() -> bool:
    """Whether a folder that anyone may read cannot be opened (call after `restrict_self`)."""
    try:
        os.close(os.open("/", os.O_RDONLY))
    except PermissionError:
        return True
    return False
