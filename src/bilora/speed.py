"""How fast this machine trains and answers: a second or two of its real work."""

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

ROW_TOKENS, ANSWER_TOKENS = 150, 45
"""A typical training row, and the answer in it: rows of exercises, docstrings and MBPP have 130 to 190 tokens."""

_LAYERS = (1, 5)
"""How many layers the two timed models have; the others are extrapolated."""
_TIMED_LENGTHS = range(ROW_TOKENS - 20, ROW_TOKENS + 20, 5)
"""Lengths of the rows of a timed training step: equal ones would take less time than a batch's."""
_TIMED_ANSWERS, _TIMED_STEPS = 32, 12
"""Answers of a timed batch at most, and their tokens after the first."""
_TIMED_SECONDS, _TIMED_RUNS = 0.3, 2
"""How long a cost is measured at least, and how often; the least counts, since what disturbs a run adds to it."""


@dataclass(frozen=True)
class AnswerSpeed:
    """What one token of a prompt, and one of an answer, costs in a batch, in seconds."""

    prefill_s: float
    decode_s: float


@dataclass(frozen=True)
class TrainingSpeed:
    """What one token of a training costs on this machine, in seconds.

    Attributes:
        train_s: of a training row.
        kept_bytes: what a training pass keeps of each token for its backward pass.
        answers: in answers of the model in training, whose layers are neither joined nor packed.
    """

    train_s: float
    kept_bytes: float
    answers: AnswerSpeed


def measure_training(base: Base, adapter: Adapter, *, batch_size: int) -> TrainingSpeed:
    """Train and answer for a second with two models of few layers, and extrapolate to all of the base's.

    The models have the base's shapes, its precision and random weights, so none is loaded.

    Args:
        batch_size: how many answers are generated at a time.
    """
    from bilora.evaluation.validation import validation_engine
    from bilora.training.adapter import attach

    costs = []
    for small in _small_bases(base):
        adapted = replace(small, model=attach(small.model, adapter, seed=0))
        training = _train_costs(adapted.model)
        engine = validation_engine(adapted, "adapter", batch_size)
        costs.append((*training, *_answer_costs(engine, "adapter", batch_size)))
    train_s, kept_bytes, *answers = _extrapolated(costs, base)
    return TrainingSpeed(train_s, kept_bytes, AnswerSpeed(*answers))


def measure_answers(base: Base, *, batch_size: int) -> AnswerSpeed:
    """Answer for a second as evaluation does, with the same models.

    Args:
        batch_size: how many answers are generated at a time.
    """
    from bilora.inference.torch.engine import TorchEngine
    from bilora.inference.torch.loading import tune_for_inference

    engines = [TorchEngine(tune_for_inference(small), {}, batch_size=batch_size) for small in _small_bases(base)]
    return AnswerSpeed(*_extrapolated([_answer_costs(engine, "base", batch_size) for engine in engines], base))


def _small_bases(base: Base) -> Iterator[LoadedBase]:
    """Yield models of the base's shapes with few layers and random weights, on the device that is used."""
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
    """Return the seconds per token of a training step on typical rows, and the bytes per token that its pass keeps."""
    import torch

    from bilora.training.encode import IGNORED
    from bilora.training.packed_model import PackedModel, PackedRow

    packed = PackedModel([model])
    rows = []
    for length in _TIMED_LENGTHS:
        ids = torch.randint(0, model.config.vocab_size, (length,), device=model.device)
        labels = ids.clone()
        labels[: length - ANSWER_TOKENS] = IGNORED
        rows.append(PackedRow(ids, labels))
    tokens = sum(_TIMED_LENGTHS)
    weights = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        packed.losses(rows)

    def step() -> tuple[float]:
        began = time.perf_counter()
        packed.train_one(rows, 1.0)
        if model.device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - began,)

    (seconds,) = _least(step)
    return seconds / tokens, sum(kept.values()) / tokens


def _answer_costs(engine: TorchEngine, system: str, batch_size: int) -> tuple[float, float]:
    """Return the seconds per token of a system's prompts and of its answers, in a full batch."""
    count = min(batch_size, _TIMED_ANSWERS)
    sampling = SamplingParams(max_tokens=1 + _TIMED_STEPS, ignore_eos=True)
    text = " one" * (ROW_TOKENS - ANSWER_TOKENS)
    requests = [Request(str(number), (), sampling, text=text) for number in range(count)]
    tokens = 0

    def answer() -> tuple[float, float]:
        nonlocal tokens
        began = time.perf_counter()
        completions = engine.generate(system, requests)
        tokens = sum(one.prompt_tokens or 0 for one in completions)
        prefill_s = max(one.first_token_s or 0.0 for one in completions)
        return prefill_s, time.perf_counter() - began - prefill_s

    prefill_s, decode_s = _least(answer)
    return prefill_s / tokens, decode_s / (_TIMED_STEPS * count)


def _least(measure: Callable[[], Sequence[float]]) -> list[float]:
    """Return the least that is measured of each cost, after a run that warms up."""
    measure()
    began = time.perf_counter()
    found: list[Sequence[float]] = []
    while len(found) < _TIMED_RUNS or time.perf_counter() - began < _TIMED_SECONDS:
        found.append(measure())
    return [min(costs) for costs in zip(*found, strict=True)]


def _extrapolated(costs: Sequence[Sequence[float]], base: Base) -> list[float]:
    """Return the costs of all layers from those of a model with few and of one with some more."""
    (few, more), layers = _LAYERS, base.config().num_hidden_layers
    return [one + max(other - one, 0.0) / (more - few) * (layers - few) for one, other in zip(*costs, strict=True)]
