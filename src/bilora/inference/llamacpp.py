"""The llama.cpp engine: a quantised base for machines without a GPU, adapters switched between two passes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bilora.errors import BadData, BiloraError
from bilora.inference.conversion import adapter_gguf, base_gguf, read_weights
from bilora.inference.engine import BatchedEngine
from bilora.inference.llama_library import MOST_ROWS, Context, Model, library
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
    """One version of an adapter, and the context that is under it from its first token to its last."""

    name: str
    sha256: str
    context: Context


class LlamaBatch:
    """Rows of one model; those of one adapter share a pass, each adapter has a pass of its own.

    Implements `loop.Batch`. A row's keys and values are a sequence of its own in its adapter's context,
    emptied when it leaves: no answer is continued from what another one left.
    """

    def __init__(self, base: Context, answers: Answers, *, rows: int, cells: int) -> None:
        self._base = base
        self._answers = answers
        self._cells = cells
        self._free = list(range(rows))
        self._places: dict[Row[LlamaAdapter], int] = {}
        self.capacity = rows
        self.rows: list[Row[LlamaAdapter]] = []

    def fits(self, row: Row[LlamaAdapter], joining: Sequence[Row[LlamaAdapter]]) -> bool:
        """Whether the row's context can hold it to its end beside those that are there and those that join too."""
        beside = [one for one in (*self.rows, *joining) if one.adapter is row.adapter]
        return sum(map(_tokens, beside)) + _tokens(row) <= self._cells

    def join(self, rows: Sequence[Row[LlamaAdapter]]) -> None:
        """Read the prompts of new rows, one after the other, and begin their answers."""
        for row in rows:
            began = time.perf_counter()
            self._answers.begin([row], began)
            place = self._places[row] = self._free.pop()
            self.rows.append(row)
            tokens = [(token, index, place) for index, token in enumerate(row.prompt)]
            self._answers.extend([row], self._context(row).logits(tokens, 1), began)

    def step(self) -> None:
        """Give every row its next token."""
        groups: dict[Context, list[Row[LlamaAdapter]]] = {}
        for row in self.rows:
            groups.setdefault(self._context(row), []).append(row)
        for context, group in groups.items():
            began = time.perf_counter()
            tokens = [(row.new[-1], len(row.prompt) + len(row.new) - 1, self._places[row]) for row in group]
            self._answers.extend(group, context.logits(tokens, len(tokens)), began)

    def leave(self, row: Row[LlamaAdapter]) -> None:
        """Take a row out; its sequence is emptied for the next one."""
        self.rows.remove(row)
        place = self._places.pop(row)
        self._context(row).forget(place)
        self._free.append(place)

    def clear(self) -> None:
        """Take all rows out, in whatever state a failed pass has left them."""
        for row in list(self.rows):
            self.leave(row)

    def completion(self, row: Row[LlamaAdapter]) -> Completion:
        """Return a finished row's answer."""
        return self._answers.completion(row)

    def _context(self, row: Row[LlamaAdapter]) -> Context:
        return row.adapter.context if row.adapter else self._base


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
            batch_size: so many rows are answered at a time; fewer while memory has no room for their tokens.
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
        size, token = weights.bytes_as(quantization), _token_bytes(weights.config, wide=wide)
        systems = 1 + len(adapters)
        need_memory(
            size + systems * context * token, f"Answering from {base.id} in {quantization}", _remedy(quantization)
        )
        file = base_gguf(base, weights, quantization, cache, shown)
        rows = min(batch_size, MOST_ROWS)
        cells = max(context, min(rows * context, _spare_bytes(size) // systems // token))
        model = Model(file, rows=rows, cells=cells, threads=torch.get_num_threads(), wide=wide)

        def read(name: str, folder: Path) -> LlamaAdapter:
            plain = read_plain(folder)
            for module, (a, b) in plain.layers.items():
                header = weights.headers.get(f"{module}.weight")
                if header is None or header.shape != (b.shape[0], a.shape[1]):
                    raise unfit(folder, module)
            converted = adapter_gguf(plain, folder, cache, wide=wide)
            need_memory(context * token, f"Another adapter beside {base.id}", "End other programs.")
            try:
                return LlamaAdapter(name, plain.sha256, model.context(converted))
            except BiloraError as error:
                raise BadData(folder, f"llama.cpp does not take it ({error}).") from None

        tokenizer = load_tokenizer(base)
        try:
            generation = GenerationConfig.from_pretrained(weights.folder)
        except OSError:  # it is optional
            generation = GenerationConfig.from_model_config(weights.config)
        self.mode = f"llama.cpp, {quantization}, {cells} tokens at a time for each adapter"
        answers = Answers(tokenizer, end_ids(generation, tokenizer))
        super().__init__(
            tokenizer,
            LlamaBatch(model.context(), answers, rows=rows, cells=cells),
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


def _tokens(row: Row[LlamaAdapter]) -> int:
    """Return how many tokens a row may come to."""
    return row.prompt_tokens + row.request.max_new_tokens


def _context(config: Any) -> int:
    """Return how many tokens transformers and llama.cpp treat alike: the latter keeps no sliding window for Phi-3."""
    return min(int(config.max_position_embeddings), int(config.sliding_window or config.max_position_embeddings))


def _token_bytes(config: Any, *, wide: bool) -> int:
    """Return how large the keys and values of one token are."""
    head = config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * config.num_key_value_heads * head * (4 if wide else 2))


def _spare_bytes(weights: int) -> int:
    """Return half of what the weights leave of the memory; any number where nobody tells."""
    free = free_memory()
    return 2**63 if free is None else (free - weights) // 2


def _remedy(quantization: Quantization) -> str:
    smaller = "" if quantization == "q4_k_m" else f", or set a smaller `inference.quantization` than {quantization}"
    return f"End other programs{smaller}."
