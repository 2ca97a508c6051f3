"""Start one of the sandbox's own processes: this package and the standard library, nothing else.

Run as `python -P -s -S -B bare.py (referee|zygote) SETTINGS`, with a socket as standard input.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import types
from typing import Any

_ENVIRONMENT = {"LANG": "C.UTF-8", "PYTHONHASHSEED": "0"}


def command(role: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `subprocess.Popen` for a process that sees no memory, environment or file of ours."""
    return {
        # What -I means, except that PYTHONHASHSEED is read: sets are ordered alike on every run.
        "args": [sys.executable, "-P", "-s", "-S", "-B", os.path.abspath(__file__), role, json.dumps(settings)],
        "env": _ENVIRONMENT,
        "stdout": -3,  # subprocess.DEVNULL
        "stderr": -3,
        "cwd": settings["folder"],
    }


def main() -> None:
    """Play the role that the command line names, until the other end of standard input hangs up."""
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - pathlib is not loaded yet
    for name, folder in (("bilora", os.path.dirname(here)), ("bilora.sandbox", here)):  # noqa: PTH120
        package = types.ModuleType(name)  # the real ones would import more than is installed here
        package.__path__ = [folder]
        sys.modules[name] = package
    from bilora.sandbox import referee, zygote
    from bilora.sandbox.confinement import Limits
    from bilora.sandbox.wire import Channel

    settings, role = json.loads(sys.argv.pop()), sys.argv.pop()
    serve = {"referee": referee.serve, "zygote": zygote.serve}[role]
    serve(Channel(socket.socket(fileno=0)), Limits(**settings["limits"]), settings["folder"])


if __name__ == "__main__":
    main()
