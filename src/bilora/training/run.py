"""Training one task's adapter: its phases in their order, each resumed or run, checkpointed and reported."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bilora.plugins import PHASE_KINDS, PhaseSettings, load_kind
from bilora.storage import read_json, write_json
from bilora.training.adapter import attach, count_trainable, load_weights, save, save_weights
from bilora.training.context import TrainingContext
from bilora.training.phase import Phase, PhaseResult, Prepared


@dataclass(frozen=True)
class FinishedPhase:
    """A phase's kind, what it did, and the prefix of its numbers' names."""

    kind: str
    prefix: str
    result: PhaseResult


@dataclass(frozen=True)
class TrainingResult:
    """What a run did: `base_metric` is the base's mean headline score on the validation sample, before training."""

    base_metric: float
    trainable_parameters: int
    phases: tuple[FinishedPhase, ...]

    @property
    def metric(self) -> float:
        """The finished adapter's mean headline score on the validation sample."""
        return self.phases[-1].result.metric

    @property
    def tokens(self) -> int:
        """How many tokens all phases have read."""
        return sum(phase.result.tokens for phase in self.phases)

    @property
    def duration_s(self) -> float:
        """How long all phases took."""
        return sum(phase.result.duration_s for phase in self.phases)

    @property
    def resumed_from(self) -> int:
        """How many optimiser steps were taken from checkpoints of killed runs."""
        return sum(phase.result.resumed_from for phase in self.phases)

    def metrics(self) -> dict[str, float]:
        """Return every number under a name of its own: those of the first phase as they are, a further one's prefixed.

        Two further phases of one kind are distinguished by a number: `kto_metric`, `kto_2_metric`.
        """
        numbers = {"base_metric": self.base_metric, "trainable_parameters": float(self.trainable_parameters)}
        for phase in self.phases:
            numbers |= {f"{phase.prefix}{name}": float(value) for name, value in phase.result.metrics.items()}
        return numbers


@dataclass(frozen=True)
class _PreparedPhase:
    """A phase with its rows, and the context in which it will run but for the model."""

    phase: Phase[PhaseSettings, Prepared]
    settings: PhaseSettings
    prefix: str
    folder: Path
    rows: Prepared


def train(
    context: TrainingContext, *, identity: str, destination: Path, on_prepared: Callable[[list[str]], None]
) -> TrainingResult:
    """Train an adapter and save it to `destination`.

    A killed run of the same `identity` continues where it stopped: finished phases are not repeated, and the phase
    that was killed resumes or repeats as its algorithm does. Checkpoints of any other identity are removed.

    Args:
        identity: hash of everything that decides the outcome; see `record.identify`.
        on_prepared: called with what a person should see of each phase's rows, before any step.

    Raises:
        PreflightFailed: before the first step, when training would not teach what it should.
    """
    folder = context.folder / identity[:16]
    prepared = list(_prepare(context, folder))
    for phase in prepared:
        on_prepared(phase.rows.lines())
    base_metric = context.validation_metric()
    context = context.with_model(attach(context.model, context.params.adapter, seed=context.seed))
    _remove_other_runs(context.folder, folder)
    finished = tuple(_finish(context, phase) for phase in prepared)
    save(context.model, destination, context.base, context.base_revision)
    shutil.rmtree(context.folder)
    return TrainingResult(base_metric, count_trainable(context.model), finished)


def _prepare(context: TrainingContext, folder: Path) -> Iterator[_PreparedPhase]:
    """Encode and check the rows of every phase, before any weight changes."""
    entries = context.params.training.phases
    for number, (settings, prefix) in enumerate(zip(entries, _prefixes(entries), strict=True)):
        phase: Phase[PhaseSettings, Prepared] = load_kind(PHASE_KINDS, settings.kind, "PHASE")
        rows = phase.prepare(context, settings)
        yield _PreparedPhase(phase, settings, prefix, folder / f"{number}-{settings.kind}", rows)


def _prefixes(entries: Sequence[PhaseSettings]) -> list[str]:
    """Return how the names of each phase's numbers begin."""
    further = [entry.kind for entry in entries[1:]]
    counts = [further[:place].count(kind) + 1 for place, kind in enumerate(further)]
    return [
        "",
        *(f"{kind}_" if count == 1 else f"{kind}_{count}_" for kind, count in zip(further, counts, strict=True)),
    ]


def _finish(context: TrainingContext, prepared: _PreparedPhase) -> FinishedPhase:
    """Run a phase, or take its adapter and result from the killed run that finished it."""
    adapter, summary = prepared.folder / "adapter.safetensors", prepared.folder / "result.json"
    if adapter.exists():  # it is written after the result
        load_weights(context.model, adapter)
        result = PhaseResult(**read_json(summary))
    else:
        result = prepared.phase.run(_of_phase(context, prepared), prepared.settings, prepared.rows)
        write_json(summary, asdict(result))
        save_weights(context.model, adapter)
    return FinishedPhase(prepared.settings.kind, prepared.prefix, result)


def _of_phase(context: TrainingContext, prepared: _PreparedPhase) -> TrainingContext:
    """Return the context with the phase's own folder, and its prefix on the steps that it reports."""
    return replace(
        context,
        folder=prepared.folder,
        on_step=lambda step: context.on_step(replace(step, prefix=prepared.prefix)),
    )


def _remove_other_runs(checkpoints: Path, folder: Path) -> None:
    for other in checkpoints.glob("*"):
        if other != folder:
            shutil.rmtree(other)
