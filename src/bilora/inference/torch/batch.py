"""The torch batch: sequences of any adapters, one forward pass per token for all of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bilora.inference.decoder import Decoder, SequenceState
from bilora.inference.torch.cpu_tuning import onednn_if_faster
from bilora.inference.torch.kv_cache import KVCache
from bilora.inference.torch.lora import LoadedAdapter, StackedLora
from bilora.records import Completion

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

_SCORES_BYTES, _SCORED_AT_A_TIME = 2**30, 256
"""Memory for the logits of one prompt, and how many tokens' are made 32-bit at a time."""
_MAX_PADDING, _WIDTH_STEP = 128, 16
"""Tokens of padding in a pass of prompts on a CPU, and a divisor of their padded length: oneDNN compiles each shape."""


class TorchBatch:
    """The sequences of one model, each at its own place in its own answer.

    Implements `scheduler.Batch`; for one thread at a time. All sequences share one KV cache, in which each occupies
    as many tokens as the longest may come to, `kv_capacity` in all.
    """

    separate_pools = False

    def __init__(
        self, model: PreTrainedModel, decoder: Decoder, lora: StackedLora, *, max_sequences: int, kv_capacity: int
    ) -> None:
        from torch.nn import Linear

        self._model = model
        self._decoder = decoder
        self._lora = lora
        self._cache = KVCache(max_sequences)
        self._kv_capacity = kv_capacity
        self._windows = _attention_windows(model.config)
        self._largest_weight: torch.Tensor = max(
            (module.weight for module in model.modules() if isinstance(module, Linear)),
            key=lambda weight: weight.numel(),
        )
        self.max_sequences = max_sequences
        self.sequences: list[SequenceState[LoadedAdapter]] = []

    def fits(self, sequence: SequenceState[LoadedAdapter], joining: Sequence[SequenceState[LoadedAdapter]]) -> bool:
        """Return whether all could come to the length of the longest; alone a sequence always fits."""
        together = [*self.sequences, *joining, sequence]
        longest = max(one.max_total_tokens for one in together)
        return len(together) == 1 or len(together) * longest <= self._kv_capacity

    @property
    def max_scored_tokens(self) -> int:
        """How long a prompt may be whose tokens' probabilities are wanted: their logits are in memory together."""
        return _SCORES_BYTES // int(self._model.config.vocab_size * self._model.dtype.itemsize)

    def prefill(self, sequences: Sequence[SequenceState[LoadedAdapter]]) -> None:
        """Add new sequences: read their prompts and give each its first token.

        On a CPU prompts of about one length share a pass. One whose tokens' probabilities are wanted has its own.
        """
        scored = [sequence for sequence in sequences if sequence.scores_prompt]
        others = [sequence for sequence in sequences if not sequence.scores_prompt]
        groups = _by_length(others) if self._largest_weight.device.type == "cpu" else [others]
        for together in filter(None, (*groups, *([sequence] for sequence in scored))):
            self._read_prompts(together)

    def _read_prompts(self, sequences: Sequence[SequenceState[LoadedAdapter]]) -> None:
        import torch

        began = time.perf_counter()
        lengths = [sequence.prompt_tokens for sequence in sequences]
        width = -(-max(lengths) // _WIDTH_STEP) * _WIDTH_STEP
        padded = [one.prompt_ids + [0] * (width - one.prompt_tokens) for one in sequences]  # on the right: never seen
        scored = next((sequence for sequence in sequences if sequence.scores_prompt), None)
        ends = list(range(lengths[0])) if scored else sorted({length - 1 for length in lengths})
        self._decoder.begin(sequences, began)
        self.sequences += sequences
        self._cache.begin_prefill(lengths)
        with torch.inference_mode(), self._lora.active([sequence.adapter for sequence in sequences]):
            with onednn_if_faster(self._largest_weight, len(sequences) * width):
                logits = self._model(
                    input_ids=self._tensor(padded),
                    position_ids=torch.arange(width, device=self._largest_weight.device)[None],
                    past_key_values=self._cache,
                    use_cache=True,
                    logits_to_keep=self._tensor(ends),
                ).logits
            if scored:
                last = self._decoder.echo(scored, logits[0].split(_SCORED_AT_A_TIME))
            else:
                last = logits[range(len(sequences)), [ends.index(length - 1) for length in lengths]].float()
            self._decoder.extend(sequences, last, began)
        self._cache.end_prefill()

    def step(self) -> None:
        """Give every sequence its next token."""
        import torch

        began = time.perf_counter()
        device = self._largest_weight.device
        with torch.inference_mode(), self._lora.active([sequence.adapter for sequence in self.sequences]):
            masks = {kind: self._cache.mask(window, device) for kind, window in self._windows.items()}
            with onednn_if_faster(self._largest_weight, len(self.sequences)):
                logits = self._model(
                    input_ids=self._tensor([[sequence.output_ids[-1]] for sequence in self.sequences]),
                    attention_mask=masks if len(masks) > 1 else next(iter(masks.values())),
                    position_ids=self._tensor([[length] for length in self._cache.lengths]),
                    past_key_values=self._cache,
                    use_cache=True,
                ).logits
            self._cache.advance()
            self._decoder.extend(self.sequences, logits[:, -1].float(), began)

    def remove(self, sequence: SequenceState[LoadedAdapter]) -> None:
        """Take a sequence out; its row of the KV cache is free for the next one."""
        import torch

        row = self.sequences.index(sequence)
        with torch.inference_mode():
            self._cache.remove(row)
        self.sequences[row] = self.sequences[-1]
        self.sequences.pop()

    def clear(self) -> None:
        """Take all sequences out, whatever state a failed pass has left them in."""
        self.sequences = []
        self._cache.clear()

    def completion(self, sequence: SequenceState[LoadedAdapter]) -> Completion:
        """Return the answer of a finished sequence."""
        return self._decoder.completion(sequence)

    def use_threads(self, count: int) -> None:
        """Compute with this many threads from now on, in the calling thread."""
        import torch

        torch.set_num_threads(count)

    def _tensor(self, values: Sequence[int] | Sequence[Sequence[int]]) -> torch.Tensor:
        import torch

        return torch.tensor(values, device=self._largest_weight.device)


def _by_length(sequences: Sequence[SequenceState[LoadedAdapter]]) -> list[list[SequenceState[LoadedAdapter]]]:
    """Split sequences into groups, longest prompts first, so that little of a group's pass is padding."""
    groups: list[list[SequenceState[LoadedAdapter]]] = []
    padding = 0
    for sequence in sorted(sequences, key=lambda one: -one.prompt_tokens):
        missing = groups[-1][0].prompt_tokens - sequence.prompt_tokens if groups else 0
        if not groups or padding + missing > _MAX_PADDING:
            groups.append([])
            padding = missing = 0
        groups[-1].append(sequence)
        padding += missing
    return groups


def _attention_windows(config: PretrainedConfig) -> dict[str, int | None]:
    """Return how many tokens each kind of attention layer looks back; None for all.

    Raises:
        ValueError: the model keeps something else than keys and values, such as a recurrent state.
    """
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ["sliding_attention" if window else "full_attention"])
    if not kinds <= {"sliding_attention", "full_attention"}:
        raise ValueError(f"layers of the kinds {', '.join(sorted(kinds))} are not served")
    return {kind: window if kind == "sliding_attention" else None for kind in sorted(kinds)}
