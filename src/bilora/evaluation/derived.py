"""Metrics derived from evaluation rows rather than scored: answer form, sandbox outcomes and pass@k."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bilora.metrics.functional import OUTCOME_SHARES, pass_at_k, pass_at_k_scale
from bilora.records import EvalRow, Scale
from bilora.tasks.task import Task


@dataclass(frozen=True)
class GroupedValue:
    """A sample's group and value, or the reason why the value is missing."""

    group: str
    value: float | None
    reason: str = ""


@dataclass(frozen=True)
class FormShare:
    """The share of answers on the test split whose form has some property, right or wrong."""

    scale: Scale
    has_form: Callable[[Task, EvalRow], bool]


FORM_SHARES: Mapping[str, FormShare] = {
    "well_formed": FormShare(
        Scale(
            label="well-formed answers",
            unit=" %",
            meaning="answers with the required form, such as a program, right or wrong",
        ),
        lambda task, row: task.well_formed(row.answer),
    ),
    "stopped": FormShare(
        Scale(
            label="answers that ended by themselves",
            unit=" %",
            meaning="answers that ended with the EOS token, before the token limit",
        ),
        lambda task, row: row.completion.finish == "stop",
    ),
}
"""By name in results."""


def derived_scales(ks: Sequence[int]) -> dict[str, Scale]:
    """Return the display scales of all derived metrics, with pass@k for each k of `ks`."""
    return {
        **{pass_at_k_name(k): pass_at_k_scale(k) for k in ks},
        **{name: share.scale for name, share in FORM_SHARES.items()},
        **{name: share.scale for name, share in OUTCOME_SHARES.items()},
    }


def form_values(task: Task, rows: Sequence[EvalRow], name: str) -> list[GroupedValue]:
    """Return for each answer 1.0 if it has the form `name`, else 0.0; a failed request has no value."""
    return [
        GroupedValue(row.sample.group, None, row.completion.reason)
        if row.completion.finish == "error"
        else GroupedValue(row.sample.group, float(FORM_SHARES[name].has_form(task, row)))
        for row in rows
    ]


def has_sandbox_outcome(row: EvalRow) -> bool:
    """Return whether the row's answer was run."""
    return any("status" in score.evidence for score in row.scores)


def outcome_values(rows: Sequence[EvalRow], name: str) -> list[GroupedValue]:
    """Return for each answer that was run 1.0 if it had the sandbox outcome `name`, else 0.0."""
    expected = OUTCOME_SHARES[name].status
    return [
        GroupedValue(group, None, "the sandbox failed")
        if status == "infrastructure"
        else GroupedValue(group, float(status == expected))
        for group, status in _outcomes(rows)
    ]


def _outcomes(rows: Sequence[EvalRow]) -> list[tuple[str, str]]:
    """Return group and sandbox status of every answer that was run."""
    outcomes = []
    for row in rows:
        status = next((score.evidence["status"] for score in row.scores if "status" in score.evidence), "")
        if status and row.completion.finish != "error":
            outcomes.append((row.sample.group, status))
    return outcomes


def score_values(rows: Sequence[EvalRow], metric: str) -> list[GroupedValue]:
    """Return the rows' scores by one metric."""
    return [
        GroupedValue(row.sample.group, score.value, score.reason)
        for row in rows
        for score in row.scores
        if score.metric == metric
    ]


def pass_at_k_name(k: int) -> str:
    """Return the name of pass@k in results."""
    return f"pass_at_{k}"


def pass_at_k_values(rows: Sequence[EvalRow], metric: str, k: int) -> list[GroupedValue]:
    """Return the estimate of pass@k for every sample; a sample with an unscored answer has no value.

    Args:
        metric: scores 1.0 for an answer that passes.
    """
    samples: dict[str, list[GroupedValue]] = {}
    for row, score in zip(rows, score_values(rows, metric), strict=True):
        samples.setdefault(row.sample.id, []).append(score)
    return [_estimate(answers, k) for answers in samples.values()]


def _estimate(answers: Sequence[GroupedValue], k: int) -> GroupedValue:
    for answer in answers:
        if answer.value is None:
            return answer
    correct = sum(answer.value == 1.0 for answer in answers)
    return GroupedValue(answers[0].group, pass_at_k(len(answers), correct, k))
