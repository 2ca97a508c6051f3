"""LoRA adapters on one frozen base: each row of a forward pass has one adapter or none."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bilora.bases.loading import shared_copy
from bilora.inference.peft_adapter import incompatible_adapter, read_peft_adapter

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

    from bilora.inference.torch.fused_layers import LayerSlice

_CACHED_STACKS = 8
"""Maximum number of cached stacks, one per combination of adapters; a stack is a copy of their matrices."""


@dataclass(frozen=True, eq=False)
class LoadedAdapter:
    """One immutable version of an adapter: per module A, shape (r, in), and scaled B, shape (out, r)."""

    name: str
    sha256: str
    layers: Mapping[str, tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class _Stack:
    """One module's stacked adapters: A, shape (r, in), and B, shape (out, r), where r is the sum of their ranks."""

    a: torch.Tensor
    b: torch.Tensor
    ranks: tuple[int, ...]


@dataclass(frozen=True)
class _Delta:
    """A module's LoRA term x A' B'; `inactive`, shape (rows, 1, r), marks the columns that do not apply to a row."""

    a: torch.Tensor
    b: torch.Tensor
    inactive: torch.Tensor | None


@dataclass
class _ThreadDeltas(threading.local):
    """The LoRA terms of this thread's forward pass, per module."""

    deltas: dict[str, _Delta] = field(default_factory=dict)


def read_adapter(name: str, folder: Path, model: PreTrainedModel) -> LoadedAdapter:
    """Read a PEFT folder for `model`, in the model's precision and on its device.

    The scale alpha / r is multiplied into B, in 32-bit, before B is converted to the model's precision.

    Raises:
        BadData: it is not plain LoRA, does not match the model, or contains numbers that are not finite.
        MissingStep: one of its two files is absent.
    """
    from bilora.inference.torch.fused_layers import find_layer

    adapter = read_peft_adapter(folder)
    modules = dict(model.named_modules())
    parts: dict[str, list[tuple[LayerSlice, torch.Tensor, torch.Tensor]]] = {}
    for key, (a, b) in adapter.layers.items():
        layer = find_layer(modules, key)
        if layer is None or (a.shape[1], b.shape[0]) != (layer.inputs, layer.outputs.stop - layer.outputs.start):
            raise incompatible_adapter(folder, key)
        parts.setdefault(layer.module, []).append((layer, a, b.float() * adapter.scale))
    layers = {}
    for key, module_parts in parts.items():
        a, b = _fuse_parts(module_parts, int(modules[key].out_features))
        device = modules[key].weight.device
        layers[key] = a.to(device, model.dtype), b.to(device, model.dtype)
    return LoadedAdapter(name, adapter.sha256, layers)


def split_adapter(model: PreTrainedModel | PeftModel, name: str) -> tuple[PreTrainedModel, LoadedAdapter | None]:
    """Return a copy of a model without its adapter, on the same weights, and the adapter if there is one.

    The adapter equals what `read_adapter` would read if it were saved. The model is not changed.
    """
    from peft.tuners.lora import LoraLayer

    base_model = shared_copy(model.get_base_model() if hasattr(model, "peft_config") else model)
    layers = {}
    for key, module in list(base_model.named_modules()):
        if isinstance(module, LoraLayer):
            base_model.set_submodule(key, module.get_base_layer())
            (active,) = module.active_adapters
            a, b = module.lora_A[active].weight.detach(), module.lora_B[active].weight.detach()
            layers[key] = a.to(base_model.dtype), (b.float() * module.scaling[active]).to(base_model.dtype)
    return base_model, LoadedAdapter(name, "", layers) if layers else None


def _fuse_parts(
    parts: Sequence[tuple[LayerSlice, torch.Tensor, torch.Tensor]], outputs: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return one A and one B for the layers of a fused module; B is block-diagonal."""
    import torch

    fused_b = torch.zeros(outputs, sum(b.shape[1] for _, _, b in parts))
    column = 0
    for layer, _, b in parts:
        fused_b[layer.outputs, column : column + b.shape[1]] = b
        column += b.shape[1]
    return torch.cat([a for _, a, _ in parts]), fused_b


class StackedLora:
    """Applies to each row of a forward pass the adapter of that row, if it has one.

    1) The adapters of a batch are stacked into one A and one B per module, so that a mixed batch takes the same two
    products as a batch of one adapter. 2) x A' has the columns of all adapters. 3) In each row the columns of the
    other adapters are set to zero. 4) The product with B' adds the row's adapter and exact zeros.

    The active adapters are thread-local and set by `active` for one forward pass: no other request can change them.
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
        stacked = tuple(sorted(present, key=lambda adapter: (adapter.name, adapter.sha256, id(adapter))))
        if not stacked:
            return {}
        if len(stacked) == 1 and None not in adapters:
            return {name: _Delta(stack.a, stack.b, None) for name, stack in self._stack(stacked).items()}
        masks: dict[tuple[int, ...], torch.Tensor] = {}
        deltas = {}
        for name, stack in self._stack(stacked).items():
            if stack.ranks not in masks:
                masks[stack.ranks] = _inactive_columns(adapters, stacked, stack.ranks, stack.a.device)
            deltas[name] = _Delta(stack.a, stack.b, masks[stack.ranks])
        return deltas

    def _stack(self, adapters: tuple[LoadedAdapter, ...]) -> dict[str, _Stack]:
        """Return the stacked matrices of these adapters per module, and add missing hooks."""
        import torch

        if adapters in self._stacks:
            self._stacks.move_to_end(adapters)
            return self._stacks[adapters]
        stacks = {}
        for name in sorted({name for adapter in adapters for name in adapter.layers}):
            layers = [adapter.layers.get(name) for adapter in adapters]
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
        self._stacks[adapters] = stacks
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
            if delta.inactive is not None:
                inner = inner.masked_fill_(delta.inactive, 0.0)
            return output.add_(linear(inner, delta.b))

        return add


def _inactive_columns(
    adapters: Sequence[LoadedAdapter | None],
    stacked: tuple[LoadedAdapter, ...],
    ranks: tuple[int, ...],
    device: torch.device,
) -> torch.Tensor:
    """Return a mask of the stack's columns that do not belong to the row's adapter, shape (rows, 1, sum of ranks)."""
    import torch

    active = torch.zeros(len(adapters), 1, sum(ranks), dtype=torch.bool)
    starts = [sum(ranks[:index]) for index in range(len(ranks))]
    for row, adapter in enumerate(adapters):
        if adapter is not None:
            index = stacked.index(adapter)
            active[row, :, starts[index] : starts[index] + ranks[index]] = True
    return ~active.to(device)
