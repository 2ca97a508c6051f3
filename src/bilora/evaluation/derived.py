"""Numbers that are derived from rows beside their scores: the form of answers, sandbox outcomes and pass@k."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bilora.metrics.functional import OUTCOME_SHARES, pass_at_k, pass_at_k_scale
from bilora.records import EvalRow, Scale
from bilora.tasks.task import Task


@dataclass(frozen=True)
class GroupedValue:
    """A value with its sample's group, or the reason why there is none."""

    group: str
    value: float | None
    reason: str = ""


@dataclass(frozen=True)
class FormShare:
    """The share of answers to the test split with a property of their form, right or wrong."""

    scale: Scale
    holds: Callable[[Task, EvalRow], bool]


FORM_SHARES: Mapping[str, FormShare] = {
    "well_formed": FormShare(
        Scale(
            label="well-formed answers",
            unit=" %",
            meaning="answers that have the form of one, such as a program, right or wrong",
        ),
        lambda task, row: task.well_formed(row.answer),
    ),
    "stopped": FormShare(
        Scale(
            label="answers that ended by themselves",
            unit=" %",
            meaning="answers that stopped before the token limit cut them off",
        ),
        lambda task, row: row.completion.finish == "stop",
    ),
}
"""By name in results."""


def derived_scales(ks: Sequence[int]) -> dict[str, Scale]:
    """Return how all derived numbers are written, pass@k for each k of `ks`."""
    return {
        **{pass_at_k_name(k): pass_at_k_scale(k) for k in ks},
        **{name: share.scale for name, share in FORM_SHARES.items()},
        **{name: share.scale for name, share in OUTCOME_SHARES.items()},
    }


def form_values(task: Task, rows: Sequence[EvalRow], name: str) -> list[GroupedValue]:
    """Return for each answer whether it has the form `name`; one that never came has no value."""
    return [
        GroupedValue(row.sample.group, None, row.completion.reason)
        if row.completion.finish == "error"
        else GroupedValue(row.sample.group, float(FORM_SHARES[name].holds(task, row)))
        for row in rows
    ]


def has_sandbox_outcome(row: EvalRow) -> bool:
    """Whether the row's answer was run."""
    return any("status" in score.evidence for score in row.scores)


def outcome_values(rows: Sequence[EvalRow], name: str) -> list[GroupedValue]:
    """Return for each answer that was run whether it had the sandbox outcome `name`."""
    wanted = OUTCOME_SHARES[name].status
    return [
        GroupedValue(group, None, "the sandbox failed")
        if status == "infrastructure"
        else GroupedValue(group, float(status == wanted))
        for group, status in _outcomes(rows)
    ]


def _outcomes(rows: Sequence[EvalRow]) -> list[tuple[str, str]]:
    """Return group and sandbox status of the answers that came and were run."""
    found = []
    for row in rows:
        status = next((score.evidence["status"] for score in row.scores if "status" in score.evidence), "")
        if status and row.completion.finish != "error":
            found.append((row.sample.group, status))
    return found


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
    """Estimate pass@k of every sample; one that has an answer without a verdict is unscored as a whole.

    Args:
        metric: says of each answer whether it passes.
    """
    samples: dict[str, list[GroupedValue]] = {}
    for row, score in zip(rows, score_values(rows, metric), strict=True):
        samples.setdefault(row.sample.id, []).append(score)
    return [_estimate(answers, k) for answers in samples.values()]


def _estimate(answers: Sequence[GroupedValue], k: int) -> GroupedValue:
    for answer in answers:
        if answer.value is None:
            return answer
    right = sum(answer.value == 1.0 for answer in answers)
    return GroupedValue(answers[0].group, pass_at_k(len(answers), right, k))
