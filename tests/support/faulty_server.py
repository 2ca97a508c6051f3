"""An HTTP server on loopback in which any request can fail, before or after it takes effect."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any, Literal
from urllib.parse import urlsplit

from support.http_servers import serving_http

HANG_S = 5.0
"""The longest time that a request hangs."""

Reply = tuple[int, dict[str, str], bytes]


@dataclass(frozen=True)
class Fault:
    """A failure of a request: an error status, or no response before or after the request takes effect."""

    kind: Literal["status", "drop", "drop-after", "hang"]
    code: int = 503


@contextlib.contextmanager
def serving(
    fault: Callable[[str, str, str | None], Fault | None], answer: Callable[[str, str, str | None, bytes], Reply]
) -> Iterator[int]:
    """Serve until the end of the block; yields the port.

    Args:
        fault: called with method, path and bearer token before the request takes effect.
        answer: called with the same and the body.
    """
    finished = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # a response in one packet: with two, the second waits 40 ms for the first's acknowledgement

        def do(self) -> None:
            body = self.body()
            path = urlsplit(self.path).path
            bearer = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
            failure = fault(self.command, path, bearer)
            if failure and failure.kind == "hang":
                finished.wait(HANG_S)
            if failure and failure.kind in ("drop", "hang"):
                return self.drop()
            if failure and failure.kind == "status":
                return self.send(failure.code, {}, b'{"error": "fault"}')
            reply = answer(self.command, path, bearer, body)
            return self.drop() if failure else self.send(*reply)

        do_GET = do_HEAD = do_POST = do_PUT = do

        def body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)

        def drop(self) -> None:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

        def send(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with serving_http(Handler) as port:
        try:
            yield port
        finally:
            finished.set()
