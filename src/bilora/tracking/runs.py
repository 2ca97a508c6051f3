"""Write and read the record of a training run: the files under runs/ID/."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path

from bilora.records import RunRecord
from bilora.storage import dump_json, read_json, write_json

RATED_ROWS = ("feedback_rows", "preference_rows")
"""Metrics of a run record that count training rows from ratings."""


class RunFolder:
    """runs/ID/: metrics.jsonl, appended during the run, and run.json, written at its end."""

    def __init__(self, root: Path, run_id: str) -> None:
        self.path = root / run_id
        self.path.mkdir(parents=True, exist_ok=True)

    def append(self, row: Mapping[str, object]) -> None:
        """Append a line to metrics.jsonl, which is on disk at once, so that a killed run keeps its curve."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as out:
            out.write(dump_json(dict(row)) + "\n")

    def finish(self, record: RunRecord) -> None:
        """Write run.json."""
        write_json(self.path / "run.json", record.model_dump(mode="json"))


def find_run(root: Path, adapter_sha256: str) -> dict[str, object] | None:
    """Return the newest run record of the adapter with this SHA-256, or None."""
    for path in sorted(root.glob("*/run.json"), reverse=True):
        record = read_json(path)
        if isinstance(record, dict) and record.get("adapter_sha256") == adapter_sha256:
            return record
    return None


@dataclass(frozen=True)
class TrainedOnWithdrawn:
    """An adapter trained on ratings that were withdrawn later; `ratings` is empty if its run did not record them."""

    task: str
    adapter_sha256: str
    run: str
    ratings: tuple[str, ...]


def trained_on_withdrawn(root: Path, withdrawn: Set[str]) -> list[TrainedOnWithdrawn]:
    """Return the adapters trained on any of these ratings, oldest run first.

    Old records lack the field `ratings`; they count if they trained on any rating, since it may be withdrawn.
    """
    adapters = []
    for path in sorted(root.glob("*/run.json")) if withdrawn else ():
        record = read_json(path)
        ratings, metrics = record.get("ratings"), record.get("metrics", {})
        unknown = ratings is None and any(metrics.get(name) for name in RATED_ROWS)
        matches = tuple(sorted(withdrawn & set(ratings or ())))
        if matches or unknown:
            adapters.append(TrainedOnWithdrawn(record["task"], record["adapter_sha256"], path.parent.name, matches))
    return adapters
