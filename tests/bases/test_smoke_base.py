"""The base of the tests is the one that its script makes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import safe_open
from support.checkouts import ROOT

SMOKE = ROOT / "models" / "smoke"


def shapes(folder: Path) -> dict[str, list[int]]:
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118


@pytest.mark.slow
def test_the_script_makes_the_tokenizer_and_the_configuration_of_the_smoke_base(tmp_path: Path) -> None:
    """Its weights are equal bytes on one kind of processor only, and take the longest: here it trains for one step."""
    subprocess.run(
        [sys.executable, "scripts/make_smoke_base.py", "--out", str(tmp_path), "--steps", "1"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        check=True,
    )
    committed = {path.name: path.read_bytes() for path in SMOKE.iterdir() if path.suffix in (".json", ".jinja")}
    assert {name: (tmp_path / name).read_bytes() for name in committed} == committed
    assert shapes(tmp_path) == shapes(SMOKE)
