"""Add the labels of a row (source, group, licence, origin), and mark rows that a source cannot read."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from decimal import Decimal

from bilora.errors import BadData
from bilora.records import Drop, Row
from bilora.rows import Forms, RowForm, column_names, excerpt, is_null, label_text, missing_columns, type_in_words

GROUP_COLUMNS = ("repo", "repository_name", "task_id")
"""Columns of well-known datasets that name a group, the best first; a split must not separate a group."""
LICENCE_COLUMNS = ("licence", "license")
LABEL_COLUMNS = frozenset((*RowForm.model_fields, *GROUP_COLUMNS, *LICENCE_COLUMNS))
ORIGIN_KEY, DROP_KEY = "origin", "drop"
"""Keys that a source adds: the row's location for the user, and why it could not be read."""


def read_columns(forms: Forms) -> frozenset[str] | None:
    """Return the columns that these forms read and the label columns; None without forms."""
    return column_names(forms) | LABEL_COLUMNS if forms else None


@dataclass(frozen=True)
class RowLocation:
    """The location of a row: its file or dataset split, its `number` there, and `origin` for the user.

    `name` is the prefix of the row's source; it is shorter than `file` if the file's name is unique.
    """

    name: str
    file: str
    number: int
    origin: str


def add_labels(row: Row | Drop, location: RowLocation, *, licence: str) -> dict[str, object]:
    """Return a row with `source`, `group`, `licence` and `origin`; values of the row take precedence.

    Without a group column the group is the row's file and number, so that rows of two files are never in
    one group. For a Drop, only the location and the Drop are returned.
    """
    if isinstance(row, Drop):
        return {"source": f"{location.name}:{location.number}", ORIGIN_KEY: location.origin, DROP_KEY: row.model_dump()}
    values = {column: value for column, value in row.items() if not is_null(value) and value != ""}
    file_row = f"{location.file}:{location.number}"
    group = next((label_text(values[column]) for column in GROUP_COLUMNS if column in values), file_row)
    row_licence = next((values[column] for column in LICENCE_COLUMNS if values.get(column)), licence)
    source = f"{location.name}:{label_text(values['task_id']) if 'task_id' in values else location.number}"
    return {
        **{column: value for column, value in row.items() if column != DROP_KEY},
        "source": values.get("source", source),
        "group": values.get("group", group),
        "licence": row_licence,
        ORIGIN_KEY: location.origin,
    }


def select_columns(row: Row, selected_columns: Collection[str] | None) -> dict[str, object] | Drop:
    """Return the selected columns as JSON values, or a Drop that names a value that JSON cannot represent.

    With `selected_columns` None, all columns are selected, but those that JSON cannot represent are skipped.
    """
    repeated: set[str] = getattr(row, "repeated", set())
    result: dict[str, object] = {}
    for column, value in row.items():
        if selected_columns is not None and column not in selected_columns:
            continue
        if selected_columns is not None and column in repeated:
            return Drop(rule=f"`{column}` is given twice", detail=f"`{column}` is given twice, with different values")
        try:
            result[column] = _as_json(value)
        except (ValueError, ArithmeticError, RecursionError):
            if selected_columns is not None:
                detail = f"`{column}` is {type_in_words(value)}: {excerpt(value)}"
                return Drop(rule=f"`{column}` cannot be read", detail=detail)
    return result


def _as_json(value: object) -> object:
    """Return a value in JSON's types; NaN is null.

    Raises:
        ValueError: JSON has no such value.
    """
    match value:
        case None | bool() | int() | str():
            return value
        case Decimal():
            return _as_json(int(value) if value == value.to_integral_value() else float(value))
        case float():
            if math.isinf(value):
                raise ValueError
            return None if math.isnan(value) else value
        case list() | tuple():
            return [_as_json(item) for item in value]
        case dict():
            return {str(key): _as_json(item) for key, item in value.items()}
        case _:
            as_list = getattr(value, "tolist", None)  # a NumPy array or number
            if callable(as_list):
                return _as_json(as_list())
            raise ValueError


class ColumnCheck:
    """Checks that a column which the task needs has a value in some row of a file."""

    def __init__(self, file: str, forms: Forms, names: Iterable[str] = ()) -> None:
        self._file, self._forms = file, forms
        self._columns: dict[str, None] = dict.fromkeys(names)
        self._filled: set[str] = set()
        self._tables: dict[str, None] = {}
        self._rows = 0

    def add(self, row: Row) -> None:
        """Record the columns of one row."""
        self._rows += 1
        for column, value in row.items():
            self._columns[column] = None
            if not is_null(value):
                self._filled.add(column)
            if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
                self._tables[column] = None

    def check(self) -> None:
        """Check the recorded rows.

        Raises:
            BadData: no row has the columns that a form needs.
        """
        lacking = missing_columns(self._filled, self._forms) if self._rows else []
        if not lacking:
            return
        needed = " or ".join(f"`{column}`" for column in lacking)
        present = ", ".join(f"`{column}`" for column in self._columns) or "none"
        hint = f" Are the rows in `{next(iter(self._tables))}`? Write that list to a file." if self._tables else ""
        raise BadData(
            self._file, f"no row has {needed}, which the task reads; the columns are {present} (docs/data.md).{hint}"
        )
