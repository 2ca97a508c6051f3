"""The server asked whatever its own schema allows, and what it does not."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

from support.running_server import KEY, RunningServer


def test_nothing_that_can_be_asked_is_a_server_error(running: RunningServer, tmp_path: Path) -> None:
    with urllib.request.urlopen(f"{running.url}/openapi.json") as answer:
        schema = json.load(answer)
    asked = [shape for shape in schema["components"]["schemas"].values() if "model" in shape.get("properties", {})]
    for shape in asked:  # else every question is about a model that nobody serves
        shape["properties"]["model"]["enum"] = ["base", "codegen", "docstring"]
    assert len(asked) == 5
    (tmp_path / "openapi.json").write_text(json.dumps(schema), encoding="utf-8")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", "openapi.json", "--url", running.url),
            *("--header", f"Authorization: Bearer {KEY}", "--phases", "fuzzing", "--checks", "not_a_server_error"),
            *("--max-examples", "15", "--workers", "8", "--seed", "1"),
        ],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert running.idle()
