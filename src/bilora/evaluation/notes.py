"""What has to be known of remote systems' answers: how many are missing and why, and which parameters were refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from bilora.metrics.judged import JUDGE_METRIC
from bilora.records import EvalRow


def answer_notes(rows: Iterable[EvalRow]) -> dict[str, str]:
    """Return one sentence per system with missing or otherwise asked answers: counts, and the commonest reason."""
    counts, missing, remarks = Counter[str](), dict[str, Counter[str]](), dict[str, Counter[str]]()
    for row in rows:
        made = row.completion
        counts[made.system] += 1
        if made.finish == "error":
            missing.setdefault(made.system, Counter())[made.reason or "no reason is known"] += 1
        elif made.remark:
            remarks.setdefault(made.system, Counter())[made.remark] += 1
    notes: dict[str, list[str]] = {}
    for system, reasons in missing.items():
        notes.setdefault(system, []).append(
            f"{reasons.total()} of {counts[system]} answers are missing{_commonest(reasons)}"
        )
    for system, found in remarks.items():
        notes.setdefault(system, []).append(
            f"{found.total()} of {counts[system]} answers were asked for otherwise{_commonest(found)}"
        )
    return {system: "; ".join(parts) for system, parts in notes.items()}


def grade_note(rows: Iterable[EvalRow]) -> str:
    """Return one sentence on the judge's missing grades and the commonest reason; empty if none is missing."""
    grades = [score for row in rows for score in row.scores if score.metric == JUDGE_METRIC]
    reasons = Counter(score.reason for score in grades if score.value is None)
    return f"{reasons.total()} of {len(grades)} grades are missing{_commonest(reasons)}" if reasons else ""


def _commonest(reasons: Counter[str]) -> str:
    ((reason, count),) = reasons.most_common(1)
    return f": {reason}" if len(reasons) == 1 else f", most often ({count}): {reason}"
