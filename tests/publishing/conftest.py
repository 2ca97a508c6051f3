"""Two small adapters as PEFT saves them, verdicts bound to their bytes, and their results."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bilora.bases.base import Base
from bilora.bases.kinds.hub import HubBase
from bilora.publishing.bundle import build_bundle
from bilora.publishing.bundle_info import BundleInfo, CardTask
from bilora.records import Message, Scale
from bilora.requests import SamplingParams
from bilora.results import (
    BaselineEntry,
    DatasetSummary,
    MetricSummary,
    Results,
    SystemSummary,
    TaskResults,
    Verdict,
)
from bilora.storage import adapter_sha256

BASE = "models/smoke"
TASKS = ("codegen", "docstring")
HEADLINE = {"codegen": "pass_at_1", "docstring": "bleu"}


def write_adapter(folder: Path, fill: int, *, tensor: str = "base_model.model.lora_A.weight", **config: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    document = {"base_model_name_or_path": BASE, "revision": None, "modules_to_save": None, "r": 8} | config
    (folder / "adapter_config.json").write_text(json.dumps(document))
    header = json.dumps({tensor: {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}).encode()
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes([fill] * 4))


def make_verdict(task: str, sha256: str, **overrides: Any) -> Verdict:
    fields: dict[str, Any] = {
        "metric": HEADLINE[task],
        "against": "base",
        "n": 300,
        "unscored": 0,
        "low": 0.1,
        "delta": 0.2,
        "high": 0.3,
        "margin": 0.0,
        "outcome": "pass",
        "reason": "Better than the base model.",
    }
    return Verdict(task=task, adapter_sha256=sha256, **(fields | overrides))


def make_results(verdicts: dict[str, Verdict], *, mean: float = 0.7) -> Results:
    return Results(
        profile="smollm2",
        harness="1",
        seed=1,
        notes={},
        judge=(),
        latency_s={},
        tasks={task: make_task_results(task, verdict, mean) for task, verdict in verdicts.items()},
    )


def make_task_results(task: str, verdict: Verdict, mean: float) -> TaskResults:
    def measured(value: float) -> SystemSummary:
        metric_summary = MetricSummary(n=300, unscored=0, mean=value, low=value - 0.05, high=value + 0.05)
        return SystemSummary(n=300, errors=0, cut=0, metrics={HEADLINE[task]: metric_summary}, latency_s=None)

    entry = BaselineEntry(
        adapter_sha256=verdict.adapter_sha256,
        key="k",
        metric=HEADLINE[task],
        scores={HEADLINE[task]: {"one": mean, "two": None}},
    )
    return TaskResults(
        title=task.title(),
        headline=HEADLINE[task],
        metrics=(HEADLINE[task], "judge"),
        scales={HEADLINE[task]: Scale(label="Headline", unit=" %"), "judge": Scale(label="quality")},
        not_run={"judge": "no judge is configured"},
        key="k",
        adapter_sha256=verdict.adapter_sha256,
        verdict=verdict,
        entry=entry,
        summary={"test": DatasetSummary(systems={"base": measured(0.2), task: measured(mean)})},
        samples={},
        rows=(),
    )


def change_task(results: Results, task: str, **fields: Any) -> Results:
    changed = results.tasks[task].model_copy(update=fields)
    return results.model_copy(update={"tasks": {**results.tasks, task: changed}})


@dataclass(frozen=True)
class PushInputs:
    """Everything a push needs."""

    folders: dict[str, Path]
    verdicts: dict[str, Verdict]
    results: Results
    files: dict[str, bytes]


def make_bundle_info(base: Base, **overrides: Any) -> BundleInfo:
    """Return the bundle info of two tasks whose data have the base's licence."""
    messages = (Message(role="system", content="You answer."), Message(role="user", content="What?"))
    tasks = {task: CardTask(messages, SamplingParams(max_tokens=8), ("MIT",)) for task in TASKS}
    fields = {"tokenizer_files": {"tokenizer.json": b"{}"}, "stop_ids": [3], "pad_id": 0, "tasks": tasks}
    return BundleInfo(**({"base": base, "licence": "mit"} | fields | overrides))


def bundle_of(folders: dict[str, Path], verdicts: dict[str, Verdict], results: Results) -> dict[str, bytes]:
    return build_bundle(folders, verdicts, results, make_bundle_info(HubBase(id=BASE, hub=BASE)))


@pytest.fixture
def make_inputs(tmp_path: Path) -> Callable[..., PushInputs]:
    """Return a function that makes adapters filled with one byte, with everything else a push needs."""

    def inputs(fill: int = 1, **overrides: Any) -> PushInputs:
        folders = {task: tmp_path / f"adapters-{fill}" / task for task in TASKS}
        for folder in folders.values():
            write_adapter(folder, fill)
        verdicts = {task: make_verdict(task, adapter_sha256(folder)) for task, folder in folders.items()}
        results = make_results(verdicts, **overrides)
        return PushInputs(folders, verdicts, results, bundle_of(folders, verdicts, results))

    return inputs


@pytest.fixture
def inputs(make_inputs: Callable[..., PushInputs]) -> PushInputs:
    return make_inputs()


@pytest.fixture
def adapter_writer() -> Callable[..., None]:
    return write_adapter


@pytest.fixture
def rebuild() -> Callable[..., dict[str, bytes]]:
    return bundle_of


@pytest.fixture
def bundle_info() -> Callable[..., BundleInfo]:
    return make_bundle_info


@pytest.fixture
def no_results() -> Results:
    """Results without a task."""
    return make_results({})


@pytest.fixture
def with_task() -> Callable[..., Results]:
    """Return results with some fields of a task replaced."""
    return change_task
