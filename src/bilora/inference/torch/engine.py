"""The torch engine: one base in memory, every adapter beside it, chosen by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bilora.bases.loading import LoadedBase
from bilora.errors import BadData
from bilora.inference.decoder import Answers
from bilora.inference.engine import BatchedEngine
from bilora.inference.memory import free_memory, token_bytes
from bilora.inference.torch.batch import TorchBatch
from bilora.inference.torch.lora import Adapter, AdapterRows, read_adapter


class TorchEngine(BatchedEngine[Adapter]):
    """transformers and LoRA: a mixed batch costs one pass a token, whichever adapters its rows have."""

    def __init__(
        self,
        loaded: LoadedBase,
        adapters: Mapping[str, Path],
        *,
        batch_size: int,
        carries: str | None = None,
        max_waiting: int | None = None,
    ) -> None:
        """Put every adapter of `adapters` (task name → PEFT folder) beside the loaded base.

        Args:
            batch_size: so many rows are answered at a time.
            carries: name under which an adapter that the model already has, and that is in training,
                answers; its trainable state is left as it is.
            max_waiting: so many more may wait; None for any number.

        Raises:
            BadData: an adapter, or the model itself, cannot be served.
        """
        model = loaded.model.get_base_model() if hasattr(loaded.model, "get_base_model") else loaded.model
        if carries is None:
            model.eval()
        self._model = model
        answers = Answers(loaded.tokenizer, loaded.stop_ids)
        try:
            batch = TorchBatch(model, answers, AdapterRows(model), rows=batch_size, cells=_cells(model))
        except ValueError as error:
            raise BadData(str(model.config.name_or_path), f"{error}.") from None
        super().__init__(
            loaded.tokenizer,
            batch,
            lambda name, folder: read_adapter(name, folder, model),
            adapters,
            context=_context(model.config),
            carries=carries,
            max_waiting=max_waiting,
        )


def _cells(model: Any) -> int:
    """Return for how many tokens there is room: a quarter of the memory, for `Slots` may make 2.5 times the room."""
    import torch

    free = free_memory()
    if model.device.type == "cuda":
        kept = torch.cuda.memory_reserved(model.device) - torch.cuda.memory_allocated(model.device)
        free = torch.cuda.mem_get_info(model.device)[0] + kept
    return 2**63 if free is None else free // 4 // token_bytes(model.config, model.dtype.itemsize)


def _context(config: Any) -> int:
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type")
    if rope in ("dynamic", "longrope"):  # past its original context it turns by the longest row of the batch
        return int(config.original_max_position_embeddings or config.max_position_embeddings)
    return int(config.max_position_embeddings)
