"""Bindings of llama.cpp's C functions: one model, and one context per adapter."""

from __future__ import annotations

import ctypes
import itertools
import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from types import ModuleType
from typing import TYPE_CHECKING

from bilora.errors import BadData, Infrastructure, NotReady
from bilora.protocols import Progress

if TYPE_CHECKING:
    import torch

_NOT_INSTALLED = 'llama.cpp is not installed. Run `pip install "bilora[llamacpp]"`, or set `inference.engine: torch`.'
PASS_TOKENS = 512
"""Maximum number of tokens per forward pass."""
MAX_SEQUENCES = 256
"""llama.cpp's limit of sequences per context."""
QUANTIZING_BYTES = 2**30
"""Maximum bytes of a tensor in memory while it is quantized."""
_LOG_LEVEL_ERROR = 4
"""ggml's log level of errors."""


@cache
def library() -> ModuleType:
    """Return the module llama_cpp with its log captured.

    Raises:
        NotReady: the extra is not installed.
    """
    try:
        import llama_cpp
    except ImportError:
        raise NotReady(_NOT_INSTALLED) from None
    llama_cpp.llama_log_set(_log_callback(llama_cpp), ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    module: ModuleType = llama_cpp
    return module


@dataclass
class _Log:
    """The library's log, one per process: its last error, and a callback that counts the reported tensors."""

    error: str = ""
    tensor_progress: Progress | None = None


_log = _Log()


@cache
def _log_callback(llama_cpp: ModuleType) -> object:
    @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
    def record(level: int, text: bytes, _: object) -> None:
        if level == _LOG_LEVEL_ERROR:
            _log.error = text.decode(errors="replace").strip()
        elif _log.tensor_progress is not None and text.startswith(b"["):  # "[ 12/ 197] blk.1.ffn_up.weight - ..."
            _log.tensor_progress(1)

    return record


class LlamaModel:
    """A GGUF file in memory, and one context per loaded adapter version and for the base.

    Each context has its own KV cache and graphs, so that no cache is used with another adapter, and switching adapters
    costs nothing.

    Attributes:
        threads: number of threads for the next pass.
    """

    def __init__(
        self, path: Path, *, max_sequences: int, kv_capacity: int, threads: int, kv_float32: bool, repack: bool
    ) -> None:
        """Load `path`.

        Args:
            max_sequences: maximum number of sequences per context.
            kv_capacity: maximum number of tokens per context, of all its sequences together.
            kv_float32: store keys and values in 32-bit instead of 16-bit.
            repack: repack the weights for this CPU if the library can.

        Raises:
            Infrastructure: the file cannot be loaded.
        """
        llama = self.library = library()
        self.lock = threading.Lock()  # the library reads all LoRAs of a model while it plans a graph
        self._retired: SimpleQueue[int] = SimpleQueue()
        model_params = llama.llama_model_default_params()
        model_params.use_extra_bufts = repack
        self._handle = llama.llama_model_load_from_file(str(path).encode(), model_params)
        if not self._handle:
            raise Infrastructure(f"llama.cpp cannot load {path} ({_log.error}). Delete the file to convert it again.")
        self._handles: dict[int, tuple[object, object]] = {}  # of context and LoRA
        weakref.finalize(self, _free, llama, self._handle, self._handles)
        self._context_params = params = llama.llama_context_default_params()
        params.n_ctx, params.n_seq_max, params.kv_unified = kv_capacity, max_sequences, True
        params.n_batch = params.n_ubatch = PASS_TOKENS
        params.n_threads = params.n_threads_batch = threads
        if kv_float32:
            params.type_k = params.type_v = llama.GGML_TYPE_F32
            params.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_DISABLED  # it computes in 16-bit
        self.threads = threads
        self.vocabulary: int = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self._handle))
        self._count = itertools.count()

    def context(self, adapter: Path | None = None) -> LlamaContext:
        """Create a context with an adapter's GGUF file, or without an adapter.

        Raises:
            BadData: the adapter does not match this model; the message has the library's reason.
            Infrastructure: memory is too small.
        """
        llama = self.library
        with self.lock:
            self.free_retired()
            lora = llama.llama_adapter_lora_init(self._handle, str(adapter).encode()) if adapter else None
            if adapter and not lora:
                raise BadData(adapter, f"does not match this model ({_log.error}).")
            handle = llama.llama_init_from_model(self._handle, self._context_params)
            if not handle:
                if lora:
                    llama.llama_adapter_lora_free(lora)
                raise Infrastructure(
                    f"llama.cpp cannot create a context of {self._context_params.n_ctx} tokens ({_log.error})."
                )
            if lora:
                loras = (llama.llama_adapter_lora_p_ctypes * 1)(lora)
                llama.llama_set_adapters_lora(handle, loras, 1, (ctypes.c_float * 1)(1.0))
            number = next(self._count)
            self._handles[number] = handle, lora
        context = LlamaContext(self, handle)
        # Any thread may run the finalizer at any time, so it must not lock: the next `free_retired` frees the context.
        weakref.finalize(context, self._retired.put, number).atexit = False
        return context

    def free_retired(self) -> None:
        """Free the contexts that are no longer referenced; the caller must hold the lock."""
        while not self._retired.empty():
            handle, lora = self._handles.pop(self._retired.get())
            self.library.llama_free(handle)
            if lora:
                self.library.llama_adapter_lora_free(lora)


class LlamaContext:
    """The KV cache of the base or of one adapter, with many sequences. For one thread at a time."""

    def __init__(self, model: LlamaModel, handle: object) -> None:
        self.model = model
        self._llama = model.library
        self._handle = handle
        self._memory = self._llama.llama_get_memory(handle)

    def logits(self, tokens: Sequence[tuple[int, int, int]], last: int) -> torch.Tensor:
        """Run tokens through the model; return the logits of the `last` tokens.

        Args:
            tokens: (id, position in its sequence, sequence) per token, in order.

        Returns:
            Shape (last, vocabulary), 32-bit.
        """
        with self.model.lock:
            self.model.free_retired()
            for start in range(0, len(tokens), PASS_TOKENS):
                chunk = tokens[start : start + PASS_TOKENS]
                self._decode(chunk, last if start + PASS_TOKENS >= len(tokens) else 0)
        return self._read(range(len(chunk) - last, len(chunk)))

    def all_logits(self, tokens: Sequence[tuple[int, int, int]]) -> Iterator[torch.Tensor]:
        """Run tokens through the model; yield the logits of all tokens, pass by pass.

        The next pass overwrites each part. Arguments and shapes are those of `logits`.
        """
        for start in range(0, len(tokens), PASS_TOKENS):
            chunk = tokens[start : start + PASS_TOKENS]
            with self.model.lock:
                self.model.free_retired()
                self._decode(chunk, len(chunk))
            yield self._read(range(len(chunk)))

    def _read(self, indices: range) -> torch.Tensor:
        """Return the logits at these indices of the last pass."""
        import torch

        pointers = [self._llama.llama_get_logits_ith(self._handle, index) for index in indices]
        row = ctypes.c_float * self.model.vocabulary
        return torch.stack(
            [torch.frombuffer(row.from_address(_address(pointer)), dtype=torch.float32) for pointer in pointers]
        )

    def remove(self, sequence: int) -> None:
        """Remove a sequence's tokens from the KV cache."""
        self._llama.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def _decode(self, tokens: Sequence[tuple[int, int, int]], outputs: int) -> None:
        """Run one forward pass with logits for the last `outputs` tokens."""
        count = len(tokens)
        sequences = (ctypes.c_int32 * count)(*(sequence for _, _, sequence in tokens))
        pointer = ctypes.POINTER(ctypes.c_int32)
        batch = self._llama.llama_batch(
            n_tokens=count,
            token=(ctypes.c_int32 * count)(*(token for token, _, _ in tokens)),
            pos=(ctypes.c_int32 * count)(*(position for _, position, _ in tokens)),
            n_seq_id=(ctypes.c_int32 * count)(*([1] * count)),
            seq_id=(pointer * count)(
                *(ctypes.cast(ctypes.byref(sequences, 4 * index), pointer) for index in range(count))
            ),
            logits=(ctypes.c_int8 * count)(*([0] * (count - outputs) + [1] * outputs)),
        )
        self._llama.llama_set_n_threads(self._handle, self.model.threads, self.model.threads)
        code = self._llama.llama_decode(self._handle, batch)
        if code:
            raise RuntimeError(f"llama.cpp failed with code {code} ({_log.error})")


def quantize(source: Path, target: Path, ftype: int, progress: Progress) -> None:
    """Write `source` quantized to `target`; `progress` counts tensors.

    The work is in another thread, so that Ctrl-C has an immediate effect.

    Raises:
        Infrastructure: the library failed.
    """
    llama = library()
    params = llama.llama_model_quantize_default_params()
    params.ftype, params.max_buf_size = ftype, QUANTIZING_BYTES
    codes: list[int] = []

    def work() -> None:
        codes.append(llama.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params)))

    _log.tensor_progress = progress
    try:
        thread = threading.Thread(target=work, name="quantize", daemon=True)
        thread.start()
        thread.join()
    finally:
        _log.tensor_progress = None
    if codes != [0]:
        raise Infrastructure(f"llama.cpp could not quantize {source.name} ({_log.error}).")


def _address(pointer: ctypes._Pointer[ctypes.c_float]) -> int:
    address = ctypes.cast(pointer, ctypes.c_void_p).value
    if address is None:
        raise RuntimeError(f"llama.cpp has no logits for a token ({_log.error})")
    return address


def _free(llama: ModuleType, model: object, handles: dict[int, tuple[object, object]]) -> None:
    """Free the contexts and the model, and with it its LoRAs."""
    for handle, _ in handles.values():
        llama.llama_free(handle)
    llama.llama_model_free(model)
