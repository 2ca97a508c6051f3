"""Several trainings at once on one base: they take turns, and their training steps are taken together."""

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

R = TypeVar("R")


@dataclass(frozen=True)
class _Wanted:
    """A training's next step: the gradients of these rows' loss for the adapter of this model."""

    model: PeftModel
    rows: Sequence[PackedRow]
    weight: float


class _ProcessState:
    """What the libraries keep once per process, and each training has to find as it left it."""

    def __init__(self) -> None:
        """Read it."""
        self._python, self._numpy, self._torch = random.getstate(), np.random.get_state(), torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        self._accelerate = dict(GradientState._shared_state)

    def restore(self) -> None:
        """Set it again."""
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        torch.set_rng_state(self._torch)
        if self._cuda:
            torch.cuda.set_rng_state_all(self._cuda)
        GradientState._shared_state.clear()
        GradientState._shared_state.update(self._accelerate)


@dataclass
class _Member(Generic[R]):
    """One of the trainings: the coroutine that runs it, its state while others run, and the seconds it has run."""

    coroutine: greenlet
    state: _ProcessState
    seconds: float = 0.0
    began: float = 0.0
    result: list[R] = field(default_factory=list)

    def run(self, *loss: torch.Tensor) -> _Wanted | None:
        """Go on until the next step, which is returned, or the end."""
        with self.turn():
            found = self.coroutine.switch(*loss)
        if not self.coroutine.dead:
            return cast("_Wanted", found)
        self.result.append(found)
        return None

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Compute in this training's state."""
        self.state.restore()
        self.began = time.monotonic()
        try:
            yield
        finally:
            self.seconds += time.monotonic() - self.began
            self.state = _ProcessState()


class Together:
    """Runs trainings as coroutines that meet at every training step.

    1) Each in turn runs until its next step. 2) The rows of one step go through the base, or of all. 3) Their
    trainings go on with losses and gradients until the next step. Whatever else a training does, its optimizer,
    validation and checkpoints, is its own, so that it needs to know nothing of the others.

    On a GPU rows of several adapters share passes, which short rows do not fill. On a CPU a pass has the rows of one
    adapter, since larger products are not faster there; so every adapter comes out byte for byte as it would alone.
    """

    def __init__(self, *, mixed: bool | None = None) -> None:
        """Share passes on a GPU, or as `mixed` says."""
        self._mixed = torch.cuda.is_available() if mixed is None else mixed
        self._members: Sequence[_Member[Any]] = []
        self._models: dict[tuple[PeftModel, ...], PackedModel] = {}

    def steps_of(self, model: PeftModel) -> TrainRows:
        """Return what takes the training steps of a model, for the training that runs at the moment."""
        hub = cast("greenlet", getcurrent().parent)

        def train_rows(rows: Sequence[PackedRow], weight: float) -> torch.Tensor:
            return cast("torch.Tensor", hub.switch(_Wanted(model, rows, weight)))

        return train_rows

    def clock(self) -> float:
        """Return the seconds that the training which runs at the moment has taken, its shares of steps included."""
        member = next(one for one in self._members if one.coroutine is getcurrent())
        return member.seconds + time.monotonic() - member.began

    def run(self, trainings: Sequence[Callable[[], R]]) -> list[R]:
        """Return the results of all trainings.

        If one raises, all end and the error is raised.
        """
        members = [_Member[R](greenlet(training), _ProcessState()) for training in trainings]
        self._members = members
        try:
            wanted = {number: step for number, member in enumerate(members) if (step := member.run())}
            while wanted:
                for group in [list(wanted)] if self._mixed else [[number] for number in wanted]:
                    losses = self._step({number: wanted.pop(number) for number in group})
                    wanted |= {number: step for number, loss in losses.items() if (step := members[number].run(loss))}
        finally:
            for member in members:
                member.coroutine.throw(GreenletExit)  # nothing happens if it has ended
        return [member.result[0] for member in members]

    def _step(self, wanted: Mapping[int, _Wanted]) -> dict[int, torch.Tensor]:
        """Add the gradients of some trainings, whose rows share passes; return the losses."""
        steps = list(wanted.values())
        rows = [replace(row, adapter=place) for place, step in enumerate(steps) for row in step.rows]
        first = self._members[next(iter(wanted))]
        with first.turn():
            losses = self._model([step.model for step in steps]).train(rows, [step.weight for step in steps])
        self._share_time(first, list(wanted), [sum(len(row.ids) for row in step.rows) for step in steps])
        return dict(zip(wanted, losses, strict=True))

    def _share_time(self, first: _Member[Any], group: Sequence[int], tokens: Sequence[int]) -> None:
        """Divide the time of a pass, which the first member was charged with, by the tokens of each."""
        seconds = time.monotonic() - first.began
        first.seconds -= seconds
        for number, own in zip(group, tokens, strict=True):
            self._members[number].seconds += seconds * own / max(1, sum(tokens))

    def _model(self, models: Sequence[PeftModel]) -> PackedModel:
        """Return the packed model of these adapters; there is another when a training ends or begins a phase."""
        key = tuple(models)
        if key not in self._models:
            self._models[key] = PackedModel(models)
        return self._models[key]
