"""Start the referee and the zygotes by exec, so that they contain no memory of the parent."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict
from typing import Literal

from bilora.sandbox.confinement import Limits
from bilora.sandbox.wire import Channel

_SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bare.py")  # noqa: PTH100, PTH118, PTH120
_PYTHON = ("-P", "-s", "-S", "-B")
"""As -I, but reading PYTHONHASHSEED, so that sets have the same order on every run."""
_ENVIRONMENT = {"LANG": "C.UTF-8", "PYTHONHASHSEED": "0"}


def spawn(
    role: Literal["referee", "zygote"], limits: Limits, *kind: str, session: bool
) -> tuple[subprocess.Popen[bytes], Channel]:
    """Start a process whose environment is fixed and whose only descriptor is the other end of the channel.

    Args:
        kind: `ForkKind` of a zygote.
        session: whether it leads a new session, so that its process group can be killed.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, *_PYTHON, _SCRIPT, role, json.dumps(asdict(limits)), *kind],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=_ENVIRONMENT,
            cwd="/",
            start_new_session=session,
        )
    return process, Channel(ours)
