"""Count the tokens that a trainer reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, Trainer
else:
    Trainer = object


class TokenCountMixin(Trainer):
    """A mixin for transformers' trainers, before them in the list of bases.

    `tokens` is the number of tokens in this process's training batches, without padding.
    """

    tokens = 0

    def training_step(
        self,
        model: PreTrainedModel,
        inputs: Mapping[str, torch.Tensor],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Count the tokens of a batch and train on it."""
        self.count(inputs)
        loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)
        return loss

    def count(self, inputs: Mapping[str, torch.Tensor]) -> None:
        """Count the tokens of a batch."""
        self.tokens += int(inputs["attention_mask"].sum())
