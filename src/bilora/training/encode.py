"""From a sample to token ids and the label mask: the answer and its end token are trained, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bilora.bases.prompt import encode_answer
from bilora.records import Sample
from bilora.tasks.task import Task

if TYPE_CHECKING:
    from bilora.bases.tokenizer import Tokenizer

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


def encode_sample(tokenizer: Tokenizer, task: Task, sample: Sample, stops: Sequence[int]) -> Encoded:
    """Encode one sample; its last trained token is the one that ends the assistant's turn.

    Raises:
        BadData, PreflightFailed: as `encode_answer` does.
    """
    prompt, answer = encode_answer(tokenizer, task.messages(sample.prompt), task.answer(sample.target), stops)
    return Encoded(prompt + answer, [IGNORED] * len(prompt) + answer)
