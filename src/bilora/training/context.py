"""The context of a training run: the inputs of every phase."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from bilora.errors import Infrastructure
from bilora.protocols import Progress, ProgressBars, no_bar, no_progress
from bilora.training import ranks

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from bilora.bases.base import Base
    from bilora.bases.loading import LoadedBase
    from bilora.bases.tokenizer import Tokenizer
    from bilora.params import Generation, TaskParams
    from bilora.plugins import BaseSettings
    from bilora.records import Sample, Score
    from bilora.tasks.task import Task
    from bilora.training.joint_training import JointTraining
    from bilora.training_pairs import DpoPair, KtoPair


class Scorer(Protocol):
    """Generates completions with a model in memory, as the benchmark does, and scores them."""

    def __call__(
        self,
        model: PreTrainedModel,
        samples: Sequence[Sample],
        generation: Generation,
        seed: int,
        *,
        progress: Progress = no_progress,
    ) -> list[tuple[str, Score]]:
        """Return the extracted answer and the headline score of each sample."""
        ...


@dataclass(frozen=True)
class Step:
    """The numbers of an optimizer step, or of an evaluation on the validation subset; None if not measured.

    `prefix` of their names is empty for the first phase and `KIND_` for later ones.
    """

    step: int
    loss: float | None = None
    tokens_per_s: float | None = None
    validation_loss: float | None = None
    metric: float | None = None
    prefix: str = ""

    def row(self) -> dict[str, float | int]:
        """Return the measured numbers by name."""
        numbers = {
            "loss": self.loss,
            "tokens_per_s": self.tokens_per_s,
            "validation_loss": self.validation_loss,
            "metric": self.metric,
        }
        measured = {f"{self.prefix}{name}": value for name, value in numbers.items() if value is not None}
        return {"step": self.step, **measured}


OnStep = Callable[[Step], None]


def no_step(_: Step) -> None:
    """Report no step."""


@dataclass(frozen=True)
class TrainingContext:
    """The inputs of one task's training, and the callbacks for its progress.

    Attributes:
        base_settings: the base's entry in params.yaml.
        base_revision: the base's identity.
        loaded: the base, and from the attachment of the adapter on the model with it.
        folder: checkpoints are written to subfolders of it, one per phase.
        pairs: the preference pairs that `split.preference` selects.
        sinks: names of the trackers that transformers' trainer reports to.
        bars: progress bars of validation.
        joint: runs this training together with others; None for a training by itself.
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
    joint: JointTraining | None = None

    @property
    def clock(self) -> Callable[[], float]:
        """Returns the seconds of this training, without those of other trainings that run together with it."""
        return self.joint.clock if self.joint else time.monotonic

    @property
    def model(self) -> PreTrainedModel:
        """The base, or the base with the adapter in training."""
        return self.loaded.model

    @property
    def tokenizer(self) -> Tokenizer:
        """The base's tokenizer."""
        return self.loaded.tokenizer

    @property
    def stop_ids(self) -> list[int]:
        """The token ids that end a completion."""
        return self.loaded.stop_ids

    @property
    def max_length(self) -> int:
        """The maximum length of a training row in tokens."""
        return self.params.training.max_length

    def with_model(self, model: PreTrainedModel) -> TrainingContext:
        """Return the context with another model, such as the one with an adapter."""
        return replace(self, loaded=replace(self.loaded, model=model))

    def validation_subset(self) -> list[Sample]:
        """Return the samples of the validation split that checkpoints are evaluated on."""
        return draw_samples(self.validation_samples, self.params.training.evaluate_samples, self.seed)

    def generate_and_score(
        self, samples: Sequence[Sample], generation: Generation, seed: int
    ) -> list[tuple[str, Score]]:
        """Return the current model's extracted answer and headline score for each sample."""
        samples = ranks.shard(samples)
        with self.bars(f"validate {self.task.name}", len(samples)) as tick:
            return ranks.all_gather(self.scorer(self.model, samples, generation, seed, progress=tick))

    def validation_metric(self) -> float:
        """Return the current model's mean headline score on the validation subset.

        Raises:
            Infrastructure: all completions are unscored, so no checkpoint can be selected.
        """
        answers = self.generate_and_score(self.validation_subset(), self.params.generation, self.seed)
        scores = [score for _, score in answers]
        values = [score.value for score in scores if score.value is not None]
        if not values:
            raise Infrastructure(f"No validation answer of {self.task.name} could be scored: {scores[0].reason}.")
        return sum(values) / len(values)


def draw_samples(samples: Sequence[Sample], count: int, seed: int) -> list[Sample]:
    """Return up to `count` random samples, which depend on the seed but not on the order of `samples`."""
    ordered = sorted(samples, key=lambda sample: sample.id)
    return random.Random(seed).sample(ordered, min(count, len(ordered)))
