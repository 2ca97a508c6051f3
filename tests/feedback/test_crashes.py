"""Writers and exporters are killed at random; a small run of perf/outbox.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_killed_processes_lose_and_duplicate_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "perf/outbox.py", "--kills", "60", "--timed", "0"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lost 0, duplicated 0" in done.stdout
    assert int(done.stdout.split("acknowledged ")[1].split(",")[0]) > 50
