"""Namespaces for a zygote and its forks: user, process, network, mount, IPC and host name.

The file system in them is one empty, read-only folder, and no network interface is up, not even loopback. The
processes see and signal only each other, and are killed when the first of them exits.
"""

from __future__ import annotations

import errno
import os
import platform
import signal
import socket
import struct

from bilora.sandbox.kernel import PR_SET_DUMPABLE, PR_SET_PDEATHSIG, call, prctl, syscall

_NEW = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET."""

_READ_ONLY, _NO_SUID, _NO_DEVICES, _NO_EXEC, _RECURSIVE, _PRIVATE = 1, 2, 4, 8, 16384, 1 << 18
_DETACH = 2
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_CAPABILITY_VERSION = 0x20080522
_MOUNT_POINT = b"/tmp"  # covered in the new mount namespace only


def enter() -> None:
    """Enter new namespaces, and return in a child that is their first process; the calling process waits for it.

    Another child tries it first, so that the calling process is unchanged on failure.

    Raises:
        OSError: the kernel or its policy does not allow namespaces.
    """
    trial = os.fork()
    if trial == 0:
        code = 255
        try:
            _unshare()
            code = 0
        except OSError as error:
            code = error.errno or code
        finally:
            os._exit(code)
    if code := os.waitstatus_to_exitcode(os.waitpid(trial, 0)[1]):
        raise OSError(code, f"namespaces: {os.strerror(code)}")
    _unshare()
    first = os.fork()
    if first:
        for descriptor in (0, 1, 2):
            os.close(descriptor)
        os.waitpid(first, 0)
        os._exit(0)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    call("capset", struct.pack("Ii", _CAPABILITY_VERSION, 0), bytes(24))


def _unshare() -> None:
    """Move this process to new namespaces, and make an empty folder its root."""
    uid, gid = os.getuid(), os.getgid()
    prctl(PR_SET_DUMPABLE, 1)  # otherwise /proc/self/uid_map belongs to root
    call("unshare", _NEW)
    for file, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{file}", "w") as map_file:  # noqa: PTH123 - pathlib is not loaded here
            map_file.write(text)
    call("mount", b"none", b"/", None, _RECURSIVE | _PRIVATE, None)
    flags = _READ_ONLY | _NO_SUID | _NO_DEVICES | _NO_EXEC
    call("mount", b"tmpfs", _MOUNT_POINT, b"tmpfs", flags, b"size=4k,nr_inodes=2,mode=0555")
    os.chdir(_MOUNT_POINT)
    if platform.machine() not in _PIVOT_ROOT:
        raise OSError(errno.ENOTSUP, f"the number of pivot_root is unknown on {platform.machine()}")
    syscall(_PIVOT_ROOT[platform.machine()], b".", b".")
    call("umount2", b".", _DETACH)
    os.chdir("/")


def host_is_hidden() -> bool:
    """Return whether the namespaces hide the host's files, processes and network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("127.0.0.1", 9))
        except OSError:
            return os.listdir("/") == [] and os.getpid() == 1  # noqa: PTH208
    return False
