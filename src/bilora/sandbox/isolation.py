"""What a process that was forked for one program does first: it keeps its channel and lets go of all else."""

from __future__ import annotations

import os
import resource
import signal
import socket

from bilora.sandbox.wire import Channel

_NULL, _SOCKET = 1, 3
"""Standard output is the null device already; the zygote's end of its channel gives way to it."""


def isolated(descriptor: int) -> Channel:
    """Make the calling process the leader of a session, with one open socket; return the channel over it."""
    os.setsid()
    os.dup2(descriptor, _SOCKET)
    os.dup2(_NULL, 0)
    os.closerange(_SOCKET + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored, signal.SIG_IGN)
    return Channel(socket.socket(fileno=_SOCKET))
