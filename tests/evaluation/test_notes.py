"""Notes count an endpoint's missing answers and name the commonest reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bilora.evaluation.notes import answer_notes, rating_note
from bilora.records import EvalRow


def changed_row(row: Callable[..., EvalRow], sample: Any, system: str, **changes: Any) -> EvalRow:
    template = row(sample, system, {"bleu": 0.5})
    return template.model_copy(update={"completion": template.completion.model_copy(update=changes)})


def test_missing_answers_and_changed_requests_are_counted_by_system(row: Callable[..., EvalRow], sample: Any) -> None:
    question = sample("docstring", 1)
    rows = [
        *[changed_row(row, question, "remote", finish="error", reason="HTTP 429: too many requests")] * 3,
        changed_row(row, question, "remote", finish="error", reason="the server did not answer in time"),
        changed_row(row, question, "remote", remark="without seed"),
        changed_row(row, question, "other", finish="error"),
        changed_row(row, question, "base"),
    ]
    assert answer_notes(rows) == {
        "remote": "4 of 5 answers are missing, most often (3): HTTP 429: too many requests; "
        "1 of 5 requests were sent with other parameters: without seed",
        "other": "1 of 1 answers are missing: the reason is unknown",
    }


def test_missing_grades_are_reported_with_their_reason(row: Callable[..., EvalRow], sample: Any) -> None:
    question = sample("docstring", 1)
    good, bad = (
        row(question, "base", {"judge": 1.0}),
        row(question, "base", {"judge": None}, reason="the judge failed: no"),
    )
    assert (
        rating_note([good, bad, row(question, "base", {"bleu": None})])
        == "1 of 2 ratings are missing: the judge failed: no"
    )
    assert rating_note([good]) == ""
