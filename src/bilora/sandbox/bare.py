"""What one of the sandbox's own processes runs: this package and the standard library, nothing else.

`python bare.py (referee|zygote) LIMITS [KIND]`, with a socket to the process that started it as standard input.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import sys
import types


def main() -> None:
    """Play the role that the command line names, until the other end of standard input hangs up."""
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - pathlib is not loaded yet
    for name, folder in (("bilora", os.path.dirname(here)), ("bilora.sandbox", here)):  # noqa: PTH120
        package = types.ModuleType(name)  # the real ones would import more than is installed here
        package.__path__ = [folder]
        sys.modules[name] = package
    from bilora.sandbox.confinement import Limits
    from bilora.sandbox.wire import Channel

    role, limits, *kind = sys.argv[1:]
    part = importlib.import_module(f"bilora.sandbox.{role}")
    part.serve(Channel(socket.socket(fileno=0)), Limits(**json.loads(limits)), *kind)


if __name__ == "__main__":
    main()
