"""The interface of a training phase and its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from bilora.plugins import PhaseSettings
from bilora.training.context import TrainingContext


class PreparedRows(Protocol):
    """The rows of a phase, encoded and checked."""

    def summary_lines(self) -> list[str]:
        """Return the lines to print before training."""
        ...


@dataclass(frozen=True)
class PhaseResult:
    """The result of a phase.

    Attributes:
        metric: the adapter's mean headline score on the validation subset.
        tokens: the number of tokens read.
        summary: the most important numbers, as text to print.
        resumed_from: the step of the checkpoint from which the phase resumed, else 0.
        metrics: the numbers of the run record by name.
    """

    metric: float
    tokens: int
    duration_s: float
    summary: str
    resumed_from: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)


_S = TypeVar("_S", bound=PhaseSettings, contravariant=True)
_P = TypeVar("_P", bound=PreparedRows)


class Phase(Protocol[_S, _P]):
    """A training algorithm. Phases run in the order of params.yaml, each on the adapter of the previous one."""

    @property
    def settings(self) -> type[PhaseSettings]:
        """The type of its entry under `training.phases`."""
        ...

    def prepare(self, context: TrainingContext, settings: _S) -> _P:
        """Encode and check the rows without changing weights.

        Raises:
            PreflightFailed: a check failed.
        """
        ...

    def run(self, context: TrainingContext, settings: _S, prepared: _P) -> PhaseResult:
        """Train the adapter of `context.model`; at the end it is the model's only adapter.

        After a kill, `run` is called again with the same adapter and `context.folder`: it resumes from its checkpoints
        there, or repeats its steps.
        """
        ...
