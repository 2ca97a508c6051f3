"""The llama.cpp engine: a quantised base for machines without a GPU, adapters switched between two passes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bilora.errors import BadData, BiloraError
from bilora.inference.conversion import adapter_gguf, base_gguf, read_weights
from bilora.inference.engine import BatchedEngine
from bilora.inference.llama_library import MOST_ROWS, Lora, Model, library
from bilora.inference.loading import end_ids, load_tokenizer
from bilora.inference.lora import read_plain, unfit
from bilora.inference.room import free_memory, need_memory
from bilora.inference.rows import Answers, Row
from bilora.params import Base, Quantization
from bilora.ports import Bars, Job, Listener, Request, unseen
from bilora.records import Completion

CACHE = Path(".cache/gguf")
"""Where converted files are kept, below the checkout; it may be deleted at any time."""


@dataclass(frozen=True, eq=False)
class LlamaAdapter:
    """One version of an adapter in llama.cpp's memory."""

    name: str
    sha256: str
    lora: Lora


class LlamaBatch:
    """Rows of one model; those of one adapter share a pass, each adapter has a pass of its own.

    Implements `loop.Batch`. A row's keys and values are a sequence of its own, emptied when it leaves: no
    answer is continued from what another one left, whichever adapter made it.
    """

    def __init__(self, model: Model, answers: Answers, *, rows: int) -> None:
        self._model = model
        self._answers = answers
        self._free = list(range(rows))
        self._places: dict[Row[LlamaAdapter], int] = {}
        self.capacity = rows
        self.rows: list[Row[LlamaAdapter]] = []

    def join(self, rows: Sequence[Row[LlamaAdapter]]) -> None:
        """Read the prompts of new rows, one after the other, and begin their answers."""
        for adapter, group in _by_adapter(rows):
            for row in group:
                began = time.perf_counter()
                self._answers.begin([row], began)
                place = self._places[row] = self._free.pop()
                self.rows.append(row)
                tokens = [(token, index, place) for index, token in enumerate(row.prompt)]
                self._answers.extend([row], self._model.logits(tokens, 1, adapter), began)

    def step(self) -> None:
        """Give every row its next token."""
        for adapter, group in _by_adapter(self.rows):
            began = time.perf_counter()
            tokens = [(row.new[-1], len(row.prompt) + len(row.new) - 1, self._places[row]) for row in group]
            self._answers.extend(group, self._model.logits(tokens, len(tokens), adapter), began)

    def leave(self, row: Row[LlamaAdapter]) -> None:
        """Take a row out; its sequence is emptied for the next one."""
        self.rows.remove(row)
        place = self._places.pop(row)
        self._model.forget(place)
        self._free.append(place)

    def clear(self) -> None:
        """Take all rows out, in whatever state a failed pass has left them."""
        self._free += self._places.values()
        self.rows, self._places = [], {}
        self._model.forget()

    def completion(self, row: Row[LlamaAdapter]) -> Completion:
        """Return a finished row's answer."""
        return self._answers.completion(row)


class LlamaEngine(BatchedEngine[LlamaAdapter]):
    """llama.cpp: what PEFT made, converted once and kept; tokens are chosen by the same rules as in torch."""

    def __init__(
        self,
        base: Base,
        quantization: Quantization,
        adapters: Mapping[str, Path],
        *,
        batch_size: int,
        max_waiting: int | None = None,
        cache: Path = CACHE,
        shown: Bars = unseen,
    ) -> None:
        """Convert what is not converted yet, and put every adapter (task name → PEFT folder) beside the base.

        Args:
            batch_size: so many rows are answered at a time; fewer where memory has room for fewer.
            max_waiting: so many more may wait; None for any number.
            cache: folder of the converted files.
            shown: shows the conversion.

        Raises:
            BadData: the base or an adapter cannot be served.
            BiloraError: the extra is not installed, or memory or disk is too small.
        """
        import torch
        from transformers import GenerationConfig

        library()
        weights = read_weights(base)
        wide = quantization == "f32"
        context = _context(weights.config)
        size, row = weights.bytes_as(quantization), _row_bytes(weights.config, context, wide=wide)
        need_memory(size + row, f"Answering from {base.id} in {quantization}", _smaller(quantization))
        file = base_gguf(base, weights, quantization, cache, shown)
        rows = _rows(batch_size, size, row)
        model = Model(file, rows=rows, context=context, threads=torch.get_num_threads(), wide=wide)

        def read(name: str, folder: Path) -> LlamaAdapter:
            plain = read_plain(folder)
            for module, (a, b) in plain.layers.items():
                header = weights.headers.get(f"{module}.weight")
                if header is None or header.shape != (b.shape[0], a.shape[1]):
                    raise unfit(folder, module)
            try:
                lora = model.lora(adapter_gguf(plain, folder, cache, wide=wide))
            except BadData:
                raise
            except BiloraError as error:
                raise BadData(folder, f"llama.cpp does not take it ({error}).") from None
            return LlamaAdapter(name, plain.sha256, lora)

        tokenizer = load_tokenizer(base)
        try:
            generation = GenerationConfig.from_pretrained(weights.folder)
        except OSError:  # it is optional
            generation = GenerationConfig.from_model_config(weights.config)
        self.mode = f"llama.cpp, {quantization}, {rows} rows of {context} tokens"
        super().__init__(
            tokenizer,
            LlamaBatch(model, Answers(tokenizer, end_ids(generation, tokenizer)), rows=rows),
            read,
            adapters,
            context=context,
            max_waiting=max_waiting,
        )

    def prepare(self, system: str, request: Request, listener: Listener, *, streamed: bool = True) -> Row[LlamaAdapter]:
        """Do as every engine; an answer that the context would end is as long as that lets it be."""
        row = super().prepare(system, request, listener, streamed=streamed)
        row.allow(min(request.max_new_tokens, max(1, self.context - row.prompt_tokens)))
        return row

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queue all of these jobs, or none.

        Raises:
            BadData: a prompt is too long for its share of the cache.
            Busy: they do not fit into the queue.
        """
        for job in jobs:
            if job.prompt_tokens >= self.context:
                raise BadData("prompt", f"it has {job.prompt_tokens} tokens; {self.context - 1} are read at most.")
        super().submit(jobs)


def _by_adapter(rows: Iterable[Row[LlamaAdapter]]) -> list[tuple[Lora | None, list[Row[LlamaAdapter]]]]:
    """Return rows by what they are answered with, in the order in which each first comes."""
    groups: dict[LlamaAdapter | None, list[Row[LlamaAdapter]]] = {}
    for row in rows:
        groups.setdefault(row.adapter, []).append(row)
    return [(adapter.lora if adapter else None, group) for adapter, group in groups.items()]


def _context(config: Any) -> int:
    """Return how many tokens transformers and llama.cpp treat alike: the latter keeps no sliding window for Phi-3."""
    return min(int(config.max_position_embeddings), int(config.sliding_window or config.max_position_embeddings))


def _row_bytes(config: Any, context: int, *, wide: bool) -> int:
    """Return how large the keys and values of one answer may become."""
    head = config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * config.num_key_value_heads * head * context * (4 if wide else 2))


def _rows(wanted: int, size: int, row: int) -> int:
    """Return how many answers at a time leave half of the memory that the weights leave."""
    free = free_memory()
    room = wanted if free is None else (free - size) // 2 // row
    return max(1, min(wanted, room, MOST_ROWS))


def _smaller(quantization: Quantization) -> str:
    if quantization == "q4_k_m":
        return "End other programs."
    return f"End other programs, or set a smaller `inference.quantization` than {quantization}."
