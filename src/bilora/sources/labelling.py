"""The labels of every row (source, group, licence, origin), and the rows that a source cannot read."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from decimal import Decimal

from bilora.errors import BadData
from bilora.records import Drop, Row
from bilora.rows import Forms, RowForm, column_names, excerpt, is_null, label_text, missing_columns, type_in_words

GROUP_COLUMNS = ("repo", "repository_name", "task_id")
"""Columns of well-known datasets that name what a split must not separate, best first."""
LICENCE_COLUMNS = ("licence", "license")
LABEL_COLUMNS = frozenset((*RowForm.model_fields, *GROUP_COLUMNS, *LICENCE_COLUMNS))
ORIGIN, REFUSED = "origin", "drop"
"""Keys that a source adds: where a user finds the row, and why it could not be read."""


def read_columns(forms: Forms) -> frozenset[str] | None:
    """Return the columns to keep of a row for these forms; None keeps all that JSON can hold."""
    return column_names(forms) | LABEL_COLUMNS if forms else None


@dataclass(frozen=True)
class RowPlace:
    """Where a row comes from: a file or dataset split, the row's `number` there, and where a user finds it.

    `name` begins the row's source; it is shorter than `file` where the file's own name is enough.
    """

    name: str
    file: str
    number: int
    origin: str


def labelled(row: Row | Drop, place: RowPlace, *, licence: str) -> dict[str, object]:
    """Add `source`, `group`, `licence` and `origin` to a row; the row's own values take precedence.

    A group that no column names is the row itself: its file and number, so that rows of two files are
    never one group. Of a row that was refused only its place and its Drop are returned.
    """
    if isinstance(row, Drop):
        return {"source": f"{place.name}:{place.number}", ORIGIN: place.origin, REFUSED: row.model_dump()}
    own = {column: value for column, value in row.items() if not is_null(value) and value != ""}
    group = next((label_text(own[column]) for column in GROUP_COLUMNS if column in own), f"{place.file}:{place.number}")
    terms = next((own[column] for column in LICENCE_COLUMNS if own.get(column)), licence)
    source = f"{place.name}:{label_text(own['task_id']) if 'task_id' in own else place.number}"
    return {
        **{column: value for column, value in row.items() if column != REFUSED},
        "source": own.get("source", source),
        "group": own.get("group", group),
        "licence": terms,
        ORIGIN: place.origin,
    }


def kept(row: Row, wanted: Collection[str] | None) -> dict[str, object] | Drop:
    """Return the wanted columns as JSON holds them; a Drop names a wanted value that it cannot hold.

    With `wanted` None, columns that JSON cannot hold are left out: no task needs them.
    """
    repeated: set[str] = getattr(row, "repeated", set())
    result: dict[str, object] = {}
    for column, value in row.items():
        if wanted is not None and column not in wanted:
            continue
        if wanted is not None and column in repeated:
            return Drop(rule=f"`{column}` is given twice", detail=f"`{column}` is given twice, with different values")
        try:
            result[column] = _as_json(value)
        except (ValueError, ArithmeticError, RecursionError):
            if wanted is not None:
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
            return [_as_json(one) for one in value]
        case dict():
            return {str(key): _as_json(one) for key, one in value.items()}
        case _:
            as_list = getattr(value, "tolist", None)  # a NumPy array or number
            if callable(as_list):
                return _as_json(as_list())
            raise ValueError


class Columns:
    """Collects which columns the rows of one file have, to report what all of them lack."""

    def __init__(self, file: str, forms: Forms, names: Iterable[str] = ()) -> None:
        self._file, self._forms = file, forms
        self._columns: dict[str, None] = dict.fromkeys(names)
        self._filled: set[str] = set()
        self._tables: dict[str, None] = {}
        self._rows = 0

    def add(self, row: Row) -> None:
        """Note the columns of one row."""
        self._rows += 1
        for column, value in row.items():
            self._columns[column] = None
            if not is_null(value):
                self._filled.add(column)
            if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
                self._tables[column] = None

    def check(self) -> None:
        """Raise BadData if no row has all that a form needs."""
        lacking = missing_columns(self._filled, self._forms) if self._rows else []
        if not lacking:
            return
        needed = " or ".join(f"`{column}`" for column in lacking)
        present = ", ".join(f"`{column}`" for column in self._columns) or "none"
        hint = f" Are the rows in `{next(iter(self._tables))}`? Write that list to a file." if self._tables else ""
        raise BadData(
            self._file, f"no row has {needed}, which the task reads; the columns are {present} (docs/data.md).{hint}"
        )
