"""Read the config of a GGUF file in transformers' form, and its weights, de-quantised one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bilora.bases.architectures import ARCHITECTURES, GGUFTensor, ModelArchitecture
from bilora.errors import BadData

if TYPE_CHECKING:
    import torch
    from gguf import ReaderTensor

OUTPUT = "output.weight"
EMBEDDINGS = "token_embd.weight"
"""Names in GGUF of the weights of the output layer (missing if tied to the embeddings) and of the embeddings."""


@dataclass(frozen=True)
class GGUFFile:
    """A GGUF file with its metadata in memory and its tensors on disk."""

    path: Path
    architecture: ModelArchitecture
    metadata: dict[str, Any]
    tensors: dict[str, ReaderTensor]

    @property
    def config(self) -> dict[str, Any]:
        """Its config.json, without special tokens.

        Raises:
            BadData: a value is missing, or transformers would compute something else than llama.cpp.
        """
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

        model_type = self.architecture.model_type
        try:
            settings = self.architecture.to_config(self._architecture_metadata())
        except KeyError as error:
            raise BadData(self.path, f"lacks {self.architecture.gguf}.{error.args[0]}; use another file.") from None
        except ValueError as error:
            raise BadData(self.path, f"{error}, which is not supported for GGUF; use another base.") from None
        return {
            "architectures": [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type]],
            "model_type": model_type,
            "dtype": "bfloat16",
            "hidden_act": "silu",
            "vocab_size": int(self.tensors[EMBEDDINGS].shape[1]),
            "tie_word_embeddings": OUTPUT not in self.tensors,
            **settings,
            **self.architecture.bias_config(self.tensors),
        }

    def tensor_map(self) -> dict[str, GGUFTensor]:
        """Return the file's tensor of each weight, by its name in transformers.

        Raises:
            BadData: tensors are missing, or their architecture does not have them.
        """
        from transformers import AutoConfig

        settings = self.config
        config = AutoConfig.for_model(**settings)
        names = self.architecture.tensors(config, tied=settings["tie_word_embeddings"])
        expected = {tensor.name for tensor in names.values()}
        if unknown := sorted(self.tensors.keys() - expected):
            raise BadData(self.path, f"contains {', '.join(unknown[:3])}, which {config.model_type} does not have.")
        if missing := sorted(expected - self.tensors.keys()):
            raise BadData(self.path, f"lacks the weights {', '.join(missing[:3])}; use another file.")
        return names

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield each weight's name in transformers, and its float32 values with rows in transformers' order.

        Raises:
            BadData: see `tensor_map`; or the quantization of a tensor is unknown.
        """
        import numpy
        import torch
        from gguf import dequantize

        for name, gguf_tensor in self.tensor_map().items():
            stored = self.tensors[gguf_tensor.name]
            try:
                values = numpy.require(dequantize(stored.data, stored.tensor_type), requirements="W")
            except NotImplementedError:
                raise BadData(
                    self.path, f"{stored.tensor_type.name} of {stored.name} cannot be de-quantised."
                ) from None
            yield name, gguf_tensor.restore_rows(torch.from_numpy(values))

    def _architecture_metadata(self) -> dict[str, Any]:
        """Return the metadata of the architecture by keys without its prefix."""
        prefix = f"{self.architecture.gguf}."
        return {key.removeprefix(prefix): value for key, value in self.metadata.items() if key.startswith(prefix)}


def read_gguf(path: Path) -> GGUFFile:
    """Read the metadata of a GGUF file.

    Raises:
        BadData: it is not a GGUF file, or its architecture is not in `ARCHITECTURES`.
    """
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
        metadata = {name: field.contents() for name, field in reader.fields.items()}
    except FileNotFoundError:
        raise BadData(path, "the file does not exist.") from None
    except (ValueError, IndexError, KeyError, OverflowError, TypeError) as error:
        raise BadData(path, f"is not a complete GGUF file ({type(error).__name__}); download it again.") from None
    known = {architecture.gguf: architecture for architecture in ARCHITECTURES.values()}
    name = metadata.get("general.architecture")
    if name not in known:
        raise BadData(path, f"has the architecture {name}; supported are {', '.join(known)}.")
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    if EMBEDDINGS not in tensors:
        raise BadData(path, f"lacks the weights {EMBEDDINGS}; use another file.")
    return GGUFFile(path, known[name], metadata, tensors)
