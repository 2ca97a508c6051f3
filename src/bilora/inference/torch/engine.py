"""The torch engine: a base model and its adapters in memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bilora.bases.loading import LoadedBase
from bilora.errors import BadData
from bilora.inference.decoder import Decoder
from bilora.inference.engine import ContinuousBatchingEngine
from bilora.inference.memory import free_memory, kv_bytes_per_token
from bilora.inference.torch.batch import TorchBatch
from bilora.inference.torch.lora import LoadedAdapter, StackedLora, read_adapter

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


class TorchEngine(ContinuousBatchingEngine[LoadedAdapter]):
    """transformers with LoRA: one pass per token for a batch with any mix of adapters."""

    def __init__(
        self,
        loaded: LoadedBase,
        adapters: Mapping[str, Path],
        *,
        batch_size: int,
        max_waiting: int | None = None,
    ) -> None:
        """Load every adapter of `adapters` (task name → PEFT folder) for the loaded base.

        Args:
            batch_size: maximum number of running sequences.
            max_waiting: maximum number of requests in the queue; None for no limit.

        Raises:
            BadData: an adapter or the model is not supported.
        """
        model = loaded.model.eval()
        decoder = Decoder(loaded.tokenizer, loaded.stop_ids)
        try:
            batch = TorchBatch(
                model, decoder, StackedLora(model), max_sequences=batch_size, kv_capacity=_kv_capacity(model)
            )
        except ValueError as error:
            raise BadData(str(model.config.name_or_path), f"{error}.") from None
        super().__init__(
            loaded.tokenizer,
            batch,
            lambda name, folder: read_adapter(name, folder, model),
            adapters,
            eos_ids=loaded.stop_ids,
            context_length=_context(model.config),
            max_waiting=max_waiting,
        )


def _kv_capacity(model: PreTrainedModel) -> int:
    """Return the KV cache's capacity in tokens: a quarter of the free memory; it can allocate 2.5 times that."""
    import torch

    free = free_memory()
    if model.device.type == "cuda":
        unused = torch.cuda.memory_reserved(model.device) - torch.cuda.memory_allocated(model.device)
        free = torch.cuda.mem_get_info(model.device)[0] + unused
    return 2**63 if free is None else free // 4 // kv_bytes_per_token(model.config, model.dtype.itemsize)


def _context(config: PretrainedConfig) -> int:
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type")
    if rope in ("dynamic", "longrope"):  # beyond the original context all rows rotate as the longest one does
        return int(config.original_max_position_embeddings or config.max_position_embeddings)
    return int(config.max_position_embeddings)
