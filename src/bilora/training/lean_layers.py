"""The layers of transformers' Llama family for passes of packed rows.

They compute what the family's own do, and keep less for the backward pass: their inputs, and no intermediate values.
Their own weights are frozen.
"""

from __future__ import annotations

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
        return _RmsNorm.apply(x, self.weight, self.epsilon)  # type: ignore[no-any-return, no-untyped-call]


class _LeanMLP(Module):
    """down_proj(silu(gate) * up), whose gate and up are one product or two."""

    def __init__(self, plain: Module) -> None:
        super().__init__()
        for name, layer in plain.named_children():
            setattr(self, name, layer)  # under their own names, which adapters go by

    def forward(self, x: Tensor) -> Tensor:
        if "gate_up_proj" in self._modules:
            gate, up = self.get_submodule("gate_up_proj")(x).chunk(2, dim=-1)
        else:
            gate, up = products(x, [self.get_submodule(name) for name in ("gate_proj", "up_proj")])
        activations: list[Tensor] = []
        gated = _GatedProduct.apply(gate, up, activations)  # type: ignore[no-untyped-call]
        parts, place = (gate.detach(), up.detach()), gated.data_ptr()

        # The largest tensor that the product would keep is computed again from what is kept anyway.
        def keep(tensor: Tensor) -> Tensor | torch.Size:
            return tensor.shape if tensor.data_ptr() == place else tensor

        def find(kept: Tensor | torch.Size) -> Tensor:
            if isinstance(kept, Tensor):
                return kept
            activations.append(silu(parts[0]))  # the gate's own gradient needs it next
            return cast("Tensor", (activations[-1] * parts[1]).view(kept))

        with saved_tensors_hooks(keep, find):
            return cast("Tensor", self.get_submodule("down_proj")(gated))


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        wide = x.to(torch.float32, copy=True)
        scale = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return weight * wide.mul_(scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        x, weight, scale = ctx.saved_tensors
        wide = x.float()
        gradient = (gradients[0] * weight).float()
        shared = (gradient * wide).mean(-1, keepdim=True).mul_(scale**3)
        return gradient.mul_(scale).addcmul_(wide, shared, value=-1).to(x.dtype), None, None


class _GatedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, activations: list[Tensor]) -> Tensor:
        ctx.save_for_backward(gate, up)
        ctx.activations = activations
        return silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        gate, up = ctx.saved_tensors
        activation = ctx.activations.pop() if ctx.activations else silu(gate)
        return torch.ops.aten.silu_backward(gradients[0] * up, gate), activation.mul_(gradients[0]), None
