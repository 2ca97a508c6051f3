"""BiLoRA's server on loopback, in a thread of the test, and OpenAI's client for it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from openai import OpenAI

from bilora.inference.torch.engine import TorchEngine
from bilora.serving.config import ServerConfig
from bilora.serving.server import Server
from support.sample_adapters import SMOKE, SampleAdapters

KEY = "sk-loopback"


@dataclass
class RunningServer:
    """A running server with its engine."""

    url: str
    engine: TorchEngine
    server: Server

    def client(self, key: str = KEY) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=60)

    def idle(self, seconds: float = 20.0) -> bool:
        """Wait until no request is active or queued; return False after `seconds`."""
        deadline = time.monotonic() + seconds
        while self.engine.queue_depth() != (0, 0) and time.monotonic() < deadline:
            time.sleep(0.005)
        return self.engine.queue_depth() == (0, 0)


@contextlib.contextmanager
def serving(config: ServerConfig) -> Iterator[RunningServer]:
    """Serve for the length of the block."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = Server(config, drain_seconds=20)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="uvicorn")
    thread.start()
    try:
        while not server.started:
            time.sleep(0.005)
        assert isinstance(config.engine, TorchEngine)
        yield RunningServer(f"http://127.0.0.1:{listener.getsockname()[1]}", config.engine, server)
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()


def make_engine(sample_adapters: SampleAdapters, *, batch_size: int = 8, max_waiting: int = 64) -> TorchEngine:
    """Return an engine of the smoke base with both adapters."""
    folders = {name: sample_adapters.folders[name] for name in ("codegen", "docstring")}
    return TorchEngine(SMOKE.load(training=False), folders, batch_size=batch_size, max_waiting=max_waiting)
