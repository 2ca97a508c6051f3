"""The kind `files`: rows from JSON lines, JSON lists or Parquet, optionally in gzip."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from bilora.errors import BadData
from bilora.plugins import SourceSettings
from bilora.protocols import Progress, no_progress
from bilora.records import Drop, Row, Split
from bilora.rows import Forms, excerpt, label_text
from bilora.sources.formats import read_data_file
from bilora.sources.json_entries import Entry
from bilora.sources.labelling import ColumnCheck, RowLocation, add_labels, read_columns, select_columns
from bilora.sources.source import SourceKind
from bilora.yaml_settings import Count

TASK_NUMBER = re.compile(r"(?:mbpp/)?(\d{1,9})", re.I)


def mbpp_split(task_id: int) -> Split:
    """Return MBPP's official split of a task (Austin et al. 2021, section 2.1)."""
    if task_id <= 10:
        return "prompt"
    if task_id <= 510:
        return "test"
    return "validation" if task_id <= 600 else "train"


class FilesSettings(SourceSettings):
    """JSON lines, JSON lists or Parquet, uncompressed or in gzip (docs/data.md)."""

    kind: Literal["files"]
    paths: list[str] = Field(min_length=1, description="the files, in order")
    licence: str = Field(description="licence of rows that do not name one")
    splits: Literal["row", "mbpp"] = Field(
        default="row", description="`row` reads the column `split`, `mbpp` uses `task_id`"
    )
    limit: Count | None = Field(default=None, description="read only the first rows, as many as this")


class Files:
    """Reads files in the order of `paths`, and the rows in file order.

    A row contains the columns that `forms` read and the labels; without forms, all columns that JSON can represent.
    """

    def __init__(self, settings: FilesSettings, forms: Forms = (), root: Path = Path()) -> None:
        self._settings, self._forms, self._root = settings, forms, root

    def rows(self, *, progress: Progress = no_progress) -> Iterator[Row]:
        """Yield rows. A row that cannot be read is replaced by its Drop, which data-process counts.

        Raises:
            BadData: a file is absent, cannot be read as a whole, or has no row with the columns of the task.
        """
        remaining = self._settings.limit
        selected = read_columns(self._forms)
        for path, name in _names(self._settings.paths).items():
            if remaining == 0:
                return
            if "://" in path:
                raise BadData(path, "is a URL; download the file and give its path.")
            columns = ColumnCheck(path, self._forms)
            entry = None
            for entry in read_data_file(Path(path), selected, root=self._root):
                if not isinstance(entry.value, Drop):
                    columns.add(entry.value)
                yield self._row(entry, path, name, selected)
                progress(1)
                remaining = remaining - 1 if remaining is not None else None
                if remaining == 0:
                    break
            if entry is None:
                raise BadData(path, "contains no rows.")
            columns.check()

    def _row(self, entry: Entry, path: str, name: str, selected: frozenset[str] | None) -> Row:
        value: Row | Drop = entry.value if isinstance(entry.value, Drop) else select_columns(entry.value, selected)
        if self._settings.splits == "mbpp" and not isinstance(value, Drop):
            value = _with_mbpp_split(value)
        return add_labels(value, RowLocation(name, path, entry.number, entry.location), licence=self._settings.licence)


def _names(paths: Sequence[str]) -> dict[str, str]:
    """Return, per distinct file, the prefix of its rows' `source`: its name, or its path if two files share a name."""
    files = list(dict.fromkeys(path if "://" in path else os.path.normpath(path) for path in paths))
    stems = {file: Path(file).name.partition(".")[0] for file in files}
    shared = Counter(stems.values())
    return {file: stem if shared[stem] == 1 else file for file, stem in stems.items()}


def _with_mbpp_split(row: Row) -> Row | Drop:
    value = row.get("task_id")
    number = None if isinstance(value, bool) else TASK_NUMBER.fullmatch(label_text(value).strip())
    if number is None:
        detail = f"`splits: mbpp` needs an integer `task_id`; it is {excerpt(value)}"
        return Drop(rule="no integer `task_id`", detail=detail)
    return {**row, "split": mbpp_split(int(number[1]))}


def _build(settings: FilesSettings, *, seed: int, forms: Forms, root: Path) -> Files:
    """Return the source of the files; relative paths refer to `root`."""
    return Files(settings, forms, root)


SOURCE = SourceKind(FilesSettings, _build)
