"""Rows from files: JSON lines (plain or .gz), a JSON list, or Parquet."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bilora.errors import BadData
from bilora.params import FilesSource
from bilora.ports import Progress, silent
from bilora.records import Row, Split
from bilora.storage import read_json, read_rows

ORIGINS = ("repo", "repository_name", "task_id")
"""Columns of well-known data sets that name what a split must not tear apart, best first."""

LICENCES = ("licence", "license")


def labelled(row: Row, *, name: str, number: int, licence: str) -> dict[str, Any]:
    """Add what every row must say of itself: `source`, `group`, `licence`; its own words come first."""
    origin = next((str(row[key]) for key in ORIGINS if row.get(key) is not None), str(number))
    own = next((str(row[key]) for key in LICENCES if row.get(key)), licence)
    source = f"{name}:{row['task_id']}" if row.get("task_id") is not None else f"{name}:{number}"
    return {"source": source, "group": origin, **row, "licence": own}


def mbpp_split(task_id: int) -> Split:
    """Return MBPP's official split of a task (Austin et al. 2021, section 2.1)."""
    if task_id <= 10:
        return "prompt"
    if task_id <= 510:
        return "test"
    return "validation" if task_id <= 600 else "train"


class Files:
    """The source: files in the order given, rows in the order they lie there."""

    def __init__(self, params: FilesSource) -> None:
        self._params = params

    def rows(self, *, progress: Progress = silent) -> Iterator[Row]:
        """Yield rows.

        Raises:
            BadData: a file is absent or a row malformed; file and line are named.
        """
        rows = (row for path in self._params.paths for row in self._file(Path(path)))
        for row in itertools.islice(rows, self._params.limit):
            progress(1)
            yield row

    def _file(self, path: Path) -> Iterator[Row]:
        name = path.name.partition(".")[0]
        for number, row in _read(path):
            split = {}
            if self._params.splits == "mbpp":
                task_id = row.get("task_id")
                if not isinstance(task_id, int) or isinstance(task_id, bool):
                    raise BadData(path, "`splits: mbpp` needs an integer task_id in every row.", number)
                split = {"split": mbpp_split(task_id)}
            yield {**labelled(row, name=name, number=number, licence=self._params.licence), **split}


def _read(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if path.suffix == ".parquet":
        return _read_parquet(path)
    if path.suffix == ".json":
        return _read_list(path)
    if path.suffixes[-2:] == [".jsonl", ".gz"] or path.suffix == ".jsonl":
        return read_rows(path)
    raise BadData(path, "cannot be read as data; use .jsonl, .jsonl.gz, .json or .parquet.")


def _read_list(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    rows = read_json(path)
    if not isinstance(rows, list):
        raise BadData(path, "must hold a JSON list of objects.")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise BadData(path, f"entry {number} of the list must be a JSON object.")
        yield number, row


def _read_parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow
    import pyarrow.parquet

    if not path.is_file():
        raise BadData(path, "the file does not exist.")
    try:
        batches = pyarrow.parquet.ParquetFile(path).iter_batches()
        rows = itertools.chain.from_iterable(batch.to_pylist() for batch in batches)
        yield from enumerate(rows, start=1)
    except pyarrow.ArrowException as error:
        raise BadData(path, f"not a Parquet file ({error}).") from None
