"""Measuring a model in training exactly as the benchmark measures finished adapters."""

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
    """Return an engine in which a model in memory answers: one with an adapter as `system`, without it as the base."""
    plain, adapter = split_adapter(loaded.model, system)
    freeze_linear_layers(plain)
    engine = TorchEngine(replace(loaded, model=plain), {}, batch_size=batch_size)
    if adapter:
        engine.add_adapter(system, adapter)
    return engine


@dataclass(frozen=True)
class ValidationScorer:
    """Asks a model in memory through the torch engine, and scores its answers by the task's first metric.

    `loaded` is the base that the model was made of; a model with an adapter answers as the adapter.
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
        """Return per sample the answer as the task reads it, and its headline score; `progress` counts answers."""
        system = self.task.name if hasattr(model, "peft_config") else BASE_SYSTEM
        engine = validation_engine(replace(self.loaded, model=model), system, generation.batch_size)
        completions = engine.generate(system, self.task.requests(samples, generation, seed), progress=progress)
        pairs = [
            (sample, self.task.read_answer(completion.text, sample.prompt))
            for sample, completion in zip(samples, completions, strict=True)
        ]
        scores = self.task.metrics[0].score(pairs, self.referees, system=system)
        return [(answer, columns[0]) for (_, answer), columns in zip(pairs, scores, strict=True)]
