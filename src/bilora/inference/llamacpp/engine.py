"""The llama.cpp engine: a quantised base for machines without a GPU, and a context per adapter."""

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
from bilora.inference.engine import BatchedEngine
from bilora.inference.llamacpp.amx_check import amx_works
from bilora.inference.llamacpp.bindings import MAX_SEQUENCES, LlamaContext, LlamaModel, library
from bilora.inference.llamacpp.gguf import adapter_gguf, base_gguf
from bilora.inference.llamacpp.weights import gguf_model, open_weights
from bilora.inference.memory import free_memory, need_memory, token_bytes
from bilora.inference.peft_adapter import read_peft_adapter
from bilora.params import Quantization
from bilora.protocols import ProgressBars, no_bar
from bilora.records import Completion

SEQUENCE_TOKENS = 2048
"""For how many tokens per sequence a context has memory, where sequences may be longer: few are."""
_WITHOUT_AMX = "; without AMX, on which this build of llama.cpp crashes: docs/performance.md says how to compile it"


@dataclass(frozen=True, eq=False)
class LlamaAdapter:
    """One version of an adapter, and its context."""

    name: str
    sha256: str
    context: LlamaContext


class LlamaBatch:
    """The sequences of one model: one pass per adapter and token for all sequences of that adapter.

    Implements `scheduler.Batch`. Each adapter's context has a KV cache of its own, from which a sequence is removed
    when it leaves: no answer is continued from another one's cache.
    """

    separate_pools = True
    max_scored_tokens = None

    def __init__(self, base: LlamaContext, decoder: Decoder, *, max_sequences: int, kv_capacity: int) -> None:
        self._base = base
        self._decoder = decoder
        self._kv_capacity = kv_capacity
        self._free_ids = list(range(max_sequences))
        self._ids: dict[SequenceState[LlamaAdapter], int] = {}
        self.max_sequences = max_sequences
        self.sequences: list[SequenceState[LlamaAdapter]] = []

    def fits(self, sequence: SequenceState[LlamaAdapter], joining: Sequence[SequenceState[LlamaAdapter]]) -> bool:
        """Return whether it fits to its end into its context, beside that adapter's other sequences."""
        others = [one for one in (*self.sequences, *joining) if one.adapter is sequence.adapter]
        return sum(one.max_total_tokens for one in (*others, sequence)) <= self._kv_capacity

    def prefill(self, sequences: Sequence[SequenceState[LlamaAdapter]]) -> None:
        """Add new sequences: read their prompts one after the other and give each its first token."""
        for sequence in sequences:
            began = time.perf_counter()
            self._decoder.begin([sequence], began)
            number = self._ids[sequence] = self._free_ids.pop()
            self.sequences.append(sequence)
            tokens = [(token, position, number) for position, token in enumerate(sequence.prompt_ids)]
            context = self._context(sequence)
            if sequence.scores_prompt:
                logits = self._decoder.echo(sequence, context.all_logits(tokens))
            else:
                logits = context.logits(tokens, 1)
            with _one_torch_thread():
                self._decoder.extend([sequence], logits, began)

    def step(self) -> None:
        """Give every sequence its next token."""
        groups: dict[LlamaContext, list[SequenceState[LlamaAdapter]]] = {}
        for sequence in self.sequences:
            groups.setdefault(self._context(sequence), []).append(sequence)
        for context, group in groups.items():
            began = time.perf_counter()
            tokens = [
                (one.output_ids[-1], len(one.prompt_ids) + len(one.output_ids) - 1, self._ids[one]) for one in group
            ]
            logits = context.logits(tokens, len(tokens))
            with _one_torch_thread():
                self._decoder.extend(group, logits, began)

    def remove(self, sequence: SequenceState[LlamaAdapter]) -> None:
        """Take a sequence out and remove it from its context's KV cache."""
        self.sequences.remove(sequence)
        number = self._ids.pop(sequence)
        self._context(sequence).remove(number)
        self._free_ids.append(number)

    def clear(self) -> None:
        """Take all sequences out, whatever state a failed pass has left them in."""
        for sequence in list(self.sequences):
            self.remove(sequence)

    def completion(self, sequence: SequenceState[LlamaAdapter]) -> Completion:
        """Return the answer of a finished sequence."""
        return self._decoder.completion(sequence)

    def use_threads(self, count: int) -> None:
        """Compute with this many threads from now on."""
        self._base.model.threads = count

    def _context(self, sequence: SequenceState[LlamaAdapter]) -> LlamaContext:
        return sequence.adapter.context if sequence.adapter else self._base


class LlamaEngine(BatchedEngine[LlamaAdapter]):
    """llama.cpp: a base's own GGUF file is served as it is, all else is converted to GGUF once.

    Prompts are encoded by the base's tokenizer, and tokens are chosen by the same rules as in torch.
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
        """Convert what is not converted yet, and load every adapter (task name → PEFT folder) beside the base.

        Args:
            quantization: what the base is converted to; None serves the GGUF file that it comes with.
            batch_size: how many sequences are answered at a time; fewer while memory is too small for their tokens.
            max_waiting: how many more may wait; None for no limit.
            cache: folder of the converted files; it may be deleted at any time.
            progress_bars: show the conversion.

        Raises:
            BadData: the base or an adapter cannot be served.
            NotReady: the extra is not installed, or memory or disk is too small.
        """
        import torch

        library()
        described = gguf_model(base)
        float32 = quantization == "f32"
        context, token = max_context(described.config), token_bytes(described.config, 4 if float32 else 2)
        systems = 1 + len(adapters)

        def need_memory_beside(weights: int) -> None:
            work = f"Answering from {base.id}" + (f" in {quantization}" if quantization else "")
            need_memory(weights + systems * context * token, work, _remedy(quantization))

        def convert(_: Base, quantization: Quantization) -> Path:
            base.prepare(progress_bars)
            weights = open_weights(base.folder(), described)
            need_memory_beside(weights.bytes_as(quantization))
            return base_gguf(weights, quantization, cache, progress_bars)

        file = base.gguf(quantization, convert)
        size = file.stat().st_size
        need_memory_beside(size)
        max_sequences = min(batch_size, MAX_SEQUENCES)
        wanted = max_sequences * min(context, SEQUENCE_TOKENS)
        kv_capacity = max(context, min(wanted, _spare_bytes(size) // systems // token))
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
            converted = adapter_gguf(adapter, folder, described, cache, float32=float32)
            need_memory(kv_capacity * token, f"Another adapter beside {base.id}", "End other programs.")
            try:
                return LlamaAdapter(name, adapter.sha256, model.context(converted))
            except BadData as error:
                raise BadData(folder, f"this adapter does not fit the base ({error}).") from None

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
            context=context,
            max_waiting=max_waiting,
        )


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Let torch compute in the calling thread alone: workers of its own would spin beside llama.cpp's next pass."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _spare_bytes(weights: int) -> int:
    """Return half of what the weights leave of the memory; any number where it is unknown."""
    free = free_memory()
    return 2**63 if free is None else (free - weights) // 2


def _remedy(quantization: Quantization | None) -> str:
    smallest = quantization in (None, "q4_k_m")
    smaller = "" if smallest else f", or set a smaller `inference.quantization` than {quantization}"
    return f"End other programs{smaller}."
