"""From a sample to token ids and the label mask: the answer and its end token are trained, nothing else."""

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

LENGTHS_OF = 400
"""How many rows are encoded for an estimate: as many as batches of similar length are drawn from."""
IGNORED = -100
"""Label of a token that the loss does not see."""


@dataclass(frozen=True)
class Encoded:
    """One training row; `labels` equals `input_ids` on the answer and IGNORED on the prompt."""

    input_ids: list[int]
    labels: list[int]

    @property
    def trained(self) -> list[int]:
        """The token ids that the loss sees."""
        return [label for label in self.labels if label != IGNORED]


def row_lengths(base: Base, task: Task, samples: Sequence[Sample], max_length: int) -> list[int]:
    """Return the lengths in tokens of `LENGTHS_OF` rows spread over the samples, those above `max_length` left out.

    Raises:
        BadData, PreflightFailed: as `encode_answer` does.
    """
    tokenizer = base.tokenizer()
    stops = stop_ids(tokenizer, base.generation_config())
    chosen = samples[:: max(1, len(samples) // LENGTHS_OF)][:LENGTHS_OF]
    lengths = [len(encode_sample(tokenizer, task, sample, stops).input_ids) for sample in chosen]
    return [length for length in lengths if length <= max_length] or [max_length]


def encode_sample(tokenizer: Tokenizer, task: Task, sample: Sample, stops: Sequence[int]) -> Encoded:
    """Encode one sample; its last trained token is the one that ends the assistant's turn.

    Raises:
        BadData, PreflightFailed: as `encode_answer` does.
    """
    prompt, answer = encode_answer(tokenizer, task.messages(sample.prompt), task.answer(sample.target), stops)
    return Encoded(prompt + answer, [IGNORED] * len(prompt) + answer)
