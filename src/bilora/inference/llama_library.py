"""llama.cpp through its low-level functions: one model, one cache of keys and values, any number of LoRAs."""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from bilora.errors import BiloraError
from bilora.ports import Progress

if TYPE_CHECKING:
    import torch

EXTRA = 'llama.cpp is not installed. Run `pip install "bilora[llamacpp]"`, or set `inference.engine: torch`.'
PASS_TOKENS = 512
"""So many tokens go through the model in one pass."""
MOST_ROWS = 256
"""llama.cpp keeps apart no more sequences than this."""
QUANTIZING_BYTES = 2**30
"""So much of a tensor is held in memory while it is quantised."""
ERROR = 3
"""ggml's log level of errors."""


@cache
def library() -> Any:
    """Return llama_cpp, silenced; what it says of its last error is kept in `said`.

    Raises:
        BiloraError: the extra is not installed.
    """
    try:
        import llama_cpp
    except ImportError:
        raise BiloraError(EXTRA) from None
    llama_cpp.llama_log_set(_heard(llama_cpp), ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    return llama_cpp


@dataclass
class _Said:
    """The library's log is one for the whole process: its last error, and who counts the tensors it tells of."""

    error: str = ""
    tensors: Progress | None = None


said = _Said()


@cache
def _heard(llama_cpp: Any) -> Any:
    @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
    def heard(level: int, text: bytes, _: Any) -> None:
        if level == ERROR:
            said.error = text.decode(errors="replace").strip()
        elif said.tensors is not None and text.startswith(b"["):  # "[ 12/ 197] blk.1.ffn_up.weight - ..."
            said.tensors(1)

    return heard


@dataclass(eq=False)
class Lora:
    """An adapter in the library's memory, and the scale with which it counts besides its own alpha / rank."""

    handle: Any
    scale: float = 1.0


class Model:
    """A GGUF file in memory, and the keys and values of `rows` answers of up to `context` tokens each.

    Row i's tokens are sequence i of the cache. Which LoRA counts is said at every pass. `logits` and `forget`
    are for one thread; `lora` may be called from any.
    """

    def __init__(self, path: Path, *, rows: int, context: int, threads: int, wide: bool) -> None:
        """Load `path`; `wide` keeps keys and values in 32 bit instead of 16.

        Raises:
            BiloraError: the file or the cache does not come into memory.
        """
        llama = library()
        self._llama = llama
        self._lock = threading.Lock()  # the library goes through all of a model's LoRAs at each change of them
        self._retired: SimpleQueue[Any] = SimpleQueue()
        self._using: Lora | None = None
        model = llama.llama_model_load_from_file(str(path).encode(), llama.llama_model_default_params())
        if not model:
            raise BiloraError(f"llama.cpp cannot load {path} ({said.error}). Delete the file to have it made anew.")
        settings = llama.llama_context_default_params()
        settings.n_ctx, settings.n_seq_max, settings.kv_unified = rows * context, rows, True
        settings.n_batch = settings.n_ubatch = max(PASS_TOKENS, rows)
        settings.n_threads = settings.n_threads_batch = threads
        if wide:
            settings.type_k = settings.type_v = llama.GGML_TYPE_F32
            settings.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_DISABLED  # it computes in 16 bit
        made = llama.llama_init_from_model(model, settings)
        if not made:
            llama.llama_model_free(model)
            raise BiloraError(f"llama.cpp has no room for {rows} answers of {context} tokens ({said.error}).")
        self._context, self._model = made, model
        self._cells = llama.llama_get_memory(made)
        self._vocabulary: int = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
        weakref.finalize(self, _free, llama, made, model)

    def lora(self, path: Path) -> Lora:
        """Load an adapter's GGUF file; it leaves the memory some passes after the last one that refers to it.

        Raises:
            BiloraError: it does not fit this model; the reason is the library's.
        """
        with self._lock:
            handle = self._llama.llama_adapter_lora_init(self._model, str(path).encode())
        if not handle:
            raise BiloraError(said.error)
        made = Lora(handle)
        weakref.finalize(made, self._retired.put, handle).atexit = False
        return made

    def logits(self, tokens: Sequence[tuple[int, int, int]], last: int, lora: Lora | None) -> torch.Tensor:
        """Put tokens through the model under `lora`, or under none; return the scores after the `last` of them.

        Args:
            tokens: (id, place in its row, row) each, in order.

        Returns:
            Shape (last, vocabulary), 32 bit.
        """
        import torch

        with self._lock:
            self._use(lora)
            for start in range(0, len(tokens), PASS_TOKENS):
                chunk = tokens[start : start + PASS_TOKENS]
                wanted = last if start + PASS_TOKENS >= len(tokens) else 0
                self._decode(chunk, wanted)
        places = range(len(chunk) - last, len(chunk))
        found = [self._llama.llama_get_logits_ith(self._context, place) for place in places]
        size = ctypes.c_float * self._vocabulary
        return torch.stack([torch.frombuffer(size.from_address(_address(one)), dtype=torch.float32) for one in found])

    def forget(self, row: int | None = None) -> None:
        """Empty a row's cache; None empties all of it."""
        if row is None:
            self._llama.llama_memory_clear(self._cells, True)
        else:
            self._llama.llama_memory_seq_rm(self._cells, row, -1, -1)

    def _use(self, lora: Lora | None) -> None:
        """Make `lora` the only one that counts in the next pass."""
        llama = self._llama
        if not self._retired.empty():
            # A freed LoRA's address may come again with the next one: none may be in use, nor in a kept graph.
            llama.llama_set_adapters_lora(self._context, None, 0, None)
            while not self._retired.empty():
                llama.llama_adapter_lora_free(self._retired.get())
            self._using = None
        if lora is None:
            llama.llama_set_adapters_lora(self._context, None, 0, None)
        else:
            handles = (llama.llama_adapter_lora_p_ctypes * 1)(lora.handle)
            llama.llama_set_adapters_lora(self._context, handles, 1, (ctypes.c_float * 1)(lora.scale))
        self._using = lora  # while it counts it is not freed

    def _decode(self, tokens: Sequence[tuple[int, int, int]], wanted: int) -> None:
        count = len(tokens)
        rows = (ctypes.c_int32 * count)(*(row for _, _, row in tokens))
        each = ctypes.POINTER(ctypes.c_int32)
        batch = self._llama.llama_batch(
            n_tokens=count,
            token=(ctypes.c_int32 * count)(*(token for token, _, _ in tokens)),
            pos=(ctypes.c_int32 * count)(*(place for _, place, _ in tokens)),
            n_seq_id=(ctypes.c_int32 * count)(*([1] * count)),
            seq_id=(each * count)(*(ctypes.cast(ctypes.byref(rows, 4 * place), each) for place in range(count))),
            logits=(ctypes.c_int8 * count)(*([0] * (count - wanted) + [1] * wanted)),
        )
        code = self._llama.llama_decode(self._context, batch)
        if code:
            raise RuntimeError(f"llama.cpp failed with code {code} ({said.error})")


def quantize(source: Path, target: Path, ftype: int, progress: Progress) -> None:
    """Write `source` quantised to `target`; `progress` counts tensors.

    The work is a thread's, so that Ctrl-C is heard at once.

    Raises:
        BiloraError: the library could not do it.
    """
    llama = library()
    settings = llama.llama_model_quantize_default_params()
    settings.ftype, settings.max_buf_size = ftype, QUANTIZING_BYTES
    codes: list[int] = []

    def work() -> None:
        codes.append(llama.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(settings)))

    said.tensors = progress
    try:
        thread = threading.Thread(target=work, name="quantize", daemon=True)
        thread.start()
        thread.join()
    finally:
        said.tensors = None
    if codes != [0]:
        raise BiloraError(f"llama.cpp could not quantise {source.name} ({said.error}).")


def _address(pointer: Any) -> int:
    address = ctypes.cast(pointer, ctypes.c_void_p).value
    if address is None:
        raise RuntimeError(f"llama.cpp has no scores for a token ({said.error})")
    return address


def _free(llama: Any, context: Any, model: Any) -> None:
    """Let go of everything; a model's LoRAs go with it."""
    llama.llama_free(context)
    llama.llama_model_free(model)
