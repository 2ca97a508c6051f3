"""The uvicorn server of the app, and its graceful shutdown."""

from __future__ import annotations

import asyncio
import socket

import uvicorn

from bilora.serving.app import create_app
from bilora.serving.config import ServerConfig


class Server(uvicorn.Server):
    """A server that finishes accepted requests for up to `drain_seconds` before it stops."""

    def __init__(self, config: ServerConfig, *, drain_seconds: int) -> None:
        self._shutting_down = asyncio.Event()
        super().__init__(
            uvicorn.Config(
                create_app(config, self._shutting_down),
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=drain_seconds,
            )
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse incomplete requests, and wait for running ones."""
        self._shutting_down.set()
        await super().shutdown(sockets)
