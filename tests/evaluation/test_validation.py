"""A model in training is evaluated and scored exactly as the benchmark does it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from support.training import BASE, SFT, TASK, sample, task_params

from bilora.evaluation.run import EvalConfig, EvalSet, evaluate
from bilora.evaluation.validation import ValidationScorer
from bilora.inference.torch.engine import TorchEngine
from bilora.params import Generation
from bilora.protocols import Referees
from bilora.training.adapter import attach_adapter, save_adapter

GENERATION = Generation(max_new_tokens=24, batch_size=2, temperature=1.5)
NO_SANDBOX = Referees(sandbox=None)  # type: ignore[arg-type]  # nothing is executed for a docstring


def test_answers_and_scores_are_those_of_the_benchmark(smoke_loaded: Any) -> None:
    samples = [sample(number) for number in range(3)]
    engine = TorchEngine(smoke_loaded, {}, batch_size=GENERATION.batch_size)
    config = EvalConfig(TASK, "", GENERATION, 3, NO_SANDBOX)
    rows = evaluate(config, {"test": EvalSet(samples)}, {"base": engine})
    measured = [(row.answer, row.scores[0]) for row in rows if row.completion.system == "base"]
    scorer = ValidationScorer(TASK, smoke_loaded, NO_SANDBOX)
    assert scorer(smoke_loaded.model, samples, GENERATION, 3) == measured


def test_a_model_with_an_adapter_answers_as_the_adapter() -> None:
    loaded = BASE.load(training=True)
    scorer, samples = ValidationScorer(TASK, loaded, NO_SANDBOX), [sample(0)]
    base = scorer(loaded.model, samples, GENERATION, 3)
    model = attach_adapter(loaded.model, task_params([SFT]).adapter, seed=1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    ((answer, score),) = scorer(model, samples, GENERATION, 3)
    assert answer != base[0][0] and score.system == TASK.name


def test_a_model_in_training_answers_as_its_saved_adapter_and_is_left_as_it_is(tmp_path: Path) -> None:
    loaded, samples = BASE.load(training=True), [sample(number) for number in range(4)]
    adapter = task_params([SFT]).adapter.model_copy(update={"dropout": 0.5})
    model = attach_adapter(loaded.model, adapter, seed=1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    save_adapter(model, tmp_path, BASE, "")
    engine = TorchEngine(BASE.load(training=False), {TASK.name: tmp_path}, batch_size=GENERATION.batch_size)
    expected = engine.generate(TASK.name, TASK.requests(samples, GENERATION, 3))
    before = [id(module) for module in model.train().modules()]
    answers = ValidationScorer(TASK, loaded, NO_SANDBOX)(model, samples, GENERATION, 3)
    assert [answer for answer, _ in answers] == [TASK.read_answer(completion.text, "") for completion in expected]
    assert [id(module) for module in model.modules()] == before and all(module.training for module in model.modules())
