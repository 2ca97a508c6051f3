"""The content of a base's GGUF file: metadata from its configuration, weights from its safetensors files.

The headers of the weights are read first, then one tensor at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from bilora.bases.architectures import LM_HEAD, USE_TORCH, GGUFTensor, ModelArchitecture, architecture_of
from bilora.bases.base import Base
from bilora.errors import BadData
from bilora.params import Quantization

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

BITS: dict[Quantization, float] = {"f32": 32.0, "f16": 16.0, "q8_0": 8.5, "q4_k_m": 5.1}
"""Bits per weight; for q4_k_m slightly more than in bases of one to four billion weights."""
SUPERBLOCK = 256
"""q4_k_m quantizes this many weights of a row together; rows of other lengths have `ODD_ROW_BITS` per weight."""
ODD_ROW_BITS = 7.0
DTYPE_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
"""Bytes per number, by safetensors' name of the dtype."""


@dataclass(frozen=True)
class Header:
    """The header of one tensor in a safetensors file; `dtype` is safetensors' name of it."""

    file: Path
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    def bits(self, quantization: Quantization) -> float:
        """Return the approximate bits per number in a converted file."""
        odd_row = quantization == "q4_k_m" and self.shape[-1] % SUPERBLOCK
        return ODD_ROW_BITS if odd_row else BITS[quantization]


@dataclass(frozen=True)
class GGUFModel:
    """The metadata for GGUF files of a base and its adapters, from the base's configuration.

    `name`: the base's name in messages. `identity`: pins the base. `gguf_tensors`: the base's tensor names → GGUF's.
    """

    name: str
    identity: str
    architecture: ModelArchitecture
    config: PretrainedConfig
    gguf_tensors: Mapping[str, GGUFTensor]


@dataclass(frozen=True)
class Weights(GGUFModel):
    """A base's folder, with the headers of its weights."""

    folder: Path
    headers: Mapping[str, Header]

    def bytes_as(self, quantization: Quantization) -> int:
        """Return the approximate size of the converted file."""
        return int(sum(header.size * header.bits(quantization) for header in self.headers.values()) / 8)

    @property
    def count(self) -> int:
        """Number of tensors in a converted file."""
        return len(self.headers) + (self.rope_factors() is not None)

    def rope_factors(self) -> torch.Tensor | None:
        """Return the divisors of the rotary frequencies, a tensor that only GGUF has; None if there are none."""
        return self.architecture.rope_factors(self.config)

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield (name, tensor with rows in GGUF's order) in the order of `headers`, one at a time in memory."""
        from safetensors import safe_open

        for file, group in groupby(self.headers.items(), lambda item: item[1].file):
            with safe_open(file, framework="pt") as opened:
                for name, _ in group:
                    yield name, self.gguf_tensors[name].reorder_rows(opened.get_tensor(name))


def gguf_model(base: Base) -> GGUFModel:
    """Return the metadata for GGUF files of a base and its adapters.

    Raises:
        BadData: the architecture is not supported, or llama.cpp computes it differently from transformers.
    """
    config = base.config()
    architecture = architecture_of(config.model_type, base.id)
    if unsupported := architecture.unsupported(config):
        raise BadData(
            base.id, f"llama.cpp computes {' and '.join(unsupported)} differently from transformers; {USE_TORCH}."
        )
    tensors = architecture.tensors(config, tied=bool(config.tie_word_embeddings))
    return GGUFModel(base.id, base.identity, architecture, config, tensors)


def open_weights(folder: Path, model: GGUFModel) -> Weights:
    """Read the headers of the weights in a base's folder.

    Raises:
        BadData: the architecture does not have some of the tensors, or some of its tensors are absent.
    """
    # 1) Read the headers, without an output layer that equals the embeddings.
    headers = _headers(folder)
    tied = bool(model.config.tie_word_embeddings) and not _has_untied_output(headers)
    if tied:
        headers.pop(LM_HEAD, None)
    # 2) Compare them with the architecture's tensors.
    gguf_tensors = model.architecture.tensors(model.config, tied=tied)
    unknown = [name for name, header in headers.items() if name not in gguf_tensors or header.dtype not in DTYPE_BYTES]
    missing = [name for name in gguf_tensors if name not in headers and not name.endswith(".bias")]
    if unknown:
        model_type = model.architecture.model_type
        raise BadData(folder, f"has tensors that {model_type} does not support: {', '.join(unknown[:3])}; {USE_TORCH}.")
    if missing:
        raise BadData(folder, f"does not have the weights {', '.join(missing[:3])}; download it again.")
    return Weights(**vars(model) | {"gguf_tensors": gguf_tensors}, folder=folder, headers=headers)


def _headers(folder: Path) -> dict[str, Header]:
    from safetensors import safe_open

    headers = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (it is not a dictionary)
                tensor = file.get_slice(name)
                headers[name] = Header(path, tuple(tensor.get_shape()), tensor.get_dtype())
    return headers


def _has_untied_output(headers: Mapping[str, Header]) -> bool:
    """Return whether the stored output layer differs from the embeddings: transformers does not tie them then."""
    import torch
    from safetensors import safe_open

    pair = []
    for name in ("model.embed_tokens.weight", LM_HEAD):
        if name not in headers:
            return False
        with safe_open(headers[name].file, framework="pt") as file:
            pair.append(file.get_tensor(name))
    return not torch.equal(*pair)
