"""Phases run in order, each on the previous phase's adapter; a killed run continues with the killed phase."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.recorded_bars import RecordedBars
from support.training import BASE, PAIR_KINDS, PAIRED, SFT, PairKind, rated_pairs, training_context

from bilora.records import Score
from bilora.storage import adapter_sha256
from bilora.training import run
from bilora.training.context import Step, no_step
from bilora.training.run import TrainingResult, train

pytestmark = pytest.mark.slow


class Killed(Exception):
    pass


def trained(
    folder: Path, phases: Sequence[Mapping[str, Any]], on_step: Callable[[Step], None] = no_step
) -> TrainingResult:
    kind = next((phase["kind"] for phase in phases if phase["kind"] in PAIR_KINDS), None)
    context = training_context(
        BASE.load(training=True),
        folder / "checkpoints",
        phases,
        pairs=rated_pairs(kind, 8) if kind else (),
        on_step=on_step,
    )
    return train(context, identity="i" * 64, destination=folder / "adapter", on_prepared=lambda _: None)


@pytest.mark.parametrize("kind", PAIR_KINDS)
def test_a_kill_in_the_second_phase_repeats_it_alone_and_ends_in_the_same_bytes(kind: PairKind, tmp_path: Path) -> None:
    phases = [SFT, {"kind": kind, **PAIRED}]

    def die(step: Step) -> None:
        if step.prefix == f"{kind}_" and step.step == 3:
            raise Killed

    uninterrupted = trained(tmp_path / "whole", phases)
    with pytest.raises(Killed):
        trained(tmp_path / "killed", phases, die)
    assert not (tmp_path / "killed" / "adapter").exists()
    steps: list[Step] = []
    again = trained(tmp_path / "killed", phases, steps.append)
    assert [(step.prefix, step.step) for step in steps] == [(f"{kind}_", number) for number in range(1, 7)]
    assert adapter_sha256(tmp_path / "killed" / "adapter") == adapter_sha256(tmp_path / "whole" / "adapter")
    assert not (tmp_path / "killed" / "checkpoints").exists()
    assert uninterrupted.metric == again.metric == again.phases[1].result.metric
    numbers = again.metrics()
    assert numbers[f"{kind}_rows"] == 8 and numbers["steps"] == 2 and numbers["rows"] == 6


@pytest.mark.parametrize("kind", PAIR_KINDS)
def test_a_kill_between_two_phases_repeats_neither_and_ends_in_the_same_bytes(
    kind: PairKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phases = [SFT, {"kind": kind, **PAIRED}]
    trained(tmp_path / "whole", phases)
    written = run.save_adapter_weights

    def write_and_die(model: Any, path: Path) -> None:
        written(model, path)
        raise Killed

    monkeypatch.setattr(run, "save_adapter_weights", write_and_die)
    for _ in phases:
        with pytest.raises(Killed):
            trained(tmp_path / "killed", phases)
    steps: list[Step] = []
    trained(tmp_path / "killed", phases, steps.append)
    assert steps == []
    assert adapter_sha256(tmp_path / "killed" / "adapter") == adapter_sha256(tmp_path / "whole" / "adapter")


def test_a_run_killed_after_its_last_step_takes_no_further_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    phases = [SFT | {"steps": 4, "evaluate_every": 2}]  # the fourth step is within an epoch of three
    uninterrupted = trained(tmp_path / "whole", phases)

    def die(path: Path, value: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(run, "write_json", die)
        for _ in range(2):
            with pytest.raises(Killed):
                trained(tmp_path / "killed", phases)
    steps: list[Step] = []
    again = trained(tmp_path / "killed", phases, steps.append)
    assert steps == []
    assert adapter_sha256(tmp_path / "killed" / "adapter") == adapter_sha256(tmp_path / "whole" / "adapter")
    assert {again.metrics()[name] - uninterrupted.metrics()[name] for name in ("steps", "best_step", "train_loss")} == {
        0
    }


def test_a_resumed_run_loses_patience_at_the_same_step(tmp_path: Path) -> None:
    def worse_by_every_step(model: Any, samples: Sequence[Any], *_: object, **__: object) -> list[tuple[str, Score]]:
        learnt = sum(
            float(weight.detach().abs().sum()) for name, weight in model.named_parameters() if "lora_B" in name
        )
        return [("", Score(sample_id="s", system="x", metric="m", value=1 / (1 + learnt))) for _ in samples]

    def run_once(folder: Path, on_step: Callable[[Step], None] = no_step) -> TrainingResult:
        loaded = BASE.load(training=True)
        phases = [SFT | {"steps": 9, "patience": 2}]
        context = training_context(loaded, folder / "checkpoints", phases, scorer=worse_by_every_step, on_step=on_step)
        return train(context, identity="i" * 64, destination=folder / "adapter", on_prepared=lambda _: None)

    def die(step: Step) -> None:
        if step.step == 3:
            raise Killed

    uninterrupted = run_once(tmp_path / "whole")
    with pytest.raises(Killed):
        run_once(tmp_path / "killed", die)
    again = run_once(tmp_path / "killed")
    assert again.resumed_from == 2 and again.metrics()["steps"] == uninterrupted.metrics()["steps"] == 3
    assert adapter_sha256(tmp_path / "killed" / "adapter") == adapter_sha256(tmp_path / "whole" / "adapter")


def test_a_run_with_another_identity_does_not_resume(tmp_path: Path) -> None:
    def die(step: Step) -> None:
        if step.step == 2:
            raise Killed

    with pytest.raises(Killed):
        trained(tmp_path, [SFT], die)
    context = training_context(BASE.load(training=True), tmp_path / "checkpoints")
    result = train(context, identity="j" * 64, destination=tmp_path / "adapter", on_prepared=lambda _: None)
    assert result.resumed_from == 0


def test_another_phase_changes_no_number_of_the_first(tmp_path: Path) -> None:
    first, both = (
        trained(tmp_path / name, phases) for name, phases in (("a", [SFT]), ("b", [SFT, {"kind": "kto", **PAIRED}]))
    )
    measured = {name for name in first.metrics() if not name.startswith(("duration", "tokens_per"))}
    assert {name: first.metrics()[name] for name in measured} == {name: both.metrics()[name] for name in measured}
    assert all(name.startswith("kto_") for name in both.metrics().keys() - first.metrics().keys())
    assert first.metric == first.phases[0].result.metric
    assert adapter_sha256(tmp_path / "a" / "adapter") != adapter_sha256(tmp_path / "b" / "adapter")


def test_phases_of_one_kind_have_separate_numbers(tmp_path: Path) -> None:
    steps: list[Step] = []
    again = {**SFT, "steps": 1}
    result = trained(tmp_path, [SFT, again, again], steps.append)
    numbers = result.metrics()
    assert (numbers["steps"], numbers["sft_steps"], numbers["sft_2_steps"]) == (2, 1, 1)
    assert {step.prefix for step in steps} == {"", "sft_", "sft_2_"}
    assert result.tokens == numbers["tokens"] + numbers["sft_tokens"] + numbers["sft_2_tokens"]


def test_tokens_are_those_that_trl_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bilora.training.sft_trainer import AdapterTrainer

    trainers: list[Any] = []
    built = AdapterTrainer.__init__

    def build(trainer: Any, **arguments: Any) -> None:
        built(trainer, **arguments)
        trainer._train_rows = None  # TRL counts where it computes its loss
        trainers.append(trainer)

    monkeypatch.setattr(AdapterTrainer, "__init__", build)
    result = trained(tmp_path, [{**SFT, "accumulation": 2}])
    (trainer,) = trainers
    assert result.tokens == [row["num_tokens"] for row in trainer.state.log_history if "loss" in row][-1] > 0


def test_the_base_and_every_checkpoint_are_measured_under_a_bar(tmp_path: Path) -> None:
    bars = RecordedBars()
    context = training_context(BASE.load(training=True), tmp_path / "checkpoints", [SFT], bars=bars)
    train(context, identity="i" * 64, destination=tmp_path / "adapter", on_prepared=lambda _: None)
    answers, loss = ("validate docstring", 2, 2, True), ("validation loss of docstring", 1, 1, True)
    evaluations = SFT["steps"] // SFT["evaluate_every"]
    assert bars.recorded == [answers, *[loss, answers] * evaluations]
