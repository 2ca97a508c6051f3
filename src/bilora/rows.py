"""The forms of a raw row: which columns a task reads, and their types.

A task declares its forms as subclasses of `RowForm`, one field per column. A field with a default is optional; null
(or NaN, which pandas writes for it) counts as absent. `read_row` returns the row as a form, or a Drop that names the
column and its value.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Annotated, TypedDict, TypeVar, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator

from bilora.python_code.source import BOM, normalized, parse
from bilora.records import Drop, Row, Split

SPLIT_NAMES: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "development"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
    "prompt": "prompt",
}
"""Split names that the `datasets` library recognizes in file names; case is ignored."""

EXCERPT_CHARS = 60

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Control characters, such as NUL and a terminal's colour codes."""


class InvalidValue(ValueError):
    """A column's value is invalid; `predicate` completes the rule "`column` …"."""

    def __init__(self, predicate: str, detail: str = "") -> None:
        self.predicate = predicate
        super().__init__(detail)


def is_null(value: object) -> bool:
    """Return whether a value is null or NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def type_in_words(value: object) -> str:
    """Return a value's type in words."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list() | tuple():
            return "a list"
        case dict():
            return "an object"
        case _:
            return f"a value of type {type(value).__name__}"


def excerpt(value: object) -> str:
    """Return the beginning of a value on one line, with unprintable characters escaped."""
    text = str(value)
    start = text[:EXCERPT_CHARS] + ("..." if len(text) > EXCERPT_CHARS else "")
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in start
    )


def label_text(value: object) -> str:
    """Return a label as text; 7 and 7.0 give the same text."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value, sort_keys=True) if isinstance(value, dict | list) else str(value)


def _unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidValue("is not Unicode text", "it contains half a surrogate pair") from None
    return text.removeprefix(BOM)


def _label(value: object) -> object:
    return label_text(value) if isinstance(value, int | float) else value


def _licence(value: object) -> object:
    if isinstance(value, list) and value and all(isinstance(licence, str) for licence in value):
        return " AND ".join(value)
    return value


def _split(value: object) -> object:
    name = str(value).strip().lower()
    if not isinstance(value, str) or (name and name not in SPLIT_NAMES):
        raise InvalidValue("is not a known split", f"known: {', '.join(SPLIT_NAMES)}")
    return SPLIT_NAMES.get(name)


def _join_lines(value: object) -> object:
    lines = _parse_list(value) if isinstance(value, str) else _to_list(value)
    return "\n".join(lines) if isinstance(lines, list) and all(isinstance(line, str) for line in lines) else value


def _to_list(value: object) -> object:
    """Return an array or a tuple as a list, any other value unchanged."""
    as_list = getattr(value, "tolist", None)
    return as_list() if callable(as_list) else list(value) if isinstance(value, tuple) else value


def _tests(value: object) -> object:
    value = _to_list(value)
    if isinstance(value, str):
        value = _parse_tests(value)
    if not isinstance(value, list):
        raise InvalidValue("is not a list of tests")
    stripped = (normalized(test).strip() if isinstance(test, str) else test for test in value)
    return tuple(test for test in stripped if test != "" and not is_null(test))


def _parse_tests(text: str) -> list[object]:
    """Return the tests in a text: a list written as JSON or Python, a sequence of asserts, or one test."""
    if (tests := _parse_list(text)) is not None:
        return tests
    tree = parse(text)
    if tree and tree.body and all(isinstance(node, ast.Assert) for node in tree.body):
        return [ast.get_source_segment(normalized(text), node) for node in tree.body]
    return [text] if text.strip() else []


def _parse_list(text: str) -> list[object] | None:
    """Return the list or tuple that a text writes as JSON or Python; None if it is not one."""
    if text.lstrip().startswith(("[", "(")):
        for load in (json.loads, ast.literal_eval):
            try:
                value = load(text.strip())
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
            if isinstance(value, list | tuple):
                return list(value)
    return None


Text = Annotated[str, AfterValidator(_unicode)]
"""Valid Unicode text, without a byte order mark."""
Code = Annotated[Text, AfterValidator(normalized)]
"""Python source, with normalized line ends."""
Lines = Annotated[Code, BeforeValidator(_join_lines)]
"""Python source: a text, a list of lines, or a list of lines written as JSON or Python."""
Tests = Annotated[tuple[Text, ...], BeforeValidator(_tests)]
"""Tests: a list, a list written as JSON or Python, or a text."""
Label = Annotated[Text, BeforeValidator(_label)]


class Labels(TypedDict):
    """The labels of a row, as keyword arguments of `Sample.create`."""

    source: str
    group: str
    licence: str
    tier: str
    split: Split | None


class RowForm(BaseModel):
    """Base of all forms: the labels that every row has. The source fills in missing labels."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    source: Label
    group: Label
    licence: Annotated[Text, BeforeValidator(_licence)]
    tier: Label = ""
    split: Annotated[Split | None, BeforeValidator(_split)] = None

    @model_validator(mode="before")
    @classmethod
    def _remove_nulls(cls, row: dict[str, object]) -> dict[str, object]:
        return {column: value for column, value in row.items() if not is_null(value)}

    @property
    def labels(self) -> Labels:
        """The labels, which a sample copies from its row."""
        return Labels(source=self.source, group=self.group, licence=self.licence, tier=self.tier, split=self.split)


_F = TypeVar("_F", bound=RowForm)
Forms = Sequence[type[RowForm]]
"""The forms of row that a task reads."""


def column_names(forms: Iterable[type[RowForm]]) -> frozenset[str]:
    """Return the names of all columns that any of the forms reads."""
    return frozenset(name for form in forms for name in form.model_fields)


def missing_columns(present: Collection[str], forms: Sequence[type[RowForm]]) -> list[str]:
    """Return the required columns of the best-matching form that are not `present`; [] if it is complete."""
    return _missing_from(_best_match(present, forms), present) if forms else []


def _best_match(present: Collection[str], forms: Sequence[type[RowForm]]) -> type[RowForm]:
    """Return the form with the fewest missing columns; of equals, the one that reads the most columns."""
    return min(
        forms, key=lambda form: (len(_missing_from(form, present)), -len(set(form.model_fields).intersection(present)))
    )


def _missing_from(form: type[RowForm], present: Collection[str]) -> list[str]:
    fields = {name: field for name, field in form.model_fields.items() if name not in RowForm.model_fields}
    return [name for name, field in fields.items() if field.is_required() and name not in present]


def read_row(row: Row, *forms: type[_F]) -> _F | Drop:
    """Return a row as the form that matches its columns best, or a Drop that says why it is invalid."""
    present = {column for column, value in row.items() if not is_null(value)}
    try:
        return cast(_F, _best_match(present, forms).model_validate(dict(row)))
    except ValidationError as error:
        return _drop(error)


def _drop(error: ValidationError) -> Drop:
    """Return a Drop that names the first invalid column and its value."""
    first = error.errors(include_url=False)[0]
    path = [f"item {part + 1}" if isinstance(part, int) else f"`{part}`" for part in first["loc"]]
    column, value = path[0], first["input"]
    if first["type"] == "missing":
        return Drop(rule=f"no {column}", detail=f"{column} is missing or null")
    quoted = f"'{excerpt(value)}'" if isinstance(value, str) else f"{type_in_words(value)}: {excerpt(value)}"
    detail = f"{' '.join(path)} is {quoted}"
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, InvalidValue):
        return Drop(rule=f"{column} {cause.predicate}", detail="; ".join(filter(None, (detail, str(cause)))))
    return Drop(rule=f"{column} {'is' if len(path) == 1 else 'has an item that is'} not text", detail=detail)
