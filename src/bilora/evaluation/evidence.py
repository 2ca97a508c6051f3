"""What a verdict rests on: the adapter's scores paired with older ones, and what speaks against trusting them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bilora.evaluation.baseline import scores_by_sample
from bilora.evaluation.statistics import score_difference
from bilora.records import Dataset, EvalRow, Interval, Scale, Score
from bilora.results import Incumbents, Scores

MAX_UNSCORED = 0.02


@dataclass(frozen=True)
class ScorePairs:
    """Scores of the same samples by two systems, and what speaks against trusting them."""

    new: tuple[float, ...]
    old: tuple[float, ...]
    groups: tuple[str, ...]
    unscored: int
    faults: tuple[str, ...]


@dataclass(frozen=True)
class GateSettings:
    """How strict the gate is.

    Attributes:
        margin: how much worse than a promoted adapter is still called equal, in score units.
        min_samples: fewer scored pairs decide nothing.
        seed, draws: of the bootstrap.
    """

    margin: float = 0.0
    min_samples: int = 100
    seed: int = 0
    draws: int = 10_000

    def difference(self, pairs: ScorePairs) -> Interval:
        """Return the interval of the mean difference of pairs."""
        return score_difference(pairs.new, pairs.old, seed=self.seed, draws=self.draws, clusters=pairs.groups)


@dataclass(frozen=True)
class GateInput:
    """One task's adapter, what it scored, and what it is measured against.

    Attributes:
        task: the task's name, which is also the adapter's system name in `rows`.
        metrics: all that may not get worse; the first is the headline, which must beat the base.
        rows: all systems' rows; only those of the adapter and the base to "test" and to the guards decide.
        adapter_sha256: of the bytes that gave these rows; the verdict holds for no others.
        key: comparability key of this run.
        incumbents: the task's promoted adapters, if there are any.
        expected_metrics: metrics outside the test split, such as the judge's, that this run was to measure. They
            do not decide, but a run that lost them is not whole.
        guards: how many questions each of the task's guards has.
        scales: how each metric's differences are written in the reason; one that lacks is written times 100.
    """

    task: str
    metrics: Sequence[str]
    rows: Sequence[EvalRow]
    adapter_sha256: str
    key: str
    incumbents: Incumbents | None = None
    expected_metrics: Sequence[str] = ()
    guards: Mapping[str, int] = field(default_factory=dict)
    scales: Mapping[str, Scale] = field(default_factory=dict)

    def scale(self, metric: str) -> Scale:
        """Return how a metric's values are written for people."""
        return self.scales.get(metric) or Scale(label=metric)

    @property
    def headline(self) -> str:
        """The metric that must beat the base's."""
        return self.metrics[0]

    @property
    def test_rows(self) -> list[EvalRow]:
        """The rows of the test split that decide."""
        return self.dataset_rows("test")

    def dataset_rows(self, dataset: Dataset) -> list[EvalRow]:
        """Return the adapter's and the base's rows of a dataset."""
        return [row for row in self.rows if row.dataset == dataset and row.completion.system in (self.task, "base")]

    def pairs(self, metric: str, old: Scores, dataset: Dataset = "test") -> ScorePairs:
        """Pair the adapter's scores on a dataset with other ones."""
        rows = self.dataset_rows(dataset)
        groups = {row.sample.id: row.sample.group for row in rows}
        return _pair(scores_by_sample(rows, self.task, metric, dataset), old, groups)


def _pair(new: Scores, old: Scores, groups: Mapping[str, str]) -> ScorePairs:
    faults = []
    if unpaired := len(new.keys() ^ old.keys()):
        faults.append(f"{unpaired} of {len(new.keys() | old.keys())} samples lack one side of the pair")
    both = sorted(new.keys() & old.keys())
    scored = [(name, a, b) for name in both if (a := new[name]) is not None and (b := old[name]) is not None]
    unscored = len(both) - len(scored)
    if unscored > MAX_UNSCORED * len(both):
        faults.append(f"{unscored} of {len(both)} samples are unscored, above {MAX_UNSCORED:.0%}")
    return ScorePairs(
        new=tuple(a for _, a, _ in scored),
        old=tuple(b for _, _, b in scored),
        groups=tuple(groups[name] for name, _, _ in scored),
        unscored=unscored,
        faults=tuple(faults),
    )


def insufficient_evidence(given: GateInput, base: ScorePairs, settings: GateSettings) -> str:
    """Say why the rows of the test split are no evidence; empty if they are."""
    lost = [fault for metric in given.expected_metrics if (fault := _lost(given.rows, metric))]
    if faults := [*row_faults(given.test_rows, given), *base.faults, *lost]:
        return f"{'; '.join(faults)}."
    if len(base.new) < max(settings.min_samples, 2):
        return f"{len(base.new)} scored samples; the gate wants {settings.min_samples}."
    if len(set(base.groups)) < 2:
        return "All samples share one group, so they are no independent evidence."
    return ""


def row_faults(rows: Sequence[EvalRow], given: GateInput) -> list[str]:
    """Return what speaks against rows of one dataset: other bytes, repetition, weak isolation."""
    faults = []
    if strangers := sum(row.adapter_sha256 != given.adapter_sha256 for row in rows):
        faults.append(f"{strangers} rows were measured with other adapter bytes; run `dvc repro evaluate`")
    answered = Counter((row.completion.system, row.sample.id) for row in rows)
    if repeated := sum(count - 1 for count in answered.values()):
        faults.append(f"{repeated} duplicate rows")
    if any(_weak(score) for row in rows for score in row.scores if score.metric == given.headline):
        faults.append("answers ran under weak isolation, and nothing is promoted from that")
    return faults


def _lost(rows: Sequence[EvalRow], metric: str) -> str:
    """Say how much of a expected_metrics metric is missing, if it is too much."""
    values = [score.value for row in rows for score in row.scores if score.metric == metric]
    unscored = sum(value is None for value in values)
    if not values:
        return f"{metric} was configured and scored nothing"
    return (
        f"{unscored} of {len(values)} grades by {metric} are missing" if unscored > MAX_UNSCORED * len(values) else ""
    )


def _weak(score: Score) -> bool:
    """Whether the answer ran where the kernel did not filter its system calls."""
    isolation = score.evidence.get("isolation", "")
    return bool(isolation) and not isolation.startswith("strict")
