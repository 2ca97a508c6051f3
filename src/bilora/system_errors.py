"""The operating system's errors in words: what happened, what helps, and which exit code that is."""

from __future__ import annotations

import errno
from pathlib import Path

from bilora.errors import BadData, BiloraError, ExitCode, Infrastructure

_INPUT, _MACHINE, _OUTSIDE = ExitCode.BAD_INPUT, ExitCode.INFRASTRUCTURE, ExitCode.UNREACHABLE

_CAUSES: dict[int, tuple[ExitCode, str, str]] = {
    errno.ENOENT: (_INPUT, "does not exist", "correct the path"),
    errno.EISDIR: (_INPUT, "is a folder, and a file is needed", "name a file"),
    errno.ENOTDIR: (_INPUT, "leads through a file as if that were a folder", "correct the path"),
    errno.EEXIST: (_INPUT, "is there already, and is no folder", "move it away"),
    errno.ENAMETOOLONG: (_INPUT, "is too long a name", "choose a shorter one"),
    errno.ELOOP: (_INPUT, "is a link that leads back to itself", "correct the link"),
    errno.EACCES: (_MACHINE, "may not be used by this user", "change its permissions or its owner"),
    errno.EPERM: (_MACHINE, "may not be used by this user", "change its permissions or its owner"),
    errno.EROFS: (_MACHINE, "is on a disk that can only be read", "work in a folder that can be written to"),
    errno.ENOSPC: (_MACHINE, "has no space left on its disk", "free some space"),
    errno.EDQUOT: (_MACHINE, "has used up the disk quota", "free some space or ask for a larger quota"),
    errno.EFBIG: (_MACHINE, "would be larger than this machine allows", "raise the limit (`ulimit -f`)"),
    errno.EIO: (_MACHINE, "could not be read or written", "look at the disk"),
    errno.EMFILE: (_MACHINE, "is one file too many for this process", "raise the limit (`ulimit -n`)"),
    errno.ENFILE: (_MACHINE, "is one file too many for this machine", "end other programs"),
    errno.ENOMEM: (_MACHINE, "found no free memory", "end other programs"),
    errno.EAGAIN: (_MACHINE, "is one process too many", "end other programs or raise the limit (`ulimit -u`)"),
    errno.EADDRINUSE: (_OUTSIDE, "is taken by another program", "choose another port"),
    errno.ECONNREFUSED: (_OUTSIDE, "refused the connection", "see whether the server runs"),
    errno.ECONNRESET: (_OUTSIDE, "broke off the connection", "try again"),
    errno.ETIMEDOUT: (_OUTSIDE, "did not answer in time", "try again"),
    errno.EHOSTUNREACH: (_OUTSIDE, "cannot be reached", "check the network"),
    errno.ENETUNREACH: (_OUTSIDE, "cannot be reached", "check the network"),
}
"""Of each error number: the exit code, what it says of the path, and what helps."""


def describe_os_error(error: OSError) -> str:
    """Say what an error means for the path it is about, and what helps."""
    _, what, help_ = _CAUSES.get(error.errno or 0, (_MACHINE, f"cannot be used ({error.strerror or error})", ""))
    return f"{what}; {help_}." if help_ else f"{what}."


def path_error(path: Path, error: OSError) -> BiloraError:
    """Return what to raise for an error of a path that a user named."""
    code, *_ = _CAUSES.get(error.errno or 0, (_MACHINE,))
    what = describe_os_error(error)
    return BadData(path, what) if code == _INPUT else Infrastructure(f"{path}: {what}")


def exit_sentence(error: OSError) -> tuple[ExitCode, str] | None:
    """Return the exit code and the sentence for an error of a known kind; None for any other."""
    if (known := _CAUSES.get(error.errno or 0)) is None:
        return None
    code, what, help_ = known
    path = error.filename2 or error.filename  # of a temporary file that takes its place, the place
    name = path if isinstance(path, str) else "a file" if code != _OUTSIDE else "the server"
    stays = " Nothing is half-written, and files that were finished remain." if code == _MACHINE else ""
    return code, f"{name} {what}; {help_} and run it again.{stays}"
