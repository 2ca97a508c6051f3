"""From ratings to training rows in TRL's conversational formats (huggingface.co/docs/trl/dataset_formats).

An edited answer gives an SFT row, and a DPO row that sets it above the model's; a thumb gives a KTO row.
The chat is the task's own, so that training sees what the app has sent.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import TypeVar

from bilora.feedback.corrections import is_empty, is_whole
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
    """Training rows, ordered by their first rating, and why ratings or edits gave none.

    `refused` counts ratings that gave nothing, `thumbs` those that gave no KTO row of their own, and
    `edits` edited answers that gave no SFT row; so ratings = refused + thumbs + len(kto).
    """

    sft: tuple[SftPair, ...]
    dpo: tuple[DpoPair, ...]
    kto: tuple[KtoPair, ...]
    refused: dict[str, int]
    thumbs: dict[str, int]
    edits: dict[str, int]


def prompt_hash(prompt: str) -> str:
    """Hash a prompt's words, so that held-out questions are known in other spacing and case too."""
    return sha256_bytes(" ".join(_WORD.findall(prompt.lower())).encode())


def training_pairs(
    ratings: Iterable[Rating], tasks: Mapping[str, Task], *, adapters: Set[str], held_out: Set[str]
) -> Pairs:
    """Turn ratings into training rows.

    Args:
        ratings: those that stand; one per generation.
        tasks: by name; they make the chats.
        adapters: sha256 of the adapters whose answers count.
        held_out: `prompt_hash` of every question that training must not see.
    """
    refused: Counter[str] = Counter()
    kept = []
    for rating in sorted(ratings, key=lambda rating: rating.event_id):
        reason = _refusal(rating, tasks, adapters, held_out)
        if reason:
            refused[reason] += 1
        else:
            kept.append(rating)
    kto, thumbs = _kto(kept, tasks)
    sft, dpo, edits = _edits(kept, tasks)
    return Pairs(sft, dpo, kto, *(dict(sorted(reasons.items())) for reasons in (refused, thumbs, edits)))


def _refusal(rating: Rating, tasks: Mapping[str, Task], adapters: Set[str], held_out: Set[str]) -> str | None:
    if rating.task not in tasks:
        return "unknown task"
    if not all(map(_is_unicode, (rating.prompt, rating.completion, rating.edited or ""))):
        return "text that is not Unicode"
    if rating.adapter_sha256 not in adapters:
        return "unknown adapter"
    if prompt_hash(rating.prompt) in held_out:
        return "held-out prompt"
    if rating.redactions:
        return "text blackened"  # nobody wrote such an answer, and nobody should learn it
    if not rating.completion.strip():
        return "empty answer"
    return None


def _is_unicode(text: str) -> bool:
    """Whether UTF-8 can hold a text: half a surrogate pair it cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _kto(ratings: Iterable[Rating], tasks: Mapping[str, Task]) -> tuple[tuple[KtoPair, ...], Counter[str]]:
    """One row per answer: its thumbs vote, one per session, and a tie teaches nothing."""
    left_out: Counter[str] = Counter()
    answers: defaultdict[_Key, dict[str, Rating]] = defaultdict(dict)
    for rating in ratings:
        votes = answers[rating.task, rating.prompt, rating.completion]
        left_out["same session again"] += rating.session in votes
        votes[rating.session] = rating  # its latest word
    rows = []
    for votes in answers.values():
        ups = [rating for rating in votes.values() if rating.rating == "up"]
        downs = [rating for rating in votes.values() if rating.rating == "down"]
        if len(ups) == len(downs):
            left_out["as many up as down"] += len(votes)
            continue
        won, lost = (ups, downs) if len(ups) > len(downs) else (downs, ups)
        left_out["outvoted"] += len(lost)
        left_out["same answer, same thumb"] += len(won) - 1
        first = won[0]
        rows.append(
            KtoPair(
                task=first.task,
                prompt=tasks[first.task].messages(first.prompt),
                completion=_turn(first.completion),
                label=first.rating == "up",
                ratings=_ids(won),
            )
        )
    return _ordered(rows), +left_out


def _edits(
    ratings: Iterable[Rating], tasks: Mapping[str, Task]
) -> tuple[tuple[SftPair, ...], tuple[DpoPair, ...], Counter[str]]:
    """One SFT row per edited answer, one DPO row per answer and its edit; edits there and back cancel out.

    An edit reaches its row whole, or it is left out: what the task's `extract` would cut off was meant.
    """
    left_out: Counter[str] = Counter()
    edits: defaultdict[_Key, list[Rating]] = defaultdict(list)
    for rating in ratings:
        if rating.edited is None:
            continue
        task = tasks[rating.task]
        was, wanted = (task.read_answer(normalized(one), rating.prompt) for one in (rating.completion, rating.edited))
        if is_empty(rating.edited):
            left_out["empty edit"] += 1
        elif normalized(rating.edited).strip() == normalized(rating.completion).strip():
            left_out["edit changes nothing"] += 1
        elif not is_whole(task, rating.edited, wanted):
            left_out["edit would lose a part of itself"] += 1
        elif not wanted.strip():
            left_out["empty edit"] += 1
        elif wanted == was:
            left_out["edit changes nothing"] += 1
        else:
            edits[rating.task, rating.prompt, was, wanted].append(rating)
    written: defaultdict[_Key, list[Rating]] = defaultdict(list)
    dpo = []
    for (name, prompt, was, wanted), group in edits.items():
        if (name, prompt, wanted, was) in edits:
            left_out["edited back by another"] += len(group)
            continue
        written[name, prompt, wanted] += group
        dpo.append(
            DpoPair(
                task=name,
                prompt=tasks[name].messages(prompt),
                chosen=_turn(tasks[name].answer(wanted)),
                rejected=_turn(group[0].completion),
                ratings=_ids(group),
            )
        )
    sft = [
        SftPair(
            task=name,
            prompt=tasks[name].messages(prompt),
            completion=_turn(tasks[name].answer(wanted)),
            ratings=_ids(group),
        )
        for (name, prompt, wanted), group in written.items()
    ]
    left_out["same edit again"] += sum(map(len, written.values())) - len(written)
    return _ordered(sft), _ordered(dpo), +left_out


def _turn(text: str) -> tuple[Message, ...]:
    return (Message(role="assistant", content=text),)


def _ids(ratings: Iterable[Rating]) -> tuple[str, ...]:
    return tuple(sorted(rating.event_id for rating in ratings))


def _ordered(rows: Iterable[_P]) -> tuple[_P, ...]:
    return tuple(sorted(rows, key=lambda row: row.ratings))
