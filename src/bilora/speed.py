"""Measure how fast this machine trains and generates, in a few seconds."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bilora.params import Adapter
from bilora.requests import Request, SamplingParams

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from bilora.bases.base import Base
    from bilora.bases.loading import LoadedBase
    from bilora.inference.torch.engine import TorchEngine

ROW_TOKENS, COMPLETION_TOKENS = 150, 45
"""Length of a typical training row, and of the completion in it."""

_LAYERS = (1, 5)
"""Numbers of layers of the two timed models, from which the base's time is extrapolated."""
_TIMED_LENGTHS = range(ROW_TOKENS - 20, ROW_TOKENS + 20, 5)
"""Lengths of the rows of a timed training step; different ones, as in a batch."""
_TIMED_COMPLETIONS, _TIMED_STEPS = 32, 12
"""The maximum number of completions in a timed batch, and their tokens after the first."""
_MIN_SECONDS, _MIN_RUNS = 0.3, 2
"""The minimum duration and number of runs of a measurement, whose fastest run counts."""


@dataclass(frozen=True)
class GenerationSpeed:
    """Seconds per prompt token and per completion token in a batch."""

    prefill_s: float
    decode_s: float


@dataclass(frozen=True)
class TrainingSpeed:
    """The cost of training per token on this machine.

    Attributes:
        train_s: seconds per token of a training row.
        saved_bytes: bytes per token that a training pass saves for the backward pass.
        generation: of the model in training, whose layers are neither joined nor packed.
    """

    train_s: float
    saved_bytes: float
    generation: GenerationSpeed


def measure_training(base: Base, adapter: Adapter, *, batch_size: int) -> TrainingSpeed:
    """Time training and generation with two models of few layers, and extrapolate to the base's number of layers.

    The models have the base's shapes and precision and random weights, so no weights are loaded.

    Args:
        batch_size: the number of completions in a batch.
    """
    from bilora.evaluation.validation import validation_engine
    from bilora.training.adapter import attach_adapter

    costs = []
    for small in _small_bases(base):
        adapted = replace(small, model=attach_adapter(small.model, adapter, seed=0))
        training = _train_costs(adapted.model)
        engine = validation_engine(adapted, "adapter", batch_size)
        costs.append((*training, *_generation_costs(engine, "adapter", batch_size)))
    train_s, saved_bytes, *generation = _extrapolate(costs, base)
    return TrainingSpeed(train_s, saved_bytes, GenerationSpeed(*generation))


def measure_generation(base: Base, *, batch_size: int) -> GenerationSpeed:
    """Time generation as in evaluation, with models as in `measure_training`.

    Args:
        batch_size: the number of completions in a batch.
    """
    from bilora.inference.torch.engine import TorchEngine
    from bilora.inference.torch.loading import tune_for_inference

    engines = [TorchEngine(tune_for_inference(small), {}, batch_size=batch_size) for small in _small_bases(base)]
    return GenerationSpeed(*_extrapolate([_generation_costs(engine, "base", batch_size) for engine in engines], base))


def _small_bases(base: Base) -> Iterator[LoadedBase]:
    """Yield models with the base's shapes, few layers and random weights, on the GPU if there is one."""
    import torch
    from transformers import AutoModelForCausalLM

    from bilora.bases.loading import LoadedBase

    tokenizer = base.tokenizer()
    for layers in _LAYERS:
        config = copy.deepcopy(base.config())
        config.num_hidden_layers = layers
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[:layers]
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, base.precision))
        yield LoadedBase(model.to("cuda" if torch.cuda.is_available() else "cpu").eval(), tokenizer, "")


def _train_costs(model: PeftModel) -> tuple[float, float]:
    """Return the seconds per token of a training step, and the bytes per token that it saves for the backward pass."""
    import torch

    from bilora.training.encode import IGNORE_INDEX
    from bilora.training.packed_model import PackedModel, PackedRow

    packed = PackedModel([model])
    rows = []
    for length in _TIMED_LENGTHS:
        ids = torch.randint(0, model.config.vocab_size, (length,), device=model.device)
        labels = ids.clone()
        labels[: length - COMPLETION_TOKENS] = IGNORE_INDEX
        rows.append(PackedRow(ids, labels))
    tokens = sum(_TIMED_LENGTHS)
    weights = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    saved: dict[int, int] = {}

    def count_bytes(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count_bytes, lambda tensor: tensor):
        packed.losses(rows)

    def step() -> tuple[float]:
        start = time.perf_counter()
        packed.train_one(rows, 1.0)
        if model.device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start,)

    (seconds,) = _fastest(step)
    return seconds / tokens, sum(saved.values()) / tokens


def _generation_costs(engine: TorchEngine, system: str, batch_size: int) -> tuple[float, float]:
    """Return the seconds per prompt token and per completion token in a full batch."""
    count = min(batch_size, _TIMED_COMPLETIONS)
    sampling = SamplingParams(max_tokens=1 + _TIMED_STEPS, ignore_eos=True)
    text = " one" * (ROW_TOKENS - COMPLETION_TOKENS)
    requests = [Request(str(number), (), sampling, text=text) for number in range(count)]
    tokens = 0

    def generate() -> tuple[float, float]:
        nonlocal tokens
        start = time.perf_counter()
        completions = engine.generate(system, requests)
        tokens = sum(completion.prompt_tokens or 0 for completion in completions)
        prefill_s = max(completion.first_token_s or 0.0 for completion in completions)
        return prefill_s, time.perf_counter() - start - prefill_s

    prefill_s, decode_s = _fastest(generate)
    return prefill_s / tokens, decode_s / (_TIMED_STEPS * count)


def _fastest(measure: Callable[[], Sequence[float]]) -> list[float]:
    """Return the minimum of each cost over several runs, after a warm-up run."""
    measure()
    start = time.perf_counter()
    runs: list[Sequence[float]] = []
    while len(runs) < _MIN_RUNS or time.perf_counter() - start < _MIN_SECONDS:
        runs.append(measure())
    return [min(costs) for costs in zip(*runs, strict=True)]


def _extrapolate(costs: Sequence[Sequence[float]], base: Base) -> list[float]:
    """Return the costs for the base's number of layers, linearly from those of the two small models."""
    (low, high), layers = _LAYERS, base.config().num_hidden_layers
    small, large = costs
    return [a + max(b - a, 0.0) / (high - low) * (layers - low) for a, b in zip(small, large, strict=True)]
