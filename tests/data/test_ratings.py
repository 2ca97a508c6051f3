"""Ratings are trained on only if params request it, and never if they repeat a held-out question."""

from __future__ import annotations

from typing import Any

import pytest

from bilora.data.ratings import GROUP, RatedSamples, rating_ids, samples_from_ratings, without_withdrawn
from bilora.data_reports import RatingsReport
from bilora.params import Processing, Splitting
from bilora.records import Message, Sample
from bilora.tasks import load_task
from bilora.training_pairs import DpoPair, KtoPair, RatedPairs, SftPair

TASK = load_task("codegen")
EVENT, OTHER = "01KGE3H900SVCYXAW440G165C0", "01KGE3H900SVCYXAW440G165C1"
HELD = Sample.create(
    task="codegen", prompt="Add two numbers.\n\nMust pass: assert add(1, 2) == 3",
    target="def add(a, b):\n    return a + b", tests=("assert add(1, 2) == 3",),
    source="held", group="h", licence="MIT",
)  # fmt: skip
DOUBLE = "def double(x):\n    return 2 * x"


def completion(text: str) -> tuple[Message, ...]:
    return (Message(role="assistant", content=TASK.answer(text)),)


def edit(prompt: str = "Double a number.", answer: str = DOUBLE, task: str = "codegen") -> SftPair:
    return SftPair(task=task, prompt=TASK.messages(prompt), completion=completion(answer), ratings=(EVENT,))


def thumb(prompt: str = "Double a number.", answer: str = "def double(", *, label: bool = False) -> KtoPair:
    return KtoPair(
        task="codegen", prompt=TASK.messages(prompt), completion=completion(answer), label=label, ratings=(EVENT,)
    )


def above(prompt: str = "Double a number.", answer: str = DOUBLE) -> DpoPair:
    rejected = completion("def double(")
    return DpoPair(
        task="codegen", prompt=TASK.messages(prompt), chosen=completion(answer), rejected=rejected, ratings=(EVENT,)
    )


def deal(pairs: RatedPairs, *, trained: Any = (), withdrawn: Any = (), **splitting_options: Any) -> RatedSamples:
    splitting = Splitting(train=9, validation=9, test=9, **splitting_options)
    rules = Processing(max_prompt_chars=200)
    return samples_from_ratings(
        TASK,
        pairs,
        splitting=splitting,
        trained=trained,
        held_out=[HELD],
        rules=rules,
        withdrawn=frozenset(withdrawn),
    )


ALL = RatedPairs(sft=(edit(),), kto=(thumb(),), dpo=(above(),))


@pytest.mark.parametrize(
    ("splitting_options", "samples", "preferences"),
    [
        ({}, 0, []),
        ({"feedback": "mix"}, 1, []),
        ({"preference": "kto"}, 0, [KtoPair]),
        ({"feedback": "mix", "preference": "dpo"}, 1, [DpoPair]),
    ],
    ids=["neither", "mix", "kto", "mix and dpo"],
)
def test_only_the_requested_rows_are_returned(
    splitting_options: dict[str, str], samples: int, preferences: list[type]
) -> None:
    result = deal(ALL, **splitting_options)
    assert (len(result.samples), [type(row) for row in result.preferences]) == (samples, preferences)
    assert result.report == RatingsReport(samples=samples, preferences=len(preferences), rules=())


def test_an_edit_is_a_sample_with_the_page_s_prompt_and_answer() -> None:
    (sample,) = deal(ALL, feedback="mix").samples
    assert TASK.messages(sample.prompt) == edit().prompt and TASK.answer(sample.target) == edit().completion[0].content
    assert (sample.group, sample.source, sample.split) == (GROUP, f"feedback:{EVENT}", "train")


def test_ratings_of_another_task_are_ignored() -> None:
    assert not deal(RatedPairs(sft=(edit(task="docstring"),)), feedback="mix").samples


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("add TWO\nnumbers. Must pass: assert add(1, 2) == 3", DOUBLE),
        ("Add two numbers!\n\nSignature: def plus(x, y):", DOUBLE),
        ("Sum up a pair.", "def plus(x, y):\n    return x + y"),
    ],
    ids=["the same words", "the same statement", "the same program"],
)
@pytest.mark.parametrize("row", [edit, above, thumb])
def test_a_held_out_question_is_dropped(row: Any, prompt: str, answer: str) -> None:
    pair = row(prompt, answer)
    kind = {edit: "sft", above: "dpo", thumb: "kto"}[row]
    splitting_options: Any = {"feedback": "mix"} if kind == "sft" else {"preference": kind}
    dealt = deal(RatedPairs(**{kind: (pair,)}), **splitting_options)
    assert not dealt.samples and not dealt.preferences
    assert [(rule.rule, rule.count) for rule in dealt.report.rules] == [("held-out question", 1)]


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        (edit("Double it. " * 20), "prompt too long"),
        (edit(answer="x = 1\n" * 400), "target too long"),
        (edit(answer="def double(x: return"), "edit is not Python"),
    ],
    ids=["prompt", "target", "syntax"],
)
def test_an_edit_is_checked_as_any_sample_is(row: SftPair, rule: str) -> None:
    result = deal(RatedPairs(sft=(row,)), feedback="mix")
    assert not result.samples and result.report.rules[0].rule == rule


def test_a_rated_answer_may_be_invalid_python() -> None:
    assert len(deal(ALL, preference="kto").preferences) == 1


def test_an_edit_equal_to_a_training_sample_is_dropped() -> None:
    (sample,) = deal(ALL, feedback="mix").samples
    again = deal(ALL, trained=[sample], feedback="mix")
    assert not again.samples and again.report.rules[0].rule == "already a training sample"


def test_preference_pairs_use_the_current_chat_messages() -> None:
    old = thumb().model_copy(update={"prompt": (Message(role="system", content="Old."), thumb().prompt[-1])})
    (row,) = deal(RatedPairs(kto=(old,)), preference="kto").preferences
    assert row.prompt == TASK.messages("Double a number.")


@pytest.mark.parametrize(("kind", "row"), [("sft", edit), ("kto", thumb), ("dpo", above)])
@pytest.mark.parametrize("gone", [EVENT, OTHER])
def test_a_withdrawn_rating_is_dropped_without_an_excerpt_in_the_report(kind: str, row: Any, gone: str) -> None:
    rows = (row().model_copy(update={"ratings": (EVENT, OTHER)}), row("Halve a number.").model_copy())
    splitting_options: Any = {"feedback": "mix"} if kind == "sft" else {"preference": kind}
    result = deal(RatedPairs(**{kind: rows}), withdrawn=[gone], **splitting_options)
    (rule,) = (rule for rule in result.report.rules if rule.rule == "rating deleted or withdrawn")
    left_out = 1 if gone == OTHER else 2
    assert rule.count == left_out and gone in rule.examples[0].detail
    assert len(result.samples) + len(result.preferences) == 2 - left_out
    assert "Double" not in str(result.report) and "double" not in str(result.report)


@pytest.mark.parametrize("row", [edit, above])
def test_an_answer_that_would_be_cut_off_is_dropped(row: Any) -> None:
    turns = (Message(role="assistant", content=f"{TASK.answer(DOUBLE)}\nAnd mind the sign."),)
    kind, field = ("sft", "completion") if row is edit else ("dpo", "chosen")
    splitting_options: Any = {"feedback": "mix"} if row is edit else {"preference": "dpo"}
    result = deal(RatedPairs(**{kind: (row().model_copy(update={field: turns}),)}), **splitting_options)
    assert not result.samples and not result.preferences
    assert result.report.rules[0].rule == "edit would lose text"


def test_training_rows_name_all_their_ratings() -> None:
    row = edit().model_copy(update={"ratings": (EVENT, OTHER)})
    (sample,) = deal(RatedPairs(sft=(row,)), feedback="mix").samples
    other, preference = HELD, thumb().model_copy(update={"ratings": (OTHER,)})
    assert rating_ids([sample, other], [preference]) == (EVENT, OTHER)
    assert without_withdrawn([sample, other], [preference], {EVENT}) == ([other], [preference])
    assert without_withdrawn([sample, other], [preference], {OTHER}) == ([other], [])
    assert without_withdrawn([sample, other], [preference], set()) == ([sample, other], [preference])
