"""Replacements for layers of Llama-like models, for packed rows and with less memory.

They compute the same as transformers' layers, but save only inputs for the backward pass and no intermediate values.
Their weights are frozen.
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
from bilora.training.mixed_linear import apply_linears

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_NORMS = (LlamaRMSNorm, MistralRMSNorm, Phi3RMSNorm, Qwen2RMSNorm)
_MLPS = (LlamaMLP, MistralMLP, Phi3MLP, Qwen2MLP)


def use_lean_layers(model: PreTrainedModel) -> None:
    """Replace a model's attention layers, and its norms and gated MLPs of known classes.

    The decoder then needs the argument `rows`, the layout of the packed rows.
    """
    model.config._attn_implementation = "packed"  # with an unknown name transformers creates no masks
    for name, module in list(model.named_modules()):
        if type(module) in ATTENTIONS:
            model.set_submodule(name, PackedAttention(module))
        elif type(module) in _NORMS:
            model.set_submodule(name, _LeanNorm(module))
        elif type(module) in _MLPS and model.config.hidden_act == "silu":
            model.set_submodule(name, _LeanMLP(module))


class _LeanNorm(Module):
    """RMSNorm: x / sqrt(mean(x^2) + epsilon) in float32, times the weight."""

    def __init__(self, norm: Module) -> None:
        super().__init__()
        self.weight, self.epsilon = cast("Tensor", norm.weight), cast("float", norm.variance_epsilon)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _RmsNorm.apply(x.flatten(0, -2), self.weight, self.epsilon)  # type: ignore[no-untyped-call]
        return out.view_as(x)


class _LeanMLP(Module):
    """down_proj(silu(gate) * up), with gate and up from one layer or two."""

    def __init__(self, mlp: Module) -> None:
        super().__init__()
        for name, layer in mlp.named_children():
            setattr(self, name, layer)  # under the names that adapters refer to

    def forward(self, x: Tensor) -> Tensor:
        names = ["gate_up_proj"] if "gate_up_proj" in self._modules else ["gate_proj", "up_proj"]
        parts = [out.flatten(0, -2) for out in apply_linears(x, [self.get_submodule(name) for name in names])]
        activations: list[Tensor] = []
        gated = _GatedProduct.apply(activations, *parts)  # type: ignore[no-untyped-call]
        (gate, up), address = _gate_and_up([part.detach() for part in parts]), gated.data_ptr()

        # down_proj would save its input, the largest tensor. Compute it again from gate and up, which are saved anyway.
        def pack(tensor: Tensor) -> Tensor | torch.Size:
            return tensor.shape if tensor.data_ptr() == address else tensor

        def unpack(saved: Tensor | torch.Size) -> Tensor:
            if isinstance(saved, Tensor):
                return saved
            activations.append(silu(gate))  # for the gate's gradient, which is computed next
            return (activations[-1] * up).view(saved)

        with saved_tensors_hooks(pack, unpack):
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
    """silu(gate) * up of two tensors, or of one tensor with both in its columns."""

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
    gradients = torch.ops.aten.silu_backward(gradient * up, gate), activation * gradient
    return gradients if len(parts) == 2 else (torch.cat(gradients, dim=-1),)
