"""Choose the answers that the report shows: examples of each kind of outcome, deterministically."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bilora.evaluation.run import TRIVIAL_PREFIX
from bilora.evaluation.summary import ADAPTER_COLUMN
from bilora.records import Sample
from bilora.results import AnswerRow, TaskResults

MAX_EXAMPLES = 30
MAX_FAILURES = 5
EXAMPLE_KINDS = (
    "both right",
    "only the adapter right",
    "only the base right",
    "both wrong",
    "both above the median",
    "only the adapter above the median",
    "only the base above the median",
    "both below the median",
    "unscored",
)
_UNFINISHED = {"length": "cut off at the token limit", "error": "no answer was returned"}
"""The remark on an answer that did not end by itself, by finish reason."""


@dataclass(frozen=True)
class ScoreView:
    """One score of an answer, formatted for display."""

    label: str
    text: str
    reason: str
    evidence: str


@dataclass(frozen=True)
class AnswerView:
    """One system's answer; `mark` is "good", "bad", "unknown" (unscored), or "graded" (neither right nor wrong)."""

    system: str
    mark: str
    text: str
    scores: Sequence[ScoreView]
    facts: str


@dataclass(frozen=True)
class Example:
    """A sample with all systems' answers, its kind of outcome, and a line of its prompt as title."""

    kind: str
    title: str
    sample: Sample
    answers: Sequence[AnswerView]


def choose_examples(name: str, task: TaskResults) -> list[Example]:
    """Return up to MAX_EXAMPLES samples, chosen in turn from each kind of outcome."""
    # 1) Collect the answers by sample and column.
    answers = _answers(name, task, "test" if "test" in task.summary else "curated")
    # 2) Classify the samples: right or wrong if all scores are 0 or 1, else above or below the median.
    headlines = {
        sample_id: {column: _headline(row, task) for column, row in rows.items() if column in ("base", ADAPTER_COLUMN)}
        for sample_id, rows in answers.items()
    }
    values = [value for columns in headlines.values() for value in columns.values() if value is not None]
    graded = any(value not in (0.0, 1.0) for value in values)
    threshold = median(values) if graded else 0.5
    kinds: dict[str, list[str]] = {kind: [] for kind in EXAMPLE_KINDS}
    for sample_id in sorted(answers):
        kinds[_kind(headlines[sample_id], threshold, graded)].append(sample_id)
    # 3) Take the first of every kind, then the second, and so on.
    turns = sorted(
        (turn, order, sample_id, kind)
        for order, (kind, ids) in enumerate(kinds.items())
        for turn, sample_id in enumerate(ids)
    )
    titles = _titles(task)
    return [
        Example(kind, titles[sample_id], task.samples[sample_id], _answer_views(answers[sample_id], task, graded))
        for _, _, sample_id, kind in turns[:MAX_EXAMPLES]
    ]


@dataclass(frozen=True)
class Failures:
    """The curated samples with the adapter's worst answers, and a sentence on their number."""

    remark: str
    samples: Sequence[Example]


def curated_failures(name: str, task: TaskResults) -> Failures:
    """Return the curated samples that the adapter failed; for a graded metric, those with its lowest scores."""
    answers = _answers(name, task, "curated")
    scored = {
        sample_id: value
        for sample_id, rows in answers.items()
        if ADAPTER_COLUMN in rows and (value := _headline(rows[ADAPTER_COLUMN], task)) is not None
    }
    graded = any(value not in (0.0, 1.0) for value in scored.values())
    worst = sorted((value, sample_id) for sample_id, value in scored.items() if graded or value < 1.0)
    selected = worst[:MAX_FAILURES]
    scale = task.scales[task.headline]
    if graded:
        remark = f"The {len(selected)} of {len(scored)} curated questions with the lowest {scale.label}."
    else:
        more = f"; {len(selected)} of them are shown" if len(worst) > len(selected) else ""
        remark = f"The adapter failed {len(worst)} of {len(scored)} curated questions{more}."
    titles = _titles(task)
    examples = [
        Example(
            f"{scale.label} {scale.text(value)}" if graded else "failed",
            titles[sample_id],
            task.samples[sample_id],
            _answer_views(answers[sample_id], task, graded),
        )
        for value, sample_id in selected
    ]
    return Failures(remark if scored else "", examples)


def _titles(task: TaskResults) -> dict[str, str]:
    """Return, per sample, the first line of its prompt that does not occur in all prompts of the task."""
    lines = {
        name: [line for line in sample.prompt.splitlines() if line.strip()] for name, sample in task.samples.items()
    }
    shared = set.intersection(*map(set, lines.values())) if len(lines) > 1 else set()
    return {
        name: next((line for line in prompt if line not in shared), "".join(prompt[:1]))
        for name, prompt in lines.items()
    }


def _answers(name: str, task: TaskResults, dataset: str) -> dict[str, dict[str, AnswerRow]]:
    """Return the answers on a dataset by sample and column, without trivial answers."""
    answers: dict[str, dict[str, AnswerRow]] = {}
    for row in task.rows:
        if row.dataset == dataset and not row.system.startswith(TRIVIAL_PREFIX):
            column = ADAPTER_COLUMN if row.system == name else row.system
            answers.setdefault(row.sample_id, {})[column] = row
    return answers


def _headline(row: AnswerRow, task: TaskResults) -> float | None:
    return row.scores[task.headline].value if task.headline in row.scores else None


def _kind(values: Mapping[str, float | None], threshold: float, graded: bool) -> str:
    if any(value is None for value in values.values()):
        return "unscored"
    good = {column for column, value in values.items() if value is not None and value > threshold}
    up, down = ("above the median", "below the median") if graded else ("right", "wrong")
    if not good:
        return f"both {down}"
    if {"base", ADAPTER_COLUMN} <= good:
        return f"both {up}"
    return f"only the {'adapter' if ADAPTER_COLUMN in good else 'base'} {up}"


def _answer_views(rows: Mapping[str, AnswerRow], task: TaskResults, graded: bool) -> list[AnswerView]:
    columns = ("base", ADAPTER_COLUMN, *sorted(rows.keys() - {"base", ADAPTER_COLUMN}))
    return [_answer_view(column, rows[column], task, graded) for column in columns if column in rows]


def _answer_view(column: str, row: AnswerRow, task: TaskResults, graded: bool) -> AnswerView:
    facts = [*([] if row.output_tokens is None else [f"{row.output_tokens} tokens"]), f"{row.latency_s:.2f} s"]
    if row.finish in _UNFINISHED:
        facts.append(_UNFINISHED[row.finish])
    scores = [_score_view(metric, row, task) for metric in task.metrics if metric in row.scores]
    return AnswerView(column, _mark(_headline(row, task), graded), row.answer, scores, " · ".join(facts))


def _mark(value: float | None, graded: bool) -> str:
    if value is None:
        return "unknown"
    if graded:
        return "graded"
    return "good" if value == 1.0 else "bad"


def _score_view(metric: str, row: AnswerRow, task: TaskResults) -> ScoreView:
    score, scale = row.scores[metric], task.scales[metric]
    evidence = filter(None, (score.evidence.get("judge"), score.evidence.get("isolation")))
    text = "unscored" if score.value is None else scale.text(score.value)
    return ScoreView(scale.label, text, score.reason, " · ".join(evidence))
