"""Read a GGUF file in the terms of transformers: its configuration, and its weights de-quantised one at a time."""

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
"""GGUF's names of the output layer, which is absent where the embeddings are tied to it, and of the embeddings."""


@dataclass(frozen=True)
class GGUFFile:
    """A GGUF file whose metadata is in memory and whose tensors are not."""

    path: Path
    architecture: ModelArchitecture
    metadata: dict[str, Any]
    tensors: dict[str, ReaderTensor]

    @property
    def config(self) -> dict[str, Any]:
        """What its config.json holds, without special tokens.

        Raises:
            BadData: a number is missing, or transformers would compute something else than llama.cpp.
        """
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

        model_type = self.architecture.model_type
        try:
            settings = self.architecture.config_of(self._values())
        except KeyError as error:
            raise BadData(self.path, f"lacks {self.architecture.gguf}.{error.args[0]}; take another file.") from None
        except ValueError as error:
            raise BadData(self.path, f"{error}, which is not read from GGUF; take another base.") from None
        return {
            "architectures": [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type]],
            "model_type": model_type,
            "dtype": "bfloat16",
            "hidden_act": "silu",
            "vocab_size": int(self.tensors[EMBEDDINGS].shape[1]),
            "tie_word_embeddings": OUTPUT not in self.tensors,
            **settings,
            **self.architecture.biases_in(self.tensors),
        }

    def names(self) -> dict[str, GGUFTensor]:
        """Return transformers' name of each weight → its tensor in the file.

        Raises:
            BadData: it lacks tensors, or has some that its architecture has not.
        """
        from transformers import AutoConfig

        settings = self.config
        config = AutoConfig.for_model(**settings)
        names = self.architecture.tensors(config, tied=settings["tie_word_embeddings"])
        expected = {tensor.name for tensor in names.values()}
        if unknown := sorted(self.tensors.keys() - expected):
            raise BadData(self.path, f"holds {', '.join(unknown[:3])}, which plain {config.model_type} does not.")
        if missing := sorted(expected - self.tensors.keys()):
            raise BadData(self.path, f"lacks the weights {', '.join(missing[:3])}; take another file.")
        return names

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield each weight by transformers' name: float32, its rows in transformers' order; one is in memory.

        Raises:
            BadData: as `names` does, or a tensor is quantized in an unknown way.
        """
        import numpy
        import torch
        from gguf import dequantize

        for name, gguf_tensor in self.names().items():
            stored = self.tensors[gguf_tensor.name]
            try:
                values = numpy.require(dequantize(stored.data, stored.tensor_type), requirements="W")
            except NotImplementedError:
                raise BadData(
                    self.path, f"{stored.tensor_type.name} of {stored.name} cannot be de-quantised."
                ) from None
            yield name, gguf_tensor.restore_rows(torch.from_numpy(values))

    def _values(self) -> dict[str, Any]:
        """Return the metadata of the architecture, by keys without its prefix."""
        prefix = f"{self.architecture.gguf}."
        return {key.removeprefix(prefix): value for key, value in self.metadata.items() if key.startswith(prefix)}


def read_gguf(path: Path) -> GGUFFile:
    """Read the metadata of a GGUF file.

    Raises:
        BadData: it is no GGUF file, or of an architecture that is not known here.
    """
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
        metadata = {name: field.contents() for name, field in reader.fields.items()}
    except FileNotFoundError:
        raise BadData(path, "the file does not exist.") from None
    except (ValueError, IndexError, KeyError, OverflowError, TypeError) as error:
        raise BadData(path, f"is no whole GGUF file ({type(error).__name__}); fetch it again.") from None
    known = {architecture.gguf: architecture for architecture in ARCHITECTURES.values()}
    name = metadata.get("general.architecture")
    if name not in known:
        raise BadData(path, f"is of the architecture {name}; known are {', '.join(known)}.")
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    if EMBEDDINGS not in tensors:
        raise BadData(path, f"lacks the weights {EMBEDDINGS}; take another file.")
    return GGUFFile(path, known[name], metadata, tensors)
