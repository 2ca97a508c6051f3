"""The server with generated requests that its schema allows, and others."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

from support.running_server import KEY, RunningServer


def test_no_valid_request_causes_a_server_error(running: RunningServer, tmp_path: Path) -> None:
    with urllib.request.urlopen(f"{running.url}/openapi.json") as answer:
        schema = json.load(answer)
    requests = [shape for shape in schema["components"]["schemas"].values() if "model" in shape.get("properties", {})]
    for shape in requests:  # otherwise every request is for an unknown model
        shape["properties"]["model"]["enum"] = ["base", "codegen", "docstring"]
    assert len(requests) == 5
    (tmp_path / "openapi.json").write_text(json.dumps(schema), encoding="utf-8")
    completed = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", "openapi.json", "--url", running.url),
            *("--header", f"Authorization: Bearer {KEY}", "--phases", "fuzzing", "--checks", "not_a_server_error"),
            *("--max-examples", "15", "--workers", "8", "--seed", "1"),
        ],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert completed.returncode == 0, completed.stdout[-3000:] + completed.stderr[-2000:]
    assert running.idle()
