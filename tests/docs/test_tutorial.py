"""docs/tutorial.md is followed word by word in a copy of the checkout, on the smoke base and with fewer steps."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from support.checkouts import environment_of, smoke_checkout
from support.guide_examples import Block, guide_blocks
from support.ports import free_port

INSTALL = "make install\n. .venv/bin/activate\n"
"""The block that installs what these tests run in."""
FILE = re.compile(r"`([\w.-]+)`")

pytestmark = pytest.mark.slow


def smaller(params: str) -> str:
    """Return the tutorial's params for the smoke base, with few steps and short answers."""
    document = yaml.safe_load(params)
    document["base"] = {"kind": "folder", "path": "models/smoke", "dtype": "float32"}
    task = document["tasks"]["docstring"]
    task["adapter"]["target_modules"] = ["gate_up_proj", "down_proj"]
    task["training"]["evaluate_samples"] = 4
    task["training"]["phases"][0].update(steps=4, evaluate_every=2)
    task["generation"]["max_new_tokens"] = 8
    return yaml.safe_dump(document, sort_keys=False)


def follow(block: Block, folder: Path) -> subprocess.CompletedProcess[str] | None:
    """Save a block that is a file, and run one of commands."""
    if block.language:
        name = FILE.findall(block.before)[-1]
        text = smaller(block.text) if name == "params.yaml" else block.text
        (folder / name).write_text(text, encoding="utf-8")
        return None
    port = str(free_port())
    commands = block.text.replace("bilora serve &", f"bilora serve --port {port} &").replace(":8000/", f":{port}/")
    return subprocess.run(
        ["bash", "-e", "-c", commands],
        cwd=folder,
        env=environment_of(folder),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def test_the_tutorial_ends_in_a_verdict(tmp_path: Path, no_proxy: None) -> None:
    folder = smoke_checkout(tmp_path / "checkout")
    blocks = guide_blocks("tutorial")
    assert blocks[0].text == INSTALL
    output = {}
    for block in blocks[1:]:
        done = follow(block, folder)
        if done is None:
            continue
        output[block.text] = done.stdout
        if block.text == "dvc repro benchmark\n":  # the gate refuses an adapter with so few steps
            results = json.loads((folder / "benchmarking" / "results.json").read_text(encoding="utf-8"))
            verdict = results["tasks"]["docstring"]["verdict"]
            assert verdict["n"] == 100 and verdict["outcome"] in {"pass", "inconclusive", "regressed"}
        else:
            assert done.returncode == 0, f"{block.text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    answer = json.loads(output[blocks[-1].text].splitlines()[-1])
    assert answer["model"] == "docstring" and answer["choices"]
