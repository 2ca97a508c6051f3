"""The app in uvicorn, and how it ends."""

from __future__ import annotations

import asyncio
import socket

import uvicorn

from bilora.serving.app import create_app
from bilora.serving.config import ServerConfig


class Server(uvicorn.Server):
    """Ends when what was accepted is answered, for which it has some time; half-sent requests get none."""

    def __init__(self, config: ServerConfig, *, drain_seconds: int) -> None:
        self._ending = asyncio.Event()
        super().__init__(
            uvicorn.Config(
                create_app(config, self._ending),
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=drain_seconds,
            )
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let running requests end."""
        self._ending.set()
        await super().shutdown(sockets)
