"""Did the adapter break what its base could do on a guard? It is compared with the base, question by question."""

from __future__ import annotations

from dataclasses import dataclass

from bilora.evaluation.baseline import scores_by_sample
from bilora.evaluation.evidence import GateInput, GateSettings, row_faults
from bilora.records import guard_dataset
from bilora.results import GuardCheck, SystemSummary, TaskResults


@dataclass(frozen=True)
class GuardResult:
    """One comparison for each guard that scored at least two questions, and what speaks against trusting them."""

    checks: tuple[GuardCheck, ...]
    faults: tuple[str, ...]

    @property
    def tripped(self) -> GuardCheck | None:
        """The first guard on which the adapter is worse than the base beyond doubt."""
        return next((check for check in self.checks if check.tripped), None)


def check_guards(given: GateInput, settings: GateSettings) -> GuardResult:
    """Compare adapter and base on every guard."""
    checks, faults = [], []
    for name, size in given.guards.items():
        dataset = guard_dataset(name)
        # 1) Pair the adapter's answers with the base's.
        rows = given.dataset_rows(dataset)
        pairs = given.pairs(given.headline, scores_by_sample(rows, "base", given.headline, dataset), dataset)
        # 2) Doubt whatever is not the whole guard, measured with these bytes.
        found = [*row_faults(rows, given), *pairs.faults]
        if (answered := len({row.sample.id for row in rows})) != size:
            found.append(f"{answered} of {size} questions were answered; run `dvc repro evaluate`")
        faults += [f"guard {name}: {fault}" for fault in found]
        # 3) The guard trips when the whole interval of the difference is below 0.
        if len(pairs.new) >= 2 and len(set(pairs.groups)) >= 2:
            gain = settings.difference(pairs)
            checks.append(
                GuardCheck(
                    guard=name,
                    metric=given.headline,
                    n=len(pairs.new),
                    unscored=pairs.unscored,
                    base=sum(pairs.old) / len(pairs.old),
                    adapter=sum(pairs.new) / len(pairs.new),
                    low=gain.low,
                    delta=gain.mean,
                    high=gain.high,
                    tripped=gain.high < 0,
                )
            )
    return GuardResult(tuple(checks), tuple(faults))


@dataclass(frozen=True)
class GuardView:
    """A guard's outcome, written for people; `check` is the gate's, the others are sentences and names."""

    check: GuardCheck
    title: str
    scores: str
    form: str
    prompt: str

    @property
    def sentence(self) -> str:
        """The whole outcome in one line."""
        return f"{self.title}: {self.scores}; {self.form}"


def guard_lines(name: str, task: TaskResults) -> list[str]:
    """Return one line per guard of a task's verdict."""
    return [f"guard {shown.sentence}" for shown in guard_views(name, task)]


def guard_views(name: str, task: TaskResults) -> list[GuardView]:
    """Return the guards of a task's verdict for report and terminal.

    Args:
        name: the task's, which is also the adapter's system.
    """
    return [_shown_guard(name, task, check) for check in (task.verdict.guards if task.verdict else ())]


def _shown_guard(name: str, task: TaskResults, check: GuardCheck) -> GuardView:
    scale, facts = task.scales[check.metric], task.guards.get(check.guard)
    summary = task.summary.get(guard_dataset(check.guard))
    systems = [("base", "base"), (name, "adapter")] if summary else []
    forms = [_form(words, summary.systems.get(system)) for system, words in systems if summary]
    low, delta, high = map(scale.difference, (check.low, check.delta, check.high))
    outcome = "worse beyond doubt: the guard trips" if check.tripped else "not worse beyond doubt"
    return GuardView(
        check=check,
        title=facts.title if facts else check.guard,
        scores=f"{scale.label} of the base {scale.text(check.base)}, of the adapter {scale.text(check.adapter)}, "
        f"difference {delta} points, 95 % [{low}, {high}], n {check.n}: {outcome}",
        form="; ".join(forms),
        prompt="\n\n".join(f"[{message.role}]\n{message.content}" for message in facts.prompt) if facts else "",
    )


def _form(words: str, found: SystemSummary | None) -> str:
    """Say how long a system's answers are, and how many ended by themselves."""
    if found is None:
        return f"{words} was not asked"
    tokens = "an unknown number of" if found.output_tokens is None else f"{found.output_tokens:,}"
    stopped = found.metrics.get("stopped")
    ended = "" if stopped is None or stopped.mean is None else f", {stopped.mean:.0%} ended by themselves"
    return f"{words} {tokens} tokens{ended}"
