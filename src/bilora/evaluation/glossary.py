"""The words of the report, each with what it means; only those that a report uses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bilora.evaluation.summary import ADAPTER_COLUMN
from bilora.evaluation.table import Table
from bilora.results import Results


@dataclass(frozen=True)
class Term:
    """A word and its meaning."""

    word: str
    meaning: str


def glossary(results: Results, drawn: Table) -> list[Term]:
    """Return the words of a report and of its table, the metrics last."""
    return [*_general(results, drawn), *_metrics(results)]


def _general(results: Results, drawn: Table) -> Iterator[Term]:
    datasets = {section.dataset for section in drawn.sections}
    rows = [row for section in drawn.sections for row in section.rows]
    yield Term("base", "the frozen model as it is, asked the same questions with the same settings")
    yield Term(ADAPTER_COLUMN, "the base with the small adapter of the task, which this project trained")
    yield Term(
        "gate",
        "decides whether an adapter may be published: it must beat the base beyond doubt, and lose no more than a "
        "margin to the adapters that were published before",
    )
    if "test" in datasets:
        yield Term("held-out", "questions of origins (packages, kinds of exercise) of which training saw none")
    if "curated" in datasets:
        yield Term("curated", "a few questions written by hand to be read; too few to decide anything")
    if any(name.startswith("guard:") for name in datasets):
        yield Term("guard", "a public set of questions on which an adapter must not be worse than its base")
    if any(row.trivial_scores for row in rows):
        yield Term("floor", "what a trivial answer scores, such as the same sentence for every function")
    if any(row.tier for row in rows):
        yield Term("indented rows", "the same number on one class of difficulty alone")
    yield Term("95 % interval", "holds the value for all such questions in 95 of 100 measurements like this one")
    yield Term("n", "the number of scored answers; of pairs, of questions that both systems answered")
    yield Term("points", "a difference of two numbers of the same unit: from 40 % to 45 % are 5 points")
    yield Term("unscored", "not in the mean, because the sandbox or the judge failed and the answer has no score")


def _metrics(results: Results) -> Iterator[Term]:
    scales = [
        task.scales[metric] for task in results.tasks.values() for metric in task.metrics if metric not in task.not_run
    ]
    for label, meaning in {scale.label: scale.meaning for scale in scales}.items():
        if meaning:
            yield Term(label, meaning)
