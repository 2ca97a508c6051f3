"""Script that runs a referee or a zygote. It loads only this package and the standard library.

`python bare.py (referee|zygote) LIMITS [KIND]`; standard input is a socket to the parent process.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import types


def run_role() -> None:
    """Run the role that the command line names until the parent closes the socket."""
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - pathlib is not loaded yet
    for name, folder in (("bilora", os.path.dirname(here)), ("bilora.sandbox", here)):  # noqa: PTH120
        package = types.ModuleType(name)  # the real packages import dependencies that are not on the path here
        package.__path__ = [folder]
        sys.modules[name] = package
    from bilora.sandbox.confinement import Limits
    from bilora.sandbox.wire import Channel

    role, limits_json, *kind = sys.argv[1:]
    channel, limits = Channel(socket.socket(fileno=0)), Limits(**json.loads(limits_json))
    if role == "zygote":
        from bilora.sandbox.zygote import run_zygote

        run_zygote(channel, limits, *kind)  # type: ignore[arg-type]  # `spawn` passed a `ForkKind`
    else:
        from bilora.sandbox.referee import run_referee

        run_referee(channel, limits)


if __name__ == "__main__":
    run_role()
