"""Free TCP ports on loopback, for tests and measurements that start a server."""

from __future__ import annotations

import socket


def free_port() -> int:
    """Return a port on 127.0.0.1 that no program uses now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
