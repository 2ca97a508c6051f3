"""data-process: raw rows become samples that were checked, and a report says what was refused."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bilora.data.drops import Drops
from bilora.data.similarity import LIKENESS, OVERLAP, REPETITION, DuplicateIndex, ngrams
from bilora.data_reports import ExecutionCounts, ProcessReport
from bilora.errors import Infrastructure
from bilora.params import Processing
from bilora.protocols import Progress, ProgressBars, Sandbox, no_bar
from bilora.records import Drop, Program, Row, Sample, Split
from bilora.sources.labelling import ORIGIN, REFUSED
from bilora.storage import read_rows
from bilora.tasks.task import Task


@dataclass(frozen=True)
class Processed:
    """The samples in the order of their rows, and the drop report."""

    samples: list[Sample]
    report: ProcessReport


def process(
    task: Task,
    raw: Path,
    *,
    sandbox: Sandbox,
    rules: Processing,
    curated: Sequence[Sample] = (),
    guards: Mapping[str, Sequence[Sample]] | None = None,
    bars: ProgressBars = no_bar,
) -> Processed:
    """Read, verify by execution, de-duplicate and decontaminate.

    Args:
        curated: the hand-checked evaluation set of this task, which no sample may repeat.
        guards: the questions of each guard of this task, which only samples of an official test split may repeat.
        bars: show the rows that are read, and the references that are run.

    Raises:
        BadData: `raw` is absent or was damaged after data-download wrote it; file and line are named.
        Infrastructure: the sandbox itself failed, so nothing is known about a reference.
    """
    drops = Drops()
    with raw.open("rb") as lines:
        total = sum(1 for _ in lines)
    with bars(f"data-process {task.name}: read", total) as tick:
        rows, samples = _read(task, raw, rules, drops, tick)
    with bars(f"data-process {task.name}: run the references", sum(bool(sample.tests) for sample in samples)) as tick:
        samples, execution = _execute(samples, sandbox, drops, tick)
    samples = _deduplicate(samples, rules, drops)
    samples = _decontaminate(samples, curated, "repeats the curated set", rules, drops)
    tested = [sample for sample in samples if sample.split == "test"]
    trained = [sample for sample in samples if sample.split != "test"]
    for name, questions in (guards or {}).items():
        trained = _decontaminate(trained, questions, f"repeats the guard {name}", rules, drops)
    kept = {id(sample) for sample in (*tested, *trained)}
    samples = [sample for sample in samples if id(sample) in kept]
    report = ProcessReport(
        task=task.name, rows_in=rows, rows_out=len(samples), execution=execution, rules=drops.rules()
    )
    return Processed(samples, report)


def _read(task: Task, raw: Path, rules: Processing, drops: Drops, progress: Progress) -> tuple[int, list[Sample]]:
    rows, samples = 0, []
    for _, row in read_rows(raw):
        rows += 1
        progress(1)
        origin = row.pop(ORIGIN, "")
        sample = _sample(task, row)
        if isinstance(sample, Drop):
            source = str(row.get("source", "unknown"))
            drops.add(sample.rule, source=source, origin=origin, detail=sample.detail, excerpt=_excerpt(row))
            continue
        drops.locate(sample, origin)
        if len(sample.prompt) > rules.max_prompt_chars:
            drops.add_sample("prompt too long", sample, f"{len(sample.prompt)} characters")
        elif len(sample.target) > rules.max_target_chars:
            drops.add_sample("target too long", sample, f"{len(sample.target)} characters")
        else:
            samples.append(sample)
    return rows, samples


def _sample(task: Task, row: Row) -> Sample | Drop:
    """Return what the task makes of a row; a row on which it raises an error is a Drop too."""
    if REFUSED in row:
        return Drop.model_validate(row[REFUSED])
    try:
        return task.sample(row)
    except KeyError as error:
        column = str(error.args[0]) if error.args else ""
        return Drop(rule=f"no `{column}`", detail=f"the task {task.name} reads `{column}`")
    except (AttributeError, IndexError, TypeError, ValueError, RecursionError) as error:
        problem = (str(error).splitlines() or [type(error).__name__])[0]
        return Drop(rule=f"not a row of the task {task.name}", detail=problem)


def _excerpt(row: Row) -> str:
    """Show the beginning of a row; of one that its source could not read there is none."""
    return "" if REFUSED in row else str(row.get("code") or next(iter(row.values()), ""))


_REFUSALS = {
    "untested": "no test calls the reference",
    "passed-in-process": "tests that cannot be decided outside the reference's process",
    "missing-module": "needs a module that the sandbox does not offer",
}
"""Rules for references that are not shown to be wrong, but not shown to be right either, by outcome."""


def _execute(
    samples: list[Sample], sandbox: Sandbox, drops: Drops, progress: Progress
) -> tuple[list[Sample], ExecutionCounts]:
    """Keep the samples whose reference passes its own tests; those without tests are kept unchecked."""
    tested = [sample for sample in samples if sample.tests]
    programs = (Program(code=sample.target, setup=sample.setup, tests=sample.tests) for sample in tested)
    failed: set[int] = set()
    isolation: set[str] = set()
    for sample, outcome in zip(tested, sandbox.run_many(programs, progress=progress), strict=True):
        if outcome.status == "infrastructure":
            raise Infrastructure(
                f"The sandbox could not try the reference of {drops.place(sample)} ({outcome.detail}): "
                "nothing was dropped or written; mend the sandbox (docs/sandbox.md) and run again."
            )
        isolation.add(outcome.isolation.partition(";")[0])
        if outcome.status != "passed":
            failed.add(id(sample))
            rule = _REFUSALS.get(outcome.status, "reference fails its tests")
            drops.add_sample(rule, sample, f"{outcome.status}: {outcome.detail}")
    passed = len(tested) - len(failed)
    counts = ExecutionCounts(run=len(tested), passed=passed, isolation=tuple(sorted(isolation)))
    return [sample for sample in samples if id(sample) not in failed], counts


def _deduplicate(samples: list[Sample], rules: Processing, drops: Drops) -> list[Sample]:
    """Drop exact and near repeats within a split; data-split looks across the splits."""
    kept: list[Sample] = []
    ids: dict[tuple[Split | None, str], Sample] = {}
    known: defaultdict[Split | None, DuplicateIndex] = defaultdict(lambda: DuplicateIndex(rules))
    for sample in samples:
        if twin := ids.get((sample.split, sample.id)):
            drops.add_sample("exact duplicate", sample, f"of {drops.place(twin)}")
        elif twin := known[sample.split].find_or_add(sample):
            drops.add_sample(REPETITION if sample.tests else LIKENESS, sample, f"of {drops.place(twin)}")
        else:
            ids[sample.split, sample.id] = sample
            kept.append(sample)
    return kept


def _decontaminate(
    samples: list[Sample], questions: Sequence[Sample], name: str, rules: Processing, drops: Drops
) -> list[Sample]:
    """Drop, by a rule of this name, what repeats questions: the same one by `DuplicateIndex`, or one n-gram of prose.

    Of a program sample the statement is prose, of others the target: short loops share any n-gram of code.
    """
    known = DuplicateIndex(rules, questions)
    prose = {gram: other for other in questions for gram in ngrams(_prose(other), rules.contamination_ngram)}
    kept = []
    for sample in samples:
        shared = sorted(ngrams(_prose(sample), rules.contamination_ngram).intersection(prose))
        if repeated := known.repeated(sample):
            rule, other = repeated
            drops.add_sample(name, sample, f"{rule}: {other.source}")
        elif shared:
            detail = f"{OVERLAP} with {prose[shared[0]].source}: {shared[0]}"
            drops.add_sample(name, sample, detail)
        else:
            kept.append(sample)
    return kept


def _prose(sample: Sample) -> str:
    return sample.prompt.partition("\n\n")[0] if sample.tests else sample.target
