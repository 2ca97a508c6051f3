"""The server asked whatever its own schema allows, and what it does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from serving_running import KEY, Running


def test_nothing_that_can_be_asked_is_a_server_error(running: Running, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{running.url}/openapi.json"),
            *("--header", f"Authorization: Bearer {KEY}", "--phases", "coverage,fuzzing"),
            *("--checks", "not_a_server_error", "--max-examples", "5", "--workers", "8", "--seed", "1"),
        ],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert running.idle()
