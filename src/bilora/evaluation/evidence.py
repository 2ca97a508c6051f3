"""The evidence for a verdict: the adapter's scores paired with reference scores, and faults that invalidate them."""

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
    """Two systems' scores of the same samples, and the faults that invalidate the comparison."""

    new: tuple[float, ...]
    old: tuple[float, ...]
    groups: tuple[str, ...]
    unscored: int
    faults: tuple[str, ...]


@dataclass(frozen=True)
class GateSettings:
    """How strict the gate is.

    Attributes:
        margin: the loss against a promoted adapter that still passes, in score units.
        min_samples: the verdict is inconclusive with fewer scored pairs.
        seed, draws: the bootstrap's.
    """

    margin: float = 0.0
    min_samples: int = 100
    seed: int = 0
    draws: int = 10_000

    def difference(self, pairs: ScorePairs) -> Interval:
        """Return the mean difference of the pairs with its confidence interval."""
        return score_difference(pairs.new, pairs.old, seed=self.seed, draws=self.draws, clusters=pairs.groups)


@dataclass(frozen=True)
class GateInput:
    """One task's adapter, its evaluation, and its incumbents.

    Attributes:
        task: the task's name, which is also the adapter's system name in `rows`.
        metrics: the metrics that must not get worse; the first is the headline, which must beat the base.
        rows: all systems' rows; only the adapter's and the base's on the test split and the guards decide.
        adapter_sha256: the adapter that was measured; the verdict is valid only for these bytes.
        key: the run's comparability key.
        incumbents: the task's promoted adapters, if any.
        expected_metrics: metrics outside the test split, such as the judge's, that this run should measure. They
            do not decide, but without them the run is incomplete.
        guards: the number of samples of each of the task's guards.
        scales: display scales of the metrics, for the reason; the default multiplies by 100.
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
        """Return a metric's display scale."""
        return self.scales.get(metric) or Scale(label=metric)

    @property
    def headline(self) -> str:
        """The metric on which the adapter must beat the base."""
        return self.metrics[0]

    @property
    def test_rows(self) -> list[EvalRow]:
        """The adapter's and the base's rows on the test split."""
        return self.dataset_rows("test")

    def dataset_rows(self, dataset: Dataset) -> list[EvalRow]:
        """Return the adapter's and the base's rows on a dataset."""
        return [row for row in self.rows if row.dataset == dataset and row.completion.system in (self.task, "base")]

    def pairs(self, metric: str, old: Scores, dataset: Dataset = "test") -> ScorePairs:
        """Return the adapter's scores on a dataset, paired with `old`."""
        rows = self.dataset_rows(dataset)
        groups = {row.sample.id: row.sample.group for row in rows}
        return _pair(scores_by_sample(rows, self.task, metric, dataset), old, groups)


def _pair(new: Scores, old: Scores, groups: Mapping[str, str]) -> ScorePairs:
    faults = []
    if unpaired := len(new.keys() ^ old.keys()):
        faults.append(
            f"{unpaired} of {len(new.keys() | old.keys())} samples are missing in one of the two measurements"
        )
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


def insufficient_evidence(inputs: GateInput, base: ScorePairs, settings: GateSettings) -> str:
    """Return why the rows of the test split are insufficient evidence; empty if they suffice."""
    missing = [fault for metric in inputs.expected_metrics if (fault := _missing_scores(inputs.rows, metric))]
    if faults := [*row_faults(inputs.test_rows, inputs), *base.faults, *missing]:
        return f"{'; '.join(faults)}."
    if len(base.new) < max(settings.min_samples, 2):
        return f"{len(base.new)} scored samples; the gate requires {settings.min_samples}."
    if len(set(base.groups)) < 2:
        return "All samples belong to one group, so they are not independent."
    return ""


def row_faults(rows: Sequence[EvalRow], inputs: GateInput) -> list[str]:
    """Return the faults of one dataset's rows: another adapter, duplicates, weak isolation."""
    faults = []
    if other := sum(row.adapter_sha256 != inputs.adapter_sha256 for row in rows):
        faults.append(f"{other} rows measured another adapter; run `dvc repro evaluate`")
    counts = Counter((row.completion.system, row.sample.id) for row in rows)
    if duplicates := sum(count - 1 for count in counts.values()):
        faults.append(f"{duplicates} duplicate rows")
    if any(_weakly_isolated(score) for row in rows for score in row.scores if score.metric == inputs.headline):
        faults.append("answers ran in weak isolation, which is not enough for a promotion")
    return faults


def _missing_scores(rows: Sequence[EvalRow], metric: str) -> str:
    """Return how many scores of an expected metric are missing; empty if few are."""
    values = [score.value for row in rows for score in row.scores if score.metric == metric]
    unscored = sum(value is None for value in values)
    if not values:
        return f"{metric} is configured but scored no answer"
    too_many = unscored > MAX_UNSCORED * len(values)
    return f"{unscored} of {len(values)} scores by {metric} are missing" if too_many else ""


def _weakly_isolated(score: Score) -> bool:
    """Return whether the answer ran without a system call filter."""
    isolation = score.evidence.get("isolation", "")
    return bool(isolation) and not isolation.startswith("strict")
