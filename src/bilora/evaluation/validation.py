"""Evaluate a model during training exactly as the benchmark evaluates finished adapters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bilora.bases.loading import LoadedBase
from bilora.inference.engine import BASE_SYSTEM
from bilora.inference.torch.engine import TorchEngine
from bilora.inference.torch.lora import split_adapter
from bilora.inference.torch.products import freeze_linear_layers
from bilora.params import Generation
from bilora.protocols import Progress, Referees, no_progress
from bilora.records import Sample, Score
from bilora.tasks.task import Task

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def validation_engine(loaded: LoadedBase, system: str, batch_size: int) -> TorchEngine:
    """Return an engine for a model in memory: it generates as `system` with the model's adapter, else as the base."""
    base, adapter = split_adapter(loaded.model, system)
    freeze_linear_layers(base)
    engine = TorchEngine(replace(loaded, model=base), {}, batch_size=batch_size)
    if adapter:
        engine.add_adapter(system, adapter)
    return engine


@dataclass(frozen=True)
class ValidationScorer:
    """Scores a model in memory by the task's first metric, with the torch engine.

    `loaded` is the model's base; a model with an adapter is evaluated as the adapter.
    """

    task: Task
    loaded: LoadedBase
    referees: Referees

    def __call__(
        self,
        model: PreTrainedModel,
        samples: Sequence[Sample],
        generation: Generation,
        seed: int,
        *,
        progress: Progress = no_progress,
    ) -> list[tuple[str, Score]]:
        """Return the extracted answer and the headline score of each sample; `progress` counts answers."""
        system = self.task.name if hasattr(model, "peft_config") else BASE_SYSTEM
        engine = validation_engine(replace(self.loaded, model=model), system, generation.batch_size)
        completions = engine.generate(system, self.task.requests(samples, generation, seed), progress=progress)
        pairs = [
            (sample, self.task.read_answer(completion.text, sample.prompt))
            for sample, completion in zip(samples, completions, strict=True)
        ]
        scores = self.task.metrics[0].score(pairs, self.referees, system=system)
        return [(answer, columns[0]) for (_, answer), columns in zip(pairs, scores, strict=True)]
