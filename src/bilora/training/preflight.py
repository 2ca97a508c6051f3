"""Checks of the training rows before the first step; a fault stops the run while nothing is lost yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bilora.errors import PreflightFailed
from bilora.records import Sample
from bilora.tasks.task import Task
from bilora.training.encode import IGNORED, Encoded, encode_sample

if TYPE_CHECKING:
    from bilora.bases.tokenizer import Tokenizer

CHECKED_ROWS = 3
"""How many rows are decoded again, and shown to a person."""


@dataclass(frozen=True)
class Preflight:
    """The rows that will be trained on and what was found about them. Lengths and counts in tokens."""

    rows: list[Encoded]
    too_long: int
    tokens: int
    trained_tokens: int
    masks: list[str]

    def lines(self) -> list[str]:
        """Return the findings for a person."""
        share = self.trained_tokens / max(1, self.tokens)
        rows = f"{len(self.rows)} rows, {self.too_long} too long and left out"
        head = f"{rows}; {self.tokens:,} tokens a pass, {share:.0%} of them trained"
        return [head, *self.masks]


def _mask(tokenizer: Tokenizer, row: Encoded) -> str:
    prompt = sum(label == IGNORED for label in row.labels)
    before = tokenizer.decode(row.input_ids[max(0, prompt - 12) : prompt])
    learnt = tokenizer.decode(row.input_ids[prompt:])
    shortened = learnt if len(learnt) <= 120 else learnt[:60] + " … " + learnt[-55:]
    return f"masked …{before!r} | trained {shortened!r}"


def preflight(
    tokenizer: Tokenizer, task: Task, samples: Sequence[Sample], stops: Sequence[int], *, max_length: int
) -> Preflight:
    """Encode every sample, drop and count those over `max_length` tokens, and check the others.

    Raises:
        PreflightFailed: no row is left, most rows are too long, or the tokenizer changes an answer.
    """
    if not samples:
        raise PreflightFailed(f"There is no training sample for {task.name}; look at the drop report of data-process.")
    encoded = [encode_sample(tokenizer, task, sample, stops) for sample in samples]
    rows = [row for row in encoded if len(row.input_ids) <= max_length]
    too_long = len(encoded) - len(rows)
    if too_long > len(rows):
        raise PreflightFailed(
            f"{too_long} of {len(encoded)} rows of {task.name} are longer than training.max_length "
            f"({max_length} tokens); raise it, or tighten processing.max_prompt_chars."
        )
    for sample, row in zip(samples[:CHECKED_ROWS], encoded, strict=False):
        decoded = task.read_answer(tokenizer.decode(row.trained, skip_special_tokens=True), sample.prompt)
        if decoded != task.read_answer(task.answer(sample.target), sample.prompt):
            raise PreflightFailed(
                f"The answer of sample {sample.id} does not survive the tokenizer; it would teach noise."
            )
    return Preflight(
        rows=rows,
        too_long=too_long,
        tokens=sum(len(row.input_ids) for row in rows),
        trained_tokens=sum(len(row.trained) for row in rows),
        masks=[_mask(tokenizer, row) for row in rows[:CHECKED_ROWS]],
    )
