"""May this adapter ship? A verdict is evidence, bound to the adapter's bytes; nothing is averaged away.

An adapter passes when it is better than the frozen base beyond doubt and, where an adapter was
promoted before under equal conditions, not worse than that one by more than the margin.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bilora.errors import BadData
from bilora.evaluation.statistics import score_difference
from bilora.records import Interval, Score, Scored, Verdict
from bilora.storage import read_json

BASELINE_SCHEMA = 1
MAX_UNSCORED = 0.02

EXIT_CODES: Mapping[str, int] = {
    "pass": 0,
    "regressed": 1,
    "inconclusive": 2,
    "incomparable": 3,
    "infrastructure": 4,
}

SEVERITY = ("regressed", "infrastructure", "incomparable", "inconclusive", "pass")
"""The outcomes, the one that decides the exit code first."""

Outcome = Literal["pass", "regressed", "inconclusive", "incomparable"]


@dataclass(frozen=True)
class _Pairs:
    """Scores of the same samples by two systems, and what speaks against trusting them."""

    new: tuple[float, ...]
    old: tuple[float, ...]
    groups: tuple[str, ...]
    unscored: int
    faults: tuple[str, ...]

    def difference(self, seed: int, draws: int) -> Interval:
        return score_difference(self.new, self.old, seed=seed, draws=draws, clusters=self.groups)


def headline_scores(rows: Iterable[Scored], system: str, metric: str) -> dict[str, float | None]:
    """Score of every test sample that `system` answered; None where it is unscored."""
    found: dict[str, float | None] = {}
    for row in rows:
        if row.dataset == "test" and row.completion.system == system:
            values = [score.value for score in row.scores if score.metric == metric]
            value = values[0] if values else None
            found[row.sample.id] = value if value is not None and math.isfinite(value) else None
    return found


def _pair(new: Mapping[str, float | None], old: Mapping[str, float | None], groups: Mapping[str, str]) -> _Pairs:
    faults = []
    if unpaired := len(new.keys() ^ old.keys()):
        faults.append(f"{unpaired} of {len(new.keys() | old.keys())} samples lack one side of the pair")
    both = sorted(new.keys() & old.keys())
    scored = [(name, a, b) for name in both if (a := new[name]) is not None and (b := old[name]) is not None]
    unscored = len(both) - len(scored)
    if unscored > MAX_UNSCORED * len(both):
        faults.append(f"{unscored} of {len(both)} samples are unscored, above {MAX_UNSCORED:.0%}")
    return _Pairs(
        new=tuple(a for _, a, _ in scored),
        old=tuple(b for _, _, b in scored),
        groups=tuple(groups[name] for name, _, _ in scored),
        unscored=unscored,
        faults=tuple(faults),
    )


def _faults(test: Sequence[Scored], metric: str) -> list[str]:
    faults = []
    answered = Counter((row.completion.system, row.sample.id) for row in test)
    if repeated := sum(count - 1 for count in answered.values()):
        faults.append(f"{repeated} rows stand twice")
    if any(_weak(score) for row in test for score in row.scores if score.metric == metric):
        faults.append("answers ran under weak isolation, and nothing is promoted from that")
    return faults


def _weak(score: Score) -> bool:
    """Whether the answer ran where the kernel did not filter its system calls."""
    isolation = score.evidence.get("isolation", "")
    return bool(isolation) and not isolation.startswith("strict")


def outcome_of(gain: Interval, margin: float) -> Outcome:
    """Read a paired difference: surely worse, surely not worse by more than `margin`, or neither."""
    if gain.high < 0:
        return "regressed"
    return "pass" if gain.low > -margin else "inconclusive"


def gate(
    task: str,
    headline: str,
    rows: Sequence[Scored],
    baseline: Mapping[str, Any] | None,
    *,
    adapter_sha256: str,
    key: str,
    margin: float,
    min_samples: int,
    seed: int,
    draws: int = 10_000,
) -> Verdict:
    """Judge one task's adapter on the held-out split.

    Args:
        task: the task's name, which is also the adapter's system name in `rows`.
        headline: the metric that decides.
        rows: all systems' rows; only "test" rows of the adapter and the base are looked at.
        baseline: the promoted entry of this task (see `baseline_entry`), or None.
        adapter_sha256: of the bytes that gave these rows; the verdict holds for no others.
        key: comparability key of this run; a baseline with another key is not compared with.
        margin: how much worse than the baseline is still called equal, in score units.
        min_samples: fewer scored pairs decide nothing.
        seed, draws: of the bootstrap.
    """
    test = [row for row in rows if row.dataset == "test" and row.completion.system in (task, "base")]
    groups = {row.sample.id: row.sample.group for row in test}
    mine = headline_scores(test, task, headline)
    pairs = _pair(mine, headline_scores(test, "base", headline), groups)

    def verdict(
        outcome: Outcome,
        reason: str,
        against: str = "base",
        gain: Interval | None = None,
        allowed: float = 0.0,
    ) -> Verdict:
        return Verdict(
            task=task,
            metric=headline,
            against=against,
            n=len(pairs.new),
            unscored=pairs.unscored,
            low=gain.low if gain else None,
            delta=gain.mean if gain else None,
            high=gain.high if gain else None,
            margin=allowed,
            outcome=outcome,
            reason=reason,
            adapter_sha256=adapter_sha256,
        )

    if faults := [*_faults(test, headline), *pairs.faults]:
        return verdict("inconclusive", f"{'; '.join(faults)}.")
    if len(pairs.new) < max(min_samples, 2):
        return verdict("inconclusive", f"{len(pairs.new)} scored samples; the gate wants {min_samples}.")
    if len(set(pairs.groups)) < 2:
        return verdict("inconclusive", "All samples share one group, so they are no independent evidence.")

    over_base = pairs.difference(seed, draws)
    on_base = outcome_of(over_base, 0.0)
    if on_base == "regressed":
        return verdict("regressed", f"Worse than the base model ({told(over_base)}).", gain=over_base)

    promoted, why_not = _comparable(baseline, mine.keys(), headline, key, adapter_sha256)
    over_promoted = None
    if promoted is not None:
        against = _pair(mine, promoted, groups)
        if against.faults:
            return verdict("inconclusive", f"Against the promoted adapter: {'; '.join(against.faults)}.")
        over_promoted = against.difference(seed, draws)
        if (outcome := outcome_of(over_promoted, margin)) != "pass":
            word = "Worse than" if outcome == "regressed" else f"Not shown to be within {margin:g} of"
            reason = f"{word} the promoted adapter ({told(over_promoted)})."
            return verdict(outcome, reason, "baseline", over_promoted, margin)

    if sum(pairs.new) == 0:
        return verdict("inconclusive", f"{headline} is 0, and 0 never passes.", gain=over_base)
    if on_base == "inconclusive":
        return verdict(on_base, f"Not shown to beat the base model ({told(over_base)}).", gain=over_base)
    if over_promoted is not None:
        reason = (
            f"Not worse than the promoted adapter ({told(over_promoted)}, margin {margin:g}) "
            f"and better than the base model ({told(over_base)})."
        )
        return verdict("pass", reason, "baseline", over_promoted, margin)
    return verdict("pass", f"Better than the base model ({told(over_base)}); {why_not}.", gain=over_base)


def told(gain: Interval) -> str:
    """Write a difference with its interval."""
    return f"{gain.mean:+.3f}, 95 % [{gain.low:+.3f}, {gain.high:+.3f}]"


def _comparable(
    baseline: Mapping[str, Any] | None, ids: Set[str], headline: str, key: str, adapter_sha256: str
) -> tuple[dict[str, float | None] | None, str]:
    """Return the promoted adapter's scores, or None and why they are not compared with."""
    if baseline is None:
        return None, "no comparable baseline: measured against the base model"
    if baseline["adapter_sha256"] == adapter_sha256:
        return None, "these bytes are the promoted adapter: measured against the base model"
    scores: dict[str, float | None] = baseline["scores"]
    if baseline["key"] != key or baseline["metric"] != headline or scores.keys() != ids:
        return None, (
            "no comparable baseline: measured against the base model "
            "(the promoted adapter was measured under other conditions)"
        )
    return scores, ""


def worst(verdicts: Iterable[Verdict]) -> str:
    """Name the outcome that decides the exit code: a regression first, then whatever else did not pass.

    A task of which nothing could be scored is our side's failure, not the adapter's.
    """
    outcomes = {"infrastructure" if verdict.n == 0 and verdict.unscored else verdict.outcome for verdict in verdicts}
    return next((outcome for outcome in SEVERITY if outcome in outcomes), "inconclusive")


def baseline_entry(
    task: str, headline: str, rows: Iterable[Scored], *, adapter_sha256: str, key: str
) -> dict[str, Any]:
    """Make what later adapters of this task are compared with: the headline score of each test sample."""
    scores = headline_scores(rows, task, headline)
    return {
        "adapter_sha256": adapter_sha256,
        "key": key,
        "metric": headline,
        "scores": dict(sorted(scores.items())),
    }


def read_baseline(path: Path) -> dict[str, dict[str, Any]]:
    """Read benchmarking/baseline.json: the promoted entry of each task; an absent file has none.

    Raises:
        BadData: the file is not of this schema.
    """
    if not path.exists():
        return {}
    document = read_json(path)
    if not isinstance(document, dict) or document.get("schema") != BASELINE_SCHEMA:
        raise BadData(path, f"not a baseline of schema {BASELINE_SCHEMA}; restore it from version control.")
    tasks = document.get("tasks")
    if not isinstance(tasks, dict):
        raise BadData(path, "`tasks` must be a mapping.")
    for name, entry in tasks.items():
        if (
            not isinstance(entry, dict)
            or not all(isinstance(entry.get(field), str) for field in ("adapter_sha256", "key", "metric"))
            or not isinstance(entry.get("scores"), dict)
            or not all(_is_score(value) for value in entry["scores"].values())
        ):
            raise BadData(path, f"the entry of {name!r} is malformed; restore it from version control.")
    return tasks


def _is_score(value: object) -> bool:
    if value is None:
        return True
    return isinstance(value, int | float) and not isinstance(value, bool) and 0.0 <= value <= 1.0
