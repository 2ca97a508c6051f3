"""Killed three times and gone on with, training ends in the same bytes as without a kill."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from checkout import copied_checkout, shell_in

from bilora.storage import adapter_sha256

pytestmark = pytest.mark.slow
STEPS = 24


def steps_written(folder: Path) -> int:
    """How many optimiser steps the newest run has put down."""
    curves = sorted((folder / "runs").glob("*/metrics.jsonl"), key=lambda path: path.stat().st_mtime)
    if not curves:
        return 0
    return sum('"loss"' in line for line in curves[-1].read_text(encoding="utf-8").splitlines())


def kill_after(folder: Path, steps: int) -> None:
    """Start training and SIGKILL it once `steps` further steps are written."""
    for curve in (folder / "runs").glob("*"):
        shutil.rmtree(curve)
    run = shell_in(folder)
    environment = run("env").stdout
    process = subprocess.Popen(
        ["bilora", "train", "codegen"],
        cwd=folder,
        env=dict(line.split("=", 1) for line in environment.splitlines() if "=" in line),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while steps_written(folder) < steps and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None, "training ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_three_kills_change_no_byte(tmp_path: Path) -> None:
    folder = copied_checkout(tmp_path / "checkout")
    params = folder / "params.yaml"
    document = yaml.safe_load(params.read_text(encoding="utf-8"))
    document["tasks"]["codegen"]["training"].update(steps=STEPS, evaluate_every=4, patience=STEPS)
    params.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    run = shell_in(folder)
    run("dvc", "repro", "data-split@codegen")
    run("bilora", "train", "codegen")
    whole = adapter_sha256(folder / "adapters" / "codegen")
    shutil.rmtree(folder / "adapters")

    chance = random.Random(os.environ.get("PYTEST_SEED", "bilora"))
    for _ in range(3):
        kill_after(folder, chance.randint(1, 6))
        assert not (folder / "adapters" / "codegen").exists()
    said = run("bilora", "train", "codegen").stdout
    assert adapter_sha256(folder / "adapters" / "codegen") == whole, said
    assert not (folder / "checkpoints" / "codegen").exists()
