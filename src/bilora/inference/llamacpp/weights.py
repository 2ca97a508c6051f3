"""What GGUF files of a base need: its architecture and settings from its configuration, its weights from safetensors.

Of the weights the headers are read first, then one tensor at a time.
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
"""Bits per weight, for q4_k_m a little more than bases of one to four billion weights take."""
SUPERBLOCK = 256
"""q4_k_m quantizes this many weights of a row together; rows of other lengths take `ODD_ROW_BITS` per weight."""
ODD_ROW_BITS = 7.0
WIDTHS = {"F32": 4, "F16": 2, "BF16": 2}
"""Bytes per number, by safetensors' name of its kind."""


@dataclass(frozen=True)
class Header:
    """One tensor's entry in a safetensors file: the file, the shape, and safetensors' name of its dtype."""

    file: Path
    shape: tuple[int, ...]
    kind: str

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return prod(self.shape)

    def bits(self, quantization: Quantization) -> float:
        """Return about how many bits each number takes in a converted file."""
        odd_row = quantization == "q4_k_m" and self.shape[-1] % SUPERBLOCK
        return ODD_ROW_BITS if odd_row else BITS[quantization]


@dataclass(frozen=True)
class GGUFModel:
    """What GGUF files of a base and its adapters say, known from the base's configuration: no weight is read.

    `name` is the base's in messages, `identity` pins it; `gguf_tensors` has each tensor's counterpart in GGUF.
    """

    name: str
    identity: str
    architecture: ModelArchitecture
    config: PretrainedConfig
    gguf_tensors: Mapping[str, GGUFTensor]


@dataclass(frozen=True)
class Weights(GGUFModel):
    """A base's folder, of whose weights only the headers were read."""

    folder: Path
    headers: Mapping[str, Header]

    def bytes_as(self, quantization: Quantization) -> int:
        """About how large the converted file is."""
        return int(sum(header.size * header.bits(quantization) for header in self.headers.values()) / 8)

    @property
    def count(self) -> int:
        """How many tensors a converted file holds."""
        return len(self.headers) + (self.rope_factors() is not None)

    def rope_factors(self) -> torch.Tensor | None:
        """Return what the rotary frequencies are divided by, a tensor that only GGUF has; None if by nothing."""
        return self.architecture.rope_factors(self.config)

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield every tensor with its rows in GGUF's order, in the order of `headers`; one at a time is in memory."""
        from safetensors import safe_open

        for file, group in groupby(self.headers.items(), lambda item: item[1].file):
            with safe_open(file, framework="pt") as opened:
                for name, _ in group:
                    yield name, self.gguf_tensors[name].reorder_rows(opened.get_tensor(name))


def gguf_model(base: Base) -> GGUFModel:
    """Return what GGUF files of a base and its adapters say.

    Raises:
        BadData: its architecture is not supported, or llama.cpp would compute it differently from transformers.
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
        BadData: there are tensors that the architecture does not have, or some of its own are absent.
    """
    # 1) Read what the files hold. An output layer that is the embeddings again is not stored twice.
    headers = _headers(folder)
    tied = bool(model.config.tie_word_embeddings) and not _has_own_output(headers)
    if tied:
        headers.pop(LM_HEAD, None)
    # 2) Refuse tensors that the architecture does not have, and a checkpoint that lacks some.
    gguf_tensors = model.architecture.tensors(model.config, tied=tied)
    unknown = [tensor for tensor, header in headers.items() if tensor not in gguf_tensors or header.kind not in WIDTHS]
    missing = [tensor for tensor in gguf_tensors if tensor not in headers and not tensor.endswith(".bias")]
    if unknown:
        kind = model.architecture.model_type
        raise BadData(folder, f"holds {', '.join(unknown[:3])}, which plain {kind} does not; {USE_TORCH}.")
    if missing:
        raise BadData(folder, f"lacks the weights {', '.join(missing[:3])}; fetch it again.")
    return Weights(**vars(model) | {"gguf_tensors": gguf_tensors}, folder=folder, headers=headers)


def _headers(folder: Path) -> dict[str, Header]:
    from safetensors import safe_open

    headers = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (it is no dictionary)
                tensor = file.get_slice(name)
                headers[name] = Header(path, tuple(tensor.get_shape()), tensor.get_dtype())
    return headers


def _has_own_output(headers: Mapping[str, Header]) -> bool:
    """Whether the output layer is stored beside the embeddings and differs: transformers does not tie them then."""
    import torch
    from safetensors import safe_open

    pair = []
    for name in ("model.embed_tokens.weight", LM_HEAD):
        if name not in headers:
            return False
        with safe_open(headers[name].file, framework="pt") as file:
            pair.append(file.get_tensor(name))
    return not torch.equal(*pair)
