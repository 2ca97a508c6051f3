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
_TIMED_ROWS, _TIMED_STEPS = 2, 6


@dataclass(frozen=True)
class Speed:
    """What one token costs on this machine, in seconds: in training, in a prompt, and of an answer in a batch."""

    train_s: float
    prefill_s: float
    decode_s: float


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
    train, decode = [], []
    for layers in _LAYERS:
        model = _small_model(config, layers, base.precision)
        train.append(_train_seconds(copy.deepcopy(model), adapter))
        decode.append(_decode_seconds(LoadedBase(model, tokenizer, ""), batch_size))
    train_s, decode_s = (_extrapolated(times, config.num_hidden_layers) for times in (train, decode))
    return Speed(train_s, FORWARD_SHARE * train_s, decode_s)


def estimate_stages(
    params: TaskParams, task: Task, benchmark: Benchmark, curated: int, speed: Speed, guards: Sequence[Guard] = ()
) -> StageTimes:
    """Estimate how long one task's stages take.

    Args:
        curated: how many curated samples the task has.
        guards: the public sets that the task is measured on besides.
    """
    split, generation = params.split, params.generation
    base_tokens = BASE_ANSWER_SHARE * generation.max_new_tokens
    adapter_tokens = min(ANSWER_TOKENS, base_tokens)

    def answers(count: int, tokens: float) -> float:
        prompt = (ROW_TOKENS - ANSWER_TOKENS) * speed.prefill_s
        run = SECONDS_PER_RUN if task.execution_metric else 0.0
        return count * (prompt + tokens * speed.decode_s + run)

    validated = min(params.training.evaluate_samples, split.validation)
    train = START_S + answers(validated, base_tokens)
    for phase in params.training.phases:
        rows = phase.steps * phase.accumulation * phase.batch_size
        train += rows * ROW_TOKENS * speed.train_s * (PAIR_PASSES if phase.pairs else 1)
        evaluations = phase.steps // getattr(phase, "evaluate_every", phase.steps)
        train += evaluations * (answers(validated, adapter_tokens) + validated * ROW_TOKENS * speed.prefill_s)
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
        train=train,
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


def _train_seconds(model: PreTrainedModel, adapter: Adapter) -> float:
    """Return the seconds per token of a training step on typical rows."""
    import torch

    from bilora.training.adapter import attach
    from bilora.training.encode import IGNORED
    from bilora.training.packed_model import PASS_TOKENS, PackedModel, PackedRow

    packed = PackedModel([attach(model, adapter, seed=0)], pass_tokens=PASS_TOKENS)
    ids = torch.randint(0, model.config.vocab_size, (ROW_TOKENS,), device=model.device)
    labels = ids.clone()
    labels[: ROW_TOKENS - ANSWER_TOKENS] = IGNORED
    rows = [PackedRow(ids, labels)] * _TIMED_ROWS
    return _least_seconds(lambda: packed.train_one(rows, 1.0)) / (_TIMED_ROWS * ROW_TOKENS)


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
