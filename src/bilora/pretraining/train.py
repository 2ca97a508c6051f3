"""Pre-training of the embedded base: packed tokens in, a Phi-3-architecture model out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from bilora.errors import BadData
from bilora.pretraining.muon import Muon
from bilora.pretraining.recipe import Architecture, Pretraining
from bilora.pretraining.speed import flops_per_token, peak_flops
from bilora.storage import sha256_bytes, sha256_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

LogLine = Callable[[str], None]
CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class Pretrained:
    """The model and its training's figures; `mfu` is the share of the peak that was measured at the start."""

    model: PreTrainedModel
    tokens: int
    seconds: float
    loss: float
    mfu: float


def new_model(shape: Architecture, tokenizer: PreTrainedTokenizerFast, seed: int) -> PreTrainedModel:
    """Return an untrained Phi-3 model: fused projections, tied embeddings, fp32."""
    from transformers import Phi3Config, Phi3ForCausalLM

    torch.manual_seed(seed)
    end = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|end|>", "<|assistant|>"])
    config = Phi3Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=shape.context,
        original_max_position_embeddings=shape.context,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=end[0],
        pad_token_id=tokenizer.pad_token_id,
    )
    model = Phi3ForCausalLM(config)
    model.generation_config.eos_token_id = end
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def rate(step: int, steps: int, warmup: int) -> float:
    """Learning-rate factor: `warmup` steps of linear rise, constant, then linear decay over the last 30 %."""
    fall = max(1, int(steps * 0.3))
    return min(1.0, (step + 1) / warmup, max(0.02, (steps - step) / fall))


def _optimizers(model: PreTrainedModel, recipe: Pretraining) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for embeddings and norms."""
    layers = [p for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.dim() < 2 or "embed" in name]
    decay, rate = recipe.weight_decay, recipe.learning_rate
    return [
        Muon(layers, lr=rate, weight_decay=decay, precision=getattr(torch, recipe.precision)),
        torch.optim.AdamW(others, lr=rate, weight_decay=0.0, betas=(0.9, 0.95), fused=True),
    ]


def identity(recipe: Pretraining, tokens: NDArray[np.uint16], seed: int) -> str:
    """What a checkpoint belongs to; the token count is not part of it, so that a run can be prolonged.

    The corpus is there as the tokens that were made of it.
    """
    own = recipe.model_dump(exclude={"corpus", "tokens", "save_every"})
    return sha256_json([own, sha256_bytes(tokens.tobytes()), seed])


def pretrain(
    recipe: Pretraining,
    tokenizer: PreTrainedTokenizerFast,
    tokens: NDArray[np.uint16],
    *,
    seed: int,
    work: Path,
    log: LogLine,
    measure: Callable[[PreTrainedModel], float] | None = None,
) -> Pretrained:
    """Train from scratch, or continue from the checkpoint in `work` if there is one.

    Batches are drawn from fixed windows of the packed run, reshuffled every epoch by seed, so a
    resumed run sees the same batches as an uninterrupted one. `measure` gives the bits per byte that are
    logged with each checkpoint.

    Raises:
        BadData: the checkpoint was made from another recipe, corpus or seed.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = new_model(recipe.architecture, tokenizer, seed).to(device)
    optimizers = _optimizers(model, recipe)
    width, batch = recipe.sequence, recipe.batch_size
    windows = tokens[: len(tokens) // width * width].reshape(-1, width)
    per_epoch = len(windows) // batch
    steps = max(1, recipe.tokens // (width * batch))
    checkpoint, own = work / CHECKPOINT, identity(recipe, tokens, seed)
    first, spent, mean = 0, 0.0, math.nan
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True, map_location=device)
        if state.get("identity") != own:
            raise BadData(checkpoint, "was made from another recipe, corpus or seed; move it away to start again.")
        model.load_state_dict(state["model"])
        for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        first, spent, mean = state["step"], state["seconds"], state["loss"]
    compiled = torch.compile(model) if recipe.compile else model
    needed = flops_per_token(model, width) / peak_flops(device, getattr(torch, recipe.precision))
    began = time.monotonic() - spent
    logged, since = first, time.monotonic()
    for step in range(first, steps):
        epoch, place = divmod(step, per_epoch)
        order = np.random.default_rng(seed + epoch).permutation(len(windows))
        rows = windows[order[place * batch : (place + 1) * batch]].astype(np.int64)
        ids = torch.from_numpy(rows).to(device)
        factor = rate(step, steps, recipe.warmup_steps)
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = recipe.learning_rate * factor
        with torch.autocast(device, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
            loss = compiled(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad(set_to_none=True)
        value = loss.item()
        mean = value if math.isnan(mean) else 0.98 * mean + 0.02 * value
        if (step + 1) % 20 == 0 or step + 1 == steps:
            now = time.monotonic()
            speed = (step + 1 - logged) * width * batch / (now - since)
            left = (steps - step - 1) * width * batch / speed
            logged, since = step + 1, now
            log(
                f"step {step + 1}/{steps}  loss {mean:.3f}  {speed:,.0f} tokens/s  "
                f"MFU {speed * needed:.0%}  {left / 60:.0f} min left"
            )
        if (step + 1) % recipe.save_every == 0:
            state = {
                "identity": own,
                "model": model.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                "step": step + 1,
                "seconds": time.monotonic() - began,
                "loss": mean,
            }
            temporary = checkpoint.with_suffix(".tmp")
            torch.save(state, temporary)
            temporary.replace(checkpoint)
            if measure is not None:
                model.eval()
                log(f"step {step + 1}/{steps}  {measure(model):.3f} bits per byte on held-out packages")
                model.train()
    seconds = time.monotonic() - began
    return Pretrained(model, steps * width * batch, seconds, mean, steps * width * batch / seconds * needed)


@torch.inference_mode()
def bits_per_byte(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, text: str, width: int) -> float:
    """Mean bits the model needs per UTF-8 byte of `text`, read in windows of `width` tokens."""
    ids = torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"], device=model.device)
    total, count = 0.0, len(ids) // width
    for number in range(count):
        window = ids[number * width : (number + 1) * width].unsqueeze(0)
        total += model(input_ids=window, labels=window, use_cache=False).loss.item() * (width - 1)
    read = len(tokenizer.decode(ids[: count * width]).encode())
    return total / math.log(2) / read
