"""Encode and check the training rows before the first step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bilora.errors import PreflightFailed
from bilora.records import Sample
from bilora.tasks.task import Task
from bilora.training.encode import IGNORE_INDEX, EncodedRow, encode_sample

if TYPE_CHECKING:
    from bilora.bases.tokenizer import Tokenizer

CHECKED_ROWS = 3
"""The number of rows that are decoded and printed."""


@dataclass(frozen=True)
class Preflight:
    """The encoded rows, the number of rows skipped as too long, counts of tokens, and printed label masks."""

    rows: list[EncodedRow]
    too_long: int
    tokens: int
    trained_tokens: int
    masks: list[str]

    def summary_lines(self) -> list[str]:
        """Return the counts and label masks to print before training."""
        share = self.trained_tokens / max(1, self.tokens)
        rows = f"{len(self.rows)} rows, {self.too_long} skipped as too long"
        return [f"{rows}; {self.tokens:,} tokens per epoch, {share:.0%} of them trained", *self.masks]


def _describe_mask(tokenizer: Tokenizer, row: EncodedRow) -> str:
    prompt = sum(label == IGNORE_INDEX for label in row.labels)
    masked = tokenizer.decode(row.input_ids[max(0, prompt - 12) : prompt])
    trained = tokenizer.decode(row.input_ids[prompt:])
    shortened = trained if len(trained) <= 120 else trained[:60] + " … " + trained[-55:]
    return f"masked …{masked!r} | trained {shortened!r}"


def preflight(
    tokenizer: Tokenizer, task: Task, samples: Sequence[Sample], stops: Sequence[int], *, max_length: int
) -> Preflight:
    """Encode the samples, skip and count those over `max_length` tokens, and check the others.

    Raises:
        PreflightFailed: there is no sample, most rows are too long, or the tokenizer changes an answer.
    """
    if not samples:
        raise PreflightFailed(f"There is no training sample for {task.name}; see the drop report of data-process.")
    encoded = [encode_sample(tokenizer, task, sample, stops) for sample in samples]
    rows = [row for row in encoded if len(row.input_ids) <= max_length]
    too_long = len(encoded) - len(rows)
    if too_long > len(rows):
        raise PreflightFailed(
            f"{too_long} of {len(encoded)} rows of {task.name} are longer than training.max_length "
            f"({max_length} tokens); raise it, or tighten processing.max_prompt_chars."
        )
    for sample, row in zip(samples[:CHECKED_ROWS], encoded, strict=False):
        decoded = task.read_answer(tokenizer.decode(row.trained_ids, skip_special_tokens=True), sample.prompt)
        if decoded != task.read_answer(task.answer(sample.target), sample.prompt):
            raise PreflightFailed(
                f"The tokenizer changes the answer of sample {sample.id} when it is decoded; choose another base."
            )
    return Preflight(
        rows=rows,
        too_long=too_long,
        tokens=sum(len(row.input_ids) for row in rows),
        trained_tokens=sum(len(row.trained_ids) for row in rows),
        masks=[_describe_mask(tokenizer, row) for row in rows[:CHECKED_ROWS]],
    )
