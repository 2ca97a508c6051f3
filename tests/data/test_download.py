from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bilora.data.download import download
from bilora.errors import BadData
from bilora.protocols import Progress, no_progress
from bilora.records import Row


@dataclass
class Listed:
    """A source with these rows; an exception among them is raised."""

    items: list[Any]

    def rows(self, *, progress: Progress = no_progress) -> Iterator[Row]:
        for item in self.items:
            if isinstance(item, Exception):
                raise item
            progress(1)
            yield item


def test_rows_are_written_in_order(tmp_path: Path) -> None:
    path = tmp_path / "raw" / "t.jsonl"
    ticks: list[int] = []
    assert download(Listed([{"n": 2}, {"n": 1}]), path, progress=ticks.append) == 2
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"n": 2}, {"n": 1}]
    assert sum(ticks) == 2


def test_a_source_without_rows_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="no rows; check `source`"):
        download(Listed([]), tmp_path / "t.jsonl")


@pytest.mark.parametrize("value", [{1, 2}, math.nan])
def test_a_value_that_json_cannot_represent_is_an_error(tmp_path: Path, value: object) -> None:
    with pytest.raises(BadData, match="not JSON"):
        download(Listed([{"n": value}]), tmp_path / "t.jsonl")


@pytest.mark.parametrize("items", [[{"n": 2}, RuntimeError("cut off")], [], [{"n": math.nan}]])
def test_a_failure_leaves_the_old_file(tmp_path: Path, items: list[Any]) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("old")
    with pytest.raises((RuntimeError, BadData)):
        download(Listed(items), path)
    assert path.read_text() == "old" and [path] == list(tmp_path.iterdir())
