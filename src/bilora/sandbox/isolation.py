"""The first step of a newly forked process: keep its channel and close all other descriptors."""

from __future__ import annotations

import os
import resource
import signal
import socket

from bilora.sandbox.wire import Channel

_NULL, _SOCKET = 1, 3
"""Descriptors: standard output (the null device, which replaces the zygote's channel) and the socket."""


def isolate(descriptor: int) -> Channel:
    """Start a session in the calling process, with one open socket; return that socket's channel."""
    os.setsid()
    os.dup2(descriptor, _SOCKET)
    os.dup2(_NULL, 0)
    os.closerange(_SOCKET + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored, signal.SIG_IGN)
    return Channel(socket.socket(fileno=_SOCKET))
