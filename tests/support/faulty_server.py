"""An HTTP server on loopback whose every request can be made to fail, before it is acted on or after."""

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
"""The longest that a request is kept waiting."""

Reply = tuple[int, dict[str, str], bytes]


@dataclass(frozen=True)
class Fault:
    """What happens to a request instead: a status without acting, or silence before or after acting."""

    kind: Literal["status", "drop", "drop-after", "hang"]
    code: int = 503


@contextlib.contextmanager
def serving(
    fault: Callable[[str, str, str | None], Fault | None], answer: Callable[[str, str, str | None, bytes], Reply]
) -> Iterator[int]:
    """Serve until the end of the block; yields the port.

    Args:
        fault: of method, path and bearer token; asked before anything is done.
        answer: of the same and the body.
    """
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # an answer in one packet: in two, the second waits 40 ms for the first's receipt

        def do(self) -> None:
            body = self.body()
            path = urlsplit(self.path).path
            bearer = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
            wrong = fault(self.command, path, bearer)
            if wrong and wrong.kind == "hang":
                over.wait(HANG_S)
            if wrong and wrong.kind in ("drop", "hang"):
                return self.drop()
            if wrong and wrong.kind == "status":
                return self.send(wrong.code, {}, b'{"error": "fault"}')
            reply = answer(self.command, path, bearer, body)
            return self.drop() if wrong else self.send(*reply)

        do_GET = do_HEAD = do_POST = do_PUT = do

        def body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            pieces = []
            while size := int(self.rfile.readline(), 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)

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
            over.set()
