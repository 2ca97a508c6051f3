"""The estimate follows what params ask for, and a measured second is enough to tell a slow machine from a fast one."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest
from support.training import BASE, PAIRED, SFT, task_params

from bilora import speed
from bilora.bases.kinds.folder import FolderBase
from bilora.estimate import STEP_SHARE, StageTimes, estimate_stages, in_words, plan_training
from bilora.guards import load_guard
from bilora.params import Benchmark, PassAtK, TaskParams
from bilora.speed import AnswerSpeed, TrainingSpeed, measure_answers, measure_training
from bilora.storage import read_json, write_json
from bilora.tasks.codegen import TASK as CODEGEN
from bilora.tasks.docstring import TASK as DOCSTRING


def speed_of(scale: float) -> TrainingSpeed:
    """Return the speed of a machine that is slower by this factor."""
    return TrainingSpeed(scale * 0.004, 0.0, AnswerSpeed(scale * 0.001, scale * 0.03))


SPEED, ANSWERS = speed_of(1), AnswerSpeed(0.001, 0.01)
BENCHMARK = Benchmark(
    samples=2, min_samples=1, hidden_tests=2, pass_at_k=PassAtK(samples=2, answers=3, temperature=0.7, k=[1])
)


def stages(params: TaskParams, benchmark: Benchmark = BENCHMARK, measured: TrainingSpeed = SPEED) -> StageTimes:
    training_s = plan_training(params, DOCSTRING, BASE, measured).seconds
    return estimate_stages(params, DOCSTRING, benchmark, 1, ANSWERS, training_s)


def test_twice_the_steps_cost_twice_the_training() -> None:
    training = [stages(task_params([SFT | {"steps": steps, "evaluate_every": steps}])).train for steps in (100, 200)]
    assert training[1] - training[0] == pytest.approx(100 * SFT["batch_size"] * 150 * SPEED.train_s * STEP_SHARE)


def test_every_phase_counts_and_one_on_pairs_more() -> None:
    one, two = (stages(task_params(phases)).train for phases in ([SFT], [SFT, {"kind": "kto", **PAIRED}]))
    assert two - one > PAIRED["steps"] * PAIRED["batch_size"] * 150 * SPEED.train_s


def test_answers_that_are_run_are_asked_in_every_round() -> None:
    params = task_params([SFT])
    code, text = (estimate_stages(params, task, BENCHMARK, 1, ANSWERS, 0.0).evaluate for task in (CODEGEN, DOCSTRING))
    assert code > 2 * text - 8


def test_a_guard_is_asked_of_base_and_adapter() -> None:
    params, guard = task_params([SFT]), load_guard("humaneval")
    without, with_guard = (
        estimate_stages(params, CODEGEN, BENCHMARK, 1, ANSWERS, 0.0, guards).evaluate for guards in ((), [guard])
    )
    assert with_guard - without > 2 * guard.size * 45 * ANSWERS.decode_s


def test_a_machine_of_half_the_speed_takes_nearly_twice_as_long() -> None:
    params = task_params([SFT | {"steps": 1000}])
    assert 1.8 < stages(params, measured=speed_of(2)).train / stages(params).train < 2.0


def test_the_speed_of_few_layers_is_extrapolated_to_the_whole_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = deepened(tmp_path, times=50)
    seen: list[int] = []

    def train_costs(model: Any) -> tuple[int, int]:
        layers = model.config.num_hidden_layers
        seen.append(layers)
        return 5 + layers, 7 * layers

    def answer_costs(engine: Any, system: str, _: int) -> tuple[int, int]:
        assert system in engine.models()
        return 4 * seen[-1], 2 + seen[-1]

    monkeypatch.setattr(speed, "_train_costs", train_costs)
    monkeypatch.setattr(speed, "_answer_costs", answer_costs)
    found = measure_training(base, task_params([SFT]).adapter, batch_size=4)
    layers = base.config().num_hidden_layers
    assert found == TrainingSpeed(5 + layers, 7 * layers, AnswerSpeed(4 * layers, 2 + layers))


def test_a_base_is_measured_by_training_and_answering() -> None:
    found = measure_training(BASE, task_params([SFT]).adapter, batch_size=4)
    finished = measure_answers(BASE, batch_size=4)
    assert min(found.train_s, *astuple(found.answers), *astuple(finished)) > 0
    # In 32-bit a layer keeps at least the inputs of its norms and of its products.
    hidden = BASE.config().hidden_size * 4
    assert found.kept_bytes > 6 * hidden * BASE.config().num_hidden_layers


def deepened(folder: Path, *, times: int) -> FolderBase:
    """Return the base with more layers, of which no weights exist."""
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).write_bytes((BASE.folder() / name).read_bytes())
    config = read_json(BASE.folder() / "config.json")
    config["num_hidden_layers"] *= times
    config.pop("layer_types", None)
    write_json(folder / "config.json", config)
    return FolderBase.at(folder)


def test_a_duration_is_as_precise_as_it_is_known() -> None:
    said = [in_words(seconds) for seconds in (3, 42, 89, 100, 540, 3599, 7300)]
    assert said == [
        "about 10 seconds",
        "about 40 seconds",
        "about 90 seconds",
        "about 2 minutes",
        "about 9 minutes",
        "about 60 minutes",
        "about 2.0 hours",
    ]
