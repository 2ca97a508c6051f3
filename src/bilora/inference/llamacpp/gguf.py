"""Convert a base and its adapters to GGUF files, cached under the hashes of their contents.

Architectures are in `bilora.bases.architectures`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Protocol

from bilora.bases.architectures import ROPE_FACTORS, ModelArchitecture
from bilora.errors import BadData
from bilora.inference.llamacpp.bindings import QUANTIZING_BYTES, quantize
from bilora.inference.llamacpp.weights import DTYPE_BYTES, GGUFModel, Weights
from bilora.inference.memory import require_disk, require_memory
from bilora.inference.peft_adapter import PeftAdapter, incompatible_adapter
from bilora.params import Quantization
from bilora.protocols import Progress, ProgressBars
from bilora.storage import atomic

if TYPE_CHECKING:
    import numpy
    import torch
    from numpy.typing import NDArray

FORMAT = 1
"""Version of the converter, a part of the files' names."""
FTYPES: dict[Quantization, int] = {"f32": 0, "f16": 1, "q8_0": 7, "q4_k_m": 15}
"""llama.cpp's file type per quantization."""


def base_gguf(weights: Weights, quantization: Quantization, cache: Path, progress_bars: ProgressBars) -> Path:
    """Return the base as a GGUF file in `cache`, converted one tensor at a time if it is not cached.

    The file has no vocabulary: the base's tokenizer encodes and decodes all texts.

    Raises:
        NotReady: memory or disk is too small; nothing was written.
    """
    target = cache / f"base-{weights.identity}-{quantization}-v{FORMAT}.gguf"
    if target.is_file():
        return target
    title = f"Converting {weights.name} to {quantization}"
    direct = quantization in ("f32", "f16")
    largest = max(header.size for header in weights.headers.values())
    intermediate = 0 if direct else sum(header.size * DTYPE_BYTES[header.dtype] for header in weights.headers.values())
    require_disk(cache, int(1.05 * (weights.bytes_as(quantization) + intermediate)), title)
    require_memory(
        8 * largest + (0 if direct else 2 * min(QUANTIZING_BYTES, 4 * largest)), title, "End other programs."
    )
    cache.mkdir(parents=True, exist_ok=True)
    with atomic(target) as file, progress_bars(title, weights.count * (1 if direct else 2)) as progress:
        if direct:
            _write_base(weights, file, quantization, progress)
        else:
            with TemporaryDirectory(dir=cache, prefix=".unquantized-") as temporary:
                unquantized = Path(temporary) / "base.gguf"
                _write_base(weights, unquantized, None, progress)
                quantize(unquantized, file, FTYPES[quantization], progress)
    return target


def adapter_gguf(adapter: PeftAdapter, folder: Path, model: GGUFModel, cache: Path, *, float32: bool) -> Path:
    """Return an adapter as a GGUF file in `cache`, converted to 32-bit or 16-bit if it is not cached.

    The file's name contains the base's identity: the order of B's rows depends on the base.

    Raises:
        BadData: it has modules that the base does not have, or numbers too large for 16-bit.
    """
    target = cache / f"adapter-{adapter.sha256}-{model.identity}-{'f32' if float32 else 'f16'}-v{FORMAT}.gguf"
    if target.is_file():
        return target
    tensors = lora_tensors(adapter, folder, model, float32=float32)
    rank = next(iter(adapter.layers.values()))[0].shape[0]
    with atomic(target) as file, _writer(file, model.architecture) as writer:
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", adapter.scale * rank)  # the library divides by the rank
        for name, tensor in tensors.items():
            _add_tensor_info(writer, name, tuple(tensor.shape), tensor.dtype)
        _write_header(writer)
        for tensor in tensors.values():
            writer.write_tensor_data(tensor.contiguous().numpy())
    return target


def lora_tensors(adapter: PeftAdapter, folder: Path, model: GGUFModel, *, float32: bool) -> dict[str, torch.Tensor]:
    """Return each layer's A and B (name in GGUF → tensor); B's rows have the order of the base's rows.

    Raises:
        BadData: the adapter has modules that the base does not have, or numbers too large for 16-bit.
    """
    tensors = {}
    for module, (a, b) in adapter.layers.items():
        gguf_tensor = model.gguf_tensors.get(f"{module}.weight")
        if gguf_tensor is None or (gguf_tensor.heads and b.shape[0] % (2 * gguf_tensor.heads)):
            raise incompatible_adapter(folder, module)
        for tensor, part in ((a, "lora_a"), (gguf_tensor.reorder_rows(b), "lora_b")):
            converted = tensor.float() if float32 else tensor.half()
            if not converted.isfinite().all():
                raise BadData(folder, f"{module} has numbers too large for 16-bit; set inference.quantization: f32.")
            tensors[f"{gguf_tensor.name}.{part}"] = converted
    return tensors


def _write_base(weights: Weights, path: Path, quantization: Quantization | None, progress: Progress) -> None:
    """Write the base in f32 or f16; None keeps each tensor's precision. Vectors are always 32-bit."""
    import torch

    target = {"f32": torch.float32, "f16": torch.float16}.get(quantization or "")
    source = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    dtypes = {
        name: torch.float32 if len(header.shape) == 1 else target or source[header.dtype]
        for name, header in weights.headers.items()
    }
    factors = weights.rope_factors()
    with _writer(path, weights.architecture) as writer:
        _add_metadata(writer, weights)
        if factors is not None:
            _add_tensor_info(writer, ROPE_FACTORS, tuple(factors.shape), factors.dtype)
        for name, header in weights.headers.items():
            _add_tensor_info(writer, weights.gguf_tensors[name].name, header.shape, dtypes[name])
        _write_header(writer)
        if factors is not None:
            writer.write_tensor_data(factors.numpy())
            progress(1)
        for name, tensor in weights.tensors():
            data = tensor.to(dtypes[name]).contiguous()
            if data.dtype == torch.bfloat16:
                data = data.view(torch.int16)  # NumPy has no bfloat16
            writer.write_tensor_data(data.numpy())
            progress(1)


class _GGUFWriter(Protocol):
    """The used part of `gguf.GGUFWriter`'s interface."""

    def add_type(self, type_name: str) -> None: ...
    def add_string(self, key: str, val: str) -> None: ...
    def add_uint32(self, key: str, val: int) -> None: ...
    def add_float32(self, key: str, val: float) -> None: ...
    def add_tensor_info(
        self,
        name: str,
        tensor_shape: Sequence[int],
        tensor_dtype: numpy.dtype[numpy.generic],
        tensor_nbytes: int,
        raw_dtype: object,
    ) -> None: ...
    def write_header_to_file(self) -> None: ...
    def write_kv_data_to_file(self) -> None: ...
    def write_ti_data_to_file(self) -> None: ...
    def write_tensor_data(self, tensor: NDArray[numpy.generic]) -> None: ...
    def close(self) -> None: ...


def _add_metadata(writer: _GGUFWriter, weights: Weights) -> None:
    writer.add_type("model")
    for key, value in weights.architecture.to_metadata(weights.config).items():
        if isinstance(value, float):
            writer.add_float32(f"{weights.architecture.gguf}.{key}", value)
        else:
            writer.add_uint32(f"{weights.architecture.gguf}.{key}", value)
    writer.add_string("tokenizer.ggml.model", "no_vocab")


@contextmanager
def _writer(path: Path, architecture: ModelArchitecture) -> Iterator[_GGUFWriter]:
    from gguf import GGUFWriter

    writer = GGUFWriter(path, architecture.gguf)
    try:
        yield writer
    finally:
        writer.close()


def _add_tensor_info(writer: _GGUFWriter, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    import numpy
    import torch
    from gguf import GGMLQuantizationType as Dtypes

    raw_dtype = {torch.float32: Dtypes.F32, torch.float16: Dtypes.F16, torch.bfloat16: Dtypes.BF16}[dtype]
    writer.add_tensor_info(name, shape, numpy.dtype("float32"), prod(shape) * dtype.itemsize, raw_dtype=raw_dtype)


def _write_header(writer: _GGUFWriter) -> None:
    """Write everything before the tensors."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
