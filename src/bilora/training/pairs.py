"""The settings and rows of phases that train on preference pairs."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from pydantic import Field

from bilora.plugins import PhaseSettings
from bilora.training_pairs import Pair

if TYPE_CHECKING:
    from bilora.records import Message
    from bilora.training.context import TrainingContext

PairT = TypeVar("PairT", bound=Pair)


class PairSettings(PhaseSettings):
    """Training on preference pairs."""

    batch_size: int = Field(ge=2, description="rows per batch, which are compared with each other")
    beta: float = Field(
        default=0.1, gt=0.0, description="how strongly the adapter is held near that of the previous phase"
    )
    min_rows: int = Field(default=16, ge=2, description="minimum number of rows; fewer are an error")


@dataclass(frozen=True)
class PairRows:
    """Encoded rows with TRL's column names, the number of rows skipped as too long, and a description."""

    rows: list[dict[str, object]]
    too_long: int
    description: str

    def summary_lines(self) -> list[str]:
        """Return a line on the rows to print before training."""
        return [f"{self.description}, {self.too_long} skipped as too long"]


def encode_pairs(
    context: TrainingContext,
    pairs: Sequence[PairT],
    completions: Callable[[PairT], Mapping[str, tuple[Message, ...]]],
) -> list[tuple[PairT, dict[str, object]]]:
    """Encode pairs in an order shuffled by the seed, and skip those that are too long.

    Args:
        completions: returns the completions of a pair by the column of their token ids.
    """
    from bilora.bases.prompt import encode_answer

    rows: list[tuple[PairT, dict[str, object]]] = []
    for pair in pairs:
        encoded = {
            column: encode_answer(context.tokenizer, pair.prompt, turns[0].content, context.stop_ids)
            for column, turns in completions(pair).items()
        }
        if all(len(prompt) + len(answer) <= context.max_length for prompt, answer in encoded.values()):
            prompt_ids = next(prompt for prompt, _ in encoded.values())
            answer_ids = {column: answer for column, (_, answer) in encoded.items()}
            rows.append((pair, {"prompt_ids": prompt_ids, **answer_ids}))
    random.Random(context.seed).shuffle(rows)
    return rows
