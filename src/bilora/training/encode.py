"""Encode a sample into token ids and its label mask, which trains only the answer and its stop token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bilora.bases.prompt import encode_answer
from bilora.bases.special_tokens import stop_ids
from bilora.records import Sample
from bilora.tasks.task import Task

if TYPE_CHECKING:
    from bilora.bases.base import Base
    from bilora.bases.tokenizer import Tokenizer

MAX_MEASURED_ROWS = 400
"""The number of rows whose length is measured for an estimate; batches of similar length are drawn from as many."""
IGNORE_INDEX = -100
"""The label of tokens that the loss ignores."""


@dataclass(frozen=True)
class EncodedRow:
    """A training row; `labels` are `input_ids` on the answer and IGNORE_INDEX on the prompt."""

    input_ids: list[int]
    labels: list[int]

    @property
    def trained_ids(self) -> list[int]:
        """The token ids in the loss."""
        return [label for label in self.labels if label != IGNORE_INDEX]


def row_lengths(base: Base, task: Task, samples: Sequence[Sample], max_length: int) -> list[int]:
    """Return the lengths in tokens, up to `max_length`, of `MAX_MEASURED_ROWS` rows spread over the samples.

    Raises:
        BadData, PreflightFailed: see `encode_answer`.
    """
    tokenizer = base.tokenizer()
    stops = stop_ids(tokenizer, base.generation_config())
    measured = samples[:: max(1, len(samples) // MAX_MEASURED_ROWS)][:MAX_MEASURED_ROWS]
    lengths = [len(encode_sample(tokenizer, task, sample, stops).input_ids) for sample in measured]
    return [length for length in lengths if length <= max_length] or [max_length]


def encode_sample(tokenizer: Tokenizer, task: Task, sample: Sample, stops: Sequence[int]) -> EncodedRow:
    """Encode a sample; its last trained token is a stop token.

    Raises:
        BadData, PreflightFailed: see `encode_answer`.
    """
    prompt, answer = encode_answer(tokenizer, task.messages(sample.prompt), task.answer(sample.target), stops)
    return EncodedRow(prompt + answer, [IGNORE_INDEX] * len(prompt) + answer)
