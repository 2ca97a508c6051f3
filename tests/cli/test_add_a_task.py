"""docs/add-a-task.md is followed to the letter: its example is a working task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.guide_examples import guide_block

from bilora.params import TaskParams
from bilora.records import Drop, Sample
from bilora.tasks.task import Task

ROOT = Path(__file__).resolve().parents[2]
CURATED = json.loads((ROOT / "benchmarking" / "eval_dataset.json").read_text(encoding="utf-8"))["samples"]


@pytest.fixture(scope="module")
def task() -> Task:
    space: dict[str, Any] = {"__name__": "bilora.tasks.naming"}
    exec(compile(guide_block("add-a-task", "python"), "naming.py", "exec"), space)
    task: Task = space["TASK"]
    return task


@pytest.fixture(scope="module")
def samples(task: Task) -> list[Sample]:
    samples = [task.sample(row) for row in CURATED if row["task"] == "docstring"]
    return [sample for sample in samples if isinstance(sample, Sample)]


def test_the_example_reads_real_functions(samples: list[Sample]) -> None:
    assert len(samples) == 10


def test_its_prompt_does_not_show_the_name(samples: list[Sample]) -> None:
    for sample in samples:
        assert sample.target.replace(" ", "_") not in sample.prompt


def test_its_answer_and_extract_are_inverses(task: Task, samples: list[Sample]) -> None:
    for sample in samples:
        assert task.extract(task.answer(sample.target)) == sample.target


@pytest.mark.parametrize(
    "code", ["x = 1", "def run(x):\n    return x", "def add_up(x):\n    return add_up(x[1:])", "def ("]
)
def test_it_refuses_what_teaches_nothing(task: Task, code: str) -> None:
    assert isinstance(task.sample({"code": code, "source": "s", "group": "g", "licence": "MIT"}), Drop)


def test_its_numbers_are_valid_params() -> None:
    entry = yaml.safe_load(guide_block("add-a-task", "yaml"))["tasks"]["naming"]
    assert TaskParams.model_validate(entry).adapter.rank == 4
