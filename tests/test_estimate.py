"""The estimate follows the sizes in params and the measured speed of the machine."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest
from support.training import BASE, PAIRED, SFT, task_params

from bilora import speed
from bilora.bases.kinds.folder import FolderBase
from bilora.estimate import STEP_OVERHEAD, StageTimes, estimate_stages, format_duration, plan_training
from bilora.guards import load_guard
from bilora.params import Benchmark, PassAtK, TaskParams
from bilora.speed import GenerationSpeed, TrainingSpeed, measure_generation, measure_training
from bilora.storage import read_json, write_json
from bilora.tasks.codegen import TASK as CODEGEN
from bilora.tasks.docstring import TASK as DOCSTRING


def speed_of(scale: float) -> TrainingSpeed:
    """Return the speed of a machine that is slower by this factor."""
    return TrainingSpeed(scale * 0.004, 0.0, GenerationSpeed(scale * 0.001, scale * 0.03))


SPEED, ANSWERS = speed_of(1), GenerationSpeed(0.001, 0.01)
BENCHMARK = Benchmark(
    samples=2, min_samples=1, hidden_tests=2, pass_at_k=PassAtK(samples=2, answers=3, temperature=0.7, k=[1])
)


def stages(params: TaskParams, benchmark: Benchmark = BENCHMARK, measured: TrainingSpeed = SPEED) -> StageTimes:
    training_s = plan_training(params, DOCSTRING, BASE, measured).seconds
    return estimate_stages(params, DOCSTRING, benchmark, 1, ANSWERS, training_s)


def test_twice_the_steps_cost_twice_the_training() -> None:
    training = [stages(task_params([SFT | {"steps": steps, "evaluate_every": steps}])).train for steps in (100, 200)]
    assert training[1] - training[0] == pytest.approx(100 * SFT["batch_size"] * 150 * SPEED.train_s * STEP_OVERHEAD)


def test_every_phase_counts_and_one_on_pairs_more() -> None:
    first, both = (stages(task_params(phases)).train for phases in ([SFT], [SFT, {"kind": "kto", **PAIRED}]))
    assert both - first > PAIRED["steps"] * PAIRED["batch_size"] * 150 * SPEED.train_s


def test_all_completions_of_an_executed_task_count() -> None:
    params = task_params([SFT])
    code, text = (estimate_stages(params, task, BENCHMARK, 1, ANSWERS, 0.0).evaluate for task in (CODEGEN, DOCSTRING))
    assert code > 2 * text - 8


def test_a_guard_counts_for_base_and_adapter() -> None:
    params, guard = task_params([SFT]), load_guard("humaneval")
    without, with_guard = (
        estimate_stages(params, CODEGEN, BENCHMARK, 1, ANSWERS, 0.0, guards).evaluate for guards in ((), [guard])
    )
    assert with_guard - without > 2 * guard.size * 45 * ANSWERS.decode_s


def test_a_machine_of_half_the_speed_takes_nearly_twice_as_long() -> None:
    params = task_params([SFT | {"steps": 1000}])
    assert 1.8 < stages(params, measured=speed_of(2)).train / stages(params).train < 2.0


def test_the_costs_of_small_models_are_extrapolated_to_the_whole_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = deepened(tmp_path, times=50)
    depths: list[int] = []

    def train_costs(model: Any) -> tuple[int, int]:
        layers = model.config.num_hidden_layers
        depths.append(layers)
        return 5 + layers, 7 * layers

    def generation_costs(engine: Any, system: str, _: int) -> tuple[int, int]:
        assert system in engine.models()
        return 4 * depths[-1], 2 + depths[-1]

    monkeypatch.setattr(speed, "_train_costs", train_costs)
    monkeypatch.setattr(speed, "_generation_costs", generation_costs)
    measured = measure_training(base, task_params([SFT]).adapter, batch_size=4)
    layers = base.config().num_hidden_layers
    assert measured == TrainingSpeed(5 + layers, 7 * layers, GenerationSpeed(4 * layers, 2 + layers))


def test_a_base_is_measured_by_training_and_answering() -> None:
    training = measure_training(BASE, task_params([SFT]).adapter, batch_size=4)
    generation = measure_generation(BASE, batch_size=4)
    assert min(training.train_s, *astuple(training.generation), *astuple(generation)) > 0
    # In 32-bit a layer saves at least the inputs of its norms and of its products.
    hidden = BASE.config().hidden_size * 4
    assert training.saved_bytes > 6 * hidden * BASE.config().num_hidden_layers


def deepened(folder: Path, *, times: int) -> FolderBase:
    """Return the base's config with more layers; it has no weights."""
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).write_bytes((BASE.folder() / name).read_bytes())
    config = read_json(BASE.folder() / "config.json")
    config["num_hidden_layers"] *= times
    config.pop("layer_types", None)
    write_json(folder / "config.json", config)
    return FolderBase.at(folder)


def test_a_duration_is_rounded_to_the_precision_of_an_estimate() -> None:
    texts = [format_duration(seconds) for seconds in (3, 42, 89, 100, 540, 3599, 7300)]
    assert texts == [
        "about 10 seconds",
        "about 40 seconds",
        "about 90 seconds",
        "about 2 minutes",
        "about 9 minutes",
        "about 60 minutes",
        "about 2.0 hours",
    ]
