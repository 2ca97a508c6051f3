"""Turn ratings into training rows, except those that repeat a held-out question or were withdrawn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from typing import TypeVar

from bilora.data.drops import Drops
from bilora.data.similarity import DuplicateIndex, words
from bilora.data_reports import RATINGS_LICENCE, RatingsReport
from bilora.params import Processing, Splitting
from bilora.records import Sample
from bilora.tasks.task import Task, parse
from bilora.training_pairs import DpoPair, KtoPair, RatedPairs, SftPair

GROUP = "feedback"
"""Group of the samples from ratings, by which reports and run records count them."""
HELD_OUT = "held-out question"
WITHDRAWN = "rating deleted or withdrawn"
INCOMPLETE = "edit would lose text"

_P = TypeVar("_P", bound=SftPair | KtoPair | DpoPair)


@dataclass(frozen=True)
class RatedSamples:
    """Samples for the training split, preference pairs for a phase that trains on them, and the report."""

    samples: list[Sample]
    preferences: Sequence[KtoPair | DpoPair]
    report: RatingsReport


def samples_from_ratings(
    task: Task,
    pairs: RatedPairs,
    *,
    splitting: Splitting,
    trained: Sequence[Sample],
    held_out: Sequence[Sample],
    rules: Processing,
    withdrawn: Set[str] = frozenset(),
) -> RatedSamples:
    """Return the rows that `splitting` requests from a task's rated pairs, checked like other samples.

    Args:
        trained: current training split; an edit that is equal to one of its samples is dropped.
        held_out: all evaluation questions. `bilora feedback pairs` has skipped them already, but the
            samples may have been split again since.
        withdrawn: ids of ratings that were deleted or withdrawn, also after the pairs were written.
    """
    drops, index = Drops(), DuplicateIndex(rules, held_out)
    questions = {" ".join(words(sample.prompt)) for sample in held_out}

    def accepted(rows: Iterable[_P]) -> Iterator[tuple[Sample, _P]]:
        for row in rows:
            if row.task != task.name:
                continue
            sample = _sample(task, row)
            if withdrawn_ids := withdrawn & set(row.ratings):
                # Without an excerpt: the report must not contain a deleted rating's text.
                drops.add(WITHDRAWN, source=sample.source, detail=", ".join(sorted(withdrawn_ids)))
                continue
            if not isinstance(row, KtoPair) and not _is_whole(task, sample, row):
                drops.add_sample(INCOMPLETE, sample)
                continue
            repeat = index.find_repeat(sample)
            if " ".join(words(sample.prompt)) in questions:
                drops.add_sample(HELD_OUT, sample)
            elif repeat:
                drops.add_sample(HELD_OUT, sample, f"{repeat[0]}: {repeat[1].source}")
            elif len(sample.prompt) > rules.max_prompt_chars:
                drops.add_sample("prompt too long", sample, f"{len(sample.prompt)} characters")
            elif len(sample.target) > rules.max_target_chars:
                drops.add_sample("target too long", sample, f"{len(sample.target)} characters")
            elif task.language == "python" and not isinstance(row, KtoPair) and parse(sample.target) is None:
                drops.add_sample("edit is not Python", sample)
            else:
                yield sample, row

    samples: dict[str, Sample] = {}
    present = {sample.id for sample in trained}
    for sample, _ in accepted(pairs.sft if splitting.feedback else ()):
        if sample.id in present:
            drops.add_sample("already a training sample", sample)
        else:
            samples[sample.id] = sample
    preferences = [
        row.model_copy(update={"prompt": task.messages(sample.prompt)})
        for sample, row in accepted(pairs.selected(splitting.preference) if splitting.preference else ())
    ]
    report = RatingsReport(samples=len(samples), preferences=len(preferences), rules=drops.rules())
    return RatedSamples(list(samples.values()), preferences, report)


def rating_ids(samples: Iterable[Sample], preferences: Iterable[KtoPair | DpoPair]) -> tuple[str, ...]:
    """Return the ids of all ratings in a task's training rows, sorted."""
    read = {event for sample in samples for event in _rating_ids(sample)}
    return tuple(sorted(read.union(event for row in preferences for event in row.ratings)))


def without_withdrawn(
    samples: Sequence[Sample], preferences: Sequence[KtoPair | DpoPair], withdrawn: Set[str]
) -> tuple[list[Sample], list[KtoPair | DpoPair]]:
    """Return the training rows without those of a withdrawn rating."""
    rows = [row for row in preferences if withdrawn.isdisjoint(row.ratings)]
    return [sample for sample in samples if withdrawn.isdisjoint(_rating_ids(sample))], rows


def _rating_ids(sample: Sample) -> list[str]:
    return sample.source.removeprefix(f"{GROUP}:").split(",") if sample.group == GROUP else []


def _answer(row: SftPair | KtoPair | DpoPair) -> str:
    (turn,) = row.chosen if isinstance(row, DpoPair) else row.completion
    return turn.content


def _is_whole(task: Task, sample: Sample, row: SftPair | DpoPair) -> bool:
    """Return whether the sample contains the whole answer of the row, ignoring whitespace."""
    return task.answer(sample.target).split() == _answer(row).split()


def _sample(task: Task, row: SftPair | KtoPair | DpoPair) -> Sample:
    """Return a rated question and answer as a sample."""
    prompt = row.prompt[-1].content
    return Sample.create(
        task=task.name,
        prompt=prompt,
        target=task.read_answer(_answer(row), prompt),
        source=f"{GROUP}:{','.join(row.ratings)}",
        group=GROUP,
        licence=RATINGS_LICENCE,
        split="train",
    )
