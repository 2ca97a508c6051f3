"""The demo runs stale stages in an order for its base, and ends with the reason of a failure."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from support.checkouts import ROOT
from support.command_line import bilora

from bilora.cli import LAST_FAULT
from bilora.errors import ExitCode
from bilora.workspace import Workspace


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo", ROOT / "scripts" / "demo.py")
    assert spec and spec.loader
    module = sys.modules["demo"] = importlib.util.module_from_spec(spec)  # dataclasses look for it there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    folder = tmp_path_factory.mktemp("demo")
    for name in ("models", "benchmarking"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "params.yaml").write_bytes((ROOT / "profiles" / "smoke.yaml").read_bytes())
    return Workspace(folder)


def stages(demo: ModuleType, workspace: Workspace, stale: set[str]) -> list[tuple[str, ...]]:
    steps = list(demo.steps_to_do(workspace, stale))
    assert all(step.estimate_s > 0 for step in steps)
    return [step.stages for step in steps]


EVERYTHING = {
    f"{stage}@{task}"
    for stage in ("data-download", "data-process", "data-split", "train", "evaluate")
    for task in ("codegen", "docstring")
} | {"benchmark"}


def test_a_small_base_is_trained_for_all_tasks_at_once(demo: ModuleType, workspace: Workspace) -> None:
    assert stages(demo, workspace, EVERYTHING) == [("evaluate@codegen", "evaluate@docstring"), ()]


def test_a_large_base_is_trained_for_one_task_after_the_other(
    demo: ModuleType, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "SMALL_BASE", 1)
    order = [(f"{stage}@{task}",) for stage in ("train", "evaluate") for task in ("codegen", "docstring")]
    assert stages(demo, workspace, EVERYTHING) == [("data-split@codegen", "data-split@docstring"), *order, ()]


def test_what_follows_a_stale_stage_is_done_too_and_nothing_else(demo: ModuleType, workspace: Workspace) -> None:
    following = [("data-split@codegen",), ("train@codegen",), ("evaluate@codegen",), ()]
    assert stages(demo, workspace, {"data-process@codegen"}) == following
    assert stages(demo, workspace, {"train@codegen"}) == [("train@codegen",), ("evaluate@codegen",), ()]
    assert stages(demo, workspace, {"evaluate@docstring"}) == [("evaluate@docstring",), ()]
    assert stages(demo, workspace, {"push-adapters"}) == [()]


def test_the_message_of_the_failed_stage_is_the_last_line(
    demo: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fault = tmp_path / "fault"
    monkeypatch.setenv(LAST_FAULT, str(fault))
    (tmp_path / "params.yaml").write_bytes((ROOT / "profiles" / "smoke.yaml").read_bytes())
    assert bilora(tmp_path, "data-process", "codegen").returncode == ExitCode.MISSING_STEP
    step = demo.Step("make the data of codegen", (), 1.0)
    assert demo.explain_failure(step, fault) == ExitCode.MISSING_STEP
    assert "could not make the data of codegen: " in (message := capsys.readouterr().err)
    assert message.endswith("Run `dvc repro data-download@codegen` first.\n")


@pytest.mark.parametrize(
    ("written", "code", "sentence"),
    [("11 ", 11, "the gate did not pass every adapter"), ("1 ", 1, "lines above"), (None, 13, "lines above")],
)
def test_a_failure_without_a_sentence_points_to_the_lines_above(
    demo: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    written: str | None,
    code: int,
    sentence: str,
) -> None:
    fault = tmp_path / "fault"
    if written is not None:
        fault.write_text(written, encoding="utf-8")
    assert demo.explain_failure(demo.Step("x", (), 1.0), fault) == code
    assert sentence in capsys.readouterr().err
