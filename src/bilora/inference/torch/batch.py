"""The torch batch: one forward pass per token for sequences of any adapters."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bilora.inference.decoder import Decoder, SequenceState
from bilora.inference.torch.cpu_tuning import onednn_if_faster
from bilora.inference.torch.kv_cache import KVCache, cache_argument
from bilora.inference.torch.lora import LoadedAdapter, StackedLora
from bilora.records import Completion

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

_PROMPT_LOGITS_BYTES, _LOGPROB_ROWS = 2**30, 256
"""Memory for the logits of one prompt, and how many of its tokens are converted to 32-bit at a time."""
_MAX_PADDING, _WIDTH_STEP = 128, 16
"""Padding tokens per prefill on a CPU, and a divisor of the padded length: oneDNN compiles code for each shape."""


class TorchBatch:
    """The running sequences of one model.

    Implements `scheduler.Batch`; for one thread at a time. All sequences share one KV cache of `kv_capacity` tokens,
    in which each row is as long as the longest sequence can become.
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
        self._cache_argument = cache_argument(model)
        self._kv_capacity = kv_capacity
        self._windows = _attention_windows(model.config)
        self._largest_weight: torch.Tensor = max(
            (module.weight for module in model.modules() if isinstance(module, Linear)),
            key=lambda weight: weight.numel(),
        )
        self.max_sequences = max_sequences
        self.sequences: list[SequenceState[LoadedAdapter]] = []

    def can_admit(
        self, sequence: SequenceState[LoadedAdapter], admitted: Sequence[SequenceState[LoadedAdapter]]
    ) -> bool:
        """Return whether the KV cache can hold all sequences at the length of the longest; True for one alone."""
        sequences = [*self.sequences, *admitted, sequence]
        longest = max(seq.max_total_tokens for seq in sequences)
        return len(sequences) == 1 or len(sequences) * longest <= self._kv_capacity

    @property
    def max_prompt_logprobs(self) -> int:
        """Maximum length of a prompt whose log probabilities are requested: all its logits are in memory."""
        return _PROMPT_LOGITS_BYTES // int(self._model.config.vocab_size * self._model.dtype.itemsize)

    def prefill(self, sequences: Sequence[SequenceState[LoadedAdapter]]) -> None:
        """Add sequences: compute their prompts and generate the first token of each.

        On a CPU prompts of similar length share a pass. A prompt with log probabilities has a pass of its own.
        """
        scored = [sequence for sequence in sequences if sequence.wants_prompt_logprobs]
        others = [sequence for sequence in sequences if not sequence.wants_prompt_logprobs]
        groups = _group_by_length(others) if self._largest_weight.device.type == "cpu" else [others]
        for group in filter(None, (*groups, *([sequence] for sequence in scored))):
            self._prefill_group(group)

    def _prefill_group(self, sequences: Sequence[SequenceState[LoadedAdapter]]) -> None:
        """Run one prefill: 1) pad the prompts on the right 2) compute logits at their ends 3) sample first tokens."""
        import torch

        start = time.perf_counter()
        lengths = [sequence.prompt_tokens for sequence in sequences]
        width = -(-max(lengths) // _WIDTH_STEP) * _WIDTH_STEP
        padded = [seq.prompt_ids + [0] * (width - seq.prompt_tokens) for seq in sequences]  # padding is masked
        scored = next((sequence for sequence in sequences if sequence.wants_prompt_logprobs), None)
        ends = list(range(lengths[0])) if scored else sorted({length - 1 for length in lengths})
        self._decoder.begin(sequences, start)
        self.sequences += sequences
        self._cache.begin_prefill(lengths)
        with torch.inference_mode(), self._lora.active([sequence.adapter for sequence in sequences]):
            with onednn_if_faster(self._largest_weight, len(sequences) * width):
                logits = self._model(
                    input_ids=self._tensor(padded),
                    position_ids=torch.arange(width, device=self._largest_weight.device)[None],
                    **{self._cache_argument: self._cache},
                    use_cache=True,
                    logits_to_keep=self._tensor(ends),
                ).logits
            if scored:
                last = self._decoder.echo(scored, logits[0].split(_LOGPROB_ROWS))
            else:
                last = logits[range(len(sequences)), [ends.index(length - 1) for length in lengths]].float()
            self._decoder.extend(sequences, last, start)
        self._cache.end_prefill()

    def step(self) -> None:
        """Generate the next token of every sequence."""
        import torch

        start = time.perf_counter()
        device = self._largest_weight.device
        with torch.inference_mode(), self._lora.active([sequence.adapter for sequence in self.sequences]):
            masks = {kind: self._cache.mask(window, device) for kind, window in self._windows.items()}
            with onednn_if_faster(self._largest_weight, len(self.sequences)):
                logits = self._model(
                    input_ids=self._tensor([[sequence.output_ids[-1]] for sequence in self.sequences]),
                    attention_mask=masks if len(masks) > 1 else next(iter(masks.values())),
                    position_ids=self._tensor([[length] for length in self._cache.lengths]),
                    **{self._cache_argument: self._cache},
                    use_cache=True,
                ).logits
            self._cache.advance()
            self._decoder.extend(self.sequences, logits[:, -1].float(), start)

    def remove(self, sequence: SequenceState[LoadedAdapter]) -> None:
        """Remove a sequence and free its row of the KV cache."""
        import torch

        row = self.sequences.index(sequence)
        with torch.inference_mode():
            self._cache.remove(row)
        self.sequences[row] = self.sequences[-1]
        self.sequences.pop()

    def clear(self) -> None:
        """Remove all sequences, also after a failed pass."""
        self.sequences = []
        self._cache.clear()

    def completion(self, sequence: SequenceState[LoadedAdapter]) -> Completion:
        """Return the completion of a finished sequence."""
        return self._decoder.completion(sequence)

    def set_num_threads(self, count: int) -> None:
        """Set the number of threads for later passes of the calling thread."""
        import torch

        torch.set_num_threads(count)

    def _tensor(self, values: Sequence[int] | Sequence[Sequence[int]]) -> torch.Tensor:
        import torch

        return torch.tensor(values, device=self._largest_weight.device)


def _group_by_length(sequences: Sequence[SequenceState[LoadedAdapter]]) -> list[list[SequenceState[LoadedAdapter]]]:
    """Split sequences into groups of similar length, longest first, to limit padding."""
    groups: list[list[SequenceState[LoadedAdapter]]] = []
    padding = 0
    for sequence in sorted(sequences, key=lambda seq: -seq.prompt_tokens):
        missing = groups[-1][0].prompt_tokens - sequence.prompt_tokens if groups else 0
        if not groups or padding + missing > _MAX_PADDING:
            groups.append([])
            padding = missing = 0
        groups[-1].append(sequence)
        padding += missing
    return groups


def _attention_windows(config: PretrainedConfig) -> dict[str, int | None]:
    """Return the attention window of each kind of layer, in tokens; None for all tokens.

    Raises:
        ValueError: the model has other layers, such as recurrent ones.
    """
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ["sliding_attention" if window else "full_attention"])
    if not kinds <= {"sliding_attention", "full_attention"}:
        raise ValueError(f"layers of the kinds {', '.join(sorted(kinds))} are not supported")
    return {kind: window if kind == "sliding_attention" else None for kind in sorted(kinds)}
