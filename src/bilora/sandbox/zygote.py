"""The process that candidates are forked from.

It has the standard library loaded and has never seen a test, so neither has what it forks.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import time
from typing import Any

from bilora.sandbox import namespaces
from bilora.sandbox.candidate import live
from bilora.sandbox.confinement import Layers, Limits, become_nobody, guard, kill_children, probe
from bilora.sandbox.wire import Channel, Closed

_LIBRARY = """
    array ast base64 bisect calendar cmath collections copy dataclasses datetime decimal enum fractions
    functools hashlib heapq itertools json math numbers operator queue random re statistics string struct
    textwrap time typing unicodedata _strptime
"""
"""What a program can import even where the library's files cannot be read by an unprivileged user."""


def serve(referee: Channel, limits: Limits) -> None:
    """Shut itself in, say how well, then fork a candidate onto each socket that the referee hands over."""
    _load_library()
    time.localtime()  # reads the time zone while files can be read
    layers = _enclosed(limits)
    guard()
    referee.send({"on": layers.on, "off": layers.off})
    gc.collect()
    gc.freeze()
    with contextlib.suppress(Closed):
        while True:
            _raise(referee, limits, layers)
    kill_children()


def _load_library() -> None:
    """Import what programs may use, and keep it from hooking into fork.

    A hook would run anew in every candidate: threading's takes as long as the fork itself, and random's
    would let the same program come out differently from run to run.
    """
    register, os.register_at_fork = os.register_at_fork, lambda **_: None
    try:
        for name in _LIBRARY.split():
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    finally:
        os.register_at_fork = register
    importlib.import_module("random").seed(0)


def _enclosed(limits: Limits) -> Layers:
    """Enter namespaces where they are allowed, and try the layers that each candidate will add."""
    why = ""
    try:
        become_nobody()
        namespaces.enter()
        if not namespaces.denied():
            why = "they were entered and hid nothing"
    except OSError as error:
        why = str(error)
    inner = probe(limits)
    if why:
        return Layers(inner.on, {"namespaces": why, **inner.off})
    return Layers(("namespaces", *inner.on), inner.off)


def _raise(referee: Channel, limits: Limits, layers: Layers) -> None:
    descriptor = referee.take_over()
    pid = os.fork()
    if pid == 0:
        try:
            live(descriptor, limits, layers)
        finally:
            os._exit(1)
    os.close(descriptor)
    try:
        referee.receive()
    finally:
        ending = _bury(pid)
    referee.send(ending)


def _bury(pid: int) -> dict[str, Any]:
    """Kill a candidate and all that it started; say how it ended, unless it lived until now."""
    gone = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    return {
        "gone": gone,
        "status": status,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "left_behind": kill_children(),
    }
