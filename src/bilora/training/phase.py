"""The interface of a training algorithm, and what one has done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from bilora.plugins import PhaseSettings
from bilora.training.context import TrainingContext


class Prepared(Protocol):
    """The rows of a phase, encoded and checked."""

    def lines(self) -> list[str]:
        """Return what a person should see before training starts."""
        ...


@dataclass(frozen=True)
class PhaseResult:
    """What one phase did.

    `metric` is its adapter's mean headline score on the validation sample. `resumed_from` is the step at which a
    checkpoint was taken up, else 0. `metrics` are the numbers of the run record, by name, and `summary` says the
    most important ones to a person.
    """

    metric: float
    tokens: int
    duration_s: float
    summary: str
    resumed_from: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)


_S = TypeVar("_S", bound=PhaseSettings, contravariant=True)
_P = TypeVar("_P", bound=Prepared)


class Phase(Protocol[_S, _P]):
    """One training algorithm. Phases run in the order of params.yaml, each on the adapter that the one before left."""

    @property
    def settings(self) -> type[PhaseSettings]:
        """The type of its entry under `training.phases`."""
        ...

    def prepare(self, context: TrainingContext, settings: _S) -> _P:
        """Encode and check the rows; change no weight.

        Raises:
            PreflightFailed: training would not teach what it should.
        """
        ...

    def run(self, context: TrainingContext, settings: _S, prepared: _P) -> PhaseResult:
        """Train the adapter of `context.model`; leave the model with the phase's adapter alone.

        It starts from the same bytes after a kill: the phase resumes from checkpoints that it has written to
        `context.folder`, or repeats its steps.
        """
        ...
