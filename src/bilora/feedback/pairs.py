"""Convert ratings to training rows in TRL's conversational formats (huggingface.co/docs/trl/dataset_formats).

An edited answer gives an SFT row, and a DPO row that prefers it to the model's answer; a thumb gives a KTO row. The
messages are built by the task, as for the page's requests.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import TypeVar

from bilora.feedback.corrections import is_complete, is_empty
from bilora.python_code.source import normalized
from bilora.records import Message, Rating
from bilora.storage import sha256_bytes
from bilora.tasks.task import Task
from bilora.training_pairs import DpoPair, KtoPair, Pair, SftPair

_WORD = re.compile(r"\w+")

_Key = tuple[str, ...]
_P = TypeVar("_P", bound=Pair)


@dataclass(frozen=True)
class Pairs:
    """Training rows, ordered by their first rating, and counts of skipped ratings by reason.

    `refused` counts ratings that gave no row, `thumbs` those that gave no KTO row, and `edits` the edited answers that
    gave no SFT row; so ratings = refused + thumbs + len(kto).
    """

    sft: tuple[SftPair, ...]
    dpo: tuple[DpoPair, ...]
    kto: tuple[KtoPair, ...]
    refused: dict[str, int]
    thumbs: dict[str, int]
    edits: dict[str, int]


def prompt_hash(prompt: str) -> str:
    """Return the hash of a prompt's words; spacing, punctuation and case do not change it."""
    return sha256_bytes(" ".join(_WORD.findall(prompt.lower())).encode())


def training_pairs(
    ratings: Iterable[Rating], tasks: Mapping[str, Task], *, adapters: Set[str], held_out: Set[str]
) -> Pairs:
    """Convert ratings to training rows.

    Args:
        ratings: the valid ratings, one per generation.
        tasks: by name; they build the messages.
        adapters: the sha256 of every adapter whose answers are used.
        held_out: the `prompt_hash` of every question that training must not see.
    """
    refused: Counter[str] = Counter()
    usable = []
    for rating in sorted(ratings, key=lambda rating: rating.event_id):
        reason = _refusal(rating, tasks, adapters, held_out)
        if reason:
            refused[reason] += 1
        else:
            usable.append(rating)
    kto, thumbs = _kto_rows(usable, tasks)
    sft, dpo, edits = _edit_rows(usable, tasks)
    return Pairs(sft, dpo, kto, *(dict(sorted(reasons.items())) for reasons in (refused, thumbs, edits)))


def _refusal(rating: Rating, tasks: Mapping[str, Task], adapters: Set[str], held_out: Set[str]) -> str | None:
    """Return why a rating gives no row; None if it is usable."""
    if rating.task not in tasks:
        return "unknown task"
    if not all(map(_is_unicode, (rating.prompt, rating.completion, rating.edited or ""))):
        return "text that is not Unicode"
    if rating.adapter_sha256 not in adapters:
        return "unknown adapter"
    if prompt_hash(rating.prompt) in held_out:
        return "held-out prompt"
    if rating.redactions:
        return "text redacted"  # no adapter should learn to write placeholders
    if not rating.completion.strip():
        return "empty answer"
    return None


def _is_unicode(text: str) -> bool:
    """Return whether UTF-8 can encode a text, which half a surrogate pair prevents."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _kto_rows(ratings: Iterable[Rating], tasks: Mapping[str, Task]) -> tuple[tuple[KtoPair, ...], Counter[str]]:
    """Return one row per answer, labelled by majority, with one vote per session; a tie gives none."""
    skipped: Counter[str] = Counter()
    answers: defaultdict[_Key, dict[str, Rating]] = defaultdict(dict)
    for rating in ratings:
        votes = answers[rating.task, rating.prompt, rating.completion]
        skipped["same session again"] += rating.session in votes
        votes[rating.session] = rating  # the session's latest
    rows = []
    for votes in answers.values():
        ups = [rating for rating in votes.values() if rating.rating == "up"]
        downs = [rating for rating in votes.values() if rating.rating == "down"]
        if len(ups) == len(downs):
            skipped["as many up as down"] += len(votes)
            continue
        majority, minority = (ups, downs) if len(ups) > len(downs) else (downs, ups)
        skipped["outvoted"] += len(minority)
        skipped["same answer, same thumb"] += len(majority) - 1
        first = majority[0]
        rows.append(
            KtoPair(
                task=first.task,
                prompt=tasks[first.task].messages(first.prompt),
                completion=_assistant(first.completion),
                label=first.rating == "up",
                ratings=_ids(majority),
            )
        )
    return _ordered(rows), +skipped


def _edit_rows(
    ratings: Iterable[Rating], tasks: Mapping[str, Task]
) -> tuple[tuple[SftPair, ...], tuple[DpoPair, ...], Counter[str]]:
    """Return one SFT row per edited answer, one DPO row per answer and edit; opposite edits cancel out."""
    # 1) group the ratings by original and edited answer
    skipped: Counter[str] = Counter()
    edits: defaultdict[_Key, list[Rating]] = defaultdict(list)
    for rating in ratings:
        if rating.edited is None:
            continue
        task = tasks[rating.task]
        original = task.read_answer(normalized(rating.completion), rating.prompt)
        corrected = task.read_answer(normalized(rating.edited), rating.prompt)
        if is_empty(rating.edited):
            skipped["empty edit"] += 1
        elif normalized(rating.edited).strip() == normalized(rating.completion).strip():
            skipped["edit changes nothing"] += 1
        elif not is_complete(task, rating.edited, corrected):
            skipped["edit would lose text"] += 1
        elif not corrected.strip():
            skipped["empty edit"] += 1
        elif corrected == original:
            skipped["edit changes nothing"] += 1
        else:
            edits[rating.task, rating.prompt, original, corrected].append(rating)

    # 2) one DPO row per group, unless another rating made the opposite edit
    by_answer: defaultdict[_Key, list[Rating]] = defaultdict(list)
    dpo = []
    for (name, prompt, original, corrected), group in edits.items():
        if (name, prompt, corrected, original) in edits:
            skipped["edited back by another"] += len(group)
            continue
        by_answer[name, prompt, corrected] += group
        dpo.append(
            DpoPair(
                task=name,
                prompt=tasks[name].messages(prompt),
                chosen=_assistant(tasks[name].answer(corrected)),
                rejected=_assistant(group[0].completion),
                ratings=_ids(group),
            )
        )

    # 3) one SFT row per edited answer
    sft = [
        SftPair(
            task=name,
            prompt=tasks[name].messages(prompt),
            completion=_assistant(tasks[name].answer(corrected)),
            ratings=_ids(group),
        )
        for (name, prompt, corrected), group in by_answer.items()
    ]
    skipped["same edit again"] += sum(map(len, by_answer.values())) - len(by_answer)
    return _ordered(sft), _ordered(dpo), +skipped


def _assistant(text: str) -> tuple[Message, ...]:
    return (Message(role="assistant", content=text),)


def _ids(ratings: Iterable[Rating]) -> tuple[str, ...]:
    return tuple(sorted(rating.event_id for rating in ratings))


def _ordered(rows: Iterable[_P]) -> tuple[_P, ...]:
    return tuple(sorted(rows, key=lambda row: row.ratings))
