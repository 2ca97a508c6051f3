"""A copy of a checkout is a separate repository, with other params and an empty baseline."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from bilora.results import BASELINE_SCHEMA
from bilora.tracking.checkout import copy_checkout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    files = {
        ".gitignore": "/ignored.txt\n",
        "ignored.txt": "",
        "new.txt": "not committed\n",
        "params.yaml": "seed: 1\n",
        "profiles/smoke.yaml": "seed: 2\n",
        "benchmarking/baseline.json": '{"schema": 3, "tasks": {"codegen": {}}}',
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    return root


def test_a_copy_has_the_smoke_profile_and_an_empty_baseline(checkout: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy_checkout(checkout, copy)
    assert (copy / "params.yaml").read_text(encoding="utf-8") == "seed: 2\n"
    baseline = json.loads((copy / "benchmarking" / "baseline.json").read_text(encoding="utf-8"))
    assert baseline == {"schema": BASELINE_SCHEMA, "tasks": {}}
    assert (copy / "new.txt").is_file() and not (copy / "ignored.txt").exists()


def test_a_copy_is_committed_whole(checkout: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy_checkout(checkout, copy, Path("params.yaml"))
    status = subprocess.run(["git", "status", "--porcelain"], cwd=copy, capture_output=True, text=True, check=True)
    assert status.stdout == ""
    assert (copy / "params.yaml").read_text(encoding="utf-8") == "seed: 1\n"


def test_the_original_stays_as_it_is(checkout: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in checkout.rglob("*") if path.is_file() and ".git" not in path.parts}
    copy_checkout(checkout, tmp_path / "copy")
    assert {path: path.read_bytes() for path in before} == before
