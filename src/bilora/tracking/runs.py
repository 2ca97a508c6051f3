"""The canonical record of a run: plain files under runs/ID/."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bilora.records import RunRecord
from bilora.storage import dump_json, read_json, write_json


class RunFolder:
    """runs/ID/: metrics.jsonl grows while the run goes, run.json is written at its end."""

    def __init__(self, root: Path, run_id: str) -> None:
        self.path = root / run_id
        self.path.mkdir(parents=True, exist_ok=True)

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one line to metrics.jsonl, flushed at once, so that a killed run keeps its curve."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as out:
            out.write(dump_json(dict(row)) + "\n")

    def finish(self, record: RunRecord) -> None:
        """Write run.json."""
        write_json(self.path / "run.json", record.model_dump(mode="json"))


def find_run(root: Path, adapter_sha256: str) -> dict[str, Any] | None:
    """Return the newest run record that made these adapter bytes, or None."""
    for path in sorted(root.glob("*/run.json"), reverse=True):
        record: Any = read_json(path)
        if isinstance(record, dict) and record.get("adapter_sha256") == adapter_sha256:
            return record
    return None
