"""The reports of data-process and data-split, as far as report.html shows them."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from bilora.records import Record


class _Part(Record):
    """Base of the parts: what the stages report beyond these fields is ignored."""

    model_config = ConfigDict(extra="ignore")


class DroppedRow(_Part):
    """A refused row that is shown."""

    source: str
    detail: str
    excerpt: str


class DroppedRule(_Part):
    """How many rows a rule refused, and some of them."""

    rule: str
    count: int
    examples: tuple[DroppedRow, ...]


class SplitCounts(_Part):
    """What a split holds; `licence` counts samples by licence."""

    rows: int
    groups: int
    licence: dict[str, int]


class DataReport(_Part):
    """What a stage read, kept and refused, and the splits that it made, if it makes any."""

    rows_in: int
    rows_out: int
    rules: tuple[DroppedRule, ...]
    splits: dict[str, SplitCounts] = Field(default_factory=dict)
