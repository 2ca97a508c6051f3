"""Training rows from ratings: TRL's formats, the task's messages, and a count of skipped ratings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from bilora.feedback.pairs import Pairs, prompt_hash, training_pairs
from bilora.records import Rating
from bilora.tasks import load_task

ADAPTER = "a" * 64
TASKS = {name: load_task(name) for name in ("codegen", "docstring")}
ONE, TWO, THREE = (f"def f():\n    return {number}" for number in (1, 2, 3))

Make = Callable[..., Rating]


def fenced(code: str) -> str:
    return f"```python\n{code}\n```"


def run(ratings: Iterable[Rating], held_out: Iterable[str] = ()) -> Pairs:
    hashes = frozenset(map(prompt_hash, held_out))
    return training_pairs(ratings, TASKS, adapters=frozenset({ADAPTER}), held_out=hashes)


def content(turns: Any) -> list[tuple[str, str]]:
    return [(turn.role, turn.content) for turn in turns]


def test_the_messages_are_the_task_s(make: Make) -> None:
    rating = make(prompt="Add.")
    (row,) = run([rating]).kto
    assert row.prompt == TASKS["codegen"].messages("Add.")


@pytest.mark.parametrize(("thumb", "label"), [("up", True), ("down", False)])
def test_a_thumb_is_a_kto_row(make: Make, thumb: str, label: bool) -> None:
    rating = make(rating=thumb, completion=fenced(ONE))
    pairs = run([rating])
    (row,) = pairs.kto
    assert (row.label, content(row.completion)) == (label, [("assistant", fenced(ONE))])
    assert row.ratings == (rating.event_id,)
    assert (pairs.sft, pairs.dpo) == ((), ())


def test_an_edit_gives_an_sft_row_and_a_dpo_row(make: Make) -> None:
    pairs = run([make(completion=fenced(ONE), edited=TWO)])
    (sft,), (dpo,) = pairs.sft, pairs.dpo
    assert content(sft.completion) == content(dpo.chosen) == [("assistant", fenced(TWO))]
    assert content(dpo.rejected) == [("assistant", fenced(ONE))]
    assert sft.prompt == dpo.prompt


@pytest.mark.parametrize("edited", [TWO, fenced(TWO), f"\n\n{fenced(TWO)}\n \n", fenced(TWO).replace("\n", "\r\n")])
def test_an_edit_is_formatted_as_the_task_s_answer(make: Make, edited: str) -> None:
    (sft,) = run([make(edited=edited)]).sft
    assert content(sft.completion) == [("assistant", fenced(TWO))]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"task": "haiku"}, "unknown task"),
        ({"adapter_sha256": "c" * 64}, "unknown adapter"),
        ({"adapter_sha256": None}, "unknown adapter"),
        ({"prompt": "  add\nTWO numbers!"}, "held-out prompt"),
        ({"redactions": 1}, "text redacted"),
        ({"completion": " \n"}, "empty answer"),
    ],
)
def test_an_unusable_rating_is_refused_with_its_reason(make: Make, fields: dict[str, Any], reason: str) -> None:
    pairs = run([make(edited=TWO, **fields)], held_out=["Add two numbers."])
    assert pairs.refused == {reason: 1}
    assert (pairs.sft, pairs.dpo, pairs.kto) == ((), (), ())


def votes(make: Make, thumbs: str, **changes: Any) -> list[Rating]:
    return [make(prompt="same", rating="up" if thumb == "+" else "down", **changes) for thumb in thumbs]


@pytest.mark.parametrize(
    ("thumbs", "labels", "left_out"),
    [
        ("++", [True], {"same answer, same thumb": 1}),
        ("+-", [], {"as many up as down": 2}),
        ("+--", [False], {"outvoted": 1, "same answer, same thumb": 1}),
        ("++--", [], {"as many up as down": 4}),
    ],
)
def test_thumbs_on_one_answer_vote(make: Make, thumbs: str, labels: list[bool], left_out: dict[str, int]) -> None:
    pairs = run(votes(make, thumbs))
    assert [row.label for row in pairs.kto] == labels
    assert pairs.thumbs == left_out


def test_one_session_has_one_vote_its_latest(make: Make) -> None:
    pairs = run([*votes(make, "+++-", session="loud"), *votes(make, "-")])
    assert [row.label for row in pairs.kto] == [False]
    assert pairs.thumbs == {"same session again": 3, "same answer, same thumb": 1}


def test_different_answers_to_one_prompt_do_not_conflict(make: Make) -> None:
    pairs = run([*votes(make, "+", completion=ONE), *votes(make, "-", completion=TWO)])
    assert [row.label for row in pairs.kto] == [True, False]


LOST = "edit would lose text"


@pytest.mark.parametrize(
    "edited",
    [
        f"Here you are:\n{fenced(TWO)}\nGood luck!",
        f"{fenced('import math')}\n\nAnd then:\n{fenced(TWO)}",
        f"{fenced(TWO)}\nIt returns two, because one was wrong.",
        'def f():\n    """Show it.\n\n```\nf()\n```\n    """\n    return 2',
    ],
    ids=["prose around", "prose between two blocks", "prose after", "a fence in a docstring"],
)
def test_a_correction_that_would_lose_text_is_skipped_and_counted(make: Make, edited: str) -> None:
    pairs = run([make(completion=fenced(ONE), edited=edited)])
    texts = [text for row in pairs.sft for _, text in content(row.completion)]
    assert pairs.edits == {LOST: 1} or texts == [fenced(edited)]
    assert len(pairs.sft) == len(pairs.dpo) == len(texts)


def test_the_second_paragraph_of_a_docstring_is_not_cut_off(make: Make) -> None:
    edited = "Return the sum of two numbers.\n\nBoth may be fractions."
    pairs = run([make(task="docstring", completion="Add.", edited=edited)])
    assert (pairs.sft, pairs.dpo, pairs.edits) == ((), (), {LOST: 1})


@pytest.mark.parametrize("quote", ['"""', "'''", '"'])
def test_quotes_and_line_breaks_of_a_sentence_are_its_wrapping(make: Make, quote: str) -> None:
    edited = f"{quote}Return the sum\nof two numbers.{quote}"
    (row,) = run([make(task="docstring", completion="Add.", edited=edited)]).sft
    assert content(row.completion) == [("assistant", "Return the sum of two numbers.")]


def test_an_edit_of_only_the_indentation_is_an_edit(make: Make) -> None:
    was, wanted = "for x in y:\n    pass\nprint(x)", "for x in y:\n    pass\n    print(x)"
    (row,) = run([make(completion=fenced(was), edited=wanted)]).sft
    assert content(row.completion) == [("assistant", fenced(wanted))]


def test_different_line_ends_are_not_an_edit(make: Make) -> None:
    pairs = run([make(completion=fenced(ONE), edited=ONE.replace("\n", "\r\n"))])
    assert pairs.edits == {"edit changes nothing": 1}


@pytest.mark.parametrize(
    ("edited", "reason"),
    [
        ("", "empty edit"),
        ("```python\n```", "empty edit"),
        (" \r\n ", "empty edit"),
        (ONE, "edit changes nothing"),
        (fenced(ONE) + "\n", "edit changes nothing"),
    ],
)
def test_an_empty_edit_still_counts_as_a_thumb(make: Make, edited: str, reason: str) -> None:
    pairs = run([make(completion=fenced(ONE), edited=edited)])
    assert pairs.edits == {reason: 1}
    assert (len(pairs.sft), len(pairs.dpo), len(pairs.kto)) == (0, 0, 1)


def test_the_same_edit_twice_is_one_row_of_two_ratings(make: Make) -> None:
    ratings = [make(prompt="same", completion=fenced(ONE), edited=edited) for edited in (TWO, fenced(TWO))]
    pairs = run(ratings)
    assert pairs.sft[0].ratings == pairs.dpo[0].ratings == tuple(rating.event_id for rating in ratings)
    assert (len(pairs.sft), len(pairs.dpo), pairs.edits) == (1, 1, {"same edit again": 1})


def test_two_answers_with_the_same_edit_are_two_preferences(make: Make) -> None:
    pairs = run([make(prompt="same", completion=fenced(was), edited=THREE) for was in (ONE, TWO)])
    assert (len(pairs.sft), len(pairs.dpo)) == (1, 2)


def test_edits_there_and_back_cancel_out(make: Make) -> None:
    pairs = run([make(prompt="same", completion=was, edited=now) for was, now in ((ONE, TWO), (TWO, ONE))])
    assert (pairs.sft, pairs.dpo, pairs.edits) == ((), (), {"edited back by another": 2})


def test_every_rating_is_accounted_for(make: Make) -> None:
    ratings = [
        *votes(make, "++-+-", completion=ONE),
        *votes(make, "+-", completion=TWO),
        *votes(make, "-+", session="again"),
        *(make(prompt="edit", edited=edited) for edited in (ONE, TWO, TWO, THREE, "")),
        make(task="haiku", edited=TWO),
        make(task="docstring", completion="Return it.", edited='"""Return one."""'),
    ]
    pairs = run(ratings)
    assert sum(pairs.refused.values()) + sum(pairs.thumbs.values()) + len(pairs.kto) == len(ratings)
    edited = [rating for rating in ratings if rating.edited is not None and rating.task in TASKS]
    assert sum(pairs.edits.values()) + len(pairs.sft) == len(edited)


def test_the_order_of_ratings_does_not_matter(make: Make) -> None:
    ratings = [*votes(make, "+-", session="loud"), make(edited=TWO), make(edited=THREE)]
    assert run(ratings) == run(reversed(ratings))


def test_rows_have_trls_columns(make: Make) -> None:
    """As trl.data_utils.is_conversational asks: turns are lists of objects with a role and a content."""
    pairs = run([make(edited=TWO)])
    columns = {"sft": {"completion"}, "dpo": {"chosen", "rejected"}, "kto": {"completion", "label"}}
    for kind, expected in columns.items():
        (row,) = getattr(pairs, kind)
        written = row.model_dump(mode="json")
        assert written.keys() - {"task", "ratings"} == expected | {"prompt"}
        for turns in (written["prompt"], *(written[name] for name in expected - {"label"})):
            assert isinstance(turns, list) and all(turn.keys() == {"role", "content"} for turn in turns)


@pytest.mark.parametrize("field", ["prompt", "completion", "edited"])
def test_half_a_surrogate_pair_is_skipped_and_counted(make: Make, field: str) -> None:
    fields: dict[str, Any] = {"edited": "def f():\n    return 2"} | {field: "x = 1  # \ud83d"}
    pairs = run([make(**fields), make()])
    assert pairs.refused == {"text that is not Unicode": 1} and len(pairs.kto) == 1
