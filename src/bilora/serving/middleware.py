"""Checks of a request's key and size before the app sees it, and an id for every reply."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bilora.serving.replies import ApiError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_OPEN = ("/health", "/metrics", "/openapi.json")
"""Paths that need no key: they hold no text of questions or answers."""
_REQUEST_ID = re.compile(r"[\w.-]{1,128}", re.ASCII)

OnReply = Callable[[str, int], None]
"""Called with the path and the status of each reply."""


@dataclass(frozen=True)
class BodyLimits:
    """How many bytes a request may have, and an event that ends the waiting for the rest of one."""

    max_bytes: int
    ending: asyncio.Event


class AuthMiddleware:
    """An ASGI layer around the app. The key is compared in constant time and stored only as its hash."""

    def __init__(
        self, app: ASGIApp, *, key: str | None, limits: BodyLimits, paths: frozenset[str], on_reply: OnReply
    ) -> None:
        self._app = app
        self._key = hashlib.sha256(key.encode()).digest() if key else None
        self._limits = limits
        self._paths = paths
        self._on_reply = on_reply

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on to the app, or answer it with an error."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        given = headers.get(b"x-request-id", "")
        identity = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
        path = scope["path"] if scope["path"] in self._paths else "other"

        async def reply(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"x-request-id", identity.encode())]}
                self._on_reply(path, message["status"])
            await send(message)

        try:
            if scope["path"] not in _OPEN:
                self._check_key(headers.get(b"authorization", ""))
            body = await self._body(headers, receive)
        except ApiError as error:
            await _refuse(error, reply)
            return
        if body is not None:
            await self._app(scope, _replayed(body, receive), reply)

    def _check_key(self, authorization: str) -> None:
        if self._key is None:
            return
        scheme, _, key = authorization.partition(" ")
        offered = hashlib.sha256(key.strip().encode("latin-1")).digest()
        if not hmac.compare_digest(offered, self._key) or scheme.lower() != "bearer":
            raise ApiError(
                401,
                "The key is missing or wrong. Send it as `Authorization: Bearer KEY`.",
                "invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    async def _body(self, headers: dict[bytes, str], receive: Receive) -> bytes | None:
        """Read the whole body; None if the client disconnected before its end."""
        too_large = ApiError(413, f"A request has at most {self._limits.max_bytes:,} bytes here.", "request_too_large")
        length = headers.get(b"content-length", "")
        if length.isdigit() and int(length) > self._limits.max_bytes:
            raise too_large
        body = bytearray()
        while True:
            message = await self._next(receive)
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if len(body) > self._limits.max_bytes:
                raise too_large
            if not message.get("more_body"):
                return bytes(body)

    async def _next(self, receive: Receive) -> Message:
        """Return the client's next message; a half-sent body does not hold up the end of the server."""
        coming, ending = asyncio.ensure_future(receive()), asyncio.ensure_future(self._limits.ending.wait())
        try:
            await asyncio.wait((coming, ending), return_when=asyncio.FIRST_COMPLETED)
            if coming.done():
                return coming.result()
        finally:
            ending.cancel()
            coming.cancel()
        raise ApiError(503, "The server ends before the whole request has come. Ask again.", kind="server_error")


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return a receive function that delivers the body in one message, then the client's later messages."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


async def _refuse(error: ApiError, send: Send) -> None:
    body = json.dumps(error.body).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **error.headers}
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
