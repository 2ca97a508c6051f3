"""docs/add-a-phase.md is followed to the letter: one file and one entry add a working training algorithm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from support.checkouts import change_task, shell_in, smoke_checkout
from support.guide_examples import guide_block

from bilora.storage import adapter_sha256

pytestmark = pytest.mark.slow


def test_a_fourth_phase_is_one_file_and_one_entry(tmp_path: Path) -> None:
    folder = smoke_checkout(tmp_path / "checkout")
    run = shell_in(folder)
    (folder / "src" / "bilora" / "training" / "phases" / "rft.py").write_text(
        guide_block("add-a-phase", "python"), encoding="utf-8"
    )
    entry = yaml.safe_load(guide_block("add-a-phase", "yaml"))
    change_task(folder, "docstring", lambda task: task["training"]["phases"].append(entry))
    printed = run("dvc", "repro", "train@docstring").stdout
    assert f"{entry['questions']} questions to answer" in printed and "train docstring: rft: bleu on" in printed

    metrics = json.loads((folder / "training_metrics.json").read_text(encoding="utf-8"))["docstring"]
    assert (metrics["steps"], metrics["rft_steps"]) == (8, 4)
    assert 0 < metrics["rft_rows"] <= entry["questions"]
    records = [json.loads(path.read_text(encoding="utf-8")) for path in (folder / "runs").glob("*/run.json")]
    after = adapter_sha256(folder / "adapters" / "docstring")
    (record,) = [record for record in records if record["adapter_sha256"] == after]
    assert [phase["kind"] for phase in record["params"]["task"]["training"]["phases"]] == ["sft", "rft"]

    change_task(folder, "docstring", lambda task: task["training"]["phases"][1].update(answers=1))
    refused = run("bilora", "train", "docstring", check=False)
    assert refused.returncode == 2 and "tasks.docstring.training.phases.1.answers: " in refused.stderr
