"""What a training will take in time and memory, from shapes, a measured second and the lengths of its rows."""

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
"""4 bits per weight, and the double-quantised block constants."""
TRAINABLE_BYTES = 18
"""32-bit weight, gradient and two Adam moments, and the 16-bit copy that is multiplied."""
FRAMEWORK_BYTES = 650 * 2**20
"""What the process holds beside: torch, transformers, TRL and their buffers."""
SHAPES_BYTES, STEP_SHAPES_BYTES = 650 * 2**20, 10 * 2**20
"""What oneDNN keeps on a CPU of the products of all shapes that occur, and of those that a step may bring; see
perf/training_parts.py."""


@dataclass(frozen=True)
class Plan:
    """Counts of parameters and tokens, sizes in bytes."""

    base_parameters: int
    trainable_parameters: int
    weights_bytes: int
    shapes_bytes: int
    adapter_bytes: int
    pass_bytes: int
    tokens: int

    @property
    def memory_bytes(self) -> int:
        """Estimated peak memory of the process on a CPU; on a GPU the framework's share stays in main memory."""
        return FRAMEWORK_BYTES + self.weights_bytes + self.shapes_bytes + self.adapter_bytes + self.pass_bytes


def plan_task(
    config: PretrainedConfig, base: Base, task: TaskParams, kept_bytes: float, lengths: Sequence[int]
) -> Plan:
    """Estimate one task's training from the base's config (a transformers config); no weights are loaded.

    Args:
        kept_bytes: what a training pass keeps of each token; see `speed.Speed`.
        lengths: of some of its rows, in tokens. Rows are trained in batches of similar length, drawn from as many.
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
    in_a_pass = min(sum(longest), max(pass_tokens(), longest[-1]))
    mean_length = sum(lengths) / len(lengths)
    rows = sum(phase.steps * phase.accumulation * phase.batch_size for phase in task.training.phases)
    return Plan(
        base_parameters=total,
        trainable_parameters=trainable,
        weights_bytes=int(total * width),
        shapes_bytes=0 if torch.cuda.is_available() else min(SHAPES_BYTES, task.training.steps * STEP_SHAPES_BYTES),
        adapter_bytes=trainable * TRAINABLE_BYTES,
        pass_bytes=int(in_a_pass * kept_bytes + config.vocab_size * CHUNK_TOKENS * NUMBER_BYTES[base.precision]),
        tokens=round(rows * mean_length),
    )
