"""Compare adapter and base on the guards, sample by sample."""

from __future__ import annotations

from dataclasses import dataclass

from bilora.evaluation.baseline import scores_by_sample
from bilora.evaluation.evidence import GateInput, GateSettings, row_faults
from bilora.records import guard_dataset
from bilora.results import GuardCheck, SystemSummary, TaskResults


@dataclass(frozen=True)
class GuardResult:
    """One check per guard with at least two scored samples, and the faults that invalidate them."""

    checks: tuple[GuardCheck, ...]
    faults: tuple[str, ...]

    @property
    def tripped(self) -> GuardCheck | None:
        """The first check in which the adapter is significantly worse than the base."""
        return next((check for check in self.checks if check.tripped), None)


def check_guards(inputs: GateInput, settings: GateSettings) -> GuardResult:
    """Compare adapter and base on every guard."""
    checks, faults = [], []
    for name, size in inputs.guards.items():
        dataset = guard_dataset(name)
        # 1) Pair the adapter's answers with the base's.
        rows = inputs.dataset_rows(dataset)
        pairs = inputs.pairs(inputs.headline, scores_by_sample(rows, "base", inputs.headline, dataset), dataset)
        # 2) Collect the faults: not all of the guard's samples, or rows of another adapter.
        guard_faults = [*row_faults(rows, inputs), *pairs.faults]
        if (answered := len({row.sample.id for row in rows})) != size:
            guard_faults.append(f"{answered} of {size} questions were answered; run `dvc repro evaluate`")
        faults += [f"guard {name}: {fault}" for fault in guard_faults]
        # 3) The guard trips when the whole interval of the difference is below 0.
        if len(pairs.new) >= 2 and len(set(pairs.groups)) >= 2:
            gain = settings.difference(pairs)
            checks.append(
                GuardCheck(
                    guard=name,
                    metric=inputs.headline,
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
    """A guard's outcome for display: the gate's check, and the texts that describe it."""

    check: GuardCheck
    title: str
    scores: str
    form: str
    prompt: str

    @property
    def sentence(self) -> str:
        """The outcome in one line."""
        return f"{self.title}: {self.scores}; {self.form}"


def guard_lines(name: str, task: TaskResults) -> list[str]:
    """Return one line of text per guard of a task's verdict."""
    return [f"guard {view.sentence}" for view in guard_views(name, task)]


def guard_views(name: str, task: TaskResults) -> list[GuardView]:
    """Return the guards of a task's verdict, for report and terminal.

    Args:
        name: the task's name, which is also the adapter's system name.
    """
    return [_guard_view(name, task, check) for check in (task.verdict.guards if task.verdict else ())]


def _guard_view(name: str, task: TaskResults, check: GuardCheck) -> GuardView:
    scale, facts = task.scales[check.metric], task.guards.get(check.guard)
    summary = task.summary.get(guard_dataset(check.guard))
    systems = [("base", "base"), (name, "adapter")] if summary else []
    forms = [_form(label, summary.systems.get(system)) for system, label in systems if summary]
    low, delta, high = map(scale.difference, (check.low, check.delta, check.high))
    outcome = "significantly worse: the guard trips" if check.tripped else "not significantly worse"
    return GuardView(
        check=check,
        title=facts.title if facts else check.guard,
        scores=f"{scale.label} of the base {scale.text(check.base)}, of the adapter {scale.text(check.adapter)}, "
        f"difference {delta} points, 95 % [{low}, {high}], n {check.n}: {outcome}",
        form="; ".join(forms),
        prompt="\n\n".join(f"[{message.role}]\n{message.content}" for message in facts.prompt) if facts else "",
    )


def _form(label: str, summary: SystemSummary | None) -> str:
    """Return the length of a system's answers in tokens, and the share that ended by themselves."""
    if summary is None:
        return f"{label} was not evaluated"
    tokens = "an unknown number of" if summary.output_tokens is None else f"{summary.output_tokens:,}"
    stopped = summary.metrics.get("stopped")
    ended = "" if stopped is None or stopped.mean is None else f", {stopped.mean:.0%} ended by themselves"
    return f"{label} {tokens} tokens{ended}"
