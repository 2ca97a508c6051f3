"""Run several trainings together on one base, as coroutines whose training steps can share passes."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import numpy as np
import torch
from accelerate.state import GradientState
from greenlet import GreenletExit, getcurrent, greenlet

from bilora.training.packed_model import PackedModel, PackedRow, TrainRows

if TYPE_CHECKING:
    from peft import PeftModel

_R = TypeVar("_R")


@dataclass(frozen=True)
class _StepRequest:
    """The next training step of a member: compute the gradients of the rows' loss for the model's adapter."""

    model: PeftModel
    rows: Sequence[PackedRow]
    weight: float


class _ProcessState:
    """The global state of the libraries: random number generators and gradient accumulation."""

    def __init__(self) -> None:
        """Save the current state."""
        self._python, self._numpy, self._torch = random.getstate(), np.random.get_state(), torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        self._accelerate = dict(GradientState._shared_state)

    def restore(self) -> None:
        """Restore the saved state."""
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        torch.set_rng_state(self._torch)
        if self._cuda:
            torch.cuda.set_rng_state_all(self._cuda)
        GradientState._shared_state.clear()
        GradientState._shared_state.update(self._accelerate)


@dataclass
class _Member(Generic[_R]):
    """One of the trainings: its coroutine, its global state while others run, and the seconds that it has run."""

    coroutine: greenlet
    state: _ProcessState
    seconds: float = 0.0
    started: float = 0.0
    result: list[_R] = field(default_factory=list)

    def run(self, *loss: torch.Tensor) -> _StepRequest | None:
        """Run the training until its next step, and return the request for it; None at the end of the training."""
        with self.active():
            value = self.coroutine.switch(*loss)
        if not self.coroutine.dead:
            return cast("_StepRequest", value)
        self.result.append(value)
        return None

    @contextmanager
    def active(self) -> Iterator[None]:
        """Use this training's global state, and count the time."""
        self.state.restore()
        self.started = time.monotonic()
        try:
            yield
        finally:
            self.seconds += time.monotonic() - self.started
            self.state = _ProcessState()


class JointTraining:
    """Runs trainings as coroutines that are synchronized at every step.

    1) Each training runs until its next step. 2) One pass computes the step of one training, or of all. 3) These
    trainings continue with their losses and gradients until the next step. Optimizer, validation and checkpoints
    belong to each training, so a training does not depend on the others.

    On a GPU, rows of several adapters share passes, which short rows of one adapter do not fill. On a CPU, larger
    passes are not faster, so a pass has rows of one adapter; each adapter's bytes are those of a separate training.
    """

    def __init__(self, *, mixed: bool | None = None) -> None:
        """Create it without trainings.

        Args:
            mixed: whether rows of several adapters share passes; None for yes on a GPU and no on a CPU.
        """
        self._mixed = torch.cuda.is_available() if mixed is None else mixed
        self._members: Sequence[_Member[Any]] = []
        self._models: dict[tuple[PeftModel, ...], PackedModel] = {}

    def step_function(self, model: PeftModel) -> TrainRows:
        """Return the function that computes the training steps of a model, for the currently running training."""
        parent = cast("greenlet", getcurrent().parent)

        def train_rows(rows: Sequence[PackedRow], weight: float) -> torch.Tensor:
            return cast("torch.Tensor", parent.switch(_StepRequest(model, rows, weight)))

        return train_rows

    def clock(self) -> float:
        """Return the seconds of the currently running training, with its share of common steps."""
        member = next(member for member in self._members if member.coroutine is getcurrent())
        return member.seconds + time.monotonic() - member.started

    def run(self, trainings: Sequence[Callable[[], _R]]) -> list[_R]:
        """Run all trainings and return their results; an error in one of them ends all and is raised."""
        members = [_Member[_R](greenlet(training), _ProcessState()) for training in trainings]
        self._members = members
        try:
            pending = {number: step for number, member in enumerate(members) if (step := member.run())}
            while pending:
                for group in [list(pending)] if self._mixed else [[number] for number in pending]:
                    losses = self._step({number: pending.pop(number) for number in group})
                    pending |= {number: step for number, loss in losses.items() if (step := members[number].run(loss))}
        finally:
            for member in members:
                member.coroutine.throw(GreenletExit)  # no effect on finished ones
        return [member.result[0] for member in members]

    def _step(self, requests: Mapping[int, _StepRequest]) -> dict[int, torch.Tensor]:
        """Add the gradients of some trainings, whose rows share passes; return the losses."""
        steps = list(requests.values())
        rows = [replace(row, adapter=index) for index, step in enumerate(steps) for row in step.rows]
        first = self._members[next(iter(requests))]
        with first.active():
            losses = self._model([step.model for step in steps]).train(rows, [step.weight for step in steps])
        self._share_time(first, list(requests), [sum(len(row.ids) for row in step.rows) for step in steps])
        return dict(zip(requests, losses, strict=True))

    def _share_time(self, first: _Member[Any], group: Sequence[int], tokens: Sequence[int]) -> None:
        """Divide the time of a pass, which was added to the first member, in proportion to the tokens."""
        seconds = time.monotonic() - first.started
        first.seconds -= seconds
        for number, count in zip(group, tokens, strict=True):
            self._members[number].seconds += seconds * count / max(1, sum(tokens))

    def _model(self, models: Sequence[PeftModel]) -> PackedModel:
        """Return the cached packed model of these adapters, which change when a training ends or begins a phase."""
        key = tuple(models)
        if key not in self._models:
            self._models[key] = PackedModel(models)
        return self._models[key]
