"""Middleware that checks the API key and the size of a request, and adds an id to each reply."""

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

_PUBLIC_PATHS = ("/health", "/metrics", "/openapi.json")
"""Paths without a key: they contain no text of prompts or answers."""
_REQUEST_ID = re.compile(r"[\w.-]{1,128}", re.ASCII)

OnReply = Callable[[str, int], None]
"""Callback for the path and the status of each reply."""


@dataclass(frozen=True)
class BodyLimits:
    """Maximum bytes of a request, and an event that stops waiting for incomplete requests."""

    max_bytes: int
    shutting_down: asyncio.Event


class AuthMiddleware:
    """Checks requests before the app. The key is compared in constant time and stored only as its hash."""

    def __init__(
        self, app: ASGIApp, *, key: str | None, limits: BodyLimits, paths: frozenset[str], on_reply: OnReply
    ) -> None:
        self._app = app
        self._key = hashlib.sha256(key.encode()).digest() if key else None
        self._limits = limits
        self._paths = paths
        self._on_reply = on_reply

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request to the app, or send an error."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        client_id = headers.get(b"x-request-id", "")
        request_id = client_id if _REQUEST_ID.fullmatch(client_id) else secrets.token_hex(16)
        path = scope["path"] if scope["path"] in self._paths else "other"

        async def reply(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"x-request-id", request_id.encode())]}
                self._on_reply(path, message["status"])
            await send(message)

        try:
            if scope["path"] not in _PUBLIC_PATHS:
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
        digest = hashlib.sha256(key.strip().encode("latin-1")).digest()
        if not hmac.compare_digest(digest, self._key) or scheme.lower() != "bearer":
            raise ApiError(
                401,
                "The key is missing or wrong. Send it as `Authorization: Bearer KEY`.",
                "invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    async def _body(self, headers: dict[bytes, str], receive: Receive) -> bytes | None:
        """Read the body; None if the client disconnected before its end."""
        too_large = ApiError(413, f"The request has more than {self._limits.max_bytes:,} bytes.", "request_too_large")
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
        """Return the client's next message; raise if the server shuts down before it arrives."""
        message = asyncio.ensure_future(receive())
        shutdown = asyncio.ensure_future(self._limits.shutting_down.wait())
        try:
            await asyncio.wait((message, shutdown), return_when=asyncio.FIRST_COMPLETED)
            if message.done():
                return message.result()
        finally:
            shutdown.cancel()
            message.cancel()
        raise ApiError(503, "The server is shutting down. Send the request again.", kind="server_error")


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return a receive function for the body in one message, then the client's later messages."""
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
