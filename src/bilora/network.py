"""Explain failed connections in a few words."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from importlib import import_module, metadata
from types import ModuleType
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from bilora.redaction import redacted_line

FAULTS = {
    "ProxyError": "the proxy in HTTP_PROXY, HTTPS_PROXY or ALL_PROXY failed",
    "Timeout": "the server did not answer in time",
    "UnsupportedProtocol": "the address does not begin with http:// or https://",
    "InvalidURL": "the address is malformed",
    "LocalProtocolError": "the request cannot be sent: a header, such as the key, is malformed",
    "ProtocolError": "the connection was lost, or the server does not speak HTTP",
    "TooManyRedirects": "the server redirects without end",
    "DecodingError": "the reply cannot be decompressed",
}
"""The fault of each HTTP client exception, by a part of the exception's name."""
MAX_CAUSES = 20


def connection_fault(error: BaseException) -> str | None:
    """Return what is wrong with a connection by an error and its causes; None if none is about the connection.

    The errors of the operating system and of TLS are checked first: they say more than the HTTP client's.
    """
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the server's certificate is not trusted ({redacted_line(str(cause.verify_message), limit=80)})"
        if isinstance(cause, ssl.SSLError):
            return "TLS failed; the address may have to begin with http://"
        if isinstance(cause, socket.gaierror):
            return "the host name is unknown"
        if isinstance(cause, ConnectionRefusedError):
            return "the connection was refused: no server listens there"
        if isinstance(cause, ConnectionError):
            return "the connection was lost"
        if isinstance(cause, TimeoutError):
            return FAULTS["Timeout"]
    for cause in causes:
        for part, fault in FAULTS.items():
            if part in type(cause).__name__:
                return fault
    if any("Connect" in type(cause).__name__ or "Network" in type(cause).__name__ for cause in causes):
        return "the connection failed"
    return None


def uses_proxy(url: str) -> bool:
    """Return whether the environment sets a proxy for this URL."""
    parts, proxies = urlsplit(url), getproxies()
    return bool((proxies.get(parts.scheme) or proxies.get("all")) and not proxy_bypass(parts.hostname or ""))


def http_library(package: str) -> ModuleType:
    """Return the HTTP library that `package` uses: httpx2, or httpx under huggingface_hub 1 and openai 2."""
    requirements = metadata.requires(package) or ()
    if any(requirement.startswith("httpx2") for requirement in requirements):
        return import_module("httpx2")
    return import_module("httpx")


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    for _ in range(MAX_CAUSES):
        if cause is None:
            return
        yield cause
        cause = cause.__cause__ or cause.__context__
