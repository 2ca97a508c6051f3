"""What phases have in common that train on rated pairs: their settings and their rows."""

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
    """Training on what people preferred."""

    batch_size: int = Field(ge=2, description="rows per batch, which are compared with each other")
    beta: float = Field(0.1, gt=0.0, description="how strongly the adapter is kept near the previous phase's")
    min_rows: int = Field(16, ge=2, description="with fewer rows the phase is refused")


@dataclass(frozen=True)
class PairRows:
    """Encoded rows under TRL's column names, how many were too long, and how the rows read to a person."""

    rows: list[dict[str, object]]
    too_long: int
    found: str

    def lines(self) -> list[str]:
        """Return what a person should see of the rows."""
        return [f"{self.found}, {self.too_long} too long and left out"]


def encode_pairs(
    context: TrainingContext,
    pairs: Sequence[PairT],
    answers: Callable[[PairT], Mapping[str, tuple[Message, ...]]],
) -> list[tuple[PairT, dict[str, object]]]:
    """Encode pairs as samples are encoded, in an order drawn by the seed; leave out those that are too long.

    Args:
        answers: the answers of a pair, by the column that their token ids go to.
    """
    from bilora.bases.prompt import encode_answer

    stops = context.stops
    rows: list[tuple[PairT, dict[str, object]]] = []
    for pair in pairs:
        encoded = {
            column: encode_answer(context.tokenizer, pair.prompt, turns[0].content, stops)
            for column, turns in answers(pair).items()
        }
        if all(len(prompt) + len(answer) <= context.max_length for prompt, answer in encoded.values()):
            prompt_ids = next(prompt for prompt, _ in encoded.values())
            answer_ids = {column: answer for column, (_, answer) in encoded.items()}
            rows.append((pair, {"prompt_ids": prompt_ids, **answer_ids}))
    random.Random(context.seed).shuffle(rows)
    return rows
