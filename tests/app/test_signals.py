"""`bilora app` ends on a signal."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from support.checkouts import environment_of
from support.page_process import APP, started_page

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_page_with_its_server(adapted: Path, number: signal.Signals) -> None:
    with started_page(adapted, environment_of(adapted), APP) as (address, process):
        process.send_signal(number)
        assert process.wait(timeout=30) == 0
        port = urlsplit(address).port
        assert port is not None
        with socket.socket() as again:
            assert again.connect_ex(("127.0.0.1", port)) != 0


def test_python_m_bilora_is_bilora(adapted: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bilora", "app", "--help"],
        env=environment_of(adapted),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "Open the page" in done.stdout
