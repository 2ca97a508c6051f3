"""What a run will take, from the shapes alone: no weights are loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bilora.bases.base import Base
from bilora.params import TaskParams

if TYPE_CHECKING:
    from transformers import PretrainedConfig

BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}
NF4_BYTES = 0.55
"""4 bits per weight, and the double-quantised block constants."""
TRAINABLE_BYTES = 16
"""fp32 weight, gradient and two Adam moments."""


@dataclass(frozen=True)
class Plan:
    """Counts of parameters and tokens, sizes in bytes."""

    base_parameters: int
    trainable_parameters: int
    weights_bytes: int
    adapter_bytes: int
    activation_bytes: int
    tokens_at_most: int

    @property
    def memory_bytes(self) -> int:
        """Estimated peak memory of training, without the framework's own."""
        return self.weights_bytes + self.adapter_bytes + self.activation_bytes


def plan_task(config: PretrainedConfig, base: Base, task: TaskParams) -> Plan:
    """Estimate one task's training from the base's config (a transformers config).

    Activations are counted as about 18 values of the hidden size per token and layer, and three
    copies of the logits, which is what a step without recomputation holds.
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
    width = NF4_BYTES if base.quantize == "nf4" else BYTES[base.precision]
    max_length, phases = task.training.max_length, task.training.phases
    batch_tokens = max(phase.batch_size for phase in phases) * max_length
    per_token = 18 * config.hidden_size * config.num_hidden_layers + 3 * config.vocab_size
    return Plan(
        base_parameters=total,
        trainable_parameters=trainable,
        weights_bytes=int(total * width),
        adapter_bytes=trainable * TRAINABLE_BYTES,
        activation_bytes=int(batch_tokens * per_token * BYTES[base.precision]),
        tokens_at_most=sum(phase.steps * phase.accumulation * phase.batch_size for phase in phases) * max_length,
    )
