"""Killed and resumed three times, training ends in the same bytes as without a kill."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from multiprocessing import get_context
from pathlib import Path

import pytest
import yaml
from support.checkouts import shell_in, smoke_checkout

from bilora.storage import adapter_sha256

pytestmark = pytest.mark.slow
STEPS = 16

FORKS = get_context("forkserver")  # five trainings begin; the libraries that they need are imported once
FORKS.set_forkserver_preload(["bilora.training.sft_trainer", "bilora.bases.loading"])


def train(folder: Path, tasks: list[str]) -> None:
    """Run `bilora train` in a new process group."""
    from bilora.cli import app

    os.setsid()
    os.chdir(folder)
    app(["train", *tasks])


def trained(folder: Path, tasks: list[str]) -> list[str]:
    """Train to the end and return the adapters' sha256."""
    process = FORKS.Process(target=train, args=(folder, tasks))
    process.start()
    process.join(120)
    assert process.exitcode == 0
    return [adapter_sha256(folder / "adapters" / task) for task in tasks]


def steps_written(folder: Path) -> int:
    """Return the number of optimizer steps that the newest run has written."""
    curves = sorted((folder / "runs").glob("*/metrics.jsonl"), key=lambda path: path.stat().st_mtime)
    if not curves:
        return 0
    return sum('"loss"' in line for line in curves[-1].read_text(encoding="utf-8").splitlines())


def kill_after(folder: Path, tasks: list[str], steps: int) -> None:
    """Start training, and SIGKILL it after it has written `steps` steps."""
    for curve in (folder / "runs").glob("*"):
        shutil.rmtree(curve)
    process = FORKS.Process(target=train, args=(folder, tasks))
    process.start()
    assert process.pid is not None
    deadline = time.monotonic() + 120
    while steps_written(folder) < steps and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.is_alive(), "training ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.join()


@pytest.mark.parametrize("tasks", [["codegen"], ["codegen", "docstring"]], ids=["alone", "together"])
def test_three_kills_change_no_byte(tasks: list[str], tmp_path: Path) -> None:
    folder = smoke_checkout(tmp_path / "checkout")
    params = folder / "params.yaml"
    document = yaml.safe_load(params.read_text(encoding="utf-8"))
    for task in tasks:
        document["tasks"][task]["training"]["phases"][0].update(steps=STEPS, evaluate_every=2, patience=STEPS)
    params.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    shell_in(folder)("dvc", "repro", *(f"data-split@{task}" for task in tasks))
    uninterrupted = trained(folder, tasks)
    shutil.rmtree(folder / "adapters")

    rng = random.Random(os.environ.get("PYTEST_SEED", "bilora"))
    for _ in range(3):
        kill_after(folder, tasks, rng.randint(3, 5))
        assert not (folder / "adapters").exists()
    assert trained(folder, tasks) == uninterrupted
    records = [json.loads(record.read_text(encoding="utf-8")) for record in (folder / "runs").glob("*/run.json")]
    assert [record["resumed"] >= 6 for record in records] == [True] * len(tasks)  # two steps of each killed run
    assert not any((folder / "checkpoints").glob("*"))
