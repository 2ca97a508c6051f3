"""Read the curated evaluation set: hand-written questions, in one JSON file for all tasks."""

from __future__ import annotations

from pathlib import Path

from bilora.errors import BadData
from bilora.records import Drop, Sample
from bilora.storage import read_json
from bilora.tasks.task import Task


def read_curated(path: Path, task: Task) -> list[Sample]:
    """Return the curated samples of one task, possibly none.

    Raises:
        BadData: the file is malformed, or the task refuses a row, which the message names.
    """
    document = read_json(path)
    rows = document.get("samples") if isinstance(document, dict) else None
    if not isinstance(rows, list):
        raise BadData(path, "must be an object with a list `samples`.")
    samples = []
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or "task" not in row:
            raise BadData(path, f"samples[{number}] must be an object that names its `task`.")
        if row["task"] == task.name:
            sample = task.sample(row)
            if isinstance(sample, Drop):
                raise BadData(path, f"samples[{number}] is refused by rule {sample.rule!r} ({sample.detail}).")
            samples.append(sample)
    return samples
