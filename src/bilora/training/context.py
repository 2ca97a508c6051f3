"""What every phase of a training run is given."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from bilora.errors import Infrastructure
from bilora.protocols import Progress, ProgressBars, no_bar, no_progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from bilora.bases.base import Base
    from bilora.bases.loading import LoadedBase
    from bilora.bases.tokenizer import Tokenizer
    from bilora.params import Generation, TaskParams
    from bilora.plugins import BaseSettings
    from bilora.records import Sample, Score
    from bilora.tasks.task import Task
    from bilora.training.together import Together
    from bilora.training_pairs import DpoPair, KtoPair


class Scorer(Protocol):
    """Asks a model that is in memory, exactly as the benchmark asks it, and scores its answers."""

    def __call__(
        self,
        model: PreTrainedModel,
        samples: Sequence[Sample],
        generation: Generation,
        seed: int,
        *,
        progress: Progress = no_progress,
    ) -> list[tuple[str, Score]]:
        """Return per sample the answer as the task reads it, and its headline score."""
        ...


@dataclass(frozen=True)
class Step:
    """One optimiser step of a phase, or one evaluation on the validation sample; None where nothing was measured.

    `prefix` begins the names of its numbers: empty for the first phase, `KIND_` for a further one.
    """

    step: int
    loss: float | None = None
    tokens_per_s: float | None = None
    validation_loss: float | None = None
    metric: float | None = None
    prefix: str = ""

    def row(self) -> dict[str, float | int]:
        """Return the numbers that are known, by name."""
        numbers = {
            "loss": self.loss,
            "tokens_per_s": self.tokens_per_s,
            "validation_loss": self.validation_loss,
            "metric": self.metric,
        }
        known = {f"{self.prefix}{name}": value for name, value in numbers.items() if value is not None}
        return {"step": self.step, **known}


OnStep = Callable[[Step], None]


def no_step(_: Step) -> None:
    """Report no step."""


@dataclass(frozen=True)
class TrainingContext:
    """One task's training: what decides its outcome, and the callback for its progress.

    `base_revision` pins the base, `base_settings` is its entry in params.yaml.
    `loaded` holds the base until a run attaches the adapter, and then the model with it. `pairs` are the rated pairs
    that `split.preference` selects. Checkpoints are written below `folder`, of each phase below a folder of its own.
    `sinks` are names of trackers that transformers' trainer reports to. `bars` show validation. `together` takes the
    training steps of several trainings; None if this one is alone.
    """

    task: Task
    params: TaskParams
    base: Base
    base_settings: BaseSettings
    base_revision: str
    loaded: LoadedBase
    scorer: Scorer
    seed: int
    folder: Path
    train_samples: Sequence[Sample]
    validation_samples: Sequence[Sample]
    pairs: Sequence[KtoPair | DpoPair] = ()
    sinks: Sequence[str] = ()
    on_step: OnStep = no_step
    bars: ProgressBars = no_bar
    together: Together | None = None

    @property
    def clock(self) -> Callable[[], float]:
        """What returns the seconds that count for this training."""
        return self.together.clock if self.together else time.monotonic

    @property
    def model(self) -> PreTrainedModel:
        """The base, or the model with the adapter in training."""
        return self.loaded.model

    @property
    def tokenizer(self) -> Tokenizer:
        """The base's tokenizer."""
        return self.loaded.tokenizer

    @property
    def stops(self) -> list[int]:
        """The tokens that end an answer."""
        return self.loaded.stop_ids

    @property
    def max_length(self) -> int:
        """How many tokens a training row may have."""
        return self.params.training.max_length

    def with_model(self, model: PreTrainedModel) -> TrainingContext:
        """Return the context with the model that has an adapter."""
        return replace(self, loaded=replace(self.loaded, model=model))

    def validation_sample(self) -> list[Sample]:
        """Return the part of the validation split that checkpoints are measured on."""
        return draw_samples(self.validation_samples, self.params.training.evaluate_samples, self.seed)

    def answer(self, samples: Sequence[Sample], generation: Generation, seed: int) -> list[tuple[str, Score]]:
        """Return per sample the answer of the model as it is now, as the task reads it, and its headline score."""
        with self.bars(f"validate {self.task.name}", len(samples)) as tick:
            return self.scorer(self.model, samples, generation, seed, progress=tick)

    def validation_metric(self) -> float:
        """Return the mean headline score of the model as it is now on the validation sample.

        Raises:
            Infrastructure: every score is missing, so that no checkpoint could be chosen.
        """
        scores = [score for _, score in self.answer(self.validation_sample(), self.params.generation, self.seed)]
        values = [score.value for score in scores if score.value is not None]
        if not values:
            raise Infrastructure(f"No validation answer of {self.task.name} could be scored: {scores[0].reason}.")
        return sum(values) / len(values)


def draw_samples(samples: Sequence[Sample], count: int, seed: int) -> list[Sample]:
    """Return `count` samples, or all if there are fewer, drawn by the seed whatever the order of `samples`."""
    ordered = sorted(samples, key=lambda sample: sample.id)
    return random.Random(seed).sample(ordered, min(count, len(ordered)))
