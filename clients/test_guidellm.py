"""guidellm with the base's tokenizer and synthetic prompts, so that it needs no network."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from conftest import SECOND_PYTHON, Server

REQUESTS = 3
TOKENS = 8


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/responses"])
def test_every_request_is_completed(server: Server, tmp_path: Path, path: str) -> None:
    tokenizer = min((server.folder / ".cache/bases").rglob("tokenizer.json")).parent
    report = tmp_path / "report.json"
    command = [SECOND_PYTHON, "-m", "guidellm", "run", "--disable-console"]
    command += ["--backend", f"kind=openai_http,target={server.address},model=base,request_format={path}"]
    command += ["--profile", "kind=concurrent,streams=2", "--constraint", f"kind=max_requests,count={REQUESTS}"]
    command += ["--tokenizer", f"kind=huggingface_auto,model={tokenizer}"]
    command += ["--data", f"kind=synthetic_text,prompt_tokens=32,output_tokens={TOKENS}"]
    command += ["--output", f"kind=json,path={report}"]
    completed = subprocess.run(
        command, cwd=tmp_path, env=server.environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert completed.returncode == 0, completed.stderr[-3000:]
    (benchmark,) = json.loads(report.read_text(encoding="utf-8"))["benchmarks"]
    totals = {"successful": REQUESTS, "errored": 0, "incomplete": 0, "total": REQUESTS}
    assert benchmark["metrics"]["request_totals"] == totals, benchmark["requests"]["errored"]
    for request in benchmark["requests"]["successful"]:
        assert request["output"] and request["output_metrics"]["text_tokens"] == TOKENS
