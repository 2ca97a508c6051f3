"""The packages for node, whose scripts lie in clients/node; `npm ci` installs them there."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import Server
from schema import Signature

QUESTION = "Write a Python function that adds two numbers."
TOKENS = 12
NODE = shutil.which("node")

pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed")


def answers(server: Server, script: str) -> dict[str, Any]:
    """Run a script, and return what it wrote."""
    done = subprocess.run(
        [str(NODE), script, QUESTION, str(TOKENS)],
        cwd=Path(__file__).with_name("node"),
        env=server.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    written: dict[str, Any] = json.loads(done.stdout)
    return written


def test_openai(server: Server) -> None:
    written = answers(server, "openai.mjs")
    assert written["chat"] == written["streamed"] == written["response"] != ""
    assert written["completion"]
    Signature.model_validate(written["object"])


def test_ai_sdk(server: Server) -> None:
    written = answers(server, "ai_sdk.mjs")
    assert written["text"] == written["streamed"] != ""
    assert written["outputTokens"] == TOKENS
    Signature.model_validate(written["object"])
    Signature.model_validate(written["output"])
