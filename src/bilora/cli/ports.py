"""The port that a server listens on, taken before anything slow is begun."""

from __future__ import annotations

import errno
import socket

from bilora.errors import BadData, Busy, Infrastructure


def bind(host: str, port: int) -> list[socket.socket]:
    """Return a bound socket per address that `host` has on this machine; none of them listens yet.

    Raises:
        BadData: this machine has no such address.
        Busy: another program has the port.
        Infrastructure: this user may not have the port.
    """
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise BadData("--host", f"{host} is no address.") from None
    bound: list[socket.socket] = []
    fault: BadData | Busy | Infrastructure | None = None
    for family, _, _, _, address in dict.fromkeys(addresses):
        try:
            bound.append(_bound(family, address))
        except OSError as error:
            fault = _fault(error, host, port)
            if not isinstance(fault, BadData):  # a name may have an address, IPv6 mostly, that this machine has not
                break
    if fault is not None and (not bound or not isinstance(fault, BadData)):
        for one in bound:
            one.close()
        raise fault
    return bound


def _bound(family: int, address: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]) -> socket.socket:
    taken = socket.socket(family, socket.SOCK_STREAM)
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        taken.bind(address)
    except BaseException:
        taken.close()
        raise
    return taken


def _fault(error: OSError, host: str, port: int) -> BadData | Busy | Infrastructure:
    if error.errno == errno.EADDRINUSE:
        return Busy(f"{host}:{port} is taken by another program; end that, or choose another --port.")
    if error.errno in (errno.EACCES, errno.EPERM):
        return Infrastructure(f"{host}:{port} may not be taken by this user; choose a --port from 1024 on.")
    return BadData("--host", f"{host} is no address of this machine.")
