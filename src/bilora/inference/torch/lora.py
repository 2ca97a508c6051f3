"""LoRA adapters beside one frozen base: each row of a forward pass has its own adapter or none."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bilora.bases.loading import shared_copy
from bilora.inference.peft_adapter import misfit, read_peft_adapter

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

    from bilora.inference.torch.joined_layers import Part

_CACHED_STACKS = 8
"""How many combinations of adapters stay stacked; stacking copies each of their matrices once."""


@dataclass(frozen=True, eq=False)
class LoadedAdapter:
    """One version of an adapter in memory: per module A, shape (r, in), and scaled B, shape (out, r).

    It never changes. A new version is another object, so a sequence that began with this one ends with it.
    """

    name: str
    sha256: str
    layers: Mapping[str, tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class _Stack:
    """The adapters of one combination stacked for one module: A, shape (r, in), B, shape (out, r), r the ranks' sum."""

    a: torch.Tensor
    b: torch.Tensor
    ranks: tuple[int, ...]


@dataclass(frozen=True)
class _Delta:
    """What one module adds: x A' B', where `foreign`, shape (rows, 1, r), marks the columns of other rows' adapters."""

    a: torch.Tensor
    b: torch.Tensor
    foreign: torch.Tensor | None


@dataclass
class _ThreadDeltas(threading.local):
    """What the forward pass of this thread adds, per module."""

    deltas: dict[str, _Delta] = field(default_factory=dict)


def read_adapter(name: str, folder: Path, model: PreTrainedModel) -> LoadedAdapter:
    """Read a PEFT folder for `model`, in the model's precision and on its device.

    The scale alpha / r is multiplied into B, in 32-bit, before B is converted to the model's precision.

    Raises:
        BadData: it is no plain LoRA, does not fit the model, or holds numbers that are not finite.
        MissingStep: one of its two files is absent.
    """
    from bilora.inference.torch.joined_layers import part_of

    adapter = read_peft_adapter(folder)
    modules = dict(model.named_modules())
    pieces: dict[str, list[tuple[Part, torch.Tensor, torch.Tensor]]] = {}
    for key, (a, b) in adapter.layers.items():
        part = part_of(modules, key)
        if part is None or (a.shape[1], b.shape[0]) != (part.inputs, part.outputs.stop - part.outputs.start):
            raise misfit(folder, key)
        pieces.setdefault(part.module, []).append((part, a, b.float() * adapter.scale))
    layers = {}
    for key, found in pieces.items():
        a, b = _join_parts(found, int(modules[key].out_features))
        device = modules[key].weight.device
        layers[key] = a.to(device, model.dtype), b.to(device, model.dtype)
    return LoadedAdapter(name, adapter.sha256, layers)


def split_adapter(model: PreTrainedModel | PeftModel, name: str) -> tuple[PreTrainedModel, LoadedAdapter | None]:
    """Return a copy of a model without its adapter, on the same weights, and the adapter as it is now, if it has one.

    The adapter is what `read_adapter` would read if it were saved. The model itself is left as it is.
    """
    from peft.tuners.lora import LoraLayer

    plain = shared_copy(model.get_base_model() if hasattr(model, "peft_config") else model)
    layers = {}
    for key, module in list(plain.named_modules()):
        if isinstance(module, LoraLayer):
            plain.set_submodule(key, module.get_base_layer())
            (active,) = module.active_adapters
            a, b = module.lora_A[active].weight.detach(), module.lora_B[active].weight.detach()
            layers[key] = a.to(plain.dtype), (b.float() * module.scaling[active]).to(plain.dtype)
    return plain, LoadedAdapter(name, "", layers) if layers else None


def _join_parts(
    pieces: Sequence[tuple[Part, torch.Tensor, torch.Tensor]], outputs: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return one A and one B for the parts of a module: each part's B has its own columns, and zeros elsewhere."""
    import torch

    b = torch.zeros(outputs, sum(piece.shape[1] for _, _, piece in pieces))
    column = 0
    for part, _, piece in pieces:
        b[part.outputs, column : column + piece.shape[1]] = piece
        column += piece.shape[1]
    return torch.cat([a for _, a, _ in pieces]), b


class StackedLora:
    """Adds to each row of a forward pass what that row's adapter adds, and nothing to rows without one.

    1) The adapters of a batch are stacked into one A and one B per module, so that a mixed batch takes the same two
    products as a batch of one adapter. 2) x A' has the columns of all adapters. 3) In each row the columns of the
    other adapters are set to zero. 4) The product with B' then sums the row's own adapter and exact zeros.

    What is added is thread-local and set only by `active`, for one forward pass. The model has no current adapter
    that another request could change in between.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._modules = dict(model.named_modules())
        self._hooked: set[str] = set()
        self._local = _ThreadDeltas()
        self._stacks: OrderedDict[tuple[LoadedAdapter, ...], dict[str, _Stack]] = OrderedDict()

    @contextmanager
    def active(self, adapters: Sequence[LoadedAdapter | None]) -> Iterator[None]:
        """Run this thread's forward passes with `adapters[i]` on row i."""
        self._local.deltas = self._deltas(adapters)
        try:
            yield
        finally:
            self._local.deltas = {}

    def _deltas(self, adapters: Sequence[LoadedAdapter | None]) -> dict[str, _Delta]:
        present = {adapter for adapter in adapters if adapter is not None}
        mix = tuple(sorted(present, key=lambda adapter: (adapter.name, adapter.sha256, id(adapter))))
        if not mix:
            return {}
        if len(mix) == 1 and None not in adapters:
            return {name: _Delta(stack.a, stack.b, None) for name, stack in self._stack(mix).items()}
        masks: dict[tuple[int, ...], torch.Tensor] = {}
        deltas = {}
        for name, stack in self._stack(mix).items():
            if stack.ranks not in masks:
                masks[stack.ranks] = _foreign_columns(adapters, mix, stack.ranks, stack.a.device)
            deltas[name] = _Delta(stack.a, stack.b, masks[stack.ranks])
        return deltas

    def _stack(self, mix: tuple[LoadedAdapter, ...]) -> dict[str, _Stack]:
        """Return the stacked matrices of these adapters per module, and hook the modules that have none yet."""
        import torch

        if mix in self._stacks:
            self._stacks.move_to_end(mix)
            return self._stacks[mix]
        stacks = {}
        for name in sorted({name for adapter in mix for name in adapter.layers}):
            layers = [adapter.layers.get(name) for adapter in mix]
            ranks = tuple(layer[0].shape[0] if layer else 0 for layer in layers)
            pairs = [layer for layer in layers if layer]
            if len(pairs) == 1:
                a, b = pairs[0]  # not copied
            else:
                a, b = torch.cat([a for a, _ in pairs], dim=0), torch.cat([b for _, b in pairs], dim=1)
            stacks[name] = _Stack(a, b, ranks)
            if name not in self._hooked:
                self._modules[name].register_forward_hook(self._hook(name))
                self._hooked.add(name)
        self._stacks[mix] = stacks
        if len(self._stacks) > _CACHED_STACKS:
            self._stacks.popitem(last=False)
        return stacks

    def _hook(
        self, name: str
    ) -> Callable[[torch.nn.Module, tuple[torch.Tensor, ...], torch.Tensor], torch.Tensor | None]:
        from torch.nn.functional import linear

        local = self._local

        def add(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor | None:
            delta = local.deltas.get(name)
            if delta is None:
                return None
            inner = linear(inputs[0], delta.a)
            if delta.foreign is not None:
                inner = inner.masked_fill_(delta.foreign, 0.0)
            return output.add_(linear(inner, delta.b))

        return add


def _foreign_columns(
    adapters: Sequence[LoadedAdapter | None],
    mix: tuple[LoadedAdapter, ...],
    ranks: tuple[int, ...],
    device: torch.device,
) -> torch.Tensor:
    """Return which columns of the stack belong to other adapters than the row's; shape (rows, 1, sum of ranks)."""
    import torch

    own = torch.zeros(len(adapters), 1, sum(ranks), dtype=torch.bool)
    starts = [sum(ranks[:place]) for place in range(len(ranks))]
    for row, adapter in enumerate(adapters):
        if adapter is not None:
            place = mix.index(adapter)
            own[row, :, starts[place] : starts[place] + ranks[place]] = True
    return ~own.to(device)
