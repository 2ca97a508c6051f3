"""The llama.cpp engine: a quantised base for machines without a GPU, adapters switched between two passes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bilora.bases.architectures import max_context
from bilora.bases.base import Base
from bilora.bases.special_tokens import stop_ids
from bilora.errors import BadData
from bilora.inference.decoder import Answers, Row
from bilora.inference.engine import BatchedEngine
from bilora.inference.llamacpp.amx_check import survives
from bilora.inference.llamacpp.bindings import MOST_ROWS, Context, Model, library
from bilora.inference.llamacpp.gguf import adapter_gguf, base_gguf
from bilora.inference.llamacpp.weights import read_weights
from bilora.inference.memory import free_memory, need_memory, token_bytes
from bilora.inference.torch.lora import read_plain, unfit
from bilora.params import Quantization
from bilora.protocols import ProgressBars, no_bar
from bilora.records import Completion

CACHE = Path(".cache/gguf")
"""Where converted files are kept, below the checkout; it may be deleted at any time."""


SLOW = "; without AMX, on which this build of llama.cpp crashes: docs/performance.md says how to compile it anew"


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

    apart = True

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
        return sum(one.most_tokens for one in beside) + row.most_tokens <= self._cells

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
        shown: ProgressBars = no_bar,
    ) -> None:
        """Convert what is not converted yet, and put every adapter (task name → PEFT folder) beside the base.

        Args:
            batch_size: so many rows are answered at a time; fewer while memory has no room for their tokens.
            max_waiting: so many more may wait; None for any number.
            cache: folder of the converted files.
            shown: shows the conversion.

        Raises:
            BadData: the base or an adapter cannot be served.
            NotReady: the extra is not installed, or memory or disk is too small.
        """
        import torch

        library()
        weights = read_weights(base.folder(), base.identity, base.id)
        wide = quantization == "f32"
        context = max_context(weights.config)
        size, token = weights.bytes_as(quantization), token_bytes(weights.config, 4 if wide else 2)
        systems = 1 + len(adapters)
        need_memory(
            size + systems * context * token, f"Answering from {base.id} in {quantization}", _remedy(quantization)
        )
        file = base.gguf(quantization, lambda _, kind: base_gguf(weights, kind, cache, shown))
        rows = min(batch_size, MOST_ROWS)
        cells = max(context, min(rows * context, _spare_bytes(size) // systems // token))
        laid_out = quantization == "f32" or survives(file, shown)  # 32-bit weights stay as they lie
        model = Model(file, rows=rows, cells=cells, threads=torch.get_num_threads(), wide=wide, laid_out=laid_out)

        def read(name: str, folder: Path) -> LlamaAdapter:
            plain = read_plain(folder)
            for module, (a, b) in plain.layers.items():
                header = weights.headers.get(f"{module}.weight")
                if header is None or header.shape != (b.shape[0], a.shape[1]):
                    raise unfit(folder, module)
            converted = adapter_gguf(plain, folder, weights, cache, float32=wide)
            need_memory(cells * token, f"Another adapter beside {base.id}", "End other programs.")
            try:
                return LlamaAdapter(name, plain.sha256, model.context(converted))
            except BadData as error:
                raise BadData(folder, f"llama.cpp does not take it ({error}).") from None

        tokenizer = base.tokenizer()
        self.mode = f"llama.cpp, {quantization}, {cells} tokens at a time for each adapter" + ("" if laid_out else SLOW)
        answers = Answers(tokenizer, stop_ids(tokenizer, base.generation_config()))
        super().__init__(
            tokenizer,
            LlamaBatch(model.context(), answers, rows=rows, cells=cells),
            read,
            adapters,
            context=context,
            max_waiting=max_waiting,
        )


def _spare_bytes(weights: int) -> int:
    """Return half of what the weights leave of the memory; any number where nobody tells."""
    free = free_memory()
    return 2**63 if free is None else (free - weights) // 2


def _remedy(quantization: Quantization) -> str:
    smaller = "" if quantization == "q4_k_m" else f", or set a smaller `inference.quantization` than {quantization}"
    return f"End other programs{smaller}."
