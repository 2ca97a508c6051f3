"""How long the loop takes on this machine: a second of its real work, multiplied by what params.yaml asks for."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bilora.params import Adapter, Benchmark, TaskParams
from bilora.requests import Request, SamplingParams

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from bilora.bases.base import Base
    from bilora.bases.loading import LoadedBase
    from bilora.guards.guard import Guard
    from bilora.tasks.task import Task
    from bilora.training.plan import Plan

ROW_TOKENS, ANSWER_TOKENS = 150, 45
"""A typical training row, and the answer in it: rows of exercises, docstrings and MBPP have 130 to 190 tokens."""
BASE_ANSWER_SHARE = 0.6
"""How much of `max_new_tokens` a base uses on average, which often does not end by itself."""
FORWARD_SHARE = 0.3
"""How much of a training step's time per token is its forward pass."""
PAIR_PASSES = 3
"""Passes per row of a phase that trains on pairs: it also measures the base on them."""
SECONDS_PER_ROW, SECONDS_PER_RUN = 0.02, 0.05
"""Reading and checking one row of a source; running one answer in the sandbox."""
START_S, BENCHMARK_S = 8.0, 20.0
"""Starting a stage that loads the base; judging and publishing."""

_LAYERS = (1, 3)
"""How many layers the two timed models have; the others are extrapolated."""
_TIMED_ROWS, _TIMED_STEPS = 4, 6


@dataclass(frozen=True)
class Speed:
    """What one token costs on this machine, in seconds: in training, in a prompt, and of an answer in a batch.

    `kept_bytes` is what a training pass keeps of each token for its backward pass.
    """

    train_s: float
    prefill_s: float
    decode_s: float
    kept_bytes: float = 0.0


@dataclass(frozen=True)
class StageTimes:
    """Estimated seconds of one task's stages."""

    data: float
    train: float
    evaluate: float


def measure_speed(base: Base, adapter: Adapter, *, batch_size: int) -> Speed:
    """Train and answer for a second or two with two models of few layers, and extrapolate to all of the base's.

    The models have the base's shapes, its precision and random weights, so none is loaded.

    Args:
        batch_size: how many answers are generated at a time.
    """
    from bilora.bases.loading import LoadedBase

    config, tokenizer = base.config(), base.tokenizer()
    train, kept, decode = [], [], []
    for layers in _LAYERS:
        model = _small_model(config, layers, base.precision)
        seconds, kept_bytes = _train_costs(copy.deepcopy(model), adapter)
        train.append(seconds)
        kept.append(kept_bytes)
        decode.append(_decode_seconds(LoadedBase(model, tokenizer, ""), batch_size))
    train_s, kept_bytes, decode_s = (_extrapolated(found, config.num_hidden_layers) for found in (train, kept, decode))
    return Speed(train_s, FORWARD_SHARE * train_s, decode_s, kept_bytes)


@dataclass(frozen=True)
class PlannedTraining:
    """What a training is expected to take."""

    seconds: float
    plan: Plan


def plan_training(
    params: TaskParams, task: Task, base: Base, speed: Speed, lengths: Sequence[int] = (ROW_TOKENS,)
) -> PlannedTraining:
    """Estimate the phases of one task's training.

    Args:
        lengths: of some of its rows, in tokens; a typical one if no data is there yet.
    """
    from bilora.training.plan import plan_task

    mean_length = sum(lengths) / len(lengths)
    validated = min(params.training.evaluate_samples, params.split.validation)
    answers = _Answers(task, speed, mean_length)
    seconds = 0.0
    for phase in params.training.phases:
        rows = phase.steps * phase.accumulation * phase.batch_size
        seconds += rows * mean_length * speed.train_s * (PAIR_PASSES if phase.pairs else 1)
        evaluations = phase.steps // getattr(phase, "evaluate_every", phase.steps)
        one = answers.seconds(validated, min(ANSWER_TOKENS, BASE_ANSWER_SHARE * params.generation.max_new_tokens))
        seconds += evaluations * (one + validated * mean_length * speed.prefill_s)
    return PlannedTraining(seconds, plan_task(base.config(), base, params, speed.kept_bytes, lengths))


@dataclass(frozen=True)
class _Answers:
    """What answering a task's prompts takes."""

    task: Task
    speed: Speed
    row_tokens: float = ROW_TOKENS

    def seconds(self, count: int, tokens: float) -> float:
        """Return the seconds that `count` answers of `tokens` tokens take, scoring included."""
        prompt = max(0.0, self.row_tokens - ANSWER_TOKENS) * self.speed.prefill_s
        run = SECONDS_PER_RUN if self.task.execution_metric else 0.0
        return count * (prompt + tokens * self.speed.decode_s + run)


def estimate_stages(
    params: TaskParams,
    task: Task,
    benchmark: Benchmark,
    curated: int,
    speed: Speed,
    training_s: float,
    guards: Sequence[Guard] = (),
) -> StageTimes:
    """Estimate how long one task's stages take.

    Args:
        curated: how many curated samples the task has.
        training_s: the phases of its training; see `plan_training`.
        guards: the public sets that the task is measured on besides.
    """
    split, generation = params.split, params.generation
    base_tokens = BASE_ANSWER_SHARE * generation.max_new_tokens
    adapter_tokens = min(ANSWER_TOKENS, base_tokens)
    answers = _Answers(task, speed).seconds
    validated = min(params.training.evaluate_samples, split.validation)
    test = min(benchmark.samples, split.test)
    asked = test + curated
    if task.hide_tests:
        asked += min(benchmark.hidden_tests, test)
    if benchmark.pass_at_k and task.execution_metric:
        asked += min(benchmark.pass_at_k.samples, test) * benchmark.pass_at_k.answers
    evaluate = START_S + answers(asked, base_tokens) + answers(asked, adapter_tokens)
    for guard in guards:
        evaluate += answers(guard.size, BASE_ANSWER_SHARE * guard.max_new_tokens) + answers(guard.size, adapter_tokens)
    return StageTimes(
        data=START_S + SECONDS_PER_ROW * (split.train + split.validation + split.test),
        train=START_S + answers(validated, base_tokens) + training_s,
        evaluate=evaluate,
    )


def in_words(seconds: float) -> str:
    """Return a duration as precisely as it is known."""
    if seconds < 90:
        return f"about {max(10, round(seconds, -1)):.0f} seconds"
    minutes = round(seconds / 60)
    return f"about {minutes} minutes" if minutes < 100 else f"about {seconds / 3600:.1f} hours"


def _small_model(config: PretrainedConfig, layers: int, dtype: str) -> PreTrainedModel:
    """Return a model of the base's shapes with few layers and random weights, on the device that is used."""
    import torch
    from transformers import AutoModelForCausalLM

    small = copy.deepcopy(config)
    small.num_hidden_layers = layers
    if getattr(small, "layer_types", None):
        small.layer_types = small.layer_types[:layers]
    model: PreTrainedModel = AutoModelForCausalLM.from_config(small, dtype=getattr(torch, dtype))
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def _train_costs(model: PreTrainedModel, adapter: Adapter) -> tuple[float, float]:
    """Return the seconds per token of a training step on typical rows, and the bytes per token that its pass keeps."""
    import torch

    from bilora.training.adapter import attach
    from bilora.training.encode import IGNORED
    from bilora.training.packed_model import PackedModel, PackedRow

    packed = PackedModel([attach(model, adapter, seed=0)])
    ids = torch.randint(0, model.config.vocab_size, (ROW_TOKENS,), device=model.device)
    labels = ids.clone()
    labels[: ROW_TOKENS - ANSWER_TOKENS] = IGNORED
    rows = [PackedRow(ids, labels)] * _TIMED_ROWS
    tokens = _TIMED_ROWS * ROW_TOKENS
    weights = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        packed.losses(rows)
    return _least_seconds(lambda: packed.train_one(rows, 1.0)) / tokens, sum(kept.values()) / tokens


def _decode_seconds(loaded: LoadedBase, batch_size: int) -> float:
    """Return the seconds per token of the torch engine's answers in a full batch."""
    from bilora.inference.torch.engine import TorchEngine
    from bilora.inference.torch.loading import tune_for_inference

    engine = TorchEngine(tune_for_inference(loaded), {}, batch_size=batch_size)
    sampling = SamplingParams(max_tokens=1, ignore_eos=True)
    requests = [Request(str(number), (), sampling, text="one two three") for number in range(batch_size)]
    longer = [replace(one, sampling=replace(sampling, max_tokens=1 + _TIMED_STEPS)) for one in requests]
    first = _least_seconds(lambda: engine.generate("base", requests))
    seconds = _least_seconds(lambda: engine.generate("base", longer)) - first
    return max(seconds, 0.0) / (_TIMED_STEPS * batch_size)


def _least_seconds(work: Callable[[], object]) -> float:
    """Return the shorter of two runs, after one that warms up."""
    import torch

    work()
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def _extrapolated(times: list[float], layers: int) -> float:
    """Return the time of all layers from those of a model with few and of one with some more."""
    few, more = _LAYERS
    per_layer = max(times[1] - times[0], 0.0) / (more - few)
    return times[0] + per_layer * (layers - few)
