"""Training divided over two processes equals training in one; killed and resumed, it changes no byte."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from support.checkouts import ROOT, environment_of, shell_in, smoke_checkout

from bilora.storage import adapter_sha256
from bilora.training import ranks

pytestmark = pytest.mark.slow
STEPS = 20
TASKS = ("codegen", "docstring")


def test_one_process_is_the_only_rank() -> None:
    assert (ranks.world_size(), ranks.rank(), ranks.is_first()) == (1, 0, True)
    assert ranks.all_gather(ranks.shard([1, 2, 3])) == [1, 2, 3] and ranks.broadcast("x") == "x"


def test_two_ranks_compute_the_gradients_of_one() -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    program = ROOT / "tests" / "support" / "rank_program.py"
    done = subprocess.run(
        [*command, program], cwd=ROOT, env=environment_of(ROOT), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["sgd"]["loss"] < 1e-6 and report["sgd"]["product"] < 1e-5
    assert report["adamw"]["loss"] < 1e-5 and report["adamw"]["product"] < 1e-3
    assert report["gathered"] == [True] * 6 and report["broadcast"] == 0
    assert (report["separate"], report["common"]) == (2, 1)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with split data and a training of 20 steps without dropout, which would draw other numbers."""
    folder = smoke_checkout(tmp_path_factory.mktemp("ranks") / "checkout")
    params = folder / "params.yaml"
    document = yaml.safe_load(params.read_text(encoding="utf-8"))
    for task in TASKS:
        entry = document["tasks"][task]
        entry["adapter"]["dropout"] = 0.0
        entry["training"]["phases"][0].update(steps=STEPS, evaluate_every=2, patience=STEPS)
    params.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    shell_in(folder)("dvc", "repro", *(f"data-split@{task}" for task in TASKS))
    return folder


@pytest.fixture(scope="module")
def two_ranks(checkout: Path) -> dict[str, str]:
    """The adapters' sha256 after an uninterrupted training by two ranks; the folders are kept as `two-TASK`."""
    done = shell_in(checkout)("bilora", "train", "--all", "--devices", "2")
    assert done.stdout.count("loading the base") == 1  # the second rank prints nothing
    for task in TASKS:
        shutil.copytree(checkout / "adapters" / task, checkout / f"two-{task}")
    return {task: adapter_sha256(checkout / "adapters" / task) for task in TASKS}


def product(folder: Path) -> torch.Tensor:
    """Return all products B A of an adapter."""
    weights = load_file(folder / "adapter_model.safetensors")
    names = [name for name in weights if "lora_A" in name]
    return torch.cat([(weights[name.replace("lora_A", "lora_B")] @ weights[name]).flatten() for name in names])


def test_the_command_trains_the_adapter_of_one_process(checkout: Path, two_ranks: dict[str, str]) -> None:
    shell_in(checkout)("bilora", "train", "--all")
    for task in TASKS:
        expected, parallel = product(checkout / "adapters" / task), product(checkout / f"two-{task}")
        assert float((expected - parallel).norm() / expected.norm()) < 1e-3
    records = [json.loads(path.read_text(encoding="utf-8")) for path in (checkout / "runs").glob("*/run.json")]
    assert sorted(record["hardware"].get("processes", "1") for record in records) == ["1", "1", "2", "2"]
    tokens = {(record["task"], record["tokens"]) for record in records}
    assert len(tokens) == len(TASKS)  # all ranks together read what one process reads


def rank_ids(parent: int) -> list[int]:
    """Return the process ids of the ranks that a command has started."""
    processes = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[1]) == parent:
            processes.append(int(stat.parent.name))
    return processes


def steps_written(folder: Path) -> int:
    curves = sorted((folder / "runs").glob("*/metrics.jsonl"), key=lambda path: path.stat().st_mtime)
    return curves[-1].read_text(encoding="utf-8").count('"loss"') if curves else 0


def kill_one_rank(folder: Path, steps: int, rng: random.Random) -> int:
    """Start a training, SIGKILL one of its ranks after so many steps, and return the command's exit code."""
    shutil.rmtree(folder / "runs", ignore_errors=True)
    command = [sys.executable, "-m", "bilora", "train", "codegen", "--devices", "2"]
    with subprocess.Popen(
        command, cwd=folder, env=environment_of(folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 120
        while steps_written(folder) < steps and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert process.poll() is None, "training ended before it could be killed"
        ids = rank_ids(process.pid)
        assert len(ids) >= 2
        os.kill(rng.choice(ids[-2:]), signal.SIGKILL)
        return process.wait(60)


def test_three_killed_ranks_change_no_byte(checkout: Path, two_ranks: dict[str, str]) -> None:
    shutil.rmtree(checkout / "adapters" / "codegen", ignore_errors=True)
    rng = random.Random(os.environ.get("PYTEST_SEED", "ranks"))
    for _ in range(3):
        assert kill_one_rank(checkout, rng.randint(3, 5), rng) == 128 + signal.SIGKILL
        assert not (checkout / "adapters" / "codegen").exists()
    shell_in(checkout)("bilora", "train", "codegen", "--devices", "2")
    assert adapter_sha256(checkout / "adapters" / "codegen") == two_ranks["codegen"]


def test_a_fault_is_reported_once(checkout: Path) -> None:
    refused = shell_in(checkout)("bilora", "train", "nothing", "--devices", "2", check=False)
    assert refused.returncode == 2 and refused.stderr.count("There is no task 'nothing'") == 1
