"""Messages and exit codes for the operating system's errors."""

from __future__ import annotations

import errno
from pathlib import Path

from bilora.errors import BadData, BiloraError, ExitCode, Infrastructure

_INPUT, _MACHINE, _REMOTE = ExitCode.BAD_INPUT, ExitCode.INFRASTRUCTURE, ExitCode.UNREACHABLE

_CAUSES: dict[int, tuple[ExitCode, str, str]] = {
    errno.ENOENT: (_INPUT, "does not exist", "correct the path"),
    errno.EISDIR: (_INPUT, "is a folder, not a file", "name a file"),
    errno.ENOTDIR: (_INPUT, "has a file where a folder is needed", "correct the path"),
    errno.EEXIST: (_INPUT, "already exists and is not a folder", "move it away"),
    errno.ENAMETOOLONG: (_INPUT, "has too long a name", "choose a shorter one"),
    errno.ELOOP: (_INPUT, "is a link to itself", "correct the link"),
    errno.EACCES: (_MACHINE, "is not accessible to this user", "change its permissions or its owner"),
    errno.EPERM: (_MACHINE, "is not accessible to this user", "change its permissions or its owner"),
    errno.EROFS: (_MACHINE, "is on a read-only disk", "use a writable folder"),
    errno.ENOSPC: (_MACHINE, "has no space left on its disk", "free some space"),
    errno.EDQUOT: (_MACHINE, "exceeds the disk quota", "free some space or get a larger quota"),
    errno.EFBIG: (_MACHINE, "exceeds the file size limit", "raise the limit (`ulimit -f`)"),
    errno.EIO: (_MACHINE, "could not be read or written", "check the disk"),
    errno.EMFILE: (_MACHINE, "exceeds this process's limit of open files", "raise the limit (`ulimit -n`)"),
    errno.ENFILE: (_MACHINE, "exceeds this machine's limit of open files", "stop other programs"),
    errno.ENOMEM: (_MACHINE, "needs more memory than is free", "stop other programs"),
    errno.EAGAIN: (_MACHINE, "exceeds the limit of processes", "stop other programs or raise the limit (`ulimit -u`)"),
    errno.EADDRINUSE: (_REMOTE, "is used by another program", "choose another port"),
    errno.ECONNREFUSED: (_REMOTE, "refused the connection", "check that the server is running"),
    errno.ECONNRESET: (_REMOTE, "closed the connection", "try again"),
    errno.ETIMEDOUT: (_REMOTE, "did not answer in time", "try again"),
    errno.EHOSTUNREACH: (_REMOTE, "cannot be reached", "check the network"),
    errno.ENETUNREACH: (_REMOTE, "cannot be reached", "check the network"),
}
"""By error number: the exit code, the problem of the path, and the advice."""


def describe_os_error(error: OSError) -> str:
    """Return what an error means for its path, with advice."""
    _, problem, advice = _CAUSES.get(error.errno or 0, (_MACHINE, f"cannot be used ({error.strerror or error})", ""))
    return f"{problem}; {advice}." if advice else f"{problem}."


def path_error(path: Path, error: OSError) -> BiloraError:
    """Return the BiloraError for an OSError of a path that a user named."""
    code, *_ = _CAUSES.get(error.errno or 0, (_MACHINE,))
    message = describe_os_error(error)
    return BadData(path, message) if code == _INPUT else Infrastructure(f"{path}: {message}")


def exit_sentence(error: OSError) -> tuple[ExitCode, str] | None:
    """Return the exit code and the message of an error; None if its number is unknown."""
    if (cause := _CAUSES.get(error.errno or 0)) is None:
        return None
    code, problem, advice = cause
    path = error.filename2 or error.filename  # a rename has two: the target, not the temporary file
    name = path if isinstance(path, str) else "a file" if code != _REMOTE else "the server"
    note = " No file is half-written; finished files stay." if code == _MACHINE else ""
    return code, f"{name} {problem}; {advice} and run it again.{note}"
