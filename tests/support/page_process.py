"""The page in a separate process, as a user starts it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from support.ports import free_port

STREAMLIT = ("-m", "streamlit", "run", "hf_space/app.py", "--server.port")
APP = ("-m", "bilora", "app", "--port")


@contextlib.contextmanager
def started_page(
    folder: Path, environment: Mapping[str, str], command: Sequence[str] = STREAMLIT
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run a page in `folder` for the length of the block; yield its address and its process once it answers."""
    port = free_port()
    with subprocess.Popen(
        [sys.executable, *command, str(port)],
        cwd=folder,
        env=dict(environment),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            for _ in range(240):
                with contextlib.suppress(OSError), urllib.request.urlopen(f"http://localhost:{port}/_stcore/health"):
                    break
                assert process.poll() is None, "the page ended before it answered"
                time.sleep(0.25)
            yield f"http://localhost:{port}", process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, 15)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=30)
            process.kill()
