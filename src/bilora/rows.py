"""The forms of a raw row: which columns a task reads, and what they must hold.

A task declares its forms as subclasses of `RowForm`, one field per column. A field with a default is
optional, and null (or NaN, as pandas writes it) counts as absent. `read` returns the row as its form,
or the Drop that names the column and its value.
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
"""Names of splits, in any case, as the `datasets` library reads them from file names."""

EXCERPT_CHARS = 60

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Characters that no prose has, such as NUL and the colours of a terminal."""


class Unreadable(ValueError):
    """A column's value is refused; `what` completes the rule "`column` ..."."""

    def __init__(self, what: str, detail: str = "") -> None:
        self.what = what
        super().__init__(detail)


def is_absent(value: object) -> bool:
    """Whether a value says that there is none: null, or NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def kind(value: object) -> str:
    """Name a value's type in words."""
    match value:
        case None:
            return "null"
        case bool():
            return "a truth value"
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
    """Return the beginning of a value on one line; what no terminal should be sent is escaped."""
    text = str(value)
    start = text[:EXCERPT_CHARS] + ("..." if len(text) > EXCERPT_CHARS else "")
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in start)


def word(value: object) -> str:
    """Write a label as text; a whole number reads the same whether it was stored as 7 or 7.0."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value, sort_keys=True) if isinstance(value, dict | list) else str(value)


def _unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Unreadable("is not Unicode text", "it holds half a surrogate pair") from None
    return text.removeprefix(BOM)


def _label(value: object) -> object:
    return word(value) if isinstance(value, int | float) else value


def _licence(value: object) -> object:
    if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        return " AND ".join(value)
    return value


def _split(value: object) -> object:
    name = str(value).strip().lower()
    if not isinstance(value, str) or (name and name not in SPLIT_NAMES):
        raise Unreadable("is not a known split", f"known: {', '.join(SPLIT_NAMES)}")
    return SPLIT_NAMES.get(name)


def _joined(value: object) -> object:
    lines = _list_in(value) if isinstance(value, str) else _listed(value)
    return "\n".join(lines) if isinstance(lines, list) and all(isinstance(line, str) for line in lines) else value


def _listed(value: object) -> object:
    """Return an array as a list."""
    as_list = getattr(value, "tolist", None)
    return as_list() if callable(as_list) else list(value) if isinstance(value, tuple) else value


def _tests(value: object) -> object:
    value = _listed(value)
    if isinstance(value, str):
        value = _tests_of_text(value)
    if not isinstance(value, list):
        raise Unreadable("is not a list of tests")
    stripped = (normalized(test).strip() if isinstance(test, str) else test for test in value)
    return tuple(test for test in stripped if test != "" and not is_absent(test))


def _tests_of_text(text: str) -> list[object]:
    """Return the tests of one text: a list written as JSON or Python, asserts one after the other, or one test."""
    if (tests := _list_in(text)) is not None:
        return tests
    tree = parse(text)
    if tree and tree.body and all(isinstance(node, ast.Assert) for node in tree.body):
        return [ast.get_source_segment(normalized(text), node) for node in tree.body]
    return [text] if text.strip() else []


def _list_in(text: str) -> list[object] | None:
    """Return the list or tuple that a text writes as JSON or Python; None if it is another text."""
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
"""Text that every tokenizer and file can hold, without a byte-order mark."""
Code = Annotated[Text, AfterValidator(normalized)]
"""Python source; byte-order mark and line ends as Python reads them."""
Lines = Annotated[Code, BeforeValidator(_joined)]
"""Python source, as one text, as a list of lines, or as the text of such a list."""
Tests = Annotated[tuple[Text, ...], BeforeValidator(_tests)]
"""Tests as a list, as the text of a list, or as text."""
Label = Annotated[Text, BeforeValidator(_label)]


class Labels(TypedDict):
    """What every row says of itself, as keywords of `Sample.create`."""

    source: str
    group: str
    licence: str
    tier: str
    split: Split | None


class RowForm(BaseModel):
    """Base of all forms: the labels of every row. The source fills in what a row leaves out."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    source: Label
    group: Label
    licence: Annotated[Text, BeforeValidator(_licence)]
    tier: Label = ""
    split: Annotated[Split | None, BeforeValidator(_split)] = None

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, row: dict[str, object]) -> dict[str, object]:
        return {column: value for column, value in row.items() if not is_absent(value)}

    @property
    def labels(self) -> Labels:
        """What a sample takes over from its row unchanged."""
        return Labels(source=self.source, group=self.group, licence=self.licence, tier=self.tier, split=self.split)


F = TypeVar("F", bound=RowForm)
Forms = Sequence[type[RowForm]]
"""The forms of row that a task reads."""


def columns(forms: Iterable[type[RowForm]]) -> frozenset[str]:
    """Return the names of all columns that some form reads."""
    return frozenset(name for form in forms for name in form.model_fields)


def missing(present: Collection[str], forms: Sequence[type[RowForm]]) -> list[str]:
    """Return the columns that the nearest form lacks, [] if one form is complete."""
    return _lacking(_nearest(present, forms), present) if forms else []


def _nearest(present: Collection[str], forms: Sequence[type[RowForm]]) -> type[RowForm]:
    """Return the form that lacks the fewest columns; of several the one that finds the most."""
    return min(
        forms, key=lambda form: (len(_lacking(form, present)), -len(set(form.model_fields).intersection(present)))
    )


def _lacking(form: type[RowForm], present: Collection[str]) -> list[str]:
    own = {name: field for name, field in form.model_fields.items() if name not in RowForm.model_fields}
    return [name for name, field in own.items() if field.is_required() and name not in present]


def read_row(row: Row, *forms: type[F]) -> F | Drop:
    """Read a row as the form that is nearest to its columns; a Drop says why it cannot be."""
    present = {column for column, value in row.items() if not is_absent(value)}
    try:
        return cast(F, _nearest(present, forms).model_validate(dict(row)))
    except ValidationError as error:
        return _drop(error)


def _drop(error: ValidationError) -> Drop:
    """Name the first column at fault, and its value."""
    first = error.errors(include_url=False)[0]
    place = [f"item {part + 1}" if isinstance(part, int) else f"`{part}`" for part in first["loc"]]
    column, value = place[0], first["input"]
    if first["type"] == "missing":
        return Drop(rule=f"no {column}", detail=f"{column} is missing or null")
    shown = f"'{excerpt(value)}'" if isinstance(value, str) else f"{kind(value)}: {excerpt(value)}"
    holds = f"{' '.join(place)} is {shown}"
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, Unreadable):
        return Drop(rule=f"{column} {cause.what}", detail="; ".join(filter(None, (holds, str(cause)))))
    return Drop(rule=f"{column} {'is' if len(place) == 1 else 'holds what is'} not text", detail=holds)
