"""The cross-entropy of the trained tokens, computed without logits of the other tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import pad

from bilora.inference.torch.products import product
from bilora.training.shapes import ROW_MULTIPLE, round_up

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

CHUNK_TOKENS = 1024
"""The maximum number of tokens whose logits are in memory at once."""
_CACHED_TOKENS = 8
"""The number of tokens whose float32 logits are in a CPU's cache, where softmax is faster."""
_SCALED_LOGITS = (
    "final_logit_softcapping",
    "logit_scale",
    "logits_scaling",
    "lm_head_multiplier",
    "output_multiplier",
)
"""Config keys of architectures that scale or cap the head's output."""


def has_linear_head(model: PreTrainedModel) -> bool:
    """Return whether a model's logits are the unscaled output of its head."""
    config = model.config.get_text_config()
    head = model.get_output_embeddings()
    return type(head) is torch.nn.Linear and all(getattr(config, name, None) in (None, 1.0) for name in _SCALED_LOGITS)


def answer_loss(hidden: Tensor, head: torch.nn.Linear, labels: Tensor) -> Tensor:
    """Return the summed cross-entropy in float32; only `hidden` gets a gradient, not the head.

    Args:
        hidden: the last hidden state before each token, shape (tokens, hidden size).
        labels: the tokens, shape (tokens,).
    """
    return _AnswerLoss.apply(hidden, head.weight, head.bias, labels)  # type: ignore[no-any-return, no-untyped-call]


class _AnswerLoss(torch.autograd.Function):
    """Cross-entropy that computes the gradient of `hidden` in the forward pass, so that no logits are saved.

    1) Compute the logits of a chunk. 2) Replace them by their gradient, a few tokens at a time, and add up the loss.
    3) Multiply the gradient by the head.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor) -> Tensor:
        loss = hidden.new_zeros((), dtype=torch.float32)
        tokens, size = len(labels), CHUNK_TOKENS if hidden.is_cuda else _CACHED_TOKENS
        hidden = pad(hidden, (0, 0, 0, round_up(tokens, ROW_MULTIPLE) - tokens))
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for start in range(0, tokens, CHUNK_TOKENS):
            chunk = slice(start, start + CHUNK_TOKENS)
            logits = product(hidden[chunk], weight, bias)
            unpadded = logits[: tokens - start]
            for part, targets in zip(torch.split(unpadded, size), torch.split(labels[chunk], size), strict=True):
                loss += _replace_by_gradient(part, targets[:, None])
            if gradient is not None:
                gradient[chunk] = product(logits, weight.T)
        ctx.save_for_backward(None if gradient is None else gradient[:tokens])
        return loss

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * outputs[0].to(gradient.dtype), None, None, None


def _replace_by_gradient(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the summed loss, and overwrite the logits with its gradient, softmax - one-hot of the targets."""
    logits32 = logits.float()
    probabilities = logits32.softmax(dim=-1)
    # log-sum-exp from the largest probability, because that of the target may underflow
    log_sum_exp = logits32.amax(dim=-1) - probabilities.amax(dim=-1).log()
    loss = (log_sum_exp - logits32.gather(1, targets)[:, 0]).sum()
    logits.copy_(probabilities.scatter_add_(1, targets, probabilities.new_full(targets.shape, -1.0)))
    return loss
