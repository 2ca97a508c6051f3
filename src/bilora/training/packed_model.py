"""Training passes over packed rows: one sequence without padding, in which each row has an adapter."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor
from torch.nn.functional import pad

from bilora.bases.loading import shared_copy
from bilora.training import ranks
from bilora.training.answer_loss import answer_loss, has_linear_head
from bilora.training.attention import RowLayout
from bilora.training.encode import IGNORE_INDEX
from bilora.training.lean_layers import use_lean_layers
from bilora.training.mixed_linear import MixedLinear, Spans
from bilora.training.shapes import PASS_MULTIPLE, round_up

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


_CPU_PASS_TOKENS, _GPU_PASS_TOKENS = 1536, 8192
_ARCHITECTURES = ("llama", "mistral", "phi3", "qwen2")
"""Architectures with plain causal attention, whose other layers process each token separately."""


@dataclass(frozen=True)
class PackedRow:
    """A row and the index of its adapter among the model's; ids and labels have shape (length,)."""

    ids: Tensor
    labels: Tensor
    adapter: int = 0

    @property
    def trained_tokens(self) -> int:
        """The number of its tokens in the loss, which never includes the first token."""
        return int((self.labels[1:] != IGNORE_INDEX).sum())

    def padded(self, tokens: int) -> PackedRow:
        """Return the row with padding tokens at its end, which the loss ignores."""
        ids, labels = pad(self.ids, (0, tokens)), pad(self.labels, (0, tokens), value=IGNORE_INDEX)
        return PackedRow(ids, labels, self.adapter)


TrainRows = Callable[[Sequence[PackedRow], float], Tensor]
"""Add the gradients of the rows' summed cross-entropy times a weight, and return that loss."""


def pass_tokens() -> int:
    """Return the maximum number of tokens in a pass; more would need more memory and be hardly faster."""
    return _GPU_PASS_TOKENS if torch.cuda.is_available() else _CPU_PASS_TOKENS


def can_pack(model: PreTrainedModel) -> bool:
    """Return whether a `PackedModel` computes the same as the model."""
    drops = any(getattr(model.config, name, 0) for name in ("attention_dropout", "resid_pdrop", "embd_pdrop"))
    return model.config.model_type in _ARCHITECTURES and has_linear_head(model) and not drops


def packed_rows(batch: Mapping[str, Tensor]) -> list[PackedRow]:
    """Return the rows of a padded batch."""
    lengths = batch["attention_mask"].sum(dim=1).tolist()
    pairs = zip(batch["input_ids"], batch["labels"], lengths, strict=True)
    return [PackedRow(ids[:length], labels[:length]) for ids, labels, length in pairs]


class PackedModel:
    """A frozen base with the adapters of one or several models that share its weights.

    It has no parameters: gradients go to the adapters of the models, whose `train()` and `eval()` switch dropout.
    """

    def __init__(self, adapted: Sequence[PeftModel], *, limit: int | None = None) -> None:
        """Combine the adapters of some models with the base of the first one.

        Args:
            adapted: models whose bases share their frozen weights.
            limit: the maximum number of tokens in a pass; default: `pass_tokens()`.
        """
        self._limit = limit or pass_tokens()
        self._parameters = [
            parameter for model in adapted for parameter in model.parameters() if parameter.requires_grad
        ]
        self._spans = Spans()
        layers: dict[str, dict[int, LoraLayer]] = {}
        for number, model in enumerate(adapted):
            for name, module in model.get_base_model().named_modules():
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
        """Add the gradients of the weighted losses to those of the adapters, and return the losses per adapter.

        Args:
            weights: factor of the summed cross-entropy, per adapter.
        """
        totals = [torch.zeros((), device=self._causal.device) for _ in weights]
        with self._summed_gradients(totals), ranks.rank_rng():
            for part in passes(_shard(rows), self._limit):
                losses = {number: weights[number] * loss for number, loss in self.losses(part).items()}
                torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
                for number, loss in losses.items():
                    totals[number] += loss.detach()
        return totals

    @contextmanager
    def _summed_gradients(self, totals: Sequence[Tensor]) -> Iterator[None]:
        """Sum the losses, and the gradients that are computed inside, over the ranks of the training."""
        if ranks.world_size() == 1:
            yield
            return
        earlier = [parameter.grad for parameter in self._parameters]
        for parameter in self._parameters:
            parameter.grad = torch.zeros_like(parameter)
        yield
        ranks.all_reduce([*totals, *(cast("Tensor", parameter.grad) for parameter in self._parameters)])
        for parameter, gradient in zip(self._parameters, earlier, strict=True):
            if gradient is not None:
                parameter.grad = gradient.add_(cast("Tensor", parameter.grad))

    def train_one(self, rows: Sequence[PackedRow], weight: float) -> Tensor:
        """Do the same for a model with one adapter."""
        (loss,) = self.train(rows, [weight])
        return loss

    def measure(self, rows: Sequence[PackedRow]) -> Tensor:
        """Return the summed cross-entropy of the rows, without gradients."""
        with torch.no_grad():
            parts = [self.losses(part).values() for part in passes(_shard(rows), self._limit)]
        losses = [loss for part in parts for loss in part]
        total = torch.stack(losses).sum() if losses else torch.zeros((), device=self._causal.device)
        ranks.all_reduce([total])
        return total

    def losses(self, rows: Sequence[PackedRow]) -> dict[int, Tensor]:
        """Return the summed cross-entropy per adapter, from one pass.

        Args:
            rows: sorted by adapter.
        """
        if self._causal.device.type == "cpu":
            tokens = sum(len(row.ids) for row in rows)
            rows = [*rows[:-1], rows[-1].padded(round_up(tokens, PASS_MULTIPLE) - tokens)]
        # 1) Set the span of tokens of each adapter.
        lengths = [len(row.ids) for row in rows]
        spans: dict[int, slice] = {}
        start = 0
        for row, length in zip(rows, lengths, strict=True):
            spans[row.adapter] = slice(spans[row.adapter].start if row.adapter in spans else start, start + length)
            start += length
        self._spans.by_adapter = spans
        # 2) Compute all rows in one pass, with positions that restart in each row.
        ids = torch.cat([row.ids for row in rows])[None]
        positions = torch.cat([torch.arange(length) for length in lengths])[None].to(ids.device)
        layout = RowLayout(lengths, ids.device)
        decoded = self._causal.get_decoder()(input_ids=ids, position_ids=positions, use_cache=False, rows=layout)
        hidden = decoded.last_hidden_state[0]
        # 3) Compute the loss of each trained token from the hidden state before it.
        head = self._causal.get_output_embeddings()
        labels = torch.cat([torch.cat([row.labels[1:], row.labels.new_full((1,), IGNORE_INDEX)]) for row in rows])
        trained_tokens = labels != IGNORE_INDEX
        return {
            number: answer_loss(hidden[span][trained_tokens[span]], head, labels[span][trained_tokens[span]])
            for number, span in spans.items()
        }


def _shard(rows: Sequence[PackedRow]) -> list[PackedRow]:
    """Return this rank's rows, about as many tokens as every other rank has."""
    return ranks.shard(sorted(rows, key=lambda row: -len(row.ids))) if ranks.world_size() > 1 else list(rows)


def passes(rows: Sequence[PackedRow], limit: int) -> list[list[PackedRow]]:
    """Split the rows, sorted by adapter, into passes of similar size with at most `limit` tokens.

    A longer row is a separate pass.
    """
    total = sum(len(row.ids) for row in rows)
    target = total / max(1, math.ceil(total / limit))
    groups: list[list[PackedRow]] = []
    tokens = 0
    for row in sorted(rows, key=lambda row: row.adapter):
        if not groups or tokens >= target or tokens + len(row.ids) > limit:
            groups.append([])
            tokens = 0
        groups[-1].append(row)
        tokens += len(row.ids)
    return groups
