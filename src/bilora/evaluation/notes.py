"""Notes on remote systems: the number of missing answers and why, and the parameters that the server refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from bilora.metrics.judged import JUDGE_METRIC
from bilora.records import EvalRow


def answer_notes(rows: Iterable[EvalRow]) -> dict[str, str]:
    """Return one sentence per system with missing answers or refused parameters: counts and the commonest reason."""
    totals, missing, remarks = Counter[str](), dict[str, Counter[str]](), dict[str, Counter[str]]()
    for row in rows:
        completion = row.completion
        totals[completion.system] += 1
        if completion.finish == "error":
            missing.setdefault(completion.system, Counter())[completion.reason or "the reason is unknown"] += 1
        elif completion.remark:
            remarks.setdefault(completion.system, Counter())[completion.remark] += 1
    notes: dict[str, list[str]] = {}
    for system, counts in missing.items():
        notes.setdefault(system, []).append(
            f"{counts.total()} of {totals[system]} answers are missing{_most_common(counts)}"
        )
    for system, counts in remarks.items():
        notes.setdefault(system, []).append(
            f"{counts.total()} of {totals[system]} requests were sent with other parameters{_most_common(counts)}"
        )
    return {system: "; ".join(sentences) for system, sentences in notes.items()}


def rating_note(rows: Iterable[EvalRow]) -> str:
    """Return one sentence on the judge's missing ratings and the commonest reason; empty if none is missing."""
    ratings = [score for row in rows for score in row.scores if score.metric == JUDGE_METRIC]
    reasons = Counter(score.reason for score in ratings if score.value is None)
    return f"{reasons.total()} of {len(ratings)} ratings are missing{_most_common(reasons)}" if reasons else ""


def _most_common(reasons: Counter[str]) -> str:
    ((reason, count),) = reasons.most_common(1)
    return f": {reason}" if len(reasons) == 1 else f", most often ({count}): {reason}"
