"""The first step of a process that is forked for one program: it keeps its channel and closes all else."""

from __future__ import annotations

import os
import resource
import signal
import socket

from bilora.sandbox.wire import Channel

_NULL, _SOCKET = 1, 3
"""Descriptors: standard output, which is the null device and replaces the zygote's channel, and the socket."""


def isolated(descriptor: int) -> Channel:
    """Make the calling process the leader of a session with one open socket; return its channel."""
    os.setsid()
    os.dup2(descriptor, _SOCKET)
    os.dup2(_NULL, 0)
    os.closerange(_SOCKET + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored, signal.SIG_IGN)
    return Channel(socket.socket(fileno=_SOCKET))
