"""OpenAI's client and the AI SDK for node. Their scripts are in clients/node, where `npm ci` installs the packages."""

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


def run_script(server: Server, script: str) -> dict[str, Any]:
    """Run a script and return the JSON object that it prints."""
    completed = subprocess.run(
        [str(NODE), script, QUESTION, str(TOKENS)],
        cwd=Path(__file__).with_name("node"),
        env=server.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    output: dict[str, Any] = json.loads(completed.stdout)
    return output


def test_openai(server: Server) -> None:
    output = run_script(server, "openai.mjs")
    assert output["chat"] == output["streamed"] == output["response"] != ""
    assert output["completion"]
    Signature.model_validate(output["object"])


def test_ai_sdk(server: Server) -> None:
    output = run_script(server, "ai_sdk.mjs")
    assert output["text"] == output["streamed"] != ""
    assert output["outputTokens"] == TOKENS
    Signature.model_validate(output["object"])
    Signature.model_validate(output["output"])
