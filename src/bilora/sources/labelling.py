"""What every row says of itself (source, group, licence, origin), and the rows that a source cannot read."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from bilora.errors import BadData
from bilora.records import Drop
from bilora.rows import RowForm, columns, excerpt, is_absent, kind, missing, word

GROUP_COLUMNS = ("repo", "repository_name", "task_id")
"""Columns of well-known datasets that name what a split must not tear apart, best first."""
LICENCE_COLUMNS = ("licence", "license")
LABEL_COLUMNS = frozenset((*RowForm.model_fields, *GROUP_COLUMNS, *LICENCE_COLUMNS))
ORIGIN, REFUSED = "origin", "drop"
"""Keys that a source adds: where the user finds the row, and why it could not be read."""


def read_columns(forms: Sequence[type[RowForm]]) -> frozenset[str] | None:
    """Return the columns to keep of a row for these forms; None keeps all that JSON can hold."""
    return columns(forms) | LABEL_COLUMNS if forms else None


def labelled(
    row: Mapping[str, Any] | Drop, *, name: str, file: str, number: int, licence: str, origin: str
) -> dict[str, Any]:
    """Add `source`, `group`, `licence` and `origin` to a row; its own words come first.

    A group that no column names is the row itself: `file` and its number, so that rows of two files are
    never one group. Of a row that was refused only its place and its Drop are left.
    """
    place = {"source": f"{name}:{number}", ORIGIN: origin}
    if isinstance(row, Drop):
        return {**place, REFUSED: row.model_dump()}
    own = {column: value for column, value in row.items() if not is_absent(value) and value != ""}
    group = next((word(own[column]) for column in GROUP_COLUMNS if column in own), f"{file}:{number}")
    terms = next((own[column] for column in LICENCE_COLUMNS if own.get(column)), licence)
    if "task_id" in own:
        place["source"] = f"{name}:{word(own['task_id'])}"
    row = {column: value for column, value in row.items() if column != REFUSED}
    defaults = {"source": place["source"], "group": group}
    chosen = {column: own.get(column, default) for column, default in defaults.items()}
    return {**row, **chosen, "licence": terms, ORIGIN: origin}


def kept(row: Mapping[str, Any], wanted: Collection[str] | None) -> dict[str, Any] | Drop:
    """Return the wanted columns as JSON holds them; a Drop names a wanted value that it cannot hold.

    With `wanted` None, columns that JSON cannot hold are left out: no task said that it needs them.
    """
    repeated: set[str] = getattr(row, "repeated", set())
    result = {}
    for column, value in row.items():
        if wanted is not None and column not in wanted:
            continue
        if wanted is not None and column in repeated:
            return Drop(rule=f"`{column}` is given twice", detail=f"`{column}` is given twice, with different values")
        try:
            result[column] = _as_json(value)
        except (ValueError, ArithmeticError, RecursionError):
            if wanted is not None:
                detail = f"`{column}` is {kind(value)}: {excerpt(value)}"
                return Drop(rule=f"`{column}` cannot be read", detail=detail)
    return result


def _as_json(value: Any) -> Any:
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
            as_list = getattr(value, "tolist", None)  # an array of NumPy, or a number of its
            if callable(as_list):
                return _as_json(as_list())
            raise ValueError


class Columns:
    """Remembers which columns the rows of one file have, to say what all of them lack."""

    def __init__(self, file: str, forms: Sequence[type[RowForm]], names: Iterable[str] = ()) -> None:
        self._file, self._forms = file, forms
        self._there: dict[str, None] = dict.fromkeys(names)
        self._filled: set[str] = set()
        self._tables: dict[str, None] = {}
        self._rows = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Note the columns of one row."""
        self._rows += 1
        for column, value in row.items():
            self._there[column] = None
            if not is_absent(value):
                self._filled.add(column)
            if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
                self._tables[column] = None

    def check(self) -> None:
        """Raise BadData if no row has all that a form needs."""
        lacking = missing(self._filled, self._forms) if self._rows else []
        if not lacking:
            return
        needed = " or ".join(f"`{column}`" for column in lacking)
        there = ", ".join(f"`{column}`" for column in self._there) or "none"
        hint = f" Are the rows in `{next(iter(self._tables))}`? Write that list to a file." if self._tables else ""
        raise BadData(
            self._file, f"no row has {needed}, which the task reads; the columns are {there} (docs/data.md).{hint}"
        )
