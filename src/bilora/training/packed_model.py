"""Training passes without padding: rows follow each other in one sequence, each goes through its own adapter."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor
from torch.nn.functional import pad

from bilora.bases.loading import shared_copy
from bilora.training.answer_loss import answer_loss, has_plain_head
from bilora.training.attention import PackedRows
from bilora.training.encode import IGNORED
from bilora.training.lean_layers import use_lean_layers
from bilora.training.mixed_linear import MixedLinear, Spans
from bilora.training.shapes import PASS_STEP, rounded_up

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


_CPU_PASS_TOKENS, _GPU_PASS_TOKENS = 1536, 8192
_ARCHITECTURES = ("llama", "mistral", "phi3", "qwen2")
"""Whose attention sees nothing but its queries, keys and values, and whose other layers see each token by itself."""


@dataclass(frozen=True)
class PackedRow:
    """A row of an adapter, which is named by its place among the model's; ids and labels have shape (length,)."""

    ids: Tensor
    labels: Tensor
    adapter: int = 0

    @property
    def trained(self) -> int:
        """How many of its tokens the loss sees: never the first, which follows nothing."""
        return int((self.labels[1:] != IGNORED).sum())

    def longer(self, tokens: int) -> PackedRow:
        """Return the row with some more tokens at its end, which neither the loss nor the other tokens see."""
        ids, labels = pad(self.ids, (0, tokens)), pad(self.labels, (0, tokens), value=IGNORED)
        return PackedRow(ids, labels, self.adapter)


TrainRows = Callable[[Sequence[PackedRow], float], Tensor]
"""Adds the gradients of the rows' summed cross-entropy times a weight; returns that loss."""


def pass_tokens() -> int:
    """Return how many tokens go through the model at a time: more need more memory and are hardly faster."""
    return _GPU_PASS_TOKENS if torch.cuda.is_available() else _CPU_PASS_TOKENS


def can_pack(model: PreTrainedModel) -> bool:
    """Return whether a `PackedModel` computes what the model itself does."""
    drops = any(getattr(model.config, name, 0) for name in ("attention_dropout", "resid_pdrop", "embd_pdrop"))
    return model.config.model_type in _ARCHITECTURES and has_plain_head(model) and not drops


def packed_rows(batch: Mapping[str, Tensor]) -> list[PackedRow]:
    """Return the rows of a padded batch."""
    lengths = batch["attention_mask"].sum(dim=1).tolist()
    pairs = zip(batch["input_ids"], batch["labels"], lengths, strict=True)
    return [PackedRow(ids[:length], labels[:length]) for ids, labels, length in pairs]


class PackedModel:
    """One frozen base with the adapters of several models that share its weights.

    It has no parameters of its own: the gradients are those of the models' adapters. Their layers say whether dropout
    is active, by `train()` and `eval()` of the models.
    """

    def __init__(self, adapted: Sequence[PeftModel], *, limit: int | None = None) -> None:
        """Take the base of the first model.

        Args:
            adapted: models whose bases have the same frozen weights.
            limit: how many tokens a pass may have, `pass_tokens()` by default; a longer row is a pass of its own.
        """
        self._limit = limit or pass_tokens()
        self._spans = Spans()
        layers: dict[str, dict[int, LoraLayer]] = {}
        for number, one in enumerate(adapted):
            for name, module in one.get_base_model().named_modules():
                if isinstance(module, LoraLayer):
                    layers.setdefault(name, {})[number] = module
        self._causal = shared_copy(adapted[0].get_base_model())
        use_lean_layers(self._causal)
        modules = dict(self._causal.named_modules())
        for name, adapters in layers.items():
            module = modules[name]
            base = module.get_base_layer() if isinstance(module, LoraLayer) else module
            self._causal.set_submodule(name, MixedLinear(base, adapters, self._spans))

    def train(self, rows: Sequence[PackedRow], weights: Sequence[float]) -> list[Tensor]:
        """Add the gradients of the weighted losses to those of the adapters; return the losses, one per adapter.

        Args:
            weights: per adapter, what its sum of cross-entropies is multiplied by.
        """
        found = [torch.zeros((), device=self._causal.device) for _ in weights]
        for part in passes(rows, self._limit):
            losses = {number: weights[number] * loss for number, loss in self.losses(part).items()}
            torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
            for number, loss in losses.items():
                found[number] += loss.detach()
        return found

    def train_one(self, rows: Sequence[PackedRow], weight: float) -> Tensor:
        """Do the same for the only adapter."""
        (loss,) = self.train(rows, [weight])
        return loss

    def measure(self, rows: Sequence[PackedRow]) -> Tensor:
        """Return the sum of the rows' cross-entropies, without gradients."""
        with torch.no_grad():
            parts = [self.losses(part).values() for part in passes(rows, self._limit)]
        return torch.stack([loss for part in parts for loss in part]).sum()

    def losses(self, rows: Sequence[PackedRow]) -> dict[int, Tensor]:
        """Return the sum of the cross-entropies of the trained tokens per adapter, of one pass.

        Args:
            rows: in the order of their adapters.
        """
        if self._causal.device.type == "cpu":
            tokens = sum(len(row.ids) for row in rows)
            rows = [*rows[:-1], rows[-1].longer(rounded_up(tokens, PASS_STEP) - tokens)]
        # 1) Which tokens are whose.
        lengths = [len(row.ids) for row in rows]
        ends: dict[int, slice] = {}
        start = 0
        for row, length in zip(rows, lengths, strict=True):
            ends[row.adapter] = slice(ends[row.adapter].start if row.adapter in ends else start, start + length)
            start += length
        self._spans.of_adapters = ends
        # 2) One pass over all rows; positions start again with each.
        ids = torch.cat([row.ids for row in rows])[None]
        positions = torch.cat([torch.arange(length) for length in lengths])[None].to(ids.device)
        layout = PackedRows(lengths, ids.device)
        decoded = self._causal.get_decoder()(input_ids=ids, position_ids=positions, use_cache=False, rows=layout)
        hidden = decoded.last_hidden_state[0]
        # 3) The loss of each trained token follows from the hidden state before it.
        head = self._causal.get_output_embeddings()
        labels = torch.cat([torch.cat([row.labels[1:], row.labels.new_full((1,), IGNORED)]) for row in rows])
        trained = labels != IGNORED
        return {
            number: answer_loss(hidden[span][trained[span]], head, labels[span][trained[span]])
            for number, span in ends.items()
        }


def passes(rows: Sequence[PackedRow], limit: int) -> list[list[PackedRow]]:
    """Split the rows, ordered by adapter, into passes of about equally many tokens, at most `limit`.

    A longer row is a pass of its own.
    """
    total = sum(len(row.ids) for row in rows)
    enough = total / max(1, math.ceil(total / limit))
    found: list[list[PackedRow]] = []
    tokens = 0
    for row in sorted(rows, key=lambda row: row.adapter):
        if not found or tokens >= enough or tokens + len(row.ids) > limit:
            found.append([])
            tokens = 0
        found[-1].append(row)
        tokens += len(row.ids)
    return found
