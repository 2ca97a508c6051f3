"""The process that candidates are forked from.

It has the standard library loaded and has never seen a test, so neither has what it forks.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import itertools
import os
import shutil
import signal
from typing import Any

from bilora.sandbox.candidate import live
from bilora.sandbox.confinement import Limits, guard, kill_children
from bilora.sandbox.wire import Channel, Closed

_LIBRARY = """
    array ast base64 bisect calendar cmath collections copy dataclasses datetime decimal enum fractions
    functools hashlib heapq itertools json math numbers operator queue random re statistics string struct
    textwrap time typing unicodedata _strptime
"""
"""What a program can import even where the library's files cannot be read by an unprivileged user."""


def serve(referee: Channel, limits: Limits, folder: str) -> None:
    """Fork a candidate onto each socket that the referee hands over; bury it when told to."""
    for name in _LIBRARY.split():
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    guard()
    gc.collect()
    gc.freeze()
    with contextlib.suppress(Closed):
        for number in itertools.count():
            _raise(referee, limits, f"{folder}/{os.getpid()}-{number}")
    kill_children()


def _raise(referee: Channel, limits: Limits, folder: str) -> None:
    descriptor = referee.take_over()
    os.mkdir(folder, 0o555)  # noqa: PTH102 - pathlib would be one more import in every candidate
    pid = os.fork()
    if pid == 0:
        try:
            live(descriptor, folder, limits)
        finally:
            os._exit(1)
    os.close(descriptor)
    try:
        referee.receive()
    finally:
        ending = _bury(pid)
        _remove(folder)
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


def _remove(folder: str) -> None:
    try:
        os.rmdir(folder)  # noqa: PTH106 - as above
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
