"""data-process: turn raw rows into checked samples, and report the refused rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bilora.data.drops import Drops
from bilora.data.similarity import NEAR_DUPLICATE, SAME_BOTH, SHARED_NGRAM, DuplicateIndex, ngrams
from bilora.data_reports import ExecutionCounts, ProcessReport
from bilora.errors import Infrastructure
from bilora.params import Processing
from bilora.protocols import Progress, ProgressBars, Sandbox, no_bar
from bilora.records import Drop, Program, Row, Sample, Split
from bilora.sources.labelling import DROP_KEY, ORIGIN_KEY
from bilora.storage import read_rows
from bilora.tasks.task import Task


@dataclass(frozen=True)
class ProcessResult:
    """The samples in row order, and the report."""

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
) -> ProcessResult:
    """Return the checked samples: read, verified by execution, deduplicated and decontaminated.

    Args:
        curated: curated evaluation set of the task, which no sample may repeat.
        guards: questions of each guard of the task, which only samples of an official test split may repeat.
        bars: progress bars for reading rows and running references.

    Raises:
        BadData: `raw` is absent or damaged; the message names file and line.
        Infrastructure: the sandbox failed, so a reference could not be checked.
    """
    drops = Drops()
    with raw.open("rb") as lines:
        total = sum(1 for _ in lines)
    # 1) read the rows
    with bars(f"data-process {task.name}: read", total) as tick:
        rows, samples = _read(task, raw, rules, drops, tick)
    # 2) run the references
    with bars(f"data-process {task.name}: run the references", sum(bool(sample.tests) for sample in samples)) as tick:
        samples, execution = _execute(samples, sandbox, drops, tick)
    # 3) drop duplicates 4) drop repeats of the curated set, and of the guards unless in an official test split
    samples = _deduplicate(samples, rules, drops)
    samples = _decontaminate(samples, curated, "repeats the curated set", rules, drops)
    tested = [sample for sample in samples if sample.split == "test"]
    trained = [sample for sample in samples if sample.split != "test"]
    for name, questions in (guards or {}).items():
        trained = _decontaminate(trained, questions, f"repeats the guard {name}", rules, drops)
    accepted = {id(sample) for sample in (*tested, *trained)}
    samples = [sample for sample in samples if id(sample) in accepted]
    report = ProcessReport(
        task=task.name, rows_in=rows, rows_out=len(samples), execution=execution, rules=drops.rules()
    )
    return ProcessResult(samples, report)


def _read(task: Task, raw: Path, rules: Processing, drops: Drops, progress: Progress) -> tuple[int, list[Sample]]:
    rows, samples = 0, []
    for _, row in read_rows(raw):
        rows += 1
        progress(1)
        origin = row.pop(ORIGIN_KEY, "")
        sample = _sample(task, row)
        if isinstance(sample, Drop):
            source = str(row.get("source", "unknown"))
            drops.add(sample.rule, source=source, origin=origin, detail=sample.detail, excerpt=_excerpt(row))
            continue
        drops.record_origin(sample, origin)
        if len(sample.prompt) > rules.max_prompt_chars:
            drops.add_sample("prompt too long", sample, f"{len(sample.prompt)} characters")
        elif len(sample.target) > rules.max_target_chars:
            drops.add_sample("target too long", sample, f"{len(sample.target)} characters")
        else:
            samples.append(sample)
    return rows, samples


def _sample(task: Task, row: Row) -> Sample | Drop:
    """Return the task's sample of a row; a Drop if the task refuses the row or raises an error."""
    if DROP_KEY in row:
        return Drop.model_validate(row[DROP_KEY])
    try:
        return task.sample(row)
    except KeyError as error:
        column = str(error.args[0]) if error.args else ""
        return Drop(rule=f"no `{column}`", detail=f"the task {task.name} reads `{column}`")
    except (AttributeError, IndexError, TypeError, ValueError, RecursionError) as error:
        problem = (str(error).splitlines() or [type(error).__name__])[0]
        return Drop(rule=f"not a row of the task {task.name}", detail=problem)


def _excerpt(row: Row) -> str:
    """Return the beginning of a row, or "" if its source could not read it."""
    return "" if DROP_KEY in row else str(row.get("code") or next(iter(row.values()), ""))


_REFUSALS = {
    "untested": "no test calls the reference",
    "passed-in-process": "tests that cannot be decided outside the reference's process",
    "missing-module": "needs a module that the sandbox does not offer",
}
"""By outcome: rules for references that are neither proved right nor proved wrong."""


def _execute(
    samples: list[Sample], sandbox: Sandbox, drops: Drops, progress: Progress
) -> tuple[list[Sample], ExecutionCounts]:
    """Return the samples whose reference passes its tests, and those without tests, which are not checked."""
    tested = [sample for sample in samples if sample.tests]
    programs = (Program(code=sample.target, setup=sample.setup, tests=sample.tests) for sample in tested)
    failed: set[int] = set()
    isolation: set[str] = set()
    for sample, outcome in zip(tested, sandbox.run_many(programs, progress=progress), strict=True):
        if outcome.status == "infrastructure":
            raise Infrastructure(
                f"The sandbox could not run the reference of {drops.location(sample)} ({outcome.detail}), "
                "so no row was dropped or written; fix the sandbox (docs/sandbox.md) and run again."
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
    """Return the samples without duplicates within a split; data-split compares the splits."""
    unique: list[Sample] = []
    ids: dict[tuple[Split | None, str], Sample] = {}
    index: defaultdict[Split | None, DuplicateIndex] = defaultdict(lambda: DuplicateIndex(rules))
    for sample in samples:
        if duplicate := ids.get((sample.split, sample.id)):
            drops.add_sample("exact duplicate", sample, f"of {drops.location(duplicate)}")
        elif duplicate := index[sample.split].find_or_add(sample):
            drops.add_sample(SAME_BOTH if sample.tests else NEAR_DUPLICATE, sample, f"of {drops.location(duplicate)}")
        else:
            ids[sample.split, sample.id] = sample
            unique.append(sample)
    return unique


def _decontaminate(
    samples: list[Sample], questions: Sequence[Sample], name: str, rules: Processing, drops: Drops
) -> list[Sample]:
    """Return the samples that repeat no question, by `DuplicateIndex` or by an n-gram of prose.

    The prose of a program sample is its statement, that of others the target: short programs share n-grams of code.

    Args:
        name: rule under which the other samples are dropped.
    """
    index = DuplicateIndex(rules, questions)
    prose = {gram: question for question in questions for gram in ngrams(_prose(question), rules.contamination_ngram)}
    accepted = []
    for sample in samples:
        shared = sorted(ngrams(_prose(sample), rules.contamination_ngram).intersection(prose))
        if repeat := index.find_repeat(sample):
            rule, question = repeat
            drops.add_sample(name, sample, f"{rule}: {question.source}")
        elif shared:
            detail = f"{SHARED_NGRAM} with {prose[shared[0]].source}: {shared[0]}"
            drops.add_sample(name, sample, detail)
        else:
            accepted.append(sample)
    return accepted


def _prose(sample: Sample) -> str:
    return sample.prompt.partition("\n\n")[0] if sample.tests else sample.target
