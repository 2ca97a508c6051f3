"""llama.cpp through its low-level functions: one model, and a context of its own for each adapter."""

from __future__ import annotations

import ctypes
import itertools
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from bilora.errors import BadData, Infrastructure, NotReady
from bilora.protocols import Progress

if TYPE_CHECKING:
    import torch

EXTRA = 'llama.cpp is not installed. Run `pip install "bilora[llamacpp]"`, or set `inference.engine: torch`.'
PASS_TOKENS = 512
"""So many tokens go through the model in one pass."""
MOST_ROWS = 256
"""llama.cpp keeps apart no more sequences than this."""
QUANTIZING_BYTES = 2**30
"""So much of a tensor is held in memory while it is quantised."""
ERROR = 4
"""ggml's log level of errors."""


@cache
def library() -> Any:
    """Return llama_cpp, silenced; what it says of its last error is kept in `said`.

    Raises:
        NotReady: the extra is not installed.
    """
    try:
        import llama_cpp
    except ImportError:
        raise NotReady(EXTRA) from None
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


class Model:
    """A GGUF file in memory, and a context for the base and for each adapter version that is loaded.

    A context has keys and values, and graphs, of its own. So no cache can be read under another adapter than
    filled it, and a switch is nothing but the next pass of another context.
    """

    def __init__(self, path: Path, *, rows: int, cells: int, threads: int, wide: bool, laid_out: bool) -> None:
        """Load `path`.

        Args:
            rows: how many answers one context may work on.
            cells: for how many tokens, of all its answers together, one context has room.
            wide: keep keys and values in 32 bit instead of 16.
            laid_out: lay weights out anew for this CPU, where the library can.

        Raises:
            Infrastructure: the file does not come into memory.
        """
        llama = self.library = library()
        self.lock = threading.Lock()  # the library goes through all of a model's LoRAs when it plans a graph
        self.retired: SimpleQueue[int] = SimpleQueue()
        how = llama.llama_model_default_params()
        how.use_extra_bufts = laid_out
        self._handle = llama.llama_model_load_from_file(str(path).encode(), how)
        if not self._handle:
            raise Infrastructure(f"llama.cpp cannot load {path} ({said.error}). Delete the file to have it made anew.")
        self._alive: dict[int, tuple[Any, Any]] = {}
        weakref.finalize(self, _free, llama, self._handle, self._alive)
        self._settings = settings = llama.llama_context_default_params()
        settings.n_ctx, settings.n_seq_max, settings.kv_unified = cells, rows, True
        settings.n_batch = settings.n_ubatch = PASS_TOKENS
        settings.n_threads = settings.n_threads_batch = threads
        if wide:
            settings.type_k = settings.type_v = llama.GGML_TYPE_F32
            settings.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_DISABLED  # it computes in 16 bit
        self.vocabulary: int = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self._handle))
        self._count = itertools.count()

    def context(self, adapter: Path | None = None) -> Context:
        """Make a context under an adapter's GGUF file, or under none; its memory is let go after it is.

        Raises:
            BadData: the adapter does not fit this model; the reason is the library's.
            Infrastructure: there is no memory.
        """
        llama = self.library
        with self.lock:
            self.let_go()
            lora = llama.llama_adapter_lora_init(self._handle, str(adapter).encode()) if adapter else None
            if adapter and not lora:
                raise BadData(adapter, f"does not fit this model ({said.error}).")
            handle = llama.llama_init_from_model(self._handle, self._settings)
            if not handle:
                if lora:
                    llama.llama_adapter_lora_free(lora)
                raise Infrastructure(f"llama.cpp made no context of {self._settings.n_ctx} tokens ({said.error}).")
            if lora:
                handles = (llama.llama_adapter_lora_p_ctypes * 1)(lora)
                llama.llama_set_adapters_lora(handle, handles, 1, (ctypes.c_float * 1)(1.0))
            number = next(self._count)
            self._alive[number] = handle, lora
        made = Context(self, handle)
        weakref.finalize(made, self.retired.put, number).atexit = False  # by whom and when is not known: no lock here
        return made

    def let_go(self) -> None:
        """Free the contexts that nobody refers to any more. The caller has the lock."""
        while not self.retired.empty():
            handle, lora = self._alive.pop(self.retired.get())
            self.library.llama_free(handle)
            if lora:
                self.library.llama_adapter_lora_free(lora)


class Context:
    """One adapter's, or the base's, own keys and values: row i's tokens are sequence i. For one thread at a time."""

    def __init__(self, model: Model, handle: Any) -> None:
        self._model = model
        self._llama = model.library
        self._handle = handle
        self._cells = self._llama.llama_get_memory(handle)

    def logits(self, tokens: Sequence[tuple[int, int, int]], last: int) -> torch.Tensor:
        """Put tokens through the model; return the scores after the `last` of them.

        Args:
            tokens: (id, place in its row, row) each, in order.

        Returns:
            Shape (last, vocabulary), 32 bit.
        """
        import torch

        with self._model.lock:
            self._model.let_go()
            for start in range(0, len(tokens), PASS_TOKENS):
                chunk = tokens[start : start + PASS_TOKENS]
                self._decode(chunk, last if start + PASS_TOKENS >= len(tokens) else 0)
        places = range(len(chunk) - last, len(chunk))
        found = [self._llama.llama_get_logits_ith(self._handle, place) for place in places]
        kind = ctypes.c_float * self._model.vocabulary
        return torch.stack([torch.frombuffer(kind.from_address(_address(one)), dtype=torch.float32) for one in found])

    def forget(self, row: int) -> None:
        """Empty a row's sequence."""
        self._llama.llama_memory_seq_rm(self._cells, row, -1, -1)

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
        code = self._llama.llama_decode(self._handle, batch)
        if code:
            raise RuntimeError(f"llama.cpp failed with code {code} ({said.error})")


def quantize(source: Path, target: Path, ftype: int, progress: Progress) -> None:
    """Write `source` quantised to `target`; `progress` counts tensors.

    The work is a thread's, so that Ctrl-C is heard at once.

    Raises:
        Infrastructure: the library could not do it.
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
        raise Infrastructure(f"llama.cpp could not quantise {source.name} ({said.error}).")


def _address(pointer: Any) -> int:
    address = ctypes.cast(pointer, ctypes.c_void_p).value
    if address is None:
        raise RuntimeError(f"llama.cpp has no scores for a token ({said.error})")
    return address


def _free(llama: Any, model: Any, alive: dict[int, tuple[Any, Any]]) -> None:
    """Let go of everything; a model's LoRAs go with it."""
    for handle, _ in alive.values():
        llama.llama_free(handle)
    llama.llama_model_free(model)
