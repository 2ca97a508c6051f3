"""Bind a server's port before slow work starts."""

from __future__ import annotations

import errno
import socket

from bilora.errors import BadData, Busy, Infrastructure


def bind(host: str, port: int) -> list[socket.socket]:
    """Return one bound socket per address of `host` on this machine; none of them listens yet.

    Raises:
        BadData: `host` is not an address of this machine.
        Busy: another program uses the port.
        Infrastructure: this user is not allowed to use the port.
    """
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise BadData("--host", f"{host} is not an address.") from None
    sockets: list[socket.socket] = []
    fault: BadData | Busy | Infrastructure | None = None
    for family, _, _, _, address in dict.fromkeys(addresses):
        try:
            sockets.append(_bind_address(family, address))
        except OSError as error:
            fault = _fault(error, host, port)
            if not isinstance(fault, BadData):  # a name may also resolve to an address (mostly IPv6) of no interface
                break
    if fault is not None and (not sockets or not isinstance(fault, BadData)):
        for listener in sockets:
            listener.close()
        raise fault
    return sockets


def _bind_address(
    family: int, address: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]
) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
    except BaseException:
        listener.close()
        raise
    return listener


def _fault(error: OSError, host: str, port: int) -> BadData | Busy | Infrastructure:
    if error.errno == errno.EADDRINUSE:
        return Busy(f"{host}:{port} is used by another program; stop it, or choose another --port.")
    if error.errno in (errno.EACCES, errno.EPERM):
        return Infrastructure(f"this user is not allowed to use {host}:{port}; choose a --port from 1024 on.")
    return BadData("--host", f"{host} is not an address of this machine.")
