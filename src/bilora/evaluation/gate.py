"""May this adapter ship? A verdict is evidence, bound to the adapter's bytes; nothing is averaged away.

An adapter passes when its headline is better than the frozen base's beyond doubt and, where adapters
were promoted before under equal conditions, no metric is worse by more than the margin than that of
the last one, nor than that of the best one ever. The best one stands still, so quality cannot creep
down by steps that are each too small to see.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal

from bilora.errors import ExitCode
from bilora.evaluation.baseline import CHAMPION, CURRENT, Scores, scores_of
from bilora.evaluation.statistics import chance_of_no_loss, holm, score_difference
from bilora.records import Check, Interval, Score, Scored, Verdict

MAX_UNSCORED = 0.02

EXIT_CODES: Mapping[str, ExitCode] = {
    "pass": ExitCode.OK,
    "regressed": ExitCode.REGRESSED,
    "inconclusive": ExitCode.INCONCLUSIVE,
    "incomparable": ExitCode.INCOMPARABLE,
    "infrastructure": ExitCode.INFRASTRUCTURE,
}

SEVERITY = ("regressed", "infrastructure", "incomparable", "inconclusive", "pass")
"""The outcomes, the one that decides the exit code first."""

Outcome = Literal["pass", "regressed", "inconclusive", "incomparable"]
STANDING: tuple[tuple[Literal["baseline", "champion"], str, str], ...] = (
    ("baseline", CURRENT, "the promoted adapter"),
    ("champion", CHAMPION, "the best adapter ever promoted"),
)
"""Who else an adapter is measured against: the name in a check, the key in baseline.json, the words for it."""


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


def _pair(new: Scores, old: Scores, groups: Mapping[str, str]) -> _Pairs:
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


def _faults(test: Sequence[Scored], metric: str, adapter_sha256: str) -> list[str]:
    faults = []
    if strangers := sum(row.adapter_sha256 != adapter_sha256 for row in test):
        faults.append(f"{strangers} rows were measured with other adapter bytes; run `dvc repro evaluate`")
    answered = Counter((row.completion.system, row.sample.id) for row in test)
    if repeated := sum(count - 1 for count in answered.values()):
        faults.append(f"{repeated} rows stand twice")
    if any(_weak(score) for row in test for score in row.scores if score.metric == metric):
        faults.append("answers ran under weak isolation, and nothing is promoted from that")
    return faults


def _lost(rows: Sequence[Scored], metric: str) -> str:
    """Say how much of a promised metric is missing, if it is too much."""
    found = [score.value for row in rows for score in row.scores if score.metric == metric]
    unscored = sum(value is None for value in found)
    if not found:
        return f"{metric} was configured and scored nothing"
    return f"{unscored} of {len(found)} grades by {metric} are missing" if unscored > MAX_UNSCORED * len(found) else ""


def _weak(score: Score) -> bool:
    """Whether the answer ran where the kernel did not filter its system calls."""
    isolation = score.evidence.get("isolation", "")
    return bool(isolation) and not isolation.startswith("strict")


def outcome_of(gain: Interval, margin: float) -> Literal["pass", "regressed", "inconclusive"]:
    """Read a paired difference by itself: surely worse, surely not worse by more than `margin`, or neither."""
    if gain.high < 0:
        return "regressed"
    return "pass" if gain.low > -margin else "inconclusive"


def gate(
    task: str,
    metrics: Sequence[str],
    rows: Sequence[Scored],
    standing: Mapping[str, Any] | None,
    *,
    adapter_sha256: str,
    key: str,
    margin: float,
    min_samples: int,
    seed: int,
    draws: int = 10_000,
    promised: Sequence[str] = (),
) -> Verdict:
    """Judge one task's adapter on the held-out split.

    Args:
        task: the task's name, which is also the adapter's system name in `rows`.
        metrics: all that may not get worse; the first is the headline, which must beat the base.
        rows: all systems' rows; only "test" rows of the adapter and the base are looked at.
        standing: baseline.json's entries of this task, `current` and `champion`, or None.
        adapter_sha256: of the bytes that gave these rows; the verdict holds for no others.
        key: comparability key of this run.
        margin: how much worse than a promoted adapter is still called equal, in score units.
        min_samples: fewer scored pairs decide nothing.
        seed, draws: of the bootstrap.
        promised: metrics outside the test split, such as the judge's, that this run was to measure. They
            do not decide, but a run that lost them is not whole.
    """
    headline = metrics[0]
    test = [row for row in rows if row.dataset == "test" and row.completion.system in (task, "base")]
    groups = {row.sample.id: row.sample.group for row in test}
    pairs = _pair(scores_of(test, task, headline), scores_of(test, "base", headline), groups)
    checks: list[Check] = []

    def verdict(outcome: Outcome, reason: str, decided: Check | None = None) -> Verdict:
        return Verdict(
            task=task,
            metric=decided.metric if decided else headline,
            against=decided.against if decided else "base",
            n=len(pairs.new),
            unscored=pairs.unscored,
            low=decided.low if decided else None,
            delta=decided.delta if decided else None,
            high=decided.high if decided else None,
            margin=decided.margin if decided else 0.0,
            outcome=outcome,
            reason=reason,
            adapter_sha256=adapter_sha256,
            checks=tuple(checks),
        )

    lost = [fault for metric in promised if (fault := _lost(rows, metric))]
    if faults := [*_faults(test, headline, adapter_sha256), *pairs.faults, *lost]:
        return verdict("inconclusive", f"{'; '.join(faults)}.")
    if len(pairs.new) < max(min_samples, 2):
        return verdict("inconclusive", f"{len(pairs.new)} scored samples; the gate wants {min_samples}.")
    if len(set(pairs.groups)) < 2:
        return verdict("inconclusive", "All samples share one group, so they are no independent evidence.")

    checks.append(_check("base", headline, pairs.difference(seed, draws), 0.0))
    rivals, why_not = _rivals(standing, metrics, scores_of(test, task, headline).keys(), key, adapter_sha256)
    for against, metric, scores in rivals or ():
        pair = _pair(scores_of(test, task, metric), scores, groups)
        if pair.faults:
            return verdict("inconclusive", f"{metric}, {_words(against)}: {'; '.join(pair.faults)}.")
        checks.append(_check(against, metric, pair.difference(seed, draws), margin))
    checks[:] = _with_doubt_shared(checks)

    for check in checks:
        if check.outcome == "regressed":
            return verdict("regressed", f"{check.metric} is worse than {_words(check.against)} ({told(check)}).", check)
    if rivals is None:
        return verdict("incomparable", why_not)
    if sum(pairs.new) == 0:
        return verdict("inconclusive", f"{headline} is 0, and 0 never passes.", checks[0])
    for check in checks:
        if check.outcome == "inconclusive":
            wanted = "beat" if check.margin == 0 else f"be within {check.margin:g} of"
            reason = f"{check.metric} is not shown to {wanted} {_words(check.against)} ({told(check)})."
            return verdict("inconclusive", reason, check)
    if len(checks) == 1:
        return verdict("pass", f"Better than the base model ({told(checks[0])}); {why_not}.", checks[0])
    reason = (
        f"Better than the base model ({told(checks[0])}), and in no metric worse than the promoted adapter "
        f"({told(checks[1])}, margin {margin:g}) or the best ever promoted."
    )
    return verdict("pass", reason, checks[1])


def _check(against: Literal["base", "baseline", "champion"], metric: str, gain: Interval, margin: float) -> Check:
    return Check(
        against=against,
        metric=metric,
        low=gain.low,
        delta=gain.mean,
        high=gain.high,
        margin=margin,
        outcome=outcome_of(gain, margin),
    )


def _with_doubt_shared(checks: Sequence[Check]) -> list[Check]:
    """Call regressed only what Holm's correction over all checks rejects: of many looks one is unlucky by chance."""
    worse = holm([chance_of_no_loss(Interval(low=c.low, mean=c.delta, high=c.high)) for c in checks])
    return [
        check.model_copy(update={"outcome": "regressed" if rejected else _undecided(check)})
        for check, rejected in zip(checks, worse, strict=True)
    ]


def _undecided(check: Check) -> str:
    return "pass" if check.low > -check.margin else "inconclusive"


def _words(against: str) -> str:
    return next((words for name, _, words in STANDING if name == against), "the base model")


def told(gain: Interval | Check) -> str:
    """Write a difference with its interval."""
    mean = gain.delta if isinstance(gain, Check) else gain.mean
    return f"{mean:+.3f}, 95 % [{gain.low:+.3f}, {gain.high:+.3f}]"


_Rival = tuple[Literal["baseline", "champion"], str, Scores]


def _rivals(
    standing: Mapping[str, Any] | None, metrics: Sequence[str], ids: Set[str], key: str, adapter_sha256: str
) -> tuple[list[_Rival] | None, str]:
    """Return whom and by what the adapter is measured beside the base, and why not, where there is nobody.

    None: somebody was promoted, but under other conditions, so that nothing can be said.
    """
    if standing is None:
        return [], "no comparable baseline: measured against the base model"
    if standing[CURRENT]["adapter_sha256"] == adapter_sha256:
        return [], "these bytes are the promoted adapter: measured against the base model"
    rivals: list[_Rival] = []
    seen = {adapter_sha256}
    for against, place, words in STANDING:
        entry = standing[place]
        if entry["adapter_sha256"] in seen:
            continue
        seen.add(entry["adapter_sha256"])
        if entry["key"] != key or any(entry["scores"].get(metric, {}).keys() != ids for metric in metrics):
            return None, (
                f"{words[0].upper()}{words[1:]} was measured under other conditions (data, prompt, decoding, harness, "
                "judge or isolation), so nothing can be said against it. Restore them, or run "
                "`bilora baseline forget TASK` to be judged against the base model alone."
            )
        rivals += [(against, metric, entry["scores"][metric]) for metric in metrics]
    return rivals, ""


def worst(verdicts: Iterable[Verdict]) -> str:
    """Name the outcome that decides the exit code: a regression first, then whatever else did not pass.

    A task of which nothing could be scored is our side's failure, not the adapter's.
    """
    outcomes = {"infrastructure" if verdict.n == 0 and verdict.unscored else verdict.outcome for verdict in verdicts}
    return next((outcome for outcome in SEVERITY if outcome in outcomes), "inconclusive")
