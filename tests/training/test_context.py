"""The context's validation metric, drawn samples and steps."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.training import sample, training_context

from bilora.errors import Infrastructure
from bilora.records import Score
from bilora.training.context import Step, TrainingContext, draw_samples


def context_with(values: list[float | None]) -> TrainingContext:
    def score(model: Any, samples: Any, generation: Any, seed: int, **_: Any) -> list[tuple[str, Score]]:
        rows = zip(samples, values, strict=True)
        return [
            ("", Score(sample_id=sample.id, system="base", metric="bleu", value=value, reason="the judge is away"))
            for sample, value in rows
        ]

    loaded: Any = SimpleNamespace(model=None)
    return training_context(loaded, Path(), scorer=score)


def test_an_unscored_answer_is_not_averaged_as_0() -> None:
    assert context_with([0.5, None]).validation_metric() == 0.5


def test_without_any_score_no_checkpoint_can_be_selected() -> None:
    with pytest.raises(Infrastructure, match="No validation answer of docstring could be scored: the judge is away"):
        context_with([None, None]).validation_metric()


def test_drawn_samples_depend_on_the_seed_and_not_on_the_order() -> None:
    samples = [sample(number) for number in range(9)]
    drawn = draw_samples(samples, 4, seed=1)
    assert draw_samples(samples[::-1], 4, seed=1) == drawn != draw_samples(samples, 4, seed=2)
    assert len(draw_samples(samples, 40, seed=1)) == 9


def test_a_row_of_the_curve_has_only_measured_numbers() -> None:
    assert Step(3, 0.5, 10.0).row() == {"step": 3, "loss": 0.5, "tokens_per_s": 10.0}
    assert Step(3, validation_loss=0.5, metric=1.0).row() == {"step": 3, "validation_loss": 0.5, "metric": 1.0}
    assert Step(3, 0.5, prefix="kto_").row() == {"step": 3, "kto_loss": 0.5}
