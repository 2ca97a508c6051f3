"""May this adapter ship? A verdict is evidence, bound to the adapter's bytes; nothing is averaged away.

An adapter passes when its headline is better than the frozen base's beyond doubt and, where adapters
were promoted before under equal conditions, no metric is worse by more than the margin than that of
the last one, nor than that of the best one ever. The best one does not move, so quality cannot creep
down by steps that are each too small to see. And on no guard may it be worse than the base beyond doubt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bilora.errors import ExitCode
from bilora.evaluation.baseline import scores_by_sample
from bilora.evaluation.evidence import GateInput, GateSettings, ScorePairs, insufficient_evidence
from bilora.evaluation.guard_checks import GuardResult, check_guards
from bilora.evaluation.statistics import holm, p_value_not_worse
from bilora.records import Interval, Scale
from bilora.results import Check, CheckOutcome, GuardCheck, IncumbentRole, Scores, Verdict, VerdictOutcome

EXIT_CODES: Mapping[str, ExitCode] = {
    "pass": ExitCode.OK,
    "regressed": ExitCode.REGRESSED,
    "inconclusive": ExitCode.INCONCLUSIVE,
    "incomparable": ExitCode.INCOMPARABLE,
    "infrastructure": ExitCode.INFRASTRUCTURE,
}

SEVERITY = ("regressed", "infrastructure", "incomparable", "inconclusive", "pass")
"""The outcomes, the one that decides the exit code first."""

_Incumbent = Literal["baseline", "champion"]
INCUMBENTS: tuple[tuple[_Incumbent, IncumbentRole, str], ...] = (
    ("baseline", "current", "the promoted adapter"),
    ("champion", "champion", "the best adapter ever promoted"),
)
"""Promoted adapters: the name in a check, the key in baseline.json, the words for it."""


@dataclass(frozen=True)
class _Decision:
    """An outcome with its reason, and the check that decided it, if one did."""

    outcome: VerdictOutcome
    reason: str
    decided: Check | None = None


def gate(given: GateInput, settings: GateSettings) -> Verdict:
    """Judge one task's adapter on the held-out split."""
    base = given.pairs(given.headline, scores_by_sample(given.test_rows, "base", given.headline))
    guarded = check_guards(given, settings)
    checks, decision = _decide(given, base, guarded, settings)
    decided = decision.decided
    return Verdict(
        task=given.task,
        metric=decided.metric if decided else given.headline,
        against=decided.against if decided else "base",
        n=len(base.new),
        unscored=base.unscored,
        low=decided.low if decided else None,
        delta=decided.delta if decided else None,
        high=decided.high if decided else None,
        margin=decided.margin if decided else 0.0,
        outcome=decision.outcome,
        reason=decision.reason,
        adapter_sha256=given.adapter_sha256,
        checks=tuple(checks),
        guards=guarded.checks,
    )


def _decide(
    given: GateInput, base: ScorePairs, guarded: GuardResult, settings: GateSettings
) -> tuple[list[Check], _Decision]:
    """Return the comparisons on the test split, and what follows from them and from the guards."""
    # 1) Evidence that is not whole decides nothing.
    if reason := insufficient_evidence(given, base, settings):
        return [], _Decision("inconclusive", reason)
    if guarded.faults:
        return [], _Decision("inconclusive", f"{'; '.join(guarded.faults)}.")
    # 2) Compare with the base, then with the promoted adapters.
    to_base = _check("base", given.headline, settings.difference(base), 0.0)
    incumbents = _incumbent_checks(given, settings)
    checks = [to_base, *incumbents.checks]
    if incumbents.fault:
        return checks, _Decision("inconclusive", incumbents.fault)
    # 3) Call regressed only what Holm's correction rejects, or what trips a guard, then read off the outcome.
    checks = holm_corrected(checks)
    if (tripped := guarded.tripped) and all(check.outcome != "regressed" for check in checks):
        scale = given.scale(tripped.metric)
        reason = f"On the guard {tripped.guard} {scale.label} is worse than the base model's"
        return checks, _Decision("regressed", f"{reason} ({difference_text(tripped, scale)}).", checks[0])
    return checks, _conclusion(given, checks, incumbents, settings.margin, any_score=sum(base.new) > 0)


@dataclass(frozen=True)
class _IncumbentChecks:
    """Comparisons with the promoted adapters.

    `absent` says why there are none; `comparable` is false if adapters were promoted, but under other
    conditions. `fault` says why a comparison could not be made.
    """

    checks: Sequence[Check] = ()
    absent: str = ""
    comparable: bool = True
    fault: str = ""


def _incumbent_checks(given: GateInput, settings: GateSettings) -> _IncumbentChecks:
    """Compare every metric with that of each promoted adapter that has other bytes."""
    if given.incumbents is None:
        return _IncumbentChecks(absent="no comparable baseline: measured against the base model")
    if given.incumbents.current.adapter_sha256 == given.adapter_sha256:
        return _IncumbentChecks(absent="these bytes are the promoted adapter: measured against the base model")
    ids = scores_by_sample(given.test_rows, given.task, given.headline).keys()
    entries, seen = given.incumbents.entries(), {given.adapter_sha256}
    older: list[tuple[_Incumbent, str, Scores]] = []
    for against, place, words in INCUMBENTS:
        entry = entries[place]
        if entry.adapter_sha256 in seen:
            continue
        seen.add(entry.adapter_sha256)
        if entry.key != given.key or any(entry.scores.get(metric, {}).keys() != ids for metric in given.metrics):
            return _IncumbentChecks(
                comparable=False,
                absent=f"{words[0].upper()}{words[1:]} was measured under other conditions (data, prompt, decoding, "
                "harness, judge or isolation), so nothing can be said against it. Restore them, or run "
                "`bilora baseline forget TASK` to be judged against the base model alone.",
            )
        older += [(against, metric, entry.scores[metric]) for metric in given.metrics]
    checks: list[Check] = []
    for against, metric, scores in older:
        pairs = given.pairs(metric, scores)
        if pairs.faults:
            return _IncumbentChecks(checks, fault=f"{metric}, {_words(against)}: {'; '.join(pairs.faults)}.")
        checks.append(_check(against, metric, settings.difference(pairs), settings.margin))
    return _IncumbentChecks(checks)


def _check(against: Literal["base", "baseline", "champion"], metric: str, gain: Interval, margin: float) -> Check:
    return Check(
        against=against,
        metric=metric,
        low=gain.low,
        delta=gain.mean,
        high=gain.high,
        margin=margin,
        outcome=check_outcome(gain, margin),
    )


def check_outcome(gain: Interval, margin: float) -> CheckOutcome:
    """Read a paired difference by itself: surely worse, surely not worse by more than `margin`, or neither."""
    if gain.high < 0:
        return "regressed"
    return "pass" if gain.low > -margin else "inconclusive"


def holm_corrected(checks: Sequence[Check]) -> list[Check]:
    """Call regressed only what Holm's correction over all checks rejects: of many looks one is unlucky by chance."""
    worse = holm([p_value_not_worse(Interval(low=c.low, mean=c.delta, high=c.high)) for c in checks])
    return [
        check.model_copy(update={"outcome": "regressed" if rejected else _undecided(check)})
        for check, rejected in zip(checks, worse, strict=True)
    ]


def _undecided(check: Check) -> CheckOutcome:
    return "pass" if check.low > -check.margin else "inconclusive"


def _conclusion(
    given: GateInput, checks: Sequence[Check], incumbents: _IncumbentChecks, margin: float, *, any_score: bool
) -> _Decision:
    """Return the first that holds: regressed, incomparable, inconclusive, passed."""
    for check in checks:
        if check.outcome == "regressed":
            scale = given.scale(check.metric)
            reason = f"{scale.label} is worse than {_words(check.against)} ({difference_text(check, scale)})."
            return _Decision("regressed", reason, check)
    if not incumbents.comparable:
        return _Decision("incomparable", incumbents.absent)
    to_base, headline = checks[0], given.scale(given.headline)
    if not any_score:
        return _Decision("inconclusive", f"{headline.label} is 0, and 0 never passes.", to_base)
    for check in checks:
        if check.outcome == "inconclusive":
            scale = given.scale(check.metric)
            wanted = "beat" if check.margin == 0 else f"be within {points_text(check.margin, scale)} of"
            difference = difference_text(check, scale)
            reason = f"{scale.label} is not shown to {wanted} {_words(check.against)} ({difference})."
            return _Decision("inconclusive", reason, check)
    better = f"Better than the base model ({difference_text(to_base, headline)})"
    if len(checks) == 1:
        return _Decision("pass", f"{better}; {incumbents.absent}.", to_base)
    scale = given.scale(checks[1].metric)
    reason = (
        f"{better}, and in no metric worse than the promoted adapter "
        f"({difference_text(checks[1], scale)}, margin {points_text(margin, scale)}) or the best ever promoted."
    )
    return _Decision("pass", reason, checks[1])


def _words(against: str) -> str:
    return next((words for name, _, words in INCUMBENTS if name == against), "the base model")


def difference_text(gain: Interval | Check | GuardCheck, scale: Scale) -> str:
    """Write a difference with its interval."""
    mean = gain.mean if isinstance(gain, Interval) else gain.delta
    low, high = scale.difference(gain.low), scale.difference(gain.high)
    return f"{scale.difference(mean)} points, 95 % [{low}, {high}]"


def points_text(margin: float, scale: Scale) -> str:
    """Write a difference that has no sign."""
    return f"{scale.difference(margin).removeprefix('+')} points"


def overall_outcome(verdicts: Iterable[Verdict]) -> str:
    """Name the outcome that decides the exit code: a regression first, then whatever else did not pass.

    A task of which nothing could be scored is our side's failure, not the adapter's.
    """
    return most_severe(
        "infrastructure" if verdict.n == 0 and verdict.unscored else verdict.outcome for verdict in verdicts
    )


def most_severe(outcomes: Iterable[str], *, default: str = "inconclusive") -> str:
    """Return the most severe outcome, `default` if there is none."""
    found = set(outcomes)
    return next((outcome for outcome in SEVERITY if outcome in found), default)
