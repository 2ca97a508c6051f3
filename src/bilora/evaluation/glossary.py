"""The report's glossary; it has only the terms that the report uses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bilora.evaluation.summary import ADAPTER_COLUMN
from bilora.evaluation.table import Table
from bilora.results import Results


@dataclass(frozen=True)
class Term:
    """A term and its meaning."""

    name: str
    meaning: str


def glossary(results: Results, table: Table) -> list[Term]:
    """Return the terms of a report and its table, the metrics last."""
    return [*_general_terms(table), *_metric_terms(results)]


def _general_terms(table: Table) -> Iterator[Term]:
    datasets = {section.dataset for section in table.sections}
    rows = [row for section in table.sections for row in section.rows]
    yield Term("base", "the frozen model without an adapter, evaluated on the same questions with the same settings")
    yield Term(ADAPTER_COLUMN, "the base with the LoRA adapter trained for the task")
    yield Term(
        "gate",
        "decides whether an adapter may be published: it must be significantly better than the base, and not worse "
        "by more than a margin than the adapters published before",
    )
    if "test" in datasets:
        yield Term(
            "held-out", "questions whose origins (packages, kinds of exercise) do not occur in the training data"
        )
    if "curated" in datasets:
        yield Term("curated", "a few questions written by hand, for reading; too few to decide anything")
    if any(name.startswith("guard:") for name in datasets):
        yield Term("guard", "a public set of questions on which an adapter must not be worse than its base")
    if any(row.trivial_scores for row in rows):
        yield Term("trivial answer", "an answer without a model, such as the same sentence for every function")
    if any(row.tier for row in rows):
        yield Term("indented rows", "the same metric on one difficulty class")
    yield Term("95 % interval", "in 95 of 100 such measurements it contains the true value")
    yield Term("n", "the number of scored answers; for a difference, of questions that both systems answered")
    yield Term("points", "a difference of two numbers of the same unit: from 40 % to 45 % is 5 points")
    yield Term("unscored", "excluded from the mean, because the sandbox or the judge failed on the answer")


def _metric_terms(results: Results) -> Iterator[Term]:
    scales = [
        task.scales[metric] for task in results.tasks.values() for metric in task.metrics if metric not in task.not_run
    ]
    for label, meaning in {scale.label: scale.meaning for scale in scales}.items():
        if meaning:
            yield Term(label, meaning)
