"""Estimate the memory and tokens of a training from the base's config and the lengths of its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bilora.bases.base import Base
from bilora.bases.precision import NUMBER_BYTES
from bilora.params import TaskParams
from bilora.training.answer_loss import CHUNK_TOKENS
from bilora.training.packed_model import pass_tokens

if TYPE_CHECKING:
    from transformers import PretrainedConfig

NF4_BYTES = 0.55
"""Per weight: 4 bits, and the double-quantised block constants."""
TRAINABLE_BYTES = 18
"""Per trained parameter: weight, gradient and two Adam moments in 32-bit, and a 16-bit copy of the weight."""
FRAMEWORK_BYTES = 650 * 2**20
"""Memory of torch, transformers, TRL and their buffers."""
MAX_ONEDNN_BYTES, ONEDNN_BYTES_PER_STEP = 650 * 2**20, 10 * 2**20
"""Memory of oneDNN's code on a CPU: the maximum, and what the new shapes of a step add (perf/training_parts.py)."""


@dataclass(frozen=True)
class Plan:
    """Counts of parameters and tokens, and sizes in bytes."""

    base_parameters: int
    trainable_parameters: int
    weights_bytes: int
    onednn_bytes: int
    adapter_bytes: int
    activation_bytes: int
    tokens: int

    @property
    def memory_bytes(self) -> int:
        """Estimated peak memory; on a GPU, FRAMEWORK_BYTES of it are in main memory."""
        return FRAMEWORK_BYTES + self.weights_bytes + self.onednn_bytes + self.adapter_bytes + self.activation_bytes


def plan_task(
    config: PretrainedConfig, base: Base, task: TaskParams, saved_bytes: float, lengths: Sequence[int]
) -> Plan:
    """Estimate the sizes of a task's training from the base's config, without loading weights.

    Args:
        saved_bytes: per token of a training pass; see `TrainingSpeed`.
        lengths: in tokens, of some of its rows. The longest make up the largest batch, since batches are grouped by
            length.
    """
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shapes = [
        module.weight.shape
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name.rpartition(".")[2] in task.adapter.target_modules
    ]
    trainable = sum(task.adapter.rank * (rows + columns) for rows, columns in shapes)
    total = sum(parameter.numel() for parameter in model.parameters())
    width = NF4_BYTES if base.quantized else NUMBER_BYTES[base.precision]
    longest = sorted(lengths)[-max(phase.batch_size for phase in task.training.phases) :]
    tokens_per_pass = min(sum(longest), max(pass_tokens(), longest[-1]))
    mean_length = sum(lengths) / len(lengths)
    rows = sum(phase.steps * phase.accumulation * phase.batch_size for phase in task.training.phases)
    return Plan(
        base_parameters=total,
        trainable_parameters=trainable,
        weights_bytes=int(total * width),
        onednn_bytes=0
        if torch.cuda.is_available()
        else min(MAX_ONEDNN_BYTES, task.training.steps * ONEDNN_BYTES_PER_STEP),
        adapter_bytes=trainable * TRAINABLE_BYTES,
        activation_bytes=int(
            tokens_per_pass * saved_bytes + config.vocab_size * CHUNK_TOKENS * NUMBER_BYTES[base.precision]
        ),
        tokens=round(rows * mean_length),
    )
