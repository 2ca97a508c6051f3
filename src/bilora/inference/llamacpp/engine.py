"""The llama.cpp engine: a quantized base for machines without a GPU, and one context per adapter."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bilora.bases.architectures import max_context
from bilora.bases.base import Base
from bilora.bases.special_tokens import stop_ids
from bilora.errors import BadData
from bilora.inference.decoder import Decoder, SequenceState
from bilora.inference.engine import ContinuousBatchingEngine
from bilora.inference.llamacpp.amx_check import amx_works
from bilora.inference.llamacpp.bindings import MAX_SEQUENCES, LlamaContext, LlamaModel, library
from bilora.inference.llamacpp.gguf import adapter_gguf, base_gguf
from bilora.inference.llamacpp.weights import gguf_model, open_weights
from bilora.inference.memory import free_memory, kv_bytes_per_token, require_memory
from bilora.inference.peft_adapter import read_peft_adapter
from bilora.params import Quantization
from bilora.protocols import ProgressBars, no_bar
from bilora.records import Completion

SEQUENCE_TOKENS = 2048
"""KV cache tokens per sequence, if the context length is larger: most sequences are shorter."""
_WITHOUT_AMX = "; without AMX, on which this build of llama.cpp crashes: docs/performance.md says how to compile it"


@dataclass(frozen=True, eq=False)
class LlamaAdapter:
    """One version of an adapter, and its context."""

    name: str
    sha256: str
    context: LlamaContext


class LlamaBatch:
    """The running sequences of one model: one pass per adapter and token for all sequences of that adapter.

    Implements `scheduler.Batch`. Each adapter's context has its own KV cache. Finished sequences are removed from it:
    no sequence reuses the cache of another one.
    """

    separate_pools = True
    max_prompt_logprobs = None

    def __init__(self, base: LlamaContext, decoder: Decoder, *, max_sequences: int, kv_capacity: int) -> None:
        self._base = base
        self._decoder = decoder
        self._kv_capacity = kv_capacity
        self._free_ids = list(range(max_sequences))
        self._ids: dict[SequenceState[LlamaAdapter], int] = {}
        self.max_sequences = max_sequences
        self.sequences: list[SequenceState[LlamaAdapter]] = []

    def can_admit(self, sequence: SequenceState[LlamaAdapter], admitted: Sequence[SequenceState[LlamaAdapter]]) -> bool:
        """Return whether the adapter's KV cache can hold it at its maximum length beside the other sequences."""
        others = [seq for seq in (*self.sequences, *admitted) if seq.adapter is sequence.adapter]
        return sum(seq.max_total_tokens for seq in (*others, sequence)) <= self._kv_capacity

    def prefill(self, sequences: Sequence[SequenceState[LlamaAdapter]]) -> None:
        """Add sequences: compute their prompts one by one and generate the first token of each."""
        for sequence in sequences:
            start = time.perf_counter()
            self._decoder.begin([sequence], start)
            number = self._ids[sequence] = self._free_ids.pop()
            self.sequences.append(sequence)
            tokens = [(token, position, number) for position, token in enumerate(sequence.prompt_ids)]
            context = self._context(sequence)
            if sequence.wants_prompt_logprobs:
                logits = self._decoder.echo(sequence, context.all_logits(tokens))
            else:
                logits = context.logits(tokens, 1)
            with _one_torch_thread():
                self._decoder.extend([sequence], logits, start)

    def step(self) -> None:
        """Generate the next token of every sequence."""
        groups: dict[LlamaContext, list[SequenceState[LlamaAdapter]]] = {}
        for sequence in self.sequences:
            groups.setdefault(self._context(sequence), []).append(sequence)
        for context, group in groups.items():
            start = time.perf_counter()
            tokens = [
                (seq.output_ids[-1], len(seq.prompt_ids) + len(seq.output_ids) - 1, self._ids[seq]) for seq in group
            ]
            logits = context.logits(tokens, len(tokens))
            with _one_torch_thread():
                self._decoder.extend(group, logits, start)

    def remove(self, sequence: SequenceState[LlamaAdapter]) -> None:
        """Remove a sequence, also from its context's KV cache."""
        self.sequences.remove(sequence)
        number = self._ids.pop(sequence)
        self._context(sequence).remove(number)
        self._free_ids.append(number)

    def clear(self) -> None:
        """Remove all sequences, also after a failed pass."""
        for sequence in list(self.sequences):
            self.remove(sequence)

    def completion(self, sequence: SequenceState[LlamaAdapter]) -> Completion:
        """Return the completion of a finished sequence."""
        return self._decoder.completion(sequence)

    def set_num_threads(self, count: int) -> None:
        """Set the number of threads for later passes."""
        self._base.model.threads = count

    def _context(self, sequence: SequenceState[LlamaAdapter]) -> LlamaContext:
        return sequence.adapter.context if sequence.adapter else self._base


class LlamaEngine(ContinuousBatchingEngine[LlamaAdapter]):
    """llama.cpp with the base's GGUF file as it is, or with a file that is converted once.

    The base's tokenizer encodes prompts, and `Decoder` samples tokens, as in the torch engine.
    """

    def __init__(
        self,
        base: Base,
        quantization: Quantization | None,
        adapters: Mapping[str, Path],
        *,
        batch_size: int,
        max_waiting: int | None = None,
        cache: Path,
        progress_bars: ProgressBars = no_bar,
    ) -> None:
        """Load the base and every adapter (task name → PEFT folder), converting files that are not cached.

        Args:
            quantization: the format to convert the base to; None uses the base's GGUF file as it is.
            batch_size: maximum number of running sequences; fewer run if their tokens need too much memory.
            max_waiting: maximum number of requests in the queue; None for no limit.
            cache: folder of the converted files; it may be deleted at any time.
            progress_bars: show the conversion.

        Raises:
            BadData: the base or an adapter is not supported.
            NotReady: the extra is not installed, or memory or disk is too small.
        """
        import torch

        library()
        # 1) Convert the base if necessary, after a check of the memory.
        model_info = gguf_model(base)
        float32 = quantization == "f32"
        context_length = max_context(model_info.config)
        token_bytes = kv_bytes_per_token(model_info.config, 4 if float32 else 2)
        systems = 1 + len(adapters)

        def check_memory(weight_bytes: int) -> None:
            work = f"Answering from {base.id}" + (f" in {quantization}" if quantization else "")
            require_memory(weight_bytes + systems * context_length * token_bytes, work, _remedy(quantization))

        def convert(_: Base, quantization: Quantization) -> Path:
            base.prepare(progress_bars)
            weights = open_weights(base.folder(), model_info)
            check_memory(weights.bytes_as(quantization))
            return base_gguf(weights, quantization, cache, progress_bars)

        file = base.gguf(quantization, convert)
        size = file.stat().st_size
        check_memory(size)
        # 2) Load the model, with KV caches as large as the memory allows.
        max_sequences = min(batch_size, MAX_SEQUENCES)
        requested = max_sequences * min(context_length, SEQUENCE_TOKENS)
        kv_capacity = max(context_length, min(requested, _spare_bytes(size) // systems // token_bytes))
        repack = float32 or amx_works(file, cache, progress_bars)  # the library repacks no 32-bit weights
        model = LlamaModel(
            file,
            max_sequences=max_sequences,
            kv_capacity=kv_capacity,
            threads=torch.get_num_threads(),
            kv_float32=float32,
            repack=repack,
        )

        def read_adapter(name: str, folder: Path) -> LlamaAdapter:
            adapter = read_peft_adapter(folder)
            converted = adapter_gguf(adapter, folder, model_info, cache, float32=float32)
            require_memory(kv_capacity * token_bytes, f"Another adapter of {base.id}", "End other programs.")
            try:
                return LlamaAdapter(name, adapter.sha256, model.context(converted))
            except BadData as error:
                raise BadData(folder, f"this adapter does not match the base ({error}).") from None

        # 3) Create the batch and load the adapters.
        tokenizer = base.tokenizer()
        self.mode = f"llama.cpp, {quantization or file.name}, {kv_capacity} tokens at a time per adapter"
        self.mode += "" if repack else _WITHOUT_AMX
        eos_ids = stop_ids(tokenizer, base.generation_config())
        decoder = Decoder(tokenizer, eos_ids)
        super().__init__(
            tokenizer,
            LlamaBatch(model.context(), decoder, max_sequences=max_sequences, kv_capacity=kv_capacity),
            read_adapter,
            adapters,
            eos_ids=eos_ids,
            context_length=context_length,
            max_waiting=max_waiting,
        )


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Let torch compute in the calling thread only: its workers would spin during llama.cpp's next pass."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _spare_bytes(weights: int) -> int:
    """Return half of the free memory after loading the weights; a large number if it is unknown."""
    free = free_memory()
    return 2**63 if free is None else (free - weights) // 2


def _remedy(quantization: Quantization | None) -> str:
    smallest = quantization in (None, "q4_k_m")
    smaller = "" if smallest else f", or set a smaller `inference.quantization` than {quantization}"
    return f"End other programs{smaller}."
