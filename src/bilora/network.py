"""Say in a few words why a connection came to nothing."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from bilora.redaction import one_line

BY_CLASS = {
    "ProxyError": "the proxy that the environment names (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY) let no connection through",
    "Timeout": "no reply came in time",
    "UnsupportedProtocol": "the address does not begin with http:// or https://",
    "InvalidURL": "the address is malformed",
    "LocalProtocolError": "the request cannot be sent: a header, such as the key, is malformed",
    "ProtocolError": "the connection broke off, or what answers is no HTTP server",
    "TooManyRedirects": "the server sends from one address to another without end",
    "DecodingError": "the reply is not compressed as it says",
}
"""By a part of the name of the HTTP client's exception."""
MAX_CAUSES = 20


def connection_fault(error: BaseException) -> str | None:
    """Return what an error and its causes say of the connection; None if they say nothing of it.

    The operating system's and TLS's own errors say more than the HTTP client's, which are looked at last.
    """
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the server's certificate is not trusted ({one_line(str(cause.verify_message), limit=80)})"
        if isinstance(cause, ssl.SSLError):
            return "no secure connection came about; the address may have to begin with http://"
        if isinstance(cause, socket.gaierror):
            return "the host's name is unknown"
        if isinstance(cause, ConnectionRefusedError):
            return "the connection was refused: no server listens there"
        if isinstance(cause, ConnectionError):
            return "the connection broke off"
        if isinstance(cause, TimeoutError):
            return BY_CLASS["Timeout"]
    for cause in causes:
        for part, words in BY_CLASS.items():
            if part in type(cause).__name__:
                return words
    if any("Connect" in type(cause).__name__ or "Network" in type(cause).__name__ for cause in causes):
        return "the connection failed"
    return None


def uses_proxy(url: str) -> bool:
    """Tell whether the environment sends requests to this address through a proxy."""
    parts, proxies = urlsplit(url), getproxies()
    return bool((proxies.get(parts.scheme) or proxies.get("all")) and not proxy_bypass(parts.hostname or ""))


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    for _ in range(MAX_CAUSES):
        if cause is None:
            return
        yield cause
        cause = cause.__cause__ or cause.__context__
