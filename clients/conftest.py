"""`bilora serve` with the default base in 32-bit, for clients that are installed in their own environments."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.ports import free_port

ROOT = Path(__file__).parents[1]
PYTHON = os.environ.get("BILORA_PYTHON", str(ROOT / ".venv/bin/python"))
SECOND_PYTHON = os.environ.get("SECOND_PYTHON", str(ROOT / ".venv-clients-second/bin/python"))
KEY = "any"  # the server requires none, but clients must send one
START_S = 300


@dataclass(frozen=True)
class Server:
    """A running server, its working directory, and the environment of its clients."""

    address: str
    folder: Path

    @property
    def url(self) -> str:
        return f"{self.address}/v1"

    @property
    def environment(self) -> dict[str, str]:
        variables = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        variables |= {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": self.url, "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
        return variables


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(ROOT / "models", folder / "models")
    params = (ROOT / "params.yaml").read_text(encoding="utf-8")
    assert params.count("dtype: auto") == 1
    (folder / "params.yaml").write_text(params.replace("dtype: auto", "dtype: float32"), encoding="utf-8")
    port = free_port()
    log = folder / "serve.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [PYTHON, "-m", "bilora", "serve", "--port", str(port)],
            cwd=folder,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        running = Server(f"http://127.0.0.1:{port}", folder)
        deadline = time.monotonic() + START_S
        while not _is_healthy(running):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
        yield running
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@pytest.fixture(autouse=True)
def environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the server's address and key in the environment variables that clients read."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)


def _is_healthy(server: Server) -> bool:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{server.address}/health", timeout=5):
            return True
    except OSError:
        return False
