"""The gate: decide whether an adapter may be published. A verdict is bound to the adapter's bytes.

An adapter passes if
- its headline is significantly better than the frozen base's (95 % confidence),
- compared with the adapter promoted last and the best one ever promoted, each measured under the same
  conditions, no metric is worse by more than the margin. The best one stays the same until it is beaten, so
  that quality cannot decrease in many small steps, and
- it is not significantly worse than the base on any guard.
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
"""All outcomes, the most severe first."""

_Incumbent = Literal["baseline", "champion"]
INCUMBENTS: tuple[tuple[_Incumbent, IncumbentRole, str], ...] = (
    ("baseline", "current", "the promoted adapter"),
    ("champion", "champion", "the best adapter ever promoted"),
)
"""Promoted adapters: the name in a check, the key in baseline.json, the display name."""


@dataclass(frozen=True)
class _Decision:
    """An outcome with its reason, and the check that decided it, if any."""

    outcome: VerdictOutcome
    reason: str
    check: Check | None = None


def gate(inputs: GateInput, settings: GateSettings) -> Verdict:
    """Return the verdict on one task's adapter."""
    base = inputs.pairs(inputs.headline, scores_by_sample(inputs.test_rows, "base", inputs.headline))
    guard_result = check_guards(inputs, settings)
    checks, decision = _decide(inputs, base, guard_result, settings)
    check = decision.check
    return Verdict(
        task=inputs.task,
        metric=check.metric if check else inputs.headline,
        against=check.against if check else "base",
        n=len(base.new),
        unscored=base.unscored,
        low=check.low if check else None,
        delta=check.delta if check else None,
        high=check.high if check else None,
        margin=check.margin if check else 0.0,
        outcome=decision.outcome,
        reason=decision.reason,
        adapter_sha256=inputs.adapter_sha256,
        checks=tuple(checks),
        guards=guard_result.checks,
    )


def _decide(
    inputs: GateInput, base: ScorePairs, guard_result: GuardResult, settings: GateSettings
) -> tuple[list[Check], _Decision]:
    """Return the checks on the test split, and the decision from them and the guards."""
    # 1) With incomplete evidence the verdict is inconclusive.
    if reason := insufficient_evidence(inputs, base, settings):
        return [], _Decision("inconclusive", reason)
    if guard_result.faults:
        return [], _Decision("inconclusive", f"{'; '.join(guard_result.faults)}.")
    # 2) Compare with the base, then with the incumbents.
    to_base = _check("base", inputs.headline, settings.difference(base), 0.0)
    incumbents = _incumbent_checks(inputs, settings)
    checks = [to_base, *incumbents.checks]
    if incumbents.fault:
        return checks, _Decision("inconclusive", incumbents.fault)
    # 3) An adapter has regressed if Holm's correction rejects a check or a guard trips; else the checks decide.
    checks = holm_corrected(checks)
    if (tripped := guard_result.tripped) and all(check.outcome != "regressed" for check in checks):
        scale = inputs.scale(tripped.metric)
        reason = f"On the guard {tripped.guard} {scale.label} is worse than the base model's"
        return checks, _Decision("regressed", f"{reason} ({difference_text(tripped, scale)}).", checks[0])
    return checks, _conclusion(inputs, checks, incumbents, settings.margin, any_score=sum(base.new) > 0)


@dataclass(frozen=True)
class _IncumbentChecks:
    """Comparisons with the incumbents.

    `absent` says why there are none; `comparable` is false if the incumbents were measured under other
    conditions. `fault` says why a comparison was impossible.
    """

    checks: Sequence[Check] = ()
    absent: str = ""
    comparable: bool = True
    fault: str = ""


def _incumbent_checks(inputs: GateInput, settings: GateSettings) -> _IncumbentChecks:
    """Compare every metric with each incumbent whose bytes differ from the adapter's."""
    if inputs.incumbents is None:
        return _IncumbentChecks(absent="no adapter has been promoted, so it is compared with the base model only")
    if inputs.incumbents.current.adapter_sha256 == inputs.adapter_sha256:
        return _IncumbentChecks(absent="this is the promoted adapter, so it is compared with the base model only")
    ids = scores_by_sample(inputs.test_rows, inputs.task, inputs.headline).keys()
    entries, compared = inputs.incumbents.entries(), {inputs.adapter_sha256}
    references: list[tuple[_Incumbent, str, Scores]] = []
    for against, role, title in INCUMBENTS:
        entry = entries[role]
        if entry.adapter_sha256 in compared:
            continue
        compared.add(entry.adapter_sha256)
        if entry.key != inputs.key or any(entry.scores.get(metric, {}).keys() != ids for metric in inputs.metrics):
            return _IncumbentChecks(
                comparable=False,
                absent=f"{title[0].upper()}{title[1:]} was measured under other conditions (data, prompt, decoding, "
                "harness, judge or isolation) and cannot be compared. Restore them, or run "
                "`bilora baseline forget TASK` to compare with the base model only.",
            )
        references += [(against, metric, entry.scores[metric]) for metric in inputs.metrics]
    checks: list[Check] = []
    for against, metric, scores in references:
        pairs = inputs.pairs(metric, scores)
        if pairs.faults:
            return _IncumbentChecks(checks, fault=f"{metric}, {_title(against)}: {'; '.join(pairs.faults)}.")
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
    """Return the outcome of one paired difference, without correction for multiple comparisons."""
    if gain.high < 0:
        return "regressed"
    return "pass" if gain.low > -margin else "inconclusive"


def holm_corrected(checks: Sequence[Check]) -> list[Check]:
    """Return the checks with "regressed" only where Holm's correction for multiple comparisons rejects "not worse"."""
    worse = holm([p_value_not_worse(Interval(low=c.low, mean=c.delta, high=c.high)) for c in checks])
    return [
        check.model_copy(update={"outcome": "regressed" if rejected else _unrejected_outcome(check)})
        for check, rejected in zip(checks, worse, strict=True)
    ]


def _unrejected_outcome(check: Check) -> CheckOutcome:
    return "pass" if check.low > -check.margin else "inconclusive"


def _conclusion(
    inputs: GateInput, checks: Sequence[Check], incumbents: _IncumbentChecks, margin: float, *, any_score: bool
) -> _Decision:
    """Return the first decision that applies: regressed, incomparable, inconclusive, pass."""
    for check in checks:
        if check.outcome == "regressed":
            scale = inputs.scale(check.metric)
            reason = f"{scale.label} is worse than {_title(check.against)} ({difference_text(check, scale)})."
            return _Decision("regressed", reason, check)
    if not incumbents.comparable:
        return _Decision("incomparable", incumbents.absent)
    to_base, headline = checks[0], inputs.scale(inputs.headline)
    if not any_score:
        return _Decision("inconclusive", f"{headline.label} is 0; such an adapter never passes.", to_base)
    for check in checks:
        if check.outcome == "inconclusive":
            scale = inputs.scale(check.metric)
            requirement = "beat" if check.margin == 0 else f"be within {points_text(check.margin, scale)} of"
            difference = difference_text(check, scale)
            reason = f"{scale.label} is not shown to {requirement} {_title(check.against)} ({difference})."
            return _Decision("inconclusive", reason, check)
    better = f"Better than the base model ({difference_text(to_base, headline)})"
    if len(checks) == 1:
        return _Decision("pass", f"{better}; {incumbents.absent}.", to_base)
    scale = inputs.scale(checks[1].metric)
    reason = (
        f"{better}, and in no metric worse than the promoted adapter "
        f"({difference_text(checks[1], scale)}, margin {points_text(margin, scale)}) or the best ever promoted."
    )
    return _Decision("pass", reason, checks[1])


def _title(against: str) -> str:
    return next((title for name, _, title in INCUMBENTS if name == against), "the base model")


def difference_text(gain: Interval | Check | GuardCheck, scale: Scale) -> str:
    """Return a difference with its interval as text."""
    mean = gain.mean if isinstance(gain, Interval) else gain.delta
    low, high = scale.difference(gain.low), scale.difference(gain.high)
    return f"{scale.difference(mean)} points, 95 % [{low}, {high}]"


def points_text(margin: float, scale: Scale) -> str:
    """Return a difference as text without a sign."""
    return f"{scale.difference(margin).removeprefix('+')} points"


def overall_outcome(verdicts: Iterable[Verdict]) -> str:
    """Return the most severe outcome, which decides the exit code.

    A task without any scored sample counts as "infrastructure": the sandbox failed, not the adapter.
    """
    return most_severe(
        "infrastructure" if verdict.n == 0 and verdict.unscored else verdict.outcome for verdict in verdicts
    )


def most_severe(outcomes: Iterable[str], *, default: str = "inconclusive") -> str:
    """Return the most severe outcome; `default` if there is none."""
    distinct = set(outcomes)
    return next((outcome for outcome in SEVERITY if outcome in distinct), default)
