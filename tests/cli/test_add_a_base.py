"""docs/add-a-base.md is followed to the letter: one file and one entry make a kind of base that answers and trains."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest
from support.checkouts import ROOT, shell_in, smoke_checkout
from support.guide_examples import guide_block

from bilora.bases.kinds.folder import FolderBase
from bilora.records import Sample
from bilora.storage import write_records
from bilora.tasks import load_task

QUESTION = ("bilora", "generate", "Return the sum of a list.", "--max-tokens", "8")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout on the smoke profile with the guide's kind and entry, and the smoke base in a ZIP file only."""
    folder = smoke_checkout(tmp_path_factory.mktemp("archive") / "checkout")
    code, new_entry = guide_block("add-a-base", "python"), guide_block("add-a-base", "yaml")
    (folder / "src" / "bilora" / "bases" / "kinds" / "archive.py").write_text(code, encoding="utf-8")
    params = folder / "params.yaml"
    entry = "base: {kind: folder, path: models/smoke, dtype: float32}\n"
    assert entry in params.read_text(encoding="utf-8")
    params.write_text(params.read_text(encoding="utf-8").replace(entry, new_entry), encoding="utf-8")
    smoke = folder / "models" / "smoke"
    with zipfile.ZipFile(folder / "models" / "smoke.zip", "w") as archive:
        for path in smoke.iterdir():
            archive.write(path, path.name)
    shutil.rmtree(smoke)
    return folder


def test_it_answers_as_the_same_base_in_a_folder(checkout: Path, adapted: Path) -> None:
    answer = shell_in(checkout)(*QUESTION).stdout
    assert answer.strip() and answer == shell_in(adapted)(*QUESTION).stdout


def test_its_params_are_checked_with_their_place(checkout: Path) -> None:
    params = checkout / "params.yaml"
    before = params.read_text(encoding="utf-8")
    try:
        params.write_text(before.replace("path: models/smoke.zip", "pfad: x"), encoding="utf-8")
        message = shell_in(checkout)("bilora", "plan", check=False)
    finally:
        params.write_text(before, encoding="utf-8")
    assert message.returncode == 2 and "base.path: it is missing" in message.stderr and "base.pfad" in message.stderr


def test_a_missing_file_is_one_sentence(checkout: Path) -> None:
    archive = checkout / "models" / "smoke.zip"
    archive.rename(checkout / "away.zip")
    try:
        message = shell_in(checkout)(*QUESTION, check=False)
    finally:
        (checkout / "away.zip").rename(archive)
    assert message.returncode == 2 and "there is no ZIP file here; `base.path` must name one." in message.stderr


@pytest.mark.slow
def test_an_adapter_trained_on_it_names_it_and_its_files(checkout: Path) -> None:
    run, task = shell_in(checkout), load_task("codegen")
    rows = json.loads((checkout / "benchmarking" / "eval_dataset.json").read_text(encoding="utf-8"))["samples"]
    samples = [sample for sample in map(task.sample, rows) if isinstance(sample, Sample) and sample.task == "codegen"]
    for split in ("train", "validation"):
        write_records(checkout / "data" / "splits" / "codegen" / f"{split}.jsonl", samples)
    write_records(checkout / "data" / "splits" / "codegen" / "preference.jsonl", [])
    run("bilora", "train", "codegen")
    adapter = checkout / "adapters" / "codegen"
    config, manifest = (json.loads((adapter / name).read_text()) for name in ("adapter_config.json", "manifest.json"))
    assert config["base_model_name_or_path"] == manifest["base_id"] == "models/smoke.zip"
    assert manifest["base_revision"] == FolderBase.at(ROOT / "models" / "smoke").identity
    assert run("bilora", "generate", "sum a list", "-m", "codegen", "--max-tokens", "4").stdout.strip()
