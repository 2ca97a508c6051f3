"""The layers of transformers' Llama family for passes of packed rows.

They compute what the family's own do, and keep less for the backward pass: their inputs, and no intermediate values.
Their own weights are frozen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import Module
from torch.nn.functional import silu
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm
from transformers.models.mistral.modeling_mistral import MistralMLP, MistralRMSNorm
from transformers.models.phi3.modeling_phi3 import Phi3MLP, Phi3RMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2MLP, Qwen2RMSNorm

from bilora.training.attention import ATTENTIONS, PackedAttention
from bilora.training.fused import fused
from bilora.training.mixed_linear import products

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_NORMS = (LlamaRMSNorm, MistralRMSNorm, Phi3RMSNorm, Qwen2RMSNorm)
_MLPS = (LlamaMLP, MistralMLP, Phi3MLP, Qwen2MLP)


def use_lean_layers(model: PreTrainedModel) -> None:
    """Replace a model's attention, and normalisations and gated MLPs where their class is known.

    Its decoder then needs the argument `rows`, which say where rows end, and makes no masks.
    """
    model.config._attn_implementation = "packed"  # transformers makes no masks for a name that it does not know
    for name, module in list(model.named_modules()):
        if type(module) in ATTENTIONS:
            model.set_submodule(name, PackedAttention(module))
        elif type(module) in _NORMS:
            model.set_submodule(name, _LeanNorm(module))
        elif type(module) in _MLPS and model.config.hidden_act == "silu":
            model.set_submodule(name, _LeanMLP(module))


class _LeanNorm(Module):
    """x / sqrt(mean(x^2) + epsilon), in 32-bit, times the weight."""

    def __init__(self, plain: Module) -> None:
        super().__init__()
        self.weight, self.epsilon = cast("Tensor", plain.weight), cast("float", plain.variance_epsilon)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _RmsNorm.apply(x.flatten(0, -2), self.weight, self.epsilon)  # type: ignore[no-untyped-call]
        return out.view_as(x)


class _LeanMLP(Module):
    """down_proj(silu(gate) * up), whose gate and up are one product or two."""

    def __init__(self, plain: Module) -> None:
        super().__init__()
        for name, layer in plain.named_children():
            setattr(self, name, layer)  # under their own names, which adapters go by

    def forward(self, x: Tensor) -> Tensor:
        names = ["gate_up_proj"] if "gate_up_proj" in self._modules else ["gate_proj", "up_proj"]
        parts = [one.flatten(0, -2) for one in products(x, [self.get_submodule(name) for name in names])]
        activations: list[Tensor] = []
        gated = _GatedProduct.apply(activations, *parts)  # type: ignore[no-untyped-call]
        (gate, up), place = _gate_and_up([part.detach() for part in parts]), gated.data_ptr()

        # The largest tensor that the product would keep is computed again from what is kept anyway.
        def keep(tensor: Tensor) -> Tensor | torch.Size:
            return tensor.shape if tensor.data_ptr() == place else tensor

        def find(kept: Tensor | torch.Size) -> Tensor:
            if isinstance(kept, Tensor):
                return kept
            activations.append(silu(gate))  # the gate's own gradient needs it next
            return (activations[-1] * up).view(kept)

        with saved_tensors_hooks(keep, find):
            return cast("Tensor", self.get_submodule("down_proj")(gated.view(*x.shape[:-1], -1)))


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        normalised, scale = _normalised(x, weight, epsilon)
        ctx.save_for_backward(x, weight, scale)
        return normalised

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _norm_gradient(gradients[0], *ctx.saved_tensors), None, None


@fused
def _normalised(x: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    wide = x.to(torch.float32, copy=True)
    scale = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
    return weight * wide.mul_(scale).to(x.dtype), scale


@fused
def _norm_gradient(gradient: Tensor, x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    wide = x.float()
    unscaled = (gradient * weight).float()
    shared = (unscaled * wide).mean(-1, keepdim=True).mul_(scale**3)
    return unscaled.mul_(scale).addcmul_(wide, shared, value=-1).to(x.dtype)


class _GatedProduct(torch.autograd.Function):
    """silu(gate) * up of two tensors, or of one that has them side by side."""

    @staticmethod
    def forward(ctx: Any, activations: list[Tensor], *parts: Tensor) -> Tensor:
        ctx.save_for_backward(*parts)
        ctx.activations = activations
        return _gated(*parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        parts = ctx.saved_tensors
        activation = ctx.activations.pop() if ctx.activations else silu(_gate_and_up(parts)[0])
        return None, *_gated_gradients(gradients[0], activation, *parts)


def _gate_and_up(parts: Sequence[Tensor]) -> Sequence[Tensor]:
    return parts if len(parts) == 2 else parts[0].chunk(2, dim=-1)


@fused
def _gated(*parts: Tensor) -> Tensor:
    gate, up = _gate_and_up(parts)
    return silu(gate).mul_(up)


@fused
def _gated_gradients(gradient: Tensor, activation: Tensor, *parts: Tensor) -> Sequence[Tensor]:
    gate, up = _gate_and_up(parts)
    found = torch.ops.aten.silu_backward(gradient * up, gate), activation * gradient
    return found if len(parts) == 2 else (torch.cat(found, dim=-1),)
