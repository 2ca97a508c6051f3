"""A base of the Phi-3 architecture and its adapters as GGUF files, each made once and kept by its content's hash."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from bilora.bases.loading import base_revision
from bilora.errors import BadData, NotReady, Unreachable
from bilora.inference.llamacpp.bindings import EXTRA, QUANTIZING_BYTES, quantize
from bilora.inference.memory import need_disk, need_memory
from bilora.inference.peft_adapter import PeftAdapter, misfit
from bilora.params import Base, Quantization
from bilora.protocols import Progress, ProgressBars
from bilora.storage import atomic

if TYPE_CHECKING:
    import torch

FORMAT = 1
"""Part of the files' names: a converter that writes something else has another number."""
ARCHITECTURE = "phi3"
FTYPES: dict[Quantization, int] = {"f32": 0, "f16": 1, "q8_0": 7, "q4_k_m": 15}
"""llama.cpp's numbers of what a file's matrices are kept in."""
BITS: dict[Quantization, float] = {"f32": 32.0, "f16": 16.0, "q8_0": 8.5, "q4_k_m": 5.1}
"""Bits a weight, a little more than Phi-3-mini takes."""
WIDTHS = {"F32": 4, "F16": 2, "BF16": 2}
"""Bytes a number, by safetensors' name of its kind."""

_MODULES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_LAYER_MODULES = {
    "input_layernorm": "attn_norm",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")


def gguf_name(module: str) -> str | None:
    """Return what llama.cpp calls the weight of a module of transformers' Phi-3; None if it has no such one."""
    if found := _LAYER.fullmatch(module):
        leaf = _LAYER_MODULES.get(found[2])
        return leaf and f"blk.{found[1]}.{leaf}.weight"
    name = _MODULES.get(module)
    return name and f"{name}.weight"


@dataclass(frozen=True)
class Header:
    """What a safetensors file says of one tensor: where it is, its shape, and safetensors' name of its numbers."""

    file: Path
    shape: tuple[int, ...]
    kind: str

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return prod(self.shape)


@dataclass(frozen=True)
class Weights:
    """A base's folder, of whose weights only the headers were read."""

    folder: Path
    config: Any
    headers: Mapping[str, Header]

    def bytes_as(self, quantization: Quantization) -> int:
        """About how large the converted file is."""
        return int(sum(header.size for header in self.headers.values()) * BITS[quantization] / 8)

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield every tensor as it lies there, in the order of `headers`; one at a time is in memory."""
        from safetensors import safe_open

        for file, group in groupby(self.headers.items(), lambda item: item[1].file):
            with safe_open(file, framework="pt") as opened:
                for name, _ in group:
                    yield name, opened.get_tensor(name)


def read_weights(base: Base) -> Weights:
    """Read the headers of a base's weights; a hub's are fetched.

    Raises:
        BadData: it is no Phi-3, or one that llama.cpp would compute otherwise than transformers.
        Unreachable: the hub did not give it.
    """
    from safetensors import safe_open
    from transformers import AutoConfig

    folder = _folder(base)
    config = AutoConfig.from_pretrained(folder)
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if config.model_type != ARCHITECTURE or rope != "default":
        kind = f"{config.model_type} with {rope} positions"
        raise BadData(base.id, f"llama.cpp is asked with plain Phi-3 only, this is {kind}; use the torch engine.")
    headers = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (it is no dictionary)
                piece = file.get_slice(name)
                headers[name] = Header(path, tuple(piece.get_shape()), piece.get_dtype())
    if config.tie_word_embeddings:
        headers.pop("lm_head.weight", None)
    odd = [name for name in headers if gguf_name(name.removesuffix(".weight")) is None]
    odd += [name for name, header in headers.items() if header.kind not in WIDTHS]
    if odd or not headers:
        raise BadData(folder, f"holds {', '.join(odd[:3]) or 'no weights'}, which plain Phi-3 does not; use torch.")
    return Weights(folder, config, headers)


def base_gguf(base: Base, weights: Weights, quantization: Quantization, kept: Path, shown: ProgressBars) -> Path:
    """Return the base as a GGUF file in `kept`, made now if it is not there; it goes through memory tensor by tensor.

    The file has no vocabulary: texts are read and written by the base's own tokenizer.

    Raises:
        NotReady: memory or disk is too small, before anything is written.
    """
    target = kept / f"base-{base_revision(base)}-{quantization}-v{FORMAT}.gguf"
    if target.is_file():
        return target
    title = f"Converting {base.id} to {quantization}"
    direct = quantization in ("f32", "f16")
    largest = max(header.size for header in weights.headers.values())
    between = 0 if direct else sum(header.size * WIDTHS[header.kind] for header in weights.headers.values())
    need_disk(kept, int(1.05 * (weights.bytes_as(quantization) + between)), title)
    need_memory(8 * largest + (0 if direct else 2 * min(QUANTIZING_BYTES, 4 * largest)), title, "End other programs.")
    kept.mkdir(parents=True, exist_ok=True)
    with atomic(target) as made, shown(title, len(weights.headers) * (1 if direct else 2)) as progress:
        if direct:
            _write_base(weights, made, quantization, progress)
        else:
            with TemporaryDirectory(dir=kept, prefix=".unquantised-") as place:
                whole = Path(place) / "base.gguf"
                _write_base(weights, whole, None, progress)
                quantize(whole, made, FTYPES[quantization], progress)
    return target


def adapter_gguf(plain: PeftAdapter, folder: Path, kept: Path, *, wide: bool) -> Path:
    """Return an adapter as a GGUF file in `kept`, in 32 bit if `wide` and else in 16, made now if it is not there.

    Raises:
        BadData: it has modules that Phi-3 does not, or numbers that 16 bit do not hold.
    """
    target = kept / f"adapter-{plain.sha256}-{'f32' if wide else 'f16'}-v{FORMAT}.gguf"
    if target.is_file():
        return target
    tensors = {}
    for module, (a, b) in plain.layers.items():
        name = gguf_name(module)
        if name is None:
            raise misfit(folder, module)
        for tensor, part in ((a, "lora_a"), (b, "lora_b")):
            tensors[f"{name}.{part}"] = tensor.float() if wide else tensor.half()
            if not tensors[f"{name}.{part}"].isfinite().all():
                raise BadData(folder, f"{module} holds numbers too large for 16 bit; set inference.quantization: f32.")
    rank = next(iter(plain.layers.values()))[0].shape[0]
    with atomic(target) as made, _writer(made) as writer:
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", plain.scale * rank)  # the library divides by the rank
        for name, tensor in tensors.items():
            _declare(writer, name, tuple(tensor.shape), tensor.dtype)
        _begin(writer)
        for tensor in tensors.values():
            writer.write_tensor_data(tensor.contiguous().numpy())
    return target


def _folder(base: Base) -> Path:
    if base.local:
        return Path(base.id)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(base.id, revision=base.revision, allow_patterns=["*.json", "*.safetensors"]))
    except (HfHubHTTPError, OSError) as error:
        raise Unreachable(f"{base.id} could not be fetched ({type(error).__name__}). Check the network.") from None


def _write_base(weights: Weights, path: Path, quantization: Quantization | None, progress: Progress) -> None:
    """Write the base in f32 or f16; None is as it lies there. Vectors are always in 32 bit."""
    import torch

    chosen = {"f32": torch.float32, "f16": torch.float16}.get(quantization or "")
    own = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    kinds = {
        name: torch.float32 if len(header.shape) == 1 else chosen or own[header.kind]
        for name, header in weights.headers.items()
    }
    with _writer(path) as writer:
        _describe(writer, weights.config)
        for name, header in weights.headers.items():
            _declare(writer, gguf_name(name.removesuffix(".weight")) or name, header.shape, kinds[name])
        _begin(writer)
        for name, tensor in weights.tensors():
            data = tensor.to(kinds[name]).contiguous()
            if data.dtype == torch.bfloat16:
                data = data.view(torch.int16)  # NumPy has no bfloat16
            writer.write_tensor_data(data.numpy())
            progress(1)


def _describe(writer: Any, config: Any) -> None:
    head = config.hidden_size // config.num_attention_heads
    writer.add_type("model")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_rope_scaling_orig_ctx_len(config.original_max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(int(config.rope_parameters.get("partial_rotary_factor", 1.0) * head))
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_sliding_window(0)  # the library keeps none for Phi-3; the engine's context ends where it would begin
    writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(config.vocab_size)


@contextmanager
def _writer(path: Path) -> Iterator[Any]:
    try:
        from gguf import GGUFWriter
    except ImportError:
        raise NotReady(EXTRA) from None
    writer = GGUFWriter(path, ARCHITECTURE)
    try:
        yield writer
    finally:
        writer.close()


def _declare(writer: Any, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    import numpy
    import torch
    from gguf import GGMLQuantizationType as Kinds

    kind = {torch.float32: Kinds.F32, torch.float16: Kinds.F16, torch.bfloat16: Kinds.BF16}[dtype]
    writer.add_tensor_info(name, shape, numpy.dtype("float32"), prod(shape) * dtype.itemsize, raw_dtype=kind)


def _begin(writer: Any) -> None:
    """Write all that stands before the tensors."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
