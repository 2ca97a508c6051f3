"""A model in training is asked and scored exactly as the benchmark does it."""

from __future__ import annotations

from typing import Any

from support.training import TASK, sample

from bilora.evaluation.run import Round, evaluate
from bilora.evaluation.validation import ValidationScorer
from bilora.inference.torch.engine import TorchEngine
from bilora.params import Generation
from bilora.protocols import Referees

GENERATION = Generation(max_new_tokens=24, batch_size=2, frequency_penalty=0.5)
NO_SANDBOX = Referees(sandbox=None)  # type: ignore[arg-type]  # nothing is executed for a docstring


def test_answers_and_scores_are_those_of_the_benchmark(smoke_loaded: Any) -> None:
    samples = [sample(number) for number in range(3)]
    engine = TorchEngine(smoke_loaded, {}, batch_size=GENERATION.batch_size)
    rows = evaluate(
        TASK,
        {"test": Round(samples)},
        {"base": engine},
        adapter_sha256="",
        generation=GENERATION,
        seed=3,
        referees=NO_SANDBOX,
    )
    measured = [(row.answer, row.scores[0]) for row in rows if row.completion.system == "base"]
    scorer = ValidationScorer(TASK, smoke_loaded, NO_SANDBOX)
    assert scorer(smoke_loaded.model, samples, GENERATION, 3) == measured
