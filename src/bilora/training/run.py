"""Train a task's adapter: run or resume its phases in order."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bilora.plugins import PHASE_KINDS, PhaseSettings, load_kind
from bilora.storage import read_json, write_json
from bilora.training import ranks
from bilora.training.adapter import (
    attach_adapter,
    count_trainable,
    load_adapter_weights,
    save_adapter,
    save_adapter_weights,
)
from bilora.training.context import TrainingContext
from bilora.training.phase import Phase, PhaseResult, PreparedRows


@dataclass(frozen=True)
class FinishedPhase:
    """A phase's kind, the prefix of its metrics' names, and its result."""

    kind: str
    prefix: str
    result: PhaseResult


@dataclass(frozen=True)
class TrainingResult:
    """The result of a run; `base_metric` is the base's mean headline score on the validation subset."""

    base_metric: float
    trainable_parameters: int
    phases: tuple[FinishedPhase, ...]

    @property
    def metric(self) -> float:
        """The finished adapter's mean headline score on the validation subset."""
        return self.phases[-1].result.metric

    @property
    def tokens(self) -> int:
        """The number of tokens that all phases read."""
        return sum(phase.result.tokens for phase in self.phases)

    @property
    def duration_s(self) -> float:
        """The duration of all phases."""
        return sum(phase.result.duration_s for phase in self.phases)

    @property
    def resumed_from(self) -> int:
        """The number of optimizer steps from checkpoints of killed runs."""
        return sum(phase.result.resumed_from for phase in self.phases)

    def metrics(self) -> dict[str, float]:
        """Return the metrics of all phases by name, with a prefix for all but the first phase.

        A number distinguishes phases of the same kind: `kto_metric`, `kto_2_metric`.
        """
        numbers = {"base_metric": self.base_metric, "trainable_parameters": float(self.trainable_parameters)}
        for phase in self.phases:
            numbers |= {f"{phase.prefix}{name}": float(value) for name, value in phase.result.metrics.items()}
        return numbers


@dataclass(frozen=True)
class _PreparedPhase:
    """A phase with its rows, its folder and the prefix of its metrics."""

    phase: Phase[PhaseSettings, PreparedRows]
    settings: PhaseSettings
    prefix: str
    folder: Path
    rows: PreparedRows


def train(
    context: TrainingContext, *, identity: str, destination: Path, on_prepared: Callable[[list[str]], None]
) -> TrainingResult:
    """Train an adapter and save it to `destination`.

    A killed run with the same `identity` continues: finished phases are not repeated, and the killed phase resumes or
    starts again, depending on its algorithm. Checkpoints of other identities are removed.

    Args:
        identity: hash of all inputs; see `record.run_identity`.
        on_prepared: called with the summary lines of each phase's rows before training.

    Raises:
        PreflightFailed: a check before the first step failed.
    """
    # 1) Encode and check the rows of all phases.
    folder = context.folder / identity[:16]
    prepared = list(_prepare(context, folder))
    for phase in prepared:
        on_prepared(phase.rows.summary_lines())
    # 2) Evaluate the base, then attach the adapter.
    base_metric = context.validation_metric()
    context = context.with_model(attach_adapter(context.model, context.params.adapter, seed=context.seed))
    # 3) Run the phases, or load those that a killed run finished.
    if ranks.is_first():
        _remove_other_runs(context.folder, folder)
    finished = tuple(_run_or_load(context, phase) for phase in prepared)
    # 4) Save the adapter; the checkpoints are no longer needed.
    if ranks.is_first():
        save_adapter(context.model, destination, context.base, context.base_revision)
        shutil.rmtree(context.folder)
    return TrainingResult(base_metric, count_trainable(context.model), finished)


def _prepare(context: TrainingContext, folder: Path) -> Iterator[_PreparedPhase]:
    """Yield every phase with its encoded and checked rows."""
    entries = context.params.training.phases
    for number, (settings, prefix) in enumerate(zip(entries, _prefixes(entries), strict=True)):
        phase: Phase[PhaseSettings, PreparedRows] = load_kind(PHASE_KINDS, settings.kind, "PHASE")
        rows = phase.prepare(context, settings)
        yield _PreparedPhase(phase, settings, prefix, folder / f"{number}-{settings.kind}", rows)


def _prefixes(entries: Sequence[PhaseSettings]) -> list[str]:
    """Return the prefix of each phase's metrics."""
    kinds = [entry.kind for entry in entries[1:]]
    counts = [kinds[:index].count(kind) + 1 for index, kind in enumerate(kinds)]
    return [
        "",
        *(f"{kind}_" if count == 1 else f"{kind}_{count}_" for kind, count in zip(kinds, counts, strict=True)),
    ]


def _run_or_load(context: TrainingContext, prepared: _PreparedPhase) -> FinishedPhase:
    """Run a phase, or load its adapter and result if a killed run finished it."""
    adapter_file, result_file = prepared.folder / "adapter.safetensors", prepared.folder / "result.json"
    if ranks.broadcast(adapter_file.exists()):  # written after the result
        load_adapter_weights(context.model, adapter_file)
        result = PhaseResult(**read_json(result_file))
    else:
        result = prepared.phase.run(_phase_context(context, prepared), prepared.settings, prepared.rows)
        ranks.broadcast_tensors([parameter for parameter in context.model.parameters() if parameter.requires_grad])
        if ranks.is_first():
            write_json(result_file, asdict(result))
            save_adapter_weights(context.model, adapter_file)
    return FinishedPhase(prepared.settings.kind, prepared.prefix, result)


def _phase_context(context: TrainingContext, prepared: _PreparedPhase) -> TrainingContext:
    """Return the context with the phase's folder, and with its prefix in the reported steps."""
    return replace(
        context,
        folder=prepared.folder,
        on_step=lambda step: context.on_step(replace(step, prefix=prepared.prefix)),
    )


def _remove_other_runs(checkpoints: Path, folder: Path) -> None:
    for other in checkpoints.glob("*"):
        if other != folder:
            shutil.rmtree(other)
