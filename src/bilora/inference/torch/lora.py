"""LoRA adapters beside one frozen base, each row of a batch with its own or with none."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bilora.errors import BadData
from bilora.storage import ADAPTER_FILES, adapter_sha256, read_json

if TYPE_CHECKING:
    import torch

PREFIX = "base_model.model."
"""What PEFT writes before each module's name."""

KEPT_STACKS = 8
"""So many mixes of adapters are kept stacked; making one copies the adapters in it once."""

_ONLY_AT_START = frozenset({"loftq_config", "eva_config", "corda_config", "lora_ga_config"})
"""Settings that say how A and B began; what the adapter computes does not depend on them."""


@dataclass(frozen=True, eq=False)
class Adapter:
    """One version of an adapter in memory: per module A, shape (r, in), and scaled B, shape (out, r).

    It is never changed. A new version is another object, so that rows which began with this one end with it.
    """

    name: str
    sha256: str
    layers: Mapping[str, tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class _Layer:
    """What one module adds: x A' B', where `foreign`, shape (rows, 1, r), blanks other adapters' columns."""

    a: torch.Tensor
    b: torch.Tensor
    foreign: torch.Tensor | None


@dataclass
class _Now(threading.local):
    """What the forward pass that runs in this thread adds, by module."""

    layers: dict[str, _Layer] = field(default_factory=dict)


@dataclass(frozen=True)
class Plain:
    """A plain LoRA as it lies in its folder: A, shape (r, in), and B, shape (out, r), by module, and the scale."""

    sha256: str
    scale: float
    layers: Mapping[str, tuple[torch.Tensor, torch.Tensor]]


def read_adapter(name: str, folder: Path, model: Any) -> Adapter:
    """Read a PEFT folder for `model`, in the model's own precision and on its device.

    The scale alpha / r is folded into B, in 32 bit, before B is brought to the model's precision.

    Raises:
        BadData: it is no plain LoRA, does not fit the model, or holds numbers that are not finite.
        MissingStep: one of its two files is absent.
    """
    plain = read_plain(folder)
    modules = dict(model.named_modules())
    layers = {}
    for key, (a, b) in plain.layers.items():
        module = modules.get(key)
        shape = (getattr(module, "in_features", None), getattr(module, "out_features", None))
        if (a.shape[1], b.shape[0]) != shape:
            raise unfit(folder, key)
        device = module.weight.device  # type: ignore[union-attr]
        layers[key] = a.to(device, model.dtype), (b.float() * plain.scale).to(device, model.dtype)
    return Adapter(name, plain.sha256, layers)


def read_plain(folder: Path) -> Plain:
    """Read a PEFT folder for any engine.

    Raises:
        BadData: it is no plain LoRA, or holds numbers that are not finite.
        MissingStep: one of its two files is absent.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    sha256 = adapter_sha256(folder)
    config = read_json(folder / ADAPTER_FILES[0])
    _refuse_other_kinds(folder, config)
    try:
        # Not mapped: whoever wrote over the file in place would end this process by SIGBUS.
        tensors = load((folder / ADAPTER_FILES[1]).read_bytes())
    except (SafetensorError, OSError) as error:
        raise BadData(folder, f"its weights cannot be read ({str(error).splitlines()[0][:200]}).") from None
    if adapter_sha256(folder) != sha256:
        raise BadData(folder, "was written to while it was read; try again.")
    layers = {}
    for key in sorted({_module(folder, key) for key in tensors}):
        a, b = tensors.get(f"{PREFIX}{key}.lora_A.weight"), tensors.get(f"{PREFIX}{key}.lora_B.weight")
        if a is None or b is None or a.shape[0] != b.shape[1]:
            raise unfit(folder, key)
        if not (a.isfinite().all() and b.isfinite().all()):
            raise BadData(folder, f"{key} holds numbers that are not finite; train it again.")
        layers[key] = (a, b)
    scale = config["lora_alpha"] / (math.sqrt(config["r"]) if config.get("use_rslora") else config["r"])
    return Plain(sha256, scale, layers)


def unfit(folder: Path, key: str) -> BadData:
    """Return what is raised when a base has no such module of that shape."""
    return BadData(folder, f"this adapter does not fit the base ({key} has another shape there, or is absent).")


def _refuse_other_kinds(folder: Path, config: dict[str, Any]) -> None:
    told = {key for key, value in config.items() if value and key.startswith("use_")} - {"use_rslora"}
    told |= {key for key, value in config.items() if value and key.endswith("_config")} - _ONLY_AT_START
    odd = ("modules_to_save", "rank_pattern", "alpha_pattern", "fan_in_fan_out", "lora_bias", "layer_replication")
    told |= {key for key in (*odd, "alora_invocation_tokens", "target_parameters") if config.get(key)}
    if config.get("bias", "none") != "none":
        told.add("bias")
    if config.get("peft_type") != "LORA" or told:
        raise BadData(folder, f"only plain LoRA is served; this adapter sets {', '.join(sorted(told)) or 'peft_type'}.")


def _module(folder: Path, key: str) -> str:
    name, dot, part = key.removeprefix(PREFIX).rpartition(".lora_")
    if not key.startswith(PREFIX) or not dot or part not in ("A.weight", "B.weight"):
        raise BadData(folder, f"only plain LoRA is served; it holds {key}.")
    return name


class AdapterRows:
    """Adds to every row of a forward pass what that row's adapter adds, and nothing to rows without one.

    The adapters of a batch are stacked into one pair of matrices a module, so that a mixed batch costs the
    same two products as one of a single adapter. Before the second product the columns of all other
    adapters are blanked row by row: a row's sum gains exact zeros.

    What is added stands in thread-local state that only `rows` sets, around one forward pass. No adapter is
    ever "the current one" of the model, so no other request can change it on the way.
    """

    def __init__(self, model: Any) -> None:
        self._modules = dict(model.named_modules())
        self._hooked: set[str] = set()
        self._now = _Now()
        self._stacks: OrderedDict[tuple[Adapter, ...], dict[str, tuple[Any, Any, tuple[int, ...]]]] = OrderedDict()

    @contextmanager
    def rows(self, adapters: Sequence[Adapter | None]) -> Iterator[None]:
        """Run forward passes in this thread whose row i has `adapters[i]`."""
        self._now.layers = self._layers(adapters)
        try:
            yield
        finally:
            self._now.layers = {}

    def _layers(self, adapters: Sequence[Adapter | None]) -> dict[str, _Layer]:
        present = {adapter for adapter in adapters if adapter is not None}
        mix = tuple(sorted(present, key=lambda adapter: (adapter.name, adapter.sha256, id(adapter))))
        if not mix:
            return {}
        alone = len(mix) == 1 and None not in adapters
        masks: dict[tuple[int, ...], Any] = {}
        layers = {}
        for name, (a, b, ranks) in self._stack(mix).items():
            if alone:
                layers[name] = _Layer(a, b, None)
                continue
            if ranks not in masks:
                masks[ranks] = _foreign(adapters, mix, ranks, a.device)
            layers[name] = _Layer(a, b, masks[ranks])
        return layers

    def _stack(self, mix: tuple[Adapter, ...]) -> dict[str, tuple[Any, Any, tuple[int, ...]]]:
        import torch

        if mix in self._stacks:
            self._stacks.move_to_end(mix)
            return self._stacks[mix]
        stack = {}
        for name in sorted({name for adapter in mix for name in adapter.layers}):
            found = [adapter.layers.get(name) for adapter in mix]
            ranks = tuple(pair[0].shape[0] if pair else 0 for pair in found)
            pairs = [pair for pair in found if pair]
            a, b = pairs[0] if len(pairs) == 1 else (
                torch.cat([pair[0] for pair in pairs], dim=0), torch.cat([pair[1] for pair in pairs], dim=1)
            )  # fmt: skip
            stack[name] = (a, b, ranks)
            if name not in self._hooked:
                self._modules[name].register_forward_hook(self._hook(name))
                self._hooked.add(name)
        self._stacks[mix] = stack
        if len(self._stacks) > KEPT_STACKS:
            self._stacks.popitem(last=False)
        return stack

    def _hook(self, name: str) -> Any:
        from torch.nn.functional import linear

        now = self._now

        def add(_: Any, given: tuple[Any, ...], output: Any) -> Any:
            layer = now.layers.get(name)
            if layer is None:
                return None
            inner = linear(given[0], layer.a)
            if layer.foreign is not None:
                inner = inner.masked_fill_(layer.foreign, 0.0)
            return output.add_(linear(inner, layer.b))

        return add


def _foreign(adapters: Sequence[Adapter | None], mix: tuple[Adapter, ...], ranks: tuple[int, ...], device: Any) -> Any:
    """Return which columns of the stack are not the row's own; shape (rows, 1, sum of ranks)."""
    import torch

    own = torch.zeros(len(adapters), 1, sum(ranks), dtype=torch.bool)
    starts = [sum(ranks[:place]) for place in range(len(ranks))]
    for row, adapter in enumerate(adapters):
        if adapter is not None:
            place = mix.index(adapter)
            own[row, :, starts[place] : starts[place] + ranks[place]] = True
    return ~own.to(device)
