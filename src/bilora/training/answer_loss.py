"""The cross-entropy of the trained tokens, which alone are multiplied by the head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import pad

from bilora.inference.torch.products import product
from bilora.training.shapes import ROW_STEP, rounded_up

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

CHUNK_TOKENS = 1024
"""How many tokens are multiplied by the head at a time; more logits are never in memory at once."""
_CACHED_TOKENS = 8
"""How many tokens' 32-bit logits a CPU's cache holds; from there they are faster turned into their gradient."""
_SCALED_LOGITS = (
    "final_logit_softcapping",
    "logit_scale",
    "logits_scaling",
    "lm_head_multiplier",
    "output_multiplier",
)
"""Settings of architectures whose logits are not simply the head's output."""


def has_plain_head(model: PreTrainedModel) -> bool:
    """Return whether the logits of a model are its head's output and nothing else is done to them."""
    config = model.config.get_text_config()
    head = model.get_output_embeddings()
    return type(head) is torch.nn.Linear and all(getattr(config, name, None) in (None, 1.0) for name in _SCALED_LOGITS)


def answer_loss(hidden: Tensor, head: torch.nn.Linear, labels: Tensor) -> Tensor:
    """Return the summed cross-entropy of some tokens in 32-bit; its gradient reaches `hidden` but not the head.

    Args:
        hidden: the last hidden states before each token, shape (tokens, hidden size).
        labels: the tokens, shape (tokens,).
    """
    return _AnswerLoss.apply(hidden, head.weight, head.bias, labels)  # type: ignore[no-any-return, no-untyped-call]


class _AnswerLoss(torch.autograd.Function):
    """1) Per chunk of tokens, compute the logits. 2) Add up the loss and turn the logits into its gradient, a few
    tokens at a time. 3) Multiply that by the head at once, so that no logits wait for the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor) -> Tensor:
        loss = hidden.new_zeros((), dtype=torch.float32)
        tokens, size = len(labels), CHUNK_TOKENS if hidden.is_cuda else _CACHED_TOKENS
        hidden = pad(hidden, (0, 0, 0, rounded_up(tokens, ROW_STEP) - tokens))
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for start in range(0, tokens, CHUNK_TOKENS):
            chunk = slice(start, start + CHUNK_TOKENS)
            logits = product(hidden[chunk], weight, bias)
            real = logits[: tokens - start]
            for part, targets in zip(torch.split(real, size), torch.split(labels[chunk], size), strict=True):
                loss += _turn_into_gradient(part, targets[:, None])
            if gradient is not None:
                gradient[chunk] = product(logits, weight.T)
        ctx.save_for_backward(None if gradient is None else gradient[:tokens])
        return loss

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * outputs[0].to(gradient.dtype), None, None, None


def _turn_into_gradient(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the summed loss; the logits become its gradient, softmax minus one at the target."""
    wide = logits.float()
    probabilities = wide.softmax(dim=-1)
    # The largest probability is never too small for its logarithm, as that of the target may be.
    normaliser = wide.amax(dim=-1) - probabilities.amax(dim=-1).log()
    loss = (normaliser - wide.gather(1, targets)[:, 0]).sum()
    logits.copy_(probabilities.scatter_add_(1, targets, probabilities.new_full(targets.shape, -1.0)))
    return loss
